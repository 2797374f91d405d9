"""The error table, which the service and the bridge share.

v1/error.proto -> options of ErrorReason -> RULES: reason, gRPC code, HTTP status, type, code
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import grpc

from chatcompletion.v1 import error_pb2

DOMAIN: Final = "chatcompletion.v1"
"""The `google.rpc.ErrorInfo.domain` of every failure of this API."""

_PREFIX = "ERROR_REASON_"
_STATUSES: Final = {status.value[0]: status for status in grpc.StatusCode}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasonRule:
    """How one reason appears in gRPC and in HTTP."""

    reason: str
    """`google.rpc.ErrorInfo.reason`: the enum value's name without its prefix."""
    grpc_code: grpc.StatusCode
    http_status: int
    """The HTTP status, if no part of the response was sent before the failure."""
    type: str
    """`type` of the OpenAI error object."""
    code: str
    """The default `code` of the OpenAI error object. A failure can have a more specific one."""
    retryable: bool
    """Whether a client can send the same request again. A failure can override it."""


def _read(name: str) -> ReasonRule:
    value = error_pb2.ErrorReason.DESCRIPTOR.values_by_name[name]
    rule = value.GetOptions().Extensions[error_pb2.error_rule]
    return ReasonRule(
        reason=name.removeprefix(_PREFIX),
        grpc_code=_STATUSES[rule.grpc_code],
        http_status=rule.http_status,
        type=rule.type,
        code=rule.code,
        retryable=rule.retryable,
    )


RULES: Final[Mapping[str, ReasonRule]] = MappingProxyType(
    {
        name.removeprefix(_PREFIX): _read(name)
        for name, number in error_pb2.ErrorReason.items()
        if number != error_pb2.ERROR_REASON_UNSPECIFIED
    }
)
"""Every reason except UNSPECIFIED, by name."""
