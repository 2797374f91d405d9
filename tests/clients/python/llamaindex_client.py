"""LlamaIndex's OpenAILike."""

from collections.abc import Iterator

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from reporting import AGAIN, API_KEY, ASK, BASE_URL, HELLO, RAIN, Outcome, report

USER = MessageRole.USER


class Weather(BaseModel):
    """A question about the weather."""

    city: str
    days: int


def weather(city: str, days: int) -> str:
    """Tell the weather."""
    return RAIN


def model(name: str, **members: object) -> OpenAILike:
    return OpenAILike(
        model=name,
        api_base=BASE_URL,
        api_key=API_KEY,
        is_chat_model=True,
        is_function_calling_model=True,
        additional_kwargs=members,
    )


def whole() -> Outcome:
    answer = model("whole").chat([ChatMessage(HELLO)])
    return {"text": answer.message.content, "tokens": answer.raw.usage.completion_tokens}


def streamed(name: str) -> Iterator[str]:
    for chunk in model(name).stream_chat([ChatMessage(HELLO)]):
        yield chunk.delta or ""


def tools() -> Outcome:
    chat = model("tools")
    tool = FunctionTool.from_defaults(weather)
    asked = chat.chat_with_tools([tool], chat_history=[ChatMessage(ASK)])
    [call] = chat.get_tool_calls_from_response(asked)
    *_, last = chat.stream_chat_with_tools([tool], chat_history=[ChatMessage(ASK)])
    assert chat.get_tool_calls_from_response(last) == [call]
    result = ChatMessage(
        tool(**call.tool_kwargs).content,
        role=MessageRole.TOOL,
        additional_kwargs={"tool_call_id": call.tool_id},
    )
    answer = chat.chat_with_tools([tool], chat_history=[ChatMessage(ASK), asked.message, result])
    called = {"name": call.tool_name, "arguments": call.tool_kwargs}
    return {"call": called, "text": answer.message.content}


def structured() -> Outcome:
    chat = model("structured").as_structured_llm(Weather)
    return {"object": chat.chat([ChatMessage(HELLO)]).raw.model_dump()}


def refused() -> ChatResponse:
    return model("refused", top_p=3).chat([ChatMessage(HELLO)])


def history() -> Outcome:
    chat = model("history")
    first = chat.chat([ChatMessage(HELLO)]).message
    return {"text": chat.chat([ChatMessage(HELLO), first, ChatMessage(AGAIN)]).message.content}


report(
    whole=whole,
    streamed=streamed,
    tools=tools,
    structured=structured,
    refused=refused,
    history=history,
)
