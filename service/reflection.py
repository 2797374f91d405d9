"""Server reflection, in both versions of its protocol.

grpc.reflection.v1         the version that current clients try first
grpc.reflection.v1alpha    the same messages under an older name

grpcio-reflection serves only v1alpha, and its descriptor pool does not find methods, which some
clients look up.
"""

from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

_ALPHA: Final = "grpc.reflection.v1alpha"
_STABLE: Final = "grpc.reflection.v1"
_FILE: Final = "grpc/reflection/v1/reflection.proto"
_METHOD: Final = "ServerReflectionInfo"

NAMES: Final = (f"{_STABLE}.ServerReflection", reflection.SERVICE_NAME)
"""The names of the reflection services, the current version first."""


def enable(server: Any, *services: str) -> None:
    """Serve reflection on a listener.

    Args:
        server: A server of grpc.aio.
        services: The full names of its other services.
    """
    pool = descriptor_pool.Default()
    _describe_stable(pool)
    servicer = reflection.aio.ReflectionServicer((*services, *NAMES), pool=_Pool(pool))
    handlers = {
        _METHOD: grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    for name in NAMES:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        server.add_registered_method_handlers(name, handlers)


class _Pool:
    """A descriptor pool that also finds the files of methods."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802  (of protobuf)
        """Return the file of a type, a service or a method.

        Raises:
            KeyError: There is none of this name.
        """
        try:
            file: FileDescriptor = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            file = self._pool.FindMethodByName(symbol).containing_service.file
        return file


def _describe_stable(pool: Any) -> None:
    """Add the description of the current version: that of v1alpha under another package."""
    try:
        pool.FindFileByName(_FILE)
    except KeyError:
        stable = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(stable)
        stable.name, stable.package = _FILE, _STABLE
        for message in stable.message_type:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.replace(_ALPHA, _STABLE)
        for method in stable.service[0].method:
            method.input_type = method.input_type.replace(_ALPHA, _STABLE)
            method.output_type = method.output_type.replace(_ALPHA, _STABLE)
        pool.AddSerializedFile(stable.SerializeToString())
