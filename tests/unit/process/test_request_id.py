import re

import pytest

from process import request_id


def test_new_ids_differ_and_are_sane() -> None:
    made = {request_id.new() for _ in range(100)}

    assert len(made) == 100
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", each) for each in made)
    assert all(request_id.accept(each) == each for each in made)


@pytest.mark.parametrize("candidate", ["a", "A-z_0.9", "x" * 128, "00000000-0000-0000"])
def test_a_sane_id_is_kept(candidate: str) -> None:
    assert request_id.accept(candidate, make=lambda: "new") == candidate


@pytest.mark.parametrize(
    "candidate",
    [None, "", "x" * 129, "a b", "a\n", "\r\n", "a/b", "é", "\u0661", "a\x00", '"', "a:b", "😀"],
)
def test_another_is_replaced(candidate: str | None) -> None:
    assert request_id.accept(candidate, make=lambda: "new") == "new"


def test_the_header_is_the_one_that_sdks_read() -> None:
    assert request_id.HEADER == "x-request-id"
