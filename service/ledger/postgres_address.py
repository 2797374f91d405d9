"""The address of a database on PostgreSQL, in SQLAlchemy's form or in that of libpq.

    postgresql://user@a:5432/db                    one server
    postgresql://user@a:5432,b:5433/db             several: libpq's form
    postgresql://user@/db?host=a:5432&host=b:5433  several: SQLAlchemy's form

libpq tries the servers in this order, and uses the first that `target_session_attrs` accepts.
"""

import re
from typing import Final

import sqlalchemy as sa
from sqlalchemy import exc

_SEVERAL: Final = re.compile(
    r"(?P<before>[^:/]+://(?:[^:/@]*(?::[^@]*)?@)?)(?P<hosts>[^/?@]*,[^/?@]*)(?P<after>(?:[/?].*)?)"
)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]*))?")


def parse(text: str) -> tuple[sa.URL, str]:
    """Return the URL of an address, and its name for operators: without password and options.

    Raises:
        ValueError: It is not an address.
        sqlalchemy.exc.ArgumentError: Likewise.
    """
    several = _SEVERAL.fullmatch(text)
    if several is None:
        url = sa.make_url(text)
        return url, url.set(query={}).render_as_string(hide_password=True)
    before, hosts, after = several.group("before", "hosts", "after")
    # SQLAlchemy reads neither several ports nor several IPv6 addresses before the path.
    url = sa.make_url(f"{before}{after}")
    names, ports = zip(*map(_host, hosts.split(",")), strict=True)
    if url.query.keys() & {"host", "port"}:
        raise exc.ArgumentError("the hosts are given twice")
    url = url.update_query_dict({"host": ",".join(names), "port": ",".join(ports)})
    shown = sa.make_url(f"{before}hosts").render_as_string(hide_password=True)
    return url, f"{shown.removesuffix('hosts')}{hosts}/{url.database or ''}"


def _host(text: str) -> tuple[str, str]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError("not a host")
    return found["v6"] or found["name"] or "", found["port"] or ""
