"""LiteLLM as a client: litellm.completion."""

import json
from collections.abc import Iterator
from typing import Any

import litellm
from pydantic import BaseModel
from reporting import AGAIN, API_KEY, ASK, BASE_URL, HELLO, RAIN, Outcome, report

USER = {"role": "user", "content": HELLO}


class Weather(BaseModel):
    """A question about the weather."""

    city: str
    days: int


TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": Weather.model_json_schema()},
}


def complete(name: str, messages: list[Any], **members: Any) -> Any:
    return litellm.completion(
        model=f"openai/{name}",
        api_base=BASE_URL,
        api_key=API_KEY,
        messages=messages,
        **members,
    )


def whole() -> Outcome:
    answer = complete("whole", [USER])
    return {
        "text": answer.choices[0].message.content,
        "tokens": answer.usage.completion_tokens,
    }


def streamed(name: str) -> Iterator[str]:
    for chunk in complete(name, [USER], stream=True):
        yield chunk.choices[0].delta.content or ""


def tools() -> Outcome:
    messages: list[Any] = [{"role": "user", "content": ASK}]
    asked = complete("tools", messages, tools=[TOOL]).choices[0].message
    [call] = asked.tool_calls
    chunks = list(complete("tools", messages, tools=[TOOL], stream=True))
    built = litellm.stream_chunk_builder(chunks).choices[0].message
    assert built.tool_calls[0].model_dump() == call.model_dump()
    messages += [asked, {"role": "tool", "tool_call_id": call.id, "content": RAIN}]
    answer = complete("tools", messages, tools=[TOOL]).choices[0].message
    called = {"name": call.function.name, "arguments": json.loads(call.function.arguments)}
    return {"call": called, "text": answer.content}


def structured() -> Outcome:
    answer = complete("structured", [USER], response_format=Weather)
    return {"object": json.loads(answer.choices[0].message.content)}


def refused() -> object:
    return complete("refused", [USER], top_p=3)


def history() -> Outcome:
    first = complete("history", [USER]).choices[0].message
    messages = [USER, first, {"role": "user", "content": AGAIN}]
    return {"text": complete("history", messages).choices[0].message.content}


report(
    whole=whole,
    streamed=streamed,
    tools=tools,
    structured=structured,
    refused=refused,
    history=history,
)
