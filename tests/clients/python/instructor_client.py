"""instructor over OpenAI's SDK; its structured output by tool and by JSON schema."""

import json
from collections.abc import Iterator
from typing import Any

import instructor
from openai import OpenAI
from pydantic import BaseModel
from reporting import AGAIN, API_KEY, ASK, BASE_URL, HELLO, RAIN, Outcome, report

OPENAI = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
BY_TOOL = instructor.from_openai(OPENAI)
BY_SCHEMA = instructor.from_openai(OPENAI, mode=instructor.Mode.JSON_SCHEMA)
USER = {"role": "user", "content": HELLO}


class Weather(BaseModel):
    """A question about the weather."""

    city: str
    days: int


TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": Weather.model_json_schema()},
}


def plain(name: str, messages: list[Any], **members: Any) -> Any:
    """Ask without a response model, which instructor passes through."""
    return BY_TOOL.chat.completions.create(
        model=name, messages=messages, response_model=None, **members
    )


def whole() -> Outcome:
    answer = plain("whole", [USER])
    return {
        "text": answer.choices[0].message.content,
        "tokens": answer.usage.completion_tokens,
    }


def streamed(name: str) -> Iterator[str]:
    for chunk in plain(name, [USER], stream=True):
        yield chunk.choices[0].delta.content or ""


def tools() -> Outcome:
    messages: list[Any] = [{"role": "user", "content": ASK}]
    asked = plain("tools", messages, tools=[TOOL]).choices[0].message
    [call] = asked.tool_calls
    messages += [asked.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": RAIN}]
    answer = plain("tools", messages, tools=[TOOL]).choices[0].message
    called = {"name": call.function.name, "arguments": json.loads(call.function.arguments)}
    return {"call": called, "text": answer.content}


def structured() -> Outcome:
    question = {"model": "structured", "messages": [USER], "response_model": Weather}
    found = BY_SCHEMA.chat.completions.create(**question)
    by_tool = BY_TOOL.chat.completions.create(**question)
    for mode, whole in ((BY_SCHEMA, found), (BY_TOOL, by_tool)):
        *_, last = mode.chat.completions.create_partial(**question)
        assert last.model_dump() == whole.model_dump()
    return {"object": found.model_dump()}


def refused() -> Weather:
    return BY_SCHEMA.chat.completions.create(
        model="refused", messages=[USER], response_model=Weather, top_p=3
    )


def history() -> Outcome:
    first = plain("history", [USER]).choices[0].message
    messages = [USER, first.model_dump(), {"role": "user", "content": AGAIN}]
    return {"text": plain("history", messages).choices[0].message.content}


report(
    whole=whole,
    streamed=streamed,
    tools=tools,
    structured=structured,
    refused=refused,
    history=history,
)
