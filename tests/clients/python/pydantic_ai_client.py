"""pydantic-ai's OpenAIChatModel and OpenAIProvider."""

import asyncio
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_ai import Agent, ModelSettings, NativeOutput
from pydantic_ai.direct import model_request_stream_sync
from pydantic_ai.messages import (
    ModelRequest,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from reporting import AGAIN, API_KEY, ASK, BASE_URL, HELLO, RAIN, Outcome, report

PROVIDER = OpenAIProvider(base_url=BASE_URL, api_key=API_KEY)


class Weather(BaseModel):
    """A question about the weather."""

    city: str
    days: int


def model(name: str) -> OpenAIChatModel:
    return OpenAIChatModel(name, provider=PROVIDER)


def whole() -> Outcome:
    result = Agent(model("whole")).run_sync(HELLO)
    return {"text": result.output, "tokens": result.usage.output_tokens}


def streamed(name: str) -> Iterator[str]:
    with model_request_stream_sync(model(name), [ModelRequest.user_text_prompt(HELLO)]) as events:
        for event in events:
            match event:
                case PartStartEvent(part=TextPart(content=text)):
                    yield text
                case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                    yield text


async def run_streamed(agent: Agent) -> str:
    """Return the output of a streamed loop of tools."""
    async with agent.run_stream(ASK) as result:
        return await result.get_output()


def tools() -> Outcome:
    agent = Agent(model("tools"))

    @agent.tool_plain
    def weather(city: str, days: int) -> str:
        """Tell the weather."""
        return RAIN

    result = agent.run_sync(ASK)
    assert asyncio.run(run_streamed(agent)) == result.output
    parts = [part for message in result.all_messages() for part in message.parts]
    [call] = [part for part in parts if isinstance(part, ToolCallPart)]
    called = {"name": call.tool_name, "arguments": call.args_as_dict()}
    return {"call": called, "text": result.output}


def structured() -> Outcome:
    native = Agent(model("structured"), output_type=NativeOutput(Weather)).run_sync(HELLO)
    by_tool = Agent(model("structured"), output_type=Weather).run_sync(HELLO)
    assert set(by_tool.output.model_dump()) == set(native.output.model_dump())
    return {"object": native.output.model_dump()}


def refused() -> object:
    return Agent(model("refused")).run_sync(HELLO, model_settings=ModelSettings(top_p=3)).output


def history() -> Outcome:
    agent = Agent(model("history"))
    first = agent.run_sync(HELLO)
    return {"text": agent.run_sync(AGAIN, message_history=first.all_messages()).output}


report(
    whole=whole,
    streamed=streamed,
    tools=tools,
    structured=structured,
    refused=refused,
    history=history,
)
