import pytest

from restbridge.model_routes import model_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/v1/models/a", "a"),
        (b"/v1/models/org/model:tag", "org/model:tag"),
        (b"/v1/models/org%2Fmodel%3Atag", "org/model:tag"),
        (b"/v1/models/org%252Fmodel", "org%2Fmodel"),
        (b"/v1/models/..", ".."),
        (b"/v1/models/%C3%BC", "ü"),
        (b"/v1/models/a+b%20c", "a+b c"),
        (b"/v1/models/a%", "a%"),
    ],
)
def test_a_name_is_decoded_once(path: bytes, name: str) -> None:
    assert model_name(path) == name


@pytest.mark.parametrize(
    "path", [b"/v1/models/", b"/v1/models", b"/v1/models/%ff", b"/v1/models%2Fa"]
)
def test_a_path_without_a_name_is_unknown(path: bytes) -> None:
    assert model_name(path) is None
