"""Messages that this API delivered are accepted when they are sent back, and forwarded."""

import json
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from chatcompletion import openai_json
from chatcompletion.openai_json.documents import SHAPES
from chatcompletion.v1.chat_completion_pb2 import ChatMessage
from service import validation
from service.metering.bound import bound_of
from service.validation.dialects import ATTACHMENT_TYPES
from tests.contract.generated import documents
from tests.support.examples import examples
from tests.support.json_equality import parse
from tests.support.samples import model

URL: Final = "https://a.example/x.png"
IMAGE: Final = {"type": "image_url", "image_url": {"url": URL}}
PRICED: Final = model(input_price=1, output_price=1)
FREE: Final = model()


@examples(300)
@given(document=documents(SHAPES[ChatMessage.DESCRIPTOR.full_name]))
def test_every_message_that_was_delivered_is_accepted_when_it_is_sent_back(document: str) -> None:
    delivered = '{"choices":[{"message":' + document + "}]}"
    completion = openai_json.decode_completion(delivered.encode())
    (choice,) = openai_json.elements(
        openai_json.members(openai_json.encode_completion(completion).decode())["choices"]
    )
    message = openai_json.members(openai_json.members(choice)["message"])
    _accepts(message | {"role": '"assistant"'})


_text = st.sampled_from(("", "a", "ä😀", "long " * 50))
_parts = st.lists(
    st.one_of(
        _text,
        _text.map(lambda said: {"type": "text", "text": said}),
        st.sampled_from((IMAGE, {"type": "refusal", "refusal": "x"})),
    )
)
_vendors: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(("reasoning_details", "thinking_blocks", "provider_specific_fields", "x")),
    st.sampled_from(([], {}, None, "x", [{"type": "thinking", "thinking": "x"}], 1.5)),
)


@examples(300)
@given(
    content=st.one_of(st.none(), _text, _parts),
    images=st.lists(st.one_of(st.just(IMAGE), st.just(URL), st.just({"image_url": URL}))),
    vendors=_vendors,
)
def test_every_content_that_was_delivered_is_accepted_when_it_is_sent_back(
    content: Any, images: list[Any], vendors: dict[str, Any]
) -> None:
    message = {"role": "assistant", "content": content, "images": images, **vendors}
    _accepts({name: json.dumps(value) for name, value in message.items()})


def _accepts(message: dict[str, str]) -> None:
    """Assert that models accept a message, given as JSON text by name, and that it is forwarded."""
    sent = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in message.items()) + "}"
    hello = json.dumps({"role": "user", "content": "Hello"})
    request = f'{{"model":"default","messages":[{hello},{sent},{hello}]}}'
    asked = openai_json.decode_request(request.encode())
    formed = validation.in_contract_form(asked)
    # A member of a picture, sound, film or cache can change its cost in any message.
    parts = formed.messages[1].content_parts.items
    pictured = tuple(
        f"messages[1].content[{at}]"
        for at, part in enumerate(parts)
        if any(map(part.HasField, ATTACHMENT_TYPES))
        or part.HasField("prompt_cache_breakpoint")
        or any(part.extra_json.get(name) for name in ATTACHMENT_TYPES)
    )
    for of_model in (PRICED, FREE):
        found = [
            *validation.violations(formed, streamed=False),
            *validation.refused(formed, of_model),
        ]
        assert [v.param for v in found if not v.param.startswith(pictured)] == []
    assert parse(openai_json.encode_request(asked))["messages"][1] == parse(sent)
    # The bound can be computed, and a template that writes the whole message fits it.
    assert bound_of(formed, PRICED, 1).prompt_tokens >= 512
