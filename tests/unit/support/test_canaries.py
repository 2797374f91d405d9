import httpx
import pytest

from tests.support import canaries

PROMPT = "a prompt that nothing may show"
COMPLETION = "This is a simulation; no model was called"


def found() -> int:
    """Return how many secrets were found, and forget them."""
    count = len(canaries.found())
    canaries.begin()
    return count


@pytest.mark.parametrize(
    "text",
    [
        canaries.DATABASE_PASSWORD,
        canaries.secret("sk-canary-of-this-test"),
        "sk-live-0123456789abcdefghijklmn",
        COMPLETION,
    ],
)
def test_a_secret_is_found_in_a_text_and_in_a_serialized_message(text: str) -> None:
    canaries.search("a line", f"before {text} after")
    assert found() == 1
    canaries.search_message("a message", b"\x0a\xff" + text.encode() + b"\x12")
    assert found() == 1


@pytest.mark.parametrize(
    "content",
    [PROMPT, [{"type": "text", "text": PROMPT}, {"type": "image_url"}, "no part"]],
)
async def test_the_texts_of_a_request_over_rest_are_secrets(content: object) -> None:
    messages = [{"role": "user", "content": content}, "no message"]
    request = httpx.Request("POST", "http://a", json={"model": "m", "messages": messages})

    await canaries.register_prompts(request)

    canaries.search("a line", f"before {PROMPT} after")
    assert found() == 1
    canaries.search("a line", PROMPT)
    assert found() == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": 1}', b'{"messages": [1]}'])
async def test_other_requests_have_no_texts(body: bytes) -> None:
    await canaries.register_prompts(httpx.Request("POST", "http://a", content=body))
