"""The models that callers can name, and the upstreams that serve them, as values.

models file -> `models_document` -> Catalogue -> Model -> Upstream
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Literal, Protocol

from chatcompletion.v1 import model_service_pb2
from service.model_names import WILDCARD, allows, matched
from service.upstream_dialect import OPENAI, Dialect

NANO: Final = 10**9
"""Nano-credits in a credit."""

ATTACHMENT_ESTIMATE: Final = 256
"""The default of `attachment_estimate`: a picture of common size in common models."""

OutputLimit = Literal["max_tokens", "max_completion_tokens"]
OUTPUT_LIMITS: Final[tuple[OutputLimit, ...]] = ("max_tokens", "max_completion_tokens")
"""The members of the output limit of a request."""


UnknownMembers = Literal["harmless", "forward", "refuse"]
UNKNOWN_MEMBERS: Final[tuple[UnknownMembers, ...]] = ("harmless", "forward", "refuse")
"""Which members beyond the contract are accepted: those that do not change the cost of a call, all
except those that are rejected, or none."""


ToolNames = Literal["any", "openai"]
TOOL_NAMES: Final[tuple[ToolNames, ...]] = ("any", "openai")
"""Which names of tools are accepted: all of up to 256 characters, or those of OpenAI's contract."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """An OpenAI-compatible server."""

    name: str
    base_url: str
    """The URL before `/chat/completions`; "" for the built-in simulator."""
    api_key: str
    """The bearer key; "" for none."""
    other_keys: tuple[str, ...] = ()
    """Further bearer keys, with which requests take turns."""
    output_limit: OutputLimit = "max_tokens"
    """The `output_limit` of its models, unless their entries differ."""
    clamps_limit: bool = False
    """Whether its models clamp output limits, unless their entries differ."""
    tool_names: ToolNames = "any"
    """The `tool_names` of its models, unless their entries differ."""
    dialect: Dialect = OPENAI
    """The dialect of its models, unless their entries differ."""
    max_calls: int | None = None
    """Maximum calls at a time; None for the setting of the service."""
    max_waiting: int | None = None
    """Maximum calls that wait for one of these to end; None for the setting of the service."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys; "" for none."""
        return (self.api_key, *self.other_keys)

    def __repr__(self) -> str:
        return f"Upstream({self.name!r}, {self.base_url!r})"  # without the key


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialPrices:
    """The prices besides input and output: nano-credits per million tokens. None is not set."""

    cached_input: int | None = None
    """Of prompt tokens that the upstream read from its cache."""
    cache_write: int | None = None
    """Of prompt tokens that it wrote to its cache."""
    input_audio: int | None = None
    input_image: int | None = None
    reasoning: int | None = None
    """Of completion tokens of the reasoning."""
    output_audio: int | None = None
    request: int = 0
    """Nano-credits per request."""

    @property
    def cost_something(self) -> bool:
        """Whether one of them is above zero."""
        return self is not NO_SPECIAL_PRICES and any(
            getattr(self, name) for name in (*SPECIAL_PRICES, "request")
        )


NO_SPECIAL_PRICES: Final = SpecialPrices()

SPECIAL_PRICES: Final = (
    *("cached_input", "cache_write", "input_audio", "input_image"),
    *("reasoning", "output_audio"),
)
"""The special prices per token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceChange:
    """Prices that hold from a time on."""

    since: int
    """Nanoseconds since the Unix epoch."""
    input_price: int
    output_price: int
    special: SpecialPrices


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model under the name that callers use."""

    name: str
    """The name, or a pattern such as `local/*`, which stands for every name that it matches."""
    upstream: Upstream
    upstream_model: str
    """The name of the model at the upstream. In a pattern, `*` stands for what the pattern's `*`
    matches."""
    pattern: str = ""
    """The pattern that matched the name; "" if the name has an entry of its own."""
    default_output_tokens: int
    """Maximum tokens per choice, if the request sets no limit."""
    maximum_output_tokens: int
    """The largest limit of tokens per choice that a request can set."""
    output_limit: OutputLimit
    """The member in which the service sends the limit, whichever the request uses."""
    input_price: int
    """Nano-credits per million prompt tokens."""
    output_price: int
    """Nano-credits per million completion tokens."""
    special: SpecialPrices = NO_SPECIAL_PRICES
    """The other prices. One that is not set is the input or the output price."""
    prices_from: int | None = None
    """The time from which the prices hold, in nanoseconds since the Unix epoch; None if it is not
    set."""
    price_changes: tuple["PriceChange", ...] = ()
    """Later prices, in the order of their times."""
    margin: int
    """The margin on both prices, in nano-percent: 10^9 is one percent."""
    template_tokens: int | None = None
    """Maximum tokens that the template adds to a prompt of messages of text; None for the
    default."""
    message_tokens: int | None = None
    """Maximum tokens that it adds to each of these messages; None for the default."""
    attachment_tokens: int
    """Maximum prompt tokens of one picture, sound or file."""
    attachment_estimate: int = ATTACHMENT_ESTIMATE
    """Charged tokens of one if the upstream reports no usage; at most `attachment_tokens`."""
    dialect: Dialect = OPENAI
    """How the upstream differs from OpenAI's API for this model."""
    imposes_limit: bool = True
    """Whether a request without an output limit gets the default one."""
    clamps_limit: bool = False
    """Whether a larger output limit than the maximum becomes the maximum, instead of an error."""
    refused_members: frozenset[str] = frozenset()
    """Top-level members that this model rejects. They override every other rule."""
    allowed_members: frozenset[str] = frozenset()
    """Members that this model accepts despite the other rules: top-level names, or paths without
    indexes, such as `messages.content.image_url.max_dynamic_patch`."""
    unknown_members: UnknownMembers | None = None
    """Which members beyond the contract are accepted; None for the default, by price."""
    allowed_tools: frozenset[str] | None = None
    """Accepted types of tools besides function and custom; None for the default, by price."""
    tool_names: ToolNames = "any"
    """Which names of tools the upstream accepts."""
    weight: int = 1
    """How often this upstream is the first of those with the same order, in proportion."""
    order: int = 0
    """Upstreams with a higher order get a call if those with a lower one cannot."""
    others: tuple["Model", ...] = ()
    """The same model at its other upstreams. They differ in the upstream, its name of the model,
    the dialect and the member of the output limit, but not in limits and prices, so that the hold
    of a call covers each of them."""
    context_length: int | None = None
    """Maximum tokens of prompt and completion together; None if it is not known."""
    owned_by: str
    created: int
    """Seconds since the Unix epoch."""

    @property
    def ways(self) -> "tuple[Model, ...]":
        """This model at each of its upstreams."""
        return (self, *self.others)

    @property
    def is_free(self) -> bool:
        """Whether all prices are zero, now and later."""
        return not (self.input_price or self.output_price or self.special.cost_something) and (
            not self.price_changes or all(self._with(each).is_free for each in self.price_changes)
        )

    def at(self, now: int) -> "Model":
        """Return the model with the prices of a time.

        Args:
            now: Nanoseconds since the Unix epoch.
        """
        if not self.price_changes:
            return self
        begun = [each for each in self.price_changes if each.since <= now]
        return self._with(begun[-1]) if begun else self

    def _with(self, change: "PriceChange") -> "Model":
        return replace(
            self,
            input_price=change.input_price,
            output_price=change.output_price,
            special=change.special,
            prices_from=change.since,
            price_changes=(),
        )

    @property
    def hides_cost(self) -> bool:
        """Whether costs in the upstream's usage are removed."""
        hides = self.dialect.hides_cost
        return not self.is_free if hides is None else hides

    @property
    def unknown(self) -> UnknownMembers:
        """Which members beyond the contract are accepted."""
        return self.unknown_members or ("forward" if self.is_free else "harmless")

    def allows_tool(self, kind: str) -> bool:
        """Whether a tool type that the upstream runs itself is accepted."""
        return self.is_free if self.allowed_tools is None else kind in self.allowed_tools

    @property
    def is_pattern(self) -> bool:
        """Whether this is an entry for every name that it matches."""
        return self.name.endswith(WILDCARD)

    @property
    def entry(self) -> str:
        """The name of the entry in the models file, of which there is a bounded number."""
        return self.pattern or self.name

    def named(self, name: str) -> "Model | None":
        """Return the model of a name that this pattern matches, or None."""
        part = matched(self.name, name)
        return None if part is None else self._matched(name, part)

    def _matched(self, name: str, part: str) -> "Model":
        at_upstream = self.upstream_model.replace(WILDCARD, part)
        others = tuple(other._matched(name, part) for other in self.others)
        return replace(
            self, name=name, upstream_model=at_upstream, pattern=self.name, others=others
        )

    def price(self, nano_credits: int) -> Decimal:
        """Return a price of this model with its margin, in credits per million tokens."""
        return Decimal(nano_credits) * (100 * NANO + self.margin) / (100 * NANO * NANO)

    def _shown(self, special: str) -> str | None:
        price = getattr(self.special, special)
        return None if price is None else _per_token(self.price(price))

    def message(self) -> model_service_pb2.Model:
        """Return the model as a message of the contract."""
        return model_service_pb2.Model(
            id=self.name,
            object="model",
            created=self.created,
            owned_by=self.owned_by,
            context_length=self.context_length,
            max_output_tokens=self.maximum_output_tokens,
            pricing=model_service_pb2.ModelPricing(
                prompt=_per_token(self.price(self.input_price)),
                completion=_per_token(self.price(self.output_price)),
                request=_plain(self.price(self.special.request)) if self.special.request else None,
                audio=self._shown("input_audio"),
                image_token=self._shown("input_image"),
                input_cache_read=self._shown("cached_input"),
                input_cache_write=self._shown("cache_write"),
                internal_reasoning=self._shown("reasoning"),
                audio_output=self._shown("output_audio"),
                effective_from=None if self.prices_from is None else self.prices_from // NANO,
            ),
        )


def _per_token(per_million: Decimal) -> str:
    return _plain(per_million / 10**6)


def _plain(amount: Decimal) -> str:
    return format(amount.normalize(), "f")


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """All models, in the order of the file."""

    models: Mapping[str, Model]

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """The upstreams that at least one model uses."""
        found = {way.upstream.name: way.upstream for model in self for way in model.ways}
        return tuple(found.values())

    @property
    def upstream_description(self) -> str:
        """The upstreams, for people. Without their keys."""
        return ", ".join(
            upstream.base_url or "the built-in simulator" for upstream in self.upstreams
        )

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models.values())

    def get(self, name: str) -> Model | None:
        """Return the model that callers name so, or None.

        A name of its own takes precedence over patterns, and a longer pattern over a shorter one.
        """
        model = self.models.get(name)
        if model is not None:
            return None if model.is_pattern else model
        found: Model | None = None
        for entry in self:
            if entry.is_pattern and (found is None or len(entry.name) > len(found.entry)):
                found = entry.named(name) or found
        return found

    def listed(self, allowed: Collection[str] | None) -> Iterator[Model]:
        """Yield the models and patterns that a key can use.

        Args:
            allowed: The names and patterns of models that the key can use; None for all. A name
                that only a pattern of this catalogue matches is yielded under that name.
        """
        for entry in self:
            if allows(allowed, entry.name):
                yield entry
            elif entry.is_pattern:
                for name in sorted(allowed or ()):
                    model = self.get(name)
                    if model is not None and model.pattern == entry.name:
                        yield model


class Models(Protocol):
    """The models as calls use them."""

    def get(self, name: str) -> Model | None:
        """Return the model that callers name so, or None."""

    def listed(self, allowed: Collection[str] | None) -> Iterator[Model]:
        """Yield the models and patterns that a key can use."""


class CurrentModels:
    """The models that apply now. A reload replaces them all at once.

    Args:
        catalogue: The first ones.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        """Calls in flight keep the model that they began with."""

    def names(self) -> Collection[str]:
        """Return the names and patterns of the models."""
        return self.catalogue.models.keys()

    def get(self, name: str) -> Model | None:
        """Return the model that callers name so, or None."""
        return self.catalogue.get(name)

    def listed(self, allowed: Collection[str] | None) -> Iterator[Model]:
        """Yield the models and patterns that a key can use."""
        return self.catalogue.listed(allowed)
