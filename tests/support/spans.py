"""A span in memory, with everything that was set on it."""

from typing import Any

from process.trace_context import Carried


class RecordedSpan:
    """A span, and the spans below it.

    Args:
        name: Its name, which is also the value of the `traceparent` that it carries on.
        attributes: Its first attributes.
    """

    trace_id, span_id = "t", "s"

    def __init__(self, name: str = "", attributes: Any = ()) -> None:
        self.name = name
        self.attributes = dict(attributes)
        self.carried: Carried = (("traceparent", name),)
        self.below: list[RecordedSpan] = []
        self.ended: list[bool] = []
        """For each end, whether it was a failure."""
        self.at: int | None = None
        """The given time of the last end."""

    @property
    def failed(self) -> bool:
        """Whether it ended as a failure."""
        return self.ended[-1:] == [True]

    def client(self, name: str, attributes: Any) -> "RecordedSpan":
        """Begin a span below this one."""
        self.below.append(RecordedSpan(name, attributes))
        return self.below[-1]

    def end(
        self, attributes: Any, *, failed: bool = False, name: str = "", at: int | None = None
    ) -> None:
        """End the span."""
        self.attributes |= attributes
        self.name = name or self.name
        self.ended.append(failed)
        self.at = at
