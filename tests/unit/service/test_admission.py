import asyncio

import pytest

from service import errors
from service.admission import Admission, Caller
from service.forwarding import Progress
from tests.unit.service.samples import CALLER_KEY, call, chunk, chunk_message, usage_chunk

CALLER = Caller(key_name="bootstrap")


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {CALLER_KEY}",
        f"bearer {CALLER_KEY}",
        f"BEARER {CALLER_KEY}",
        f"Bearer  {CALLER_KEY} ",
    ],
)
def test_the_holder_of_the_key_may_call(authorization: str) -> None:
    assert Admission(CALLER_KEY).authenticate(authorization) == CALLER


WRONG = [
    None,
    "",
    "Bearer",
    "Bearer ",
    f"Bearer{CALLER_KEY}",
    f"Basic {CALLER_KEY}",
    CALLER_KEY,
    f" Bearer {CALLER_KEY}",
    f"Bearer {CALLER_KEY}x",
    f"Bearer {CALLER_KEY[:-1]}",
    f"Bearer {CALLER_KEY.upper()}",
    f"Bearer Bearer {CALLER_KEY}",
    f"Bearer {CALLER_KEY},Bearer {CALLER_KEY}",
    f"Bearer {CALLER_KEY}\x00",
    "Bearer ' OR 1=1 --",
    "Bearer " + "x" * 16_384,
    "Bearer \ud83d",
    "Bearer ключ",
]


@pytest.mark.parametrize("authorization", WRONG, ids=repr)
@pytest.mark.parametrize("key", [CALLER_KEY, ""])
def test_all_others_get_the_same_answer(authorization: str | None, key: str) -> None:
    with pytest.raises(errors.InvalidApiKey) as refused:
        Admission(key).authenticate(authorization)

    assert errors.status(refused.value, "r") == errors.status(errors.InvalidApiKey(), "r")


def test_without_a_key_nobody_may_call() -> None:
    with pytest.raises(errors.InvalidApiKey):
        Admission("").authenticate(f"Bearer {CALLER_KEY}")


def test_neither_the_key_nor_its_digest_is_shown() -> None:
    admission = Admission(CALLER_KEY)

    assert CALLER_KEY not in repr(admission)
    assert CALLER_KEY not in repr(admission.authenticate(f"Bearer {CALLER_KEY}"))


def a_stream(progress: Progress, *, with_usage: bool) -> None:
    progress.observe(chunk_message(chunk("a")))
    progress.observe(chunk_message(chunk("b")))
    if with_usage:
        progress.observe(chunk_message(usage_chunk(11, 7)))


async def test_what_the_upstream_reports_is_recorded() -> None:
    of = call()
    with Admission(CALLER_KEY).admit(CALLER, of, wants_usage=True) as progress:
        assert of.record.key_name == "bootstrap"
        assert progress.wants_usage
        a_stream(progress, with_usage=True)

    assert (of.record.prompt_tokens, of.record.completion_tokens) == (11, 7)
    assert not of.record.estimated


async def test_what_nobody_reports_is_counted() -> None:
    of = call()
    with Admission(CALLER_KEY).admit(CALLER, of, wants_usage=False) as progress:
        a_stream(progress, with_usage=False)

    assert (of.record.prompt_tokens, of.record.completion_tokens) == (0, 2)
    assert of.record.estimated


async def test_a_negative_report_counts_as_nothing() -> None:
    of = call()
    with Admission(CALLER_KEY).admit(CALLER, of, wants_usage=False) as progress:
        progress.observe(chunk_message(usage_chunk(-5, -7)))

    assert (of.record.prompt_tokens, of.record.completion_tokens) == (0, 0)


@pytest.mark.parametrize(
    "ending", [errors.UpstreamTruncated(), asyncio.CancelledError(), GeneratorExit(), KeyError()]
)
async def test_the_use_is_recorded_however_the_call_ends(ending: BaseException) -> None:
    of = call()

    def run() -> None:
        with Admission(CALLER_KEY).admit(CALLER, of, wants_usage=True) as progress:
            a_stream(progress, with_usage=False)
            raise ending

    with pytest.raises(type(ending)):
        run()

    assert of.record.completion_tokens == 2
