"""What each test would do again is done once: a plugin of pytest.

certificates    the file of public authorities is parsed once, and not for each service and each
                SDK, which takes 25 ms; a test's own authorities are loaded as ever
garbage         what is imported is not searched for garbage, which `Footprint` has collected in
                hundreds of tests
"""

import gc
import ssl
from collections.abc import Iterator
from functools import cache
from typing import Any

import certifi
import pytest

_make = ssl.create_default_context


@cache
def _public() -> ssl.SSLContext:
    return _make(cafile=certifi.where())


def _context(*arguments: Any, **options: Any) -> ssl.SSLContext:
    """Return a context: the same for all who trust the public authorities and ask for no more."""
    if not arguments and options == {"cafile": certifi.where()}:
        return _public()
    return _make(*arguments, **options)


@pytest.fixture(scope="session", autouse=True)
def public_certificates_are_parsed_once() -> Iterator[None]:
    """Share the context of all who trust the public authorities."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", _context)
        yield


def pytest_collection_finish() -> None:
    """Exempt what there is once all tests are imported from the search for garbage."""
    gc.collect()
    gc.freeze()
