"""LangChain's ChatOpenAI."""

from collections.abc import Iterator
from functools import reduce
from operator import add

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from reporting import AGAIN, API_KEY, ASK, BASE_URL, HELLO, RAIN, Outcome, report


class Weather(BaseModel):
    """A question about the weather."""

    city: str
    days: int


@tool(args_schema=Weather)
def weather(city: str, days: int) -> str:
    """Tell the weather."""
    return RAIN


def model(name: str, **options: float) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=BASE_URL, api_key=API_KEY, **options)


def whole() -> Outcome:
    answer = model("whole").invoke(HELLO)
    return {"text": answer.content, "tokens": answer.usage_metadata["output_tokens"]}


def streamed(name: str) -> Iterator[str]:
    for chunk in model(name).stream(HELLO):
        yield chunk.content


def tools() -> Outcome:
    chat = model("tools").bind_tools([weather])
    asked = chat.invoke([HumanMessage(ASK)])
    [call] = asked.tool_calls
    streamed_calls = reduce(add, chat.stream([HumanMessage(ASK)])).tool_calls
    assert streamed_calls == asked.tool_calls
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    answer = chat.invoke([HumanMessage(ASK), asked, result])
    return {"call": {"name": call["name"], "arguments": call["args"]}, "text": answer.content}


def structured() -> Outcome:
    found = model("structured").with_structured_output(Weather).invoke(HELLO)
    return {"object": found.model_dump()}


def refused() -> AIMessage:
    return model("refused", top_p=3).invoke(HELLO)


def history() -> Outcome:
    chat = model("history")
    first = chat.invoke([HumanMessage(HELLO)])
    return {"text": chat.invoke([HumanMessage(HELLO), first, HumanMessage(AGAIN)]).content}


report(
    whole=whole,
    streamed=streamed,
    tools=tools,
    structured=structured,
    refused=refused,
    history=history,
)
