"""The messages of violations: the parameter, what was expected, and what was received.

    Invalid 'temperature': expected a number from 0 to 2, but got 3.
    Invalid type for 'stop': expected a string or an array of strings, but got an integer.
    Missing required parameter: 'model'.

SDKs show callers the message alone, so that it names the parameter itself. A value is quoted only
if it is the parameter's own number or name, never the text of a message.
"""

from collections.abc import Sequence

from chatcompletion.default_messages import quoted
from service.errors import Violation


def missing(param: str, fields: str = "") -> Violation:
    """Return the violation of a required member that is absent.

    Args:
        param: The path of the member.
        fields: Its fields in gRPC, if their names differ.
    """
    named = f" ({fields} in gRPC)" if fields else ""
    return Violation(
        param=param,
        message=f"Missing required parameter: {quoted(param)}{named}.",
        code="missing_required_parameter",
    )


def invalid(param: str, problem: str, code: str = "invalid_value") -> Violation:
    """Return the violation of a member with a wrong value.

    Args:
        param: The path of the member.
        problem: The problem, as the end of the sentence "Invalid 'param': …".
        code: The `code` of the error object.
    """
    return Violation(param=param, message=f"Invalid {quoted(param)}: {problem}", code=code)


def mistyped(param: str, expected: Sequence[str], received: str) -> Violation:
    """Return the violation of a member of another type.

    Args:
        param: The path of the member.
        expected: The allowed types, without articles.
        received: The type of the value, without an article.
    """
    allowed = " or ".join(map(with_article, expected))
    return Violation(
        param=param,
        message=f"Invalid type for {quoted(param)}: expected {allowed}, "
        f"but got {with_article(received)}.",
        code="invalid_type",
    )


def unsupported_value(param: str, values: Sequence[str], received: str, setting: str) -> Violation:
    """Return the violation of a value for which a model has no price, or that it does not run.

    Args:
        param: The path of the member.
        values: The values that the model supports, at least one.
        received: The value of the request.
        setting: The operator's setting, for the log.
    """
    *most, last = map(quoted, values)
    supported = f"{', '.join(most)} and {last}" if most else last
    return Violation(
        param=param,
        message=f"Unsupported value for {quoted(param)}: the model supports {supported}, "
        f"but got {quoted(received)}.",
        code="unsupported_value",
        setting=setting,
    )


def out_of_range(param: str, expected: str, received: float | str) -> Violation:
    """Return the violation of a number that is too small or too large."""
    got = received if isinstance(received, str) else f"{received:.15g}"
    return invalid(param, f"expected {expected}, but got {got}.", "number_out_of_range")


def too_long(param: str, most: int, unit: str, received: int | None = None) -> Violation:
    """Return the violation of a member that has too many entries or characters.

    Args:
        param: The path of the member.
        most: The maximum number.
        unit: What is counted, in the plural.
        received: The number of the request, if it was counted.
    """
    got = "more" if received is None else str(received)
    return invalid(param, f"expected at most {most} {unit}, but got {got}.", "too_long")


def with_article(kind: str) -> str:
    """Return the name of a type with its article."""
    if kind == "null":
        return kind
    return f"an {kind}" if kind[0] in "aio" else f"a {kind}"
