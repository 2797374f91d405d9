import re
from decimal import Decimal
from typing import Any

import pytest

from service.dialect_document import ENTRIES
from service.model_entries import PRICES
from service.models import Catalogue, Model
from service.models_document import CatalogueError, catalogue, key_variables
from tests.support.samples import MODEL, UPSTREAM, UPSTREAM_KEY

ENVIRONMENT = {"THE_KEY": UPSTREAM_KEY, "LINES_KEY": "a\nb", "TAB_KEY": "a\tb", "EMPTY_KEY": ""}


def document(
    *, upstream: dict[str, Any] | None = None, drop: str = "", **members: Any
) -> dict[str, Any]:
    model = {
        "upstream": "main",
        "upstream_model": "vendor/gemma",
        "default_output_tokens": 100,
        "maximum_output_tokens": 1000,
        **members,
    }
    model.pop(drop, None)
    return {
        "upstreams": {"main": upstream if upstream is not None else {"simulator": True}},
        "models": {"default": model},
    }


def read(tables: dict[str, Any]) -> Catalogue:
    return catalogue(tables, ENVIRONMENT)


def model(**members: Any) -> Model:
    found = read(document(**members)).get("default")
    assert found is not None
    return found


def test_a_model_has_defaults() -> None:
    found = model()

    assert found.name == "default"
    assert (found.upstream.name, found.upstream.base_url, found.upstream.api_key) == (
        "main",
        "",
        "",
    )
    assert found.upstream_model == "vendor/gemma"
    assert (found.default_output_tokens, found.maximum_output_tokens) == (100, 1000)
    assert found.output_limit == "max_tokens"
    assert (found.input_price, found.output_price) == (0, 0)
    assert (found.attachment_tokens, found.attachment_estimate) == (16384, 256)
    assert (found.template_tokens, found.message_tokens) == (None, None)
    assert (found.refused_members, found.allowed_members) == (frozenset(), frozenset())
    assert (found.unknown_members, found.allowed_tools) == (None, None)
    assert found.owned_by == "chatcompletion"
    assert found.created == 1741737600


def test_a_model_has_what_the_document_says() -> None:
    found = model(
        output_limit="max_completion_tokens",
        input_price=2,
        output_price=Decimal("0.000000001"),
        attachment_tokens=1000,
        template_tokens=41,
        message_tokens=9,
        attachment_estimate=1000,
        refused_members=["service_tier", "a vendor's"],
        allowed_members=["documents", "messages.content.uuid"],
        unknown_members="refuse",
        allowed_tools=["web_search"],
        owned_by="Ours",
        created=7,
    )

    assert found.output_limit == "max_completion_tokens"
    assert (found.input_price, found.output_price) == (2 * 10**9, 1)
    assert (found.attachment_tokens, found.attachment_estimate) == (1000, 1000)
    assert (found.template_tokens, found.message_tokens) == (41, 9)
    assert found.refused_members == {"service_tier", "a vendor's"}
    assert found.allowed_members == {"documents", "messages.content.uuid"}
    assert (found.unknown_members, found.unknown) == ("refuse", "refuse")
    assert found.allowed_tools == frozenset({"web_search"})
    assert (found.owned_by, found.created) == ("Ours", 7)


@pytest.mark.parametrize(
    ("entry", "is_free", "unknown"),
    [
        ({}, True, "forward"),
        ({"margin": 20}, True, "forward"),
        ({"input_price": Decimal("1e-9")}, False, "harmless"),
        ({"output_price": Decimal("1e-9")}, False, "harmless"),
        ({"output_price": 1, "unknown_members": "forward"}, False, "forward"),
        ({"unknown_members": "harmless"}, True, "harmless"),
    ],
    ids=str,
)
def test_what_passes_by_default_depends_on_the_price(
    entry: dict[str, Any], is_free: bool, unknown: str
) -> None:
    found = model(**entry)

    assert (found.is_free, found.unknown) == (is_free, unknown)
    assert found.allows_tool("web_search") is is_free


def test_the_tools_of_the_entry_are_all_that_are_allowed() -> None:
    for price in (0, 1):
        found = model(input_price=price, allowed_tools=["mcp"])
        assert (found.allows_tool("mcp"), found.allows_tool("web_search")) == (True, False)
        assert not model(input_price=price, allowed_tools=[]).allows_tool("mcp")


def test_what_an_attachment_is_by_default_is_at_most_what_it_may_be() -> None:
    assert model(attachment_tokens=100).attachment_estimate == 100
    assert model(attachment_tokens=256).attachment_estimate == 256
    assert model(attachment_tokens=1000).attachment_estimate == 256


@pytest.mark.parametrize(
    ("written", "base_url"),
    [
        ("https://api.example", "https://api.example/v1"),
        ("https://api.example/", "https://api.example/v1"),
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("https://api.example/openai/v2/", "https://api.example/openai/v2"),
    ],
)
def test_a_path_is_added_where_there_is_none(written: str, base_url: str) -> None:
    assert model(upstream={"base_url": written}).upstream.base_url == base_url


@pytest.mark.parametrize(("variable", "key"), [("THE_KEY", UPSTREAM_KEY), (None, "")])
def test_the_key_is_in_the_environment(variable: str | None, key: str) -> None:
    table: dict[str, Any] = {"base_url": "https://api.example"}
    if variable is not None:
        table["api_key_variable"] = variable

    assert model(upstream=table).upstream.api_key == key


def test_the_key_is_never_shown() -> None:
    assert UPSTREAM_KEY not in repr(UPSTREAM)
    assert UPSTREAM_KEY not in repr(MODEL)
    assert UPSTREAM.base_url in repr(UPSTREAM)


def test_models_come_in_the_order_of_the_document_and_upstreams_once() -> None:
    tables = document()
    tables["upstreams"]["other"] = {"base_url": "https://other.example"}
    tables["upstreams"]["idle"] = {"base_url": "https://idle.example"}
    table = tables["models"]["default"]
    tables["models"] = {
        "vendor/z:1": table,
        "b": {**table, "upstream": "other"},
        "a": table,
    }
    found = read(tables)

    assert [model.name for model in found] == ["vendor/z:1", "b", "a"]
    assert [upstream.name for upstream in found.upstreams] == ["main", "other"]
    assert found.get("a") is not None
    assert found.get("A") is None
    assert found.get("") is None


def test_a_model_is_shown_as_the_contract_says() -> None:
    shown = MODEL.message()

    assert (shown.id, shown.object, shown.created, shown.owned_by) == (
        *("default", "model"),
        *(1, "tests"),
    )


def test_a_free_model_needs_no_default_limit() -> None:
    found = catalogue(document(drop="default_output_tokens", input_price=0, output_price=0), {})
    (free,) = found
    assert not free.imposes_limit
    assert free.default_output_tokens == free.maximum_output_tokens

    with pytest.raises(CatalogueError, match="default_output_tokens is missing: a model with a"):
        catalogue(document(drop="default_output_tokens", input_price=1), {})


@pytest.mark.parametrize(
    ("member", "usual", "other"),
    [
        ("output_limit", "max_tokens", "max_completion_tokens"),
        ("output_limit_excess", "reject", "clamp"),
        ("tool_names", "any", "openai"),
    ],
)
def test_a_model_has_the_limits_of_its_upstream_unless_its_entry_differs(
    member: str, usual: str, other: str
) -> None:
    def read(upstream: dict[str, Any], model: dict[str, Any]) -> Any:
        (found,) = catalogue(document(upstream={"simulator": True, **upstream}, **model), {})
        return {
            "output_limit": found.output_limit,
            "output_limit_excess": "clamp" if found.clamps_limit else "reject",
            "tool_names": found.tool_names,
        }[member]

    assert read({}, {}) == usual
    assert read({member: other}, {}) == other
    assert read({}, {member: other}) == other
    assert read({member: other}, {member: usual}) == usual
    assert read({member: usual}, {member: other}) == other


def with_tables(**tables: Any) -> dict[str, Any]:
    return {**document(), **tables}


COUNT = "an integer from 1 to 10000000"
PRICE = "credits per million tokens, from 0 to 1000000, with at most 9 decimals"
NAME = "a name has 1 to 256 printable characters"
MEMBERS_OF_A_MODEL = (
    "The members are upstream, upstreams, upstream_model, default_output_tokens, "
    f"maximum_output_tokens, {', '.join(PRICES)}, price_changes, margin, template_tokens, "
    "message_tokens, attachment_tokens, "
    "attachment_estimate, refused_members, allowed_members, unknown_members, allowed_tools, "
    "output_limit, output_limit_excess, tool_names, "
    f"{', '.join(ENTRIES)}, context_length, owned_by, created"
)

NO_TOOLS: list[Any] = ["web_search", True, False, [""], [7]]
NO_PATHS: list[Any] = ["x", 7, {}, [""], [7], ["a\nb"], ["x", "messages[0].x"]]
NO_SETTINGS: list[Any] = ["", "all", 7, True, ["forward"]]
NO_MEMBERS: list[Any] = [
    *("service_tier", 7, {}),
    *([""], [7], ["a\nb"], ["x", "model"], ["messages"]),
]

WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "upstreams: there must be at least one [upstreams.NAME]"),
    (with_tables(upstreams={}), "upstreams: there must be at least one [upstreams.NAME]"),
    (with_tables(upstreams=7), "upstreams: there must be at least one [upstreams.NAME]"),
    (with_tables(models={}), "models: there must be at least one [models.NAME]"),
    (with_tables(modles={}), "modles is unknown. The tables are upstreams and models"),
    (with_tables(models={"": {}}), f"models: {NAME}"),
    (with_tables(models={"a\nb": {}}), f"models: {NAME}"),
    (with_tables(models={"a" * 257: {}}), f"models: {NAME}"),
    (with_tables(upstreams={"\x00": {}}), f"upstreams: {NAME}"),
    (with_tables(models={"default": 7}), "models.default must be a table"),
    (with_tables(upstreams={"main": "x"}), "upstreams.main must be a table"),
    (document(price=1), f"models.default.price is unknown. {MEMBERS_OF_A_MODEL}"),
    (
        document(upstream={"url": "x"}),
        "upstreams.main.url is unknown. The members are base_url, api_key_variable, "
        "api_key_variables, max_calls, max_waiting, simulator, output_limit, "
        f"output_limit_excess, tool_names, {', '.join(ENTRIES)}",
    ),
    *(
        (document(drop=name), f"models.default.{name} is missing: it must be {allowed}")
        for name, allowed in (
            ("upstream", "the name of an upstream"),
            ("upstream_model", "the model's name at the upstream"),
            ("maximum_output_tokens", COUNT),
        )
    ),
    (
        with_tables(models={"a*b": document()["models"]["default"]}),
        "models.a*b: only the last character of a name can be *",
    ),
    *(
        (
            with_tables(
                models={"a/*": {**document()["models"]["default"], "upstream_model": written}}
            ),
            "models.a/*.upstream_model must have one *, which stands for what the * of the name "
            "matches",
        )
        for written in ("m", "*/*")
    ),
    (
        document(context_length=0),
        f"models.default.context_length must be {COUNT}",
    ),
    *(
        (
            document(upstream_model=value),
            "models.default.upstream_model must be the model's name at the upstream",
        )
        for value in ("", 7, "a\tb", "a" * 257)
    ),
    *(
        (
            document(default_output_tokens=value),
            f"models.default.default_output_tokens must be {COUNT}",
        )
        for value in (0, -1, 10_000_001, True, Decimal(1), "1")
    ),
    *(
        (
            document(maximum_output_tokens=value),
            f"models.default.maximum_output_tokens must be {COUNT}",
        )
        for value in (0, 10_000_001, False)
    ),
    (
        document(default_output_tokens=1001),
        "models.default.default_output_tokens must not exceed the maximum",
    ),
    (
        document(output_limit="tokens"),
        'models.default.output_limit must be "max_tokens" or "max_completion_tokens"',
    ),
    *(
        (document(input_price=value), f"models.default.input_price must be {PRICE}")
        for value in (
            *(-1, True, "1", 1_000_001, Decimal("0.0000000001"), Decimal("NaN")),
            *(Decimal("Infinity"), Decimal("-Infinity"), Decimal("sNaN"), Decimal("1e-999")),
            Decimal("1.0000000000000000000000000000000000001"),
        )
    ),
    *(
        (made, f"models.default.{name} must be {COUNT}")
        for value in (0, -1, 10_000_001, True, "1")
        for name, made in (
            ("attachment_tokens", document(attachment_tokens=value)),
            ("template_tokens", document(template_tokens=value)),
            ("message_tokens", document(message_tokens=value)),
        )
    ),
    *(
        (document(attachment_estimate=value), f"models.default.attachment_estimate must be {COUNT}")
        for value in (0, -1, 10_000_001, True, "1")
    ),
    *(
        (
            document(attachment_tokens=most, attachment_estimate=most + 1),
            "models.default.attachment_estimate must not exceed attachment_tokens",
        )
        for most in (1, 16384)
    ),
    *(
        (
            document(refused_members=value),
            "models.default.refused_members must be an array of names of members, "
            "without model and messages",
        )
        for value in NO_MEMBERS
    ),
    *(
        (
            document(allowed_members=value),
            "models.default.allowed_members must be an array of names of members, "
            "or of paths without indexes",
        )
        for value in NO_PATHS
    ),
    *(
        (
            document(unknown_members=value),
            'models.default.unknown_members must be "harmless", "forward" or "refuse"',
        )
        for value in NO_SETTINGS
    ),
    *(
        (
            document(allowed_tools=value),
            "models.default.allowed_tools must be an array of types of tools",
        )
        for value in NO_TOOLS
    ),
    (document(output_price=-1), f"models.default.output_price must be {PRICE}"),
    (document(owned_by=""), "models.default.owned_by must be a name"),
    *(
        (document(created=value), "models.default.created must be seconds since the Unix epoch")
        for value in (-1, 2**53, Decimal("1.5"), True)
    ),
    (document(upstream={}), "upstreams.main must have either base_url or simulator = true"),
    (
        document(upstream={"simulator": True, "base_url": "http://a.example"}),
        "upstreams.main must have either base_url or simulator = true",
    ),
    (
        document(upstream={"simulator": 1}),
        "upstreams.main.simulator must be true or false",
    ),
    *(
        (
            document(upstream={"simulator": True, "stream_end": value}),
            'upstreams.main.stream_end must be "lenient" or "strict"',
        )
        for value in ("", "Strict", True, ["strict"], None)
    ),
    *(
        (
            document(upstream={"base_url": value}),
            "upstreams.main.base_url must be an http:// or https:// address without query",
        )
        for value in ("", 7, "api.example", "ftp://a", "https://a.example/?q=1", "https://u:p@h")
    ),
    (
        document(upstream={"simulator": True, "api_key_variable": ""}),
        "upstreams.main.api_key_variable must be the name of an environment variable such as "
        "OPENAI_API_KEY, not the key itself",
    ),
    *(
        (
            document(upstream={"simulator": True, "api_key_variable": variable}),
            f"upstreams.main: {variable} must be a key of up to 16384 characters without line "
            "breaks and control characters",
        )
        for variable in ("LINES_KEY", "TAB_KEY")
    ),
    (document(upstream_=1), f"models.default.upstream_ is unknown. {MEMBERS_OF_A_MODEL}"),
    (
        with_tables(models={"m": {**document()["models"]["default"], "upstream": "b"}}),
        "models.m.upstream must be one of main",
    ),
]


@pytest.mark.parametrize(("tables", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_entry_is_named_with_what_is_allowed(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogueError) as refused:
        read(tables)

    [line] = refused.value.lines
    assert re.sub(r"Did you mean \w+\? |; found .*", "", line) == message


@pytest.mark.parametrize(("written", "used"), [(None, "*"), ("*", "*"), ("v/*", "v/*")])
def test_a_pattern_can_name_what_its_upstream_gets(written: str | None, used: str) -> None:
    entry = {**document()["models"]["default"], "upstream_model": written}
    if written is None:
        del entry["upstream_model"]
    [found] = read(with_tables(models={"local/*": entry}))

    assert (found.name, found.upstream_model, found.is_pattern) == ("local/*", used, True)
    assert (model(context_length=4096).context_length, model().context_length) == (4096, None)


def test_an_unknown_upstream_is_named() -> None:
    with pytest.raises(CatalogueError) as refused:
        read(with_tables(models={"m": {**document()["models"]["default"], "upstream": "b"}}))

    assert refused.value.lines == ('models.m.upstream must be one of main; found "b"',)


def test_all_wrong_entries_are_reported_with_the_values_found() -> None:
    tables = document(upstream={"base_url": "ftp://a"}, input_price=-1, upstream_modl="x")
    tables["models"]["other"] = 7
    with pytest.raises(CatalogueError) as refused:
        read(tables)

    url, unknown, price, other = refused.value.lines
    assert url.startswith("upstreams.main.base_url must be ")
    assert url.endswith('; found "ftp://a"')
    assert unknown == (
        "models.default.upstream_modl is unknown. Did you mean upstream_model? "
        + MEMBERS_OF_A_MODEL
    )
    assert price == f"models.default.input_price must be {PRICE}; found -1"
    assert other == "models.other must be a table"


def test_one_wrong_member_hides_no_other() -> None:
    tables = document(
        upstream={
            "api_key_variables": ["UNSET_KEY", "OTHER_UNSET_KEY"],
            "header_variables": {"x": "UNSET_HEADER"},
            "keepalive": -1,
        },
        margin=-1,
        attachment_tokens=1,
        attachment_estimate=2,
        default_output_tokens=9,
        maximum_output_tokens=8,
        price_changes=[{"prices_from": 1}],
    )
    default = tables["models"].pop("default")
    ways = [{"upstream": "main", "weight": 0}, {"upstream": "d"}, {"upstream": "main"}]
    tables["models"] = {
        "one": {**default, "upstream": "b"},
        "a*b": {**default, "input_price": -1},
        "several": {name: default[name] for name in default if name != "upstream"}
        | {"upstreams": ways},
    }
    with pytest.raises(CatalogueError) as refused:
        read(tables)

    begun = [re.split(" must| names | is not set", line)[0] for line in refused.value.lines]
    assert begun == [
        "upstreams.main.keepalive",
        "upstreams.main",
        "upstreams.main.api_key_variables",
        "upstreams.main.api_key_variables",
        "upstreams.main.header_variables: UNSET_HEADER",
        "models.one.margin",
        "models.one.upstream",
        "models.one.default_output_tokens",
        "models.one.attachment_estimate",
        "models.one.price_changes[0].prices_from",
        "models.a*b.input_price",
        "models.a*b.margin",
        "models.a*b: only the last character of a name can be *",
        "models.a*b.default_output_tokens",
        "models.a*b.attachment_estimate",
        "models.several.upstreams[0].weight",
        "models.several.margin",
        "models.several.upstream",
        "models.several.default_output_tokens",
        "models.several.attachment_estimate",
        "models.several.price_changes[0].prices_from",
    ]


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("http://h:1/v1/chat/completions", "http://h:1/v1"),
        ("http://h:1/v1/chat/completions/", "http://h:1/v1"),
        ("http://h:1/chat/completions", "http://h:1"),
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/openai", "http://h:1/openai"),
    ],
)
def test_a_base_url_is_what_requests_extend(url: str, used: str) -> None:
    assert model(upstream={"base_url": url}).upstream.base_url == used


PASTED = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("OTHER_KEY", "names OTHER_KEY, which is not set. Write: export OTHER_KEY=KEY, or remove"),
        ("EMPTY_KEY", "names EMPTY_KEY, which is not set. Write: export EMPTY_KEY=KEY, or remove"),
        (PASTED, "must be the name of an environment variable such as OPENAI_API_KEY, not the key"),
        ("gsk_canary", "must be the name of a variable that is set, such as OPENAI_API_KEY, not"),
    ],
)
def test_a_key_must_be_in_the_variable(variable: str, message: str) -> None:
    with pytest.raises(CatalogueError) as refused:
        read(document(upstream={"base_url": "http://h", "api_key_variable": variable}))

    [line] = refused.value.lines
    assert line.startswith(f"upstreams.main.api_key_variable {message}")
    assert "canary" not in line


@pytest.mark.parametrize(
    ("text", "key"),
    [("ollama", "ollama"), ("schlüssel", "schlüssel"), (" ab ", "ab"), ("x" * 4096, "x" * 4096)],
)
def test_an_upstream_decides_what_its_key_is(text: str, key: str) -> None:
    tables = document(upstream={"base_url": "http://h", "api_key_variable": "A_KEY"})
    [found] = catalogue(tables, {"A_KEY": text})

    assert found.upstream.api_key == key


# ------------------------------------------------------------------------------- several upstreams


def several(*ways: dict[str, Any], **members: Any) -> dict[str, Any]:
    tables = document(drop="upstream", upstreams=list(ways), **members)
    tables["upstreams"] = {
        "main": {"simulator": True},
        "other": {
            "base_url": "https://other.example",
            "output_limit": "max_completion_tokens",
            "output_limit_excess": "clamp",
            "tool_names": "openai",
            "stream_end": "strict",
        },
    }
    return tables


def test_a_model_has_several_upstreams() -> None:
    ways = [
        {"upstream": "main", "weight": 3},
        {"upstream": "other", "upstream_model": "theirs", "order": 2},
    ]
    found = read(several(*ways, input_price=7)).get("default")
    assert found is not None
    first, second = found.ways
    assert first is found
    assert (first.upstream.name, first.upstream_model) == ("main", "vendor/gemma")
    assert (first.weight, first.order) == (3, 0)
    assert (second.upstream.name, second.upstream_model) == ("other", "theirs")
    assert (second.weight, second.order) == (1, 2)
    assert (first.output_limit, second.output_limit) == ("max_tokens", "max_completion_tokens")
    assert (first.dialect.stream_end, second.dialect.stream_end) == ("lenient", "strict")
    # What a request is checked and priced by is the same.
    for way in found.ways:
        assert (way.tool_names, way.clamps_limit) == ("openai", False)
        assert way.input_price == first.input_price > 0
    assert [upstream.name for upstream in read(several(*ways)).upstreams] == ["main", "other"]


def test_an_upstream_in_the_list_can_be_the_only_one() -> None:
    found = read(several({"upstream": "other"})).get("default")
    assert found is not None
    assert found.others == ()
    assert found.clamps_limit


def test_a_pattern_names_the_model_at_each_upstream() -> None:
    tables = several({"upstream": "main"}, {"upstream": "other", "upstream_model": "their/*"})
    entry = tables["models"].pop("default")
    del entry["upstream_model"]
    tables["models"]["all/*"] = entry
    found = read(tables).get("all/x")
    assert found is not None
    assert [way.upstream_model for way in found.ways] == ["x", "their/x"]
    assert [way.name for way in found.ways] == ["all/x", "all/x"]


@pytest.mark.parametrize(
    ("ways", "line"),
    [
        ([], "models.default.upstreams must be an array of 1 to 16 tables with an upstream each"),
        (
            [{"upstream": "main"}] * 17,
            "models.default.upstreams must be an array of 1 to 16 tables with an upstream each",
        ),
        (
            [{"upstream": "main"}, {"weight": 2}],
            "models.default.upstreams[1].upstream is missing: it must be the name of an upstream",
        ),
        (
            [{"upstream": "main", "weight": 0}],
            "models.default.upstreams[0].weight must be an integer from 1 to 1000; found 0",
        ),
        (
            [{"upstream": "main", "order": 10}],
            "models.default.upstreams[0].order must be an integer from 0 to 9; found 10",
        ),
        (["main"], "models.default.upstreams[0] must be a table"),
        ([{"upstream": "x"}], 'models.default.upstream must be one of main, other; found "x"'),
    ],
)
def test_wrong_lists_of_upstreams_are_named(ways: list[Any], line: str) -> None:
    with pytest.raises(CatalogueError) as wrong:
        read(several(*ways))
    assert wrong.value.lines == (line,)


def test_a_model_has_either_one_upstream_or_a_list() -> None:
    with pytest.raises(CatalogueError, match="must have either upstream or upstreams"):
        read(document(upstreams=[{"upstream": "main"}]))


# ------------------------------------------------------------------------------------ several keys

KEYED = {"base_url": "https://h/v1"}
TWO = {"FIRST_KEY": "first-canary", "SECOND_KEY": "second-canary", "SAME_KEY": "first-canary"}


def keys(*variables: Any) -> tuple[str, ...]:
    tables = document(upstream={**KEYED, "api_key_variables": list(variables)})
    [upstream] = catalogue(tables, TWO).upstreams
    return upstream.keys


def test_an_upstream_has_several_keys() -> None:
    assert keys("FIRST_KEY") == ("first-canary",)
    assert keys("SECOND_KEY", "FIRST_KEY", "SAME_KEY") == ("second-canary", "first-canary")
    tables = document(upstream={**KEYED, "api_key_variables": ["FIRST_KEY", "SECOND_KEY"]})
    assert key_variables(tables) == {"FIRST_KEY", "SECOND_KEY"}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ([], "upstreams.main.api_key_variables must be an array of 1 to 16 names"),
        (["FIRST_KEY"] * 2, "upstreams.main.api_key_variables must be an array of 1 to 16 names"),
        (["FIRST_KEY", 7], "upstreams.main.api_key_variables must be an array of 1 to 16 names"),
        (["NO_KEY"], "upstreams.main.api_key_variables names NO_KEY, which is not set"),
        (["sk-1234567890"], "upstreams.main.api_key_variables must be an array of 1 to 16 names"),
    ],
)
def test_wrong_lists_of_keys_are_named_without_the_keys(variables: list[Any], line: str) -> None:
    with pytest.raises(CatalogueError, match=line) as wrong:
        keys(*variables)
    assert "1234567890" not in str(wrong.value)


def test_an_upstream_has_either_one_key_or_a_list() -> None:
    named = {"api_key_variable": "FIRST_KEY", "api_key_variables": ["SECOND_KEY"]}
    with pytest.raises(CatalogueError, match="either api_key_variable or api_key_variables"):
        catalogue(document(upstream={**KEYED, **named}), TWO)


def test_bounds_of_an_upstream() -> None:
    def upstream(**members: int) -> tuple[int | None, int | None]:
        [found] = read(document(upstream={**KEYED, **members})).upstreams
        return found.max_calls, found.max_waiting

    assert upstream() == (None, None)
    assert upstream(max_calls=7, max_waiting=0) == (7, 0)
    for wrong in ({"max_calls": 0}, {"max_waiting": -1}):
        with pytest.raises(CatalogueError):
            upstream(**wrong)
