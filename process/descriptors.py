"""The limit of open files of this process.

Each connection takes a descriptor. Many systems allow a process 1,024 until it asks for more.
"""

import logging
import resource
from typing import Final

from process import log

SPARE: Final = 128
"""Descriptors for listeners, the store, logs and the rest of a process, besides its connections."""


_log = logging.getLogger(__name__)


def allow(connections: int) -> int:
    """Raise the limit of open files, and return the number of connections that it allows.

    If the system does not allow enough of them, a warning in the log has the numbers.

    Args:
        connections: The number of connections that the process can have. A limit that allows more
            is not changed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= wanted:
        return connections
    hint = "raise the limit of open files: ulimit -n, or LimitNOFILE"
    _log.warning("too few open files", extra=log.fields(allowed=soft, needed=wanted, hint=hint))
    return max(1, soft - SPARE)
