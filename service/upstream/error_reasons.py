"""Finds the reason in the error body of an upstream, in all of its shapes.

    {"error": {"message": …, "n_ctx": …}}       OpenAI and most others; members beside are kept
    {"error": …, "error_type": …}               TGI, Ollama, xAI: a text
    {"detail": …}                               FastAPI: a text, an object, or a list of problems
    {"detail": [{"loc": […], "msg": …}, …]}     the problems: joined, and kept as they are
    {"errors": [{"code": 7000, "message": …}]}  Cloudflare: the first
    [{"error": {…}}]                            Gemini: a list of one
    {"message": {"detail": […]}}                Mistral: nested
    {"fault": {"faultstring": …}}               gateways: Apigee
    {"object": "error", "message": …}           the bare object: older vLLM, DashScope
    {"choices": [{"error": {…}}]}               OpenRouter: in a choice
    a text that is not JSON                     axum and others

Pure, with limits, because the upstream chooses the body. Nothing is scrubbed here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_CONTAINERS: Final = ("error", "errors", "detail", "details", "message", "fault")
"""The members that can hold the object or the list with the message, in the order of search."""
_MESSAGES: Final = (
    *("message", "msg", "status_msg", "error_msg", "error_message", "errorMessage", "Message"),
    *("error", "detail", "details", "title", "faultstring", "description", "err"),
)
"""The members that can be the message, in the order of search."""
_DEEPEST: Final = 6
_LARGEST_CODE: Final = 2**53
_MOST_CHOICES: Final = 8
_MOST_PROBLEMS: Final = 4
"""Maximum problems of a list in a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorObject:
    """An error object, as the upstream sent it."""

    message: str = ""
    type: str = ""
    param: str = ""
    code: str | int | None = None
    members: Mapping[str, Any] = field(default_factory=dict)
    """The other members of the object that has the message."""


_NOTHING: Final = ErrorObject()


def error_object(document: Any) -> ErrorObject | None:
    """Return the error object of a document, or None if it reports no error."""
    return _found(document, _DEEPEST)


def _found(document: Any, depth: int) -> ErrorObject | None:
    if depth == 0:
        return None
    match document:
        case str():
            return ErrorObject(message=document) if document.strip() else None
        case list():
            return _of_list(document, depth)
        case dict():
            return _of_object(document, depth)
    return None


def _of_list(items: Sequence[Any], depth: int) -> ErrorObject | None:
    problems = [item for item in items if isinstance(item, dict) and "loc" in item]
    if problems:
        return _of_problems(problems)
    return _found(items[0], depth - 1) if items else None


def _of_problems(problems: Sequence[Mapping[str, Any]]) -> ErrorObject | None:
    """Return one error for the problems that FastAPI found in a request."""
    told = [text for text in map(_problem, problems[:_MOST_PROBLEMS]) if text]
    if not told:
        return None
    return ErrorObject(
        message="; ".join(told),
        param=_path(problems[0].get("loc")),
        members={"detail": list(problems)},
    )


def _problem(problem: Mapping[str, Any]) -> str:
    message, path = problem.get("msg"), _path(problem.get("loc"))
    if not isinstance(message, str) or not message:
        return ""
    return f"{path}: {message}" if path else message


def _path(location: Any) -> str:
    """Return a list such as ["body", "messages", 0, "role"] as a path."""
    path = ""
    for step in location if isinstance(location, list) else []:
        if isinstance(step, int):
            path += f"[{step}]"
        elif isinstance(step, str) and (path or step != "body"):
            path += f".{step}" if path else step
    return path


def _of_object(document: Mapping[str, Any], depth: int) -> ErrorObject | None:
    for name in _CONTAINERS:
        inner = document.get(name)
        if isinstance(inner, dict | list) and inner:
            found = _found(inner, depth - 1)
            if found is not None:
                return _with_names(found, document)
    for name in _MESSAGES:
        message = document.get(name)
        if isinstance(message, str) and message.strip():
            return _named(document, message, name)
    choices = document.get("choices")
    for choice in choices[:_MOST_CHOICES] if isinstance(choices, list) else []:
        if isinstance(choice, dict) and isinstance(choice.get("error"), dict | str):
            found = _found({"error": choice["error"]}, depth - 1)
            if found is not None:
                return found
    # An object under `error` is an error even without a message, such as {"code": 429}.
    inner = document.get("error")
    bare = _named(inner, "", "") if isinstance(inner, dict) else _NOTHING
    return None if bare == _NOTHING else bare


def _with_names(found: ErrorObject, outer: Mapping[str, Any]) -> ErrorObject:
    """Add the type and the code beside an object that has neither."""
    if found.type or found.code is not None or outer.get("type") == "error":
        return found
    beside = _named(outer, found.message, "")
    return ErrorObject(
        message=found.message,
        type=beside.type,
        param=found.param or beside.param,
        code=beside.code,
        members=found.members,
    )


def _named(document: Mapping[str, Any], message: str, of: str) -> ErrorObject:
    type_, param, code = (document.get(name) for name in ("type", "param", "code"))
    return ErrorObject(
        message=message,
        type=type_ if isinstance(type_, str) else "",
        param=param if isinstance(param, str) else "",
        code=code if _is_code(code) else None,
        members=dict(_others(document, of)),
    )


def _is_code(value: Any) -> bool:
    return isinstance(value, str) or (type(value) is int and abs(value) < _LARGEST_CODE)


def _others(document: Mapping[str, Any], of: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of an object that the error object has no place for."""
    for name, value in document.items():
        has_place = (
            # A type, param or code of another form is left out: a document has each name once.
            name in (of, "message", "error", "type", "param", "code")
            or (name == "object" and value == "error")
        )
        if value is not None and not has_place:
            yield name, value
