import logging
import resource

import pytest

from process import descriptors


def test_a_limit_that_is_too_low_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: raised.append(limit))
    with caplog.at_level(logging.WARNING):
        assert descriptors.allow(1000) == 384
        assert descriptors.allow(384) == 384
    [record] = caplog.records
    assert record.getMessage() == "too few open files"
    assert record.__dict__["chat_fields"] == {
        "allowed": 512,
        "needed": 1128,
        "hint": "raise the limit of open files: ulimit -n, or LimitNOFILE",
    }
    assert raised == [(resource.RLIMIT_NOFILE, (512, 512))] * 2
