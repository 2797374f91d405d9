"""The messages of ORCA, with which proxies and gRPC clients read the load of a server.

    xds.data.orca.v3.OrcaLoadReport                  one report
    xds.service.orca.v3.OrcaLoadReportRequest        the request of a stream of reports

They are described here, with the fields that the service uses, in a pool of their own. A generated
module would put these names into the default pool, where they collide with those of the package
`xds-protos` if a client in the same process imports it; that package in turn replaces files of
`opentelemetry-proto`.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory

SERVICE: Final = "xds.service.orca.v3.OpenRcaService"
"""The full name of the service that streams reports."""

METHOD: Final = "StreamCoreMetrics"
"""Its method."""

_REPORT: Final = "xds.data.orca.v3.OrcaLoadReport"
_REQUEST: Final = "xds.service.orca.v3.OrcaLoadReportRequest"
_NUMBERS: Final = {
    "cpu_utilization": 1,
    "rps_fractional": 6,
    "eps": 7,
    "application_utilization": 9,
}
"""The fields of a report that are numbers, with their field numbers."""
_MAPS: Final = {"request_cost": 4, "named_metrics": 8}
"""Its fields that are maps from names to numbers."""

_Field: Final = descriptor_pb2.FieldDescriptorProto


def _described() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    duration = descriptor_pb2.FileDescriptorProto()
    duration_pb2.DESCRIPTOR.CopyToProto(duration)
    pool.Add(duration)
    pool.Add(_report_file())
    pool.Add(_request_file(duration.name))
    return pool


def _report_file() -> descriptor_pb2.FileDescriptorProto:
    package, _, name = _REPORT.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name="orca_load_report", package=package, syntax="proto3"
    )
    message = file.message_type.add(name=name)
    for field, number in _NUMBERS.items():
        message.field.add(
            name=field, number=number, type=_Field.TYPE_DOUBLE, label=_Field.LABEL_OPTIONAL
        )
    for field, number in _MAPS.items():
        entry = message.nested_type.add(name=f"{field.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        for member, place, kind in (
            ("key", 1, _Field.TYPE_STRING),
            ("value", 2, _Field.TYPE_DOUBLE),
        ):
            entry.field.add(name=member, number=place, type=kind, label=_Field.LABEL_OPTIONAL)
        message.field.add(
            name=field,
            number=number,
            type=_Field.TYPE_MESSAGE,
            type_name=f".{_REPORT}.{entry.name}",
            label=_Field.LABEL_REPEATED,
        )
    return file


def _request_file(duration: str) -> descriptor_pb2.FileDescriptorProto:
    package, _, name = _REQUEST.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name="orca_load_report_request", package=package, syntax="proto3", dependency=[duration]
    )
    file.message_type.add(name=name).field.add(
        name="report_interval",
        number=1,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{duration_pb2.Duration.DESCRIPTOR.full_name}",
        label=_Field.LABEL_OPTIONAL,
    )
    return file


_POOL: Final = _described()

Report: Final[Any] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(_REPORT))
"""A report of the load."""

Request: Final[Any] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(_REQUEST))
"""The request of a stream of reports."""
