from google.protobuf import descriptor_pool

from service.orca_messages import Report, Request


def test_the_bytes_are_those_of_the_protocol() -> None:
    report = Report(application_utilization=1.0, named_metrics={"a": 2.0})

    one, two = "000000000000f03f", "0000000000000040"
    assert report.SerializeToString().hex() == f"420c0a016111{two}49{one}"
    assert Request.FromString(bytes.fromhex("0a020803")).report_interval.seconds == 3


def test_the_names_are_not_in_the_pool_of_other_packages() -> None:
    name = Report.DESCRIPTOR.full_name

    assert name == "xds.data.orca.v3.OrcaLoadReport"
    try:
        found = descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        return
    assert found is not Report.DESCRIPTOR
