"""OpenAI's Agents SDK with its model for Chat Completions."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    RunResult,
    ToolCallItem,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from reporting import AGAIN, API_KEY, ASK, BASE_URL, HELLO, RAIN, Outcome, report

set_tracing_disabled(True)
LOOP = asyncio.new_event_loop()
CLIENT = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)


class Weather(BaseModel):
    """A question about the weather."""

    city: str
    days: int


@function_tool
def weather(city: str, days: int) -> str:
    """Tell the weather."""
    return RAIN


def agent(name: str, **options: Any) -> Agent[Any]:
    model = OpenAIChatCompletionsModel(model=name, openai_client=CLIENT)
    return Agent(name="agent", model=model, **options)


def ran(asked: Agent[Any], said: Any) -> RunResult:
    return LOOP.run_until_complete(Runner.run(asked, said))


def whole() -> Outcome:
    result = ran(agent("whole"), HELLO)
    return {
        "text": result.final_output,
        "tokens": result.context_wrapper.usage.output_tokens,
    }


def streamed(name: str) -> Iterator[str]:
    async def begin() -> AsyncIterator[Any]:
        return Runner.run_streamed(agent(name), HELLO).stream_events()

    events = LOOP.run_until_complete(begin())
    while True:
        try:
            event = LOOP.run_until_complete(anext(events))
        except StopAsyncIteration:
            return
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            yield event.data.delta


async def run_streamed(asked: Agent[Any]) -> str:
    """Return the final output of a streamed loop of tools."""
    result = Runner.run_streamed(asked, ASK)
    async for _ in result.stream_events():
        pass
    return result.final_output


def tools() -> Outcome:
    result = ran(agent("tools", tools=[weather]), ASK)
    assert LOOP.run_until_complete(run_streamed(agent("tools", tools=[weather]))) == (
        result.final_output
    )
    [item] = [item for item in result.new_items if isinstance(item, ToolCallItem)]
    arguments = Weather.model_validate_json(item.raw_item.arguments).model_dump()
    called = {"name": item.raw_item.name, "arguments": arguments}
    return {"call": called, "text": result.final_output}


def structured() -> Outcome:
    result = ran(agent("structured", output_type=Weather), HELLO)
    return {"object": result.final_output.model_dump()}


def refused() -> RunResult:
    return ran(agent("refused", model_settings=ModelSettings(top_p=3)), HELLO)


def history() -> Outcome:
    asked = agent("history")
    first = ran(asked, HELLO)
    again = [*first.to_input_list(), {"role": "user", "content": AGAIN}]
    return {"text": ran(asked, again).final_output}


report(
    whole=whole,
    streamed=streamed,
    tools=tools,
    structured=structured,
    refused=refused,
    history=history,
)
