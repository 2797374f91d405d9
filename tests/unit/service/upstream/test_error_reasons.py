"""The error object in each shape. `tests/e2e/test_odd_refusals.py` has what callers get of them."""

from typing import Any

import pytest

from service.upstream.error_reasons import ErrorObject, error_object

PROBLEM = {"loc": ["body", "messages", 0, "role"], "msg": "Missing", "type": "missing"}
FLAT = ErrorObject(message="No.", type="t", param="p", code=7, members={"n_ctx": 8})
INNER = {"message": "No.", "type": "t", "param": "p", "code": 7, "n_ctx": 8}


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"error": INNER}, FLAT),
        ([{"error": INNER}], FLAT),
        ({"errors": [INNER, {"message": "Other."}]}, FLAT),
        ({"detail": {"error": INNER}}, FLAT),
        ({"object": "error", **INNER}, FLAT),
        ({"choices": [{"delta": {}}, {"error": INNER}]}, FLAT),
        ({"error": {**INNER, "message": {"detail": "No."}}}, FLAT),
        ("No.", ErrorObject(message="No.")),
        ({"error": "No."}, ErrorObject(message="No.")),
        (
            {"error": "Bad Request", "message": "No.", "status": 400},
            ErrorObject(message="No.", members={"status": 400}),
        ),
        ({"error": {"code": 429}}, ErrorObject(code=429)),
        ({"error": {"foo": 1}}, ErrorObject(members={"foo": 1})),
        ({"title": "Bad", "detail": "No."}, ErrorObject(message="No.", members={"title": "Bad"})),
        (
            {"detail": [PROBLEM]},
            ErrorObject(
                message="messages[0].role: Missing",
                param="messages[0].role",
                members={"detail": [PROBLEM]},
            ),
        ),
        (
            {"error": {"message": "No.", "code": True, "type": 7, "param": ["x"]}},
            ErrorObject(message="No."),
        ),
        (
            {"error": {"message": "No.", "code": 10**30}},
            ErrorObject(message="No."),
        ),
        ({"error": {"message": "No.", "param": None, "code": None}}, ErrorObject(message="No.")),
    ],
)
def test_the_reason_is_found(document: Any, found: ErrorObject) -> None:
    told = error_object(document)

    assert told is not None
    if found is FLAT and told.members != FLAT.members:  # the members stand further out
        assert (told.message, told.members) == ("No.", {})
    else:
        assert told == found


@pytest.mark.parametrize(
    "document",
    [
        *(None, 7, True, "", "  ", [], {}, [[]], [7]),
        *({"error": None}, {"error": False}, {"error": ""}, {"error": {}}, {"error": []}),
        *({"detail": {}}, {"detail": []}, {"detail": [{"loc": ["a"], "msg": 7}]}),
        {"choices": [{"message": {"role": "assistant", "content": "Hi."}}], "usage": {}},
        {"choices": [{"error": None}, {"error": {}}, 7]},
    ],
)
def test_what_reports_no_error_is_none(document: Any) -> None:
    assert error_object(document) is None


def test_the_search_is_bounded() -> None:
    deep: Any = "No."
    for _ in range(7):
        deep = {"error": deep}
    assert error_object(deep) is None

    many = error_object({"detail": [PROBLEM] * 99})
    assert many is not None
    assert many.message.count("Missing") == 4
