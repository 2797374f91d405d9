import json
from typing import Any

import pytest

from chatcompletion import openai_json
from service import validation
from service.errors import MOST_VIOLATIONS
from service.models import Model
from service.validation import dialects
from tests.support.samples import model, params

WEATHER = {"type": "function", "function": {"name": "get_weather"}}
ASSISTANT = {"role": "assistant", "content": "x"}
SEARCH = {"type": "web_search", "web_search": {"max": 3}}
URL = "https://a.example/x"
PRICES = {"input_price": 1, "output_price": 0}
PARAMETER = "unsupported_parameter"
VALUE = "unsupported_value"


def harmless(**changes: Any) -> Model:
    return model(unknown_members="harmless", **changes)


def forward(**changes: Any) -> Model:
    return model(unknown_members="forward", **changes)


def refuse(**changes: Any) -> Model:
    return model(unknown_members="refuse", **changes)


def priced(**changes: Any) -> Model:
    return model(**{**PRICES, **changes})


def said(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def user(content: Any = "x", **members: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **members}


def part(kind: str, **members: Any) -> dict[str, Any]:
    return said(user([{"type": kind, **members}]))


def answered(kind: str, **members: Any) -> dict[str, Any]:
    return said(user(), {"role": "assistant", "content": [{"type": kind, **members}]})


def kwargs(**variables: Any) -> dict[str, Any]:
    return {"chat_template_kwargs": variables}


def named(members: dict[str, Any], of: Model) -> list[str]:
    return [violation.param for violation in validation.refused(params(**members), of)]


# ---------------------------------------------------------------------- the columns of the table


def test_the_price_of_a_model_decides_where_its_entry_does_not() -> None:
    unknown: dict[str, Any] = {"x_unknown": 1}

    assert named(unknown, model()) == []
    for prices in ({"input_price": 1}, {"output_price": 1}):
        assert named(unknown, model(**prices)) == ["x_unknown"]
        assert named(unknown, forward(**prices)) == []
    assert named(unknown, harmless()) == ["x_unknown"]


@pytest.mark.parametrize(
    ("members", "refused_by"),
    [
        ({}, ""),
        ({"temperature": 1, "seed": 2, "reasoning_effort": "low", "user": "u"}, ""),
        ({"x": None}, ""),
        ({"best_of": None, "cache_control": None}, ""),
        ({"top_k": 5}, "r"),
        ({"top_k": None}, ""),
        ({"x": 1}, "hr"),
        ({"Top_K": 5}, "hr"),
        ({"x": False}, ""),
        ({"x": []}, ""),
        ({"x": 0}, "hr"),
        ({"documents": [{"text": "x"}]}, "hr"),
        ({"best_of": 2}, "hfr"),
        ({"Best_Of": 2}, "hfr"),
        ({"bestOf": 2}, "hfr"),
        ({"n-predict": 2}, "hfr"),
        ({"n_predict": -1}, "hfr"),
        # Families of names.
        ({"max_whatever": 1}, "hfr"),
        ({"maxWhatever": 1}, "hfr"),
        ({"MAX-WHATEVER": 1}, "hfr"),
        ({"m\uff41x_whatever": 1}, "hfr"),
        ({"num_experts": 1}, "hfr"),
        ({"n_anything": 1}, "hfr"),
        ({"return_anything": 1}, "hfr"),
        ({"_anything": 1}, "hfr"),
        ({"litellm_anything": 1}, "hfr"),
        ({"aws_anything": 1}, "hfr"),
        ({"n_keep": 1}, "r"),
        # Names that only look like these.
        ({"max": 1, "num": 1, "maximum": 1, "nothing": 1, "returned": 1}, "hr"),
        ({"": 1}, "hr"),
        ({'"q': 1}, "hr"),
        ({"\ud83d": 1}, "hr"),
        # Variables of chat templates.
        (kwargs(), "r"),
        ({"enable_thinking": False}, "r"),
        (kwargs(enable_thinking=True), "r"),
        (kwargs(x=True, y=False, z=None), "r"),
        (kwargs(thinking_budget=512, reasoning_effort="high"), "r"),
        (kwargs(date_string="x" * 64, builtin_tools=["a", "b"]), "r"),
        (kwargs(date_string="x" * 65), "hr"),
        (kwargs(thinking_budget=10**70), "hr"),
        (kwargs(builtin_tools=["a"] * 17), "hr"),
        (kwargs(builtin_tools=["a" * 65]), "hr"),
        (kwargs(builtin_tools=[["a"]]), "hr"),
        (kwargs(thinking={"a": 1}), "hr"),
        (kwargs(x=1), "hr"),
        (kwargs(x="y"), "hr"),
        (kwargs(**{"x.y": 1, "\ud83d": 1, "": 1}), "hr"),
        (kwargs(x={"padding": 1}), "hr"),
        (kwargs(padding=True), "hfr"),
        (kwargs(Max_Length=1), "hfr"),
        (kwargs(maxLength=1), "hfr"),
        ({"chatTemplateKwargs": {"padding": True}}, "hfr"),
        ({"chatTemplateKwargs": {"enable_thinking": True}}, "hr"),
        ({"chat_template_kwargs": "padding"}, "hr"),
        ({"chat_template_kwargs": ["padding"]}, "hr"),
        ({"chat_template_kwargs": None}, ""),
        # Messages.
        (said(user(prefix=True)), "r"),
        (said(user(partial=True)), "r"),
        (said(user(x=1)), "hr"),
        (said(user(x=None)), ""),
        (said(user(images=[URL])), "hfr"),
        (said(user(), {**ASSISTANT, "thinking_blocks": []}), "r"),
        (said(user(), {**ASSISTANT, "images": [URL]}), "hfr"),
        (
            said(user(), {**ASSISTANT, "annotations": [{"type": "t", "x": 1}]}),
            "r",
        ),
        (
            said(
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                            "extra_content": {"google": {"thought_signature": "s"}},
                        }
                    ],
                }
            ),
            "r",
        ),
        # Parts of a completion that is sent back, for example of Mistral and Databricks.
        (answered("text", text="x", annotations=[]), "r"),
        (answered("reference", reference_ids=[1]), "r"),
        (answered("reasoning", summary=[{"type": "summary_text", "text": "t"}]), "r"),
        (answered("text", text="x", max_anything=1), "hfr"),
        (answered("image_url", image_url={"url": URL}, x=1), "hr"),
        (answered("text", text="x", image_url={"url": URL}, x=1), "hr"),
        (answered("file", x=1), "hr"),
        (answered("text", text="x", fps=1), "hfr"),
        (answered("video", x=1), "hr"),
        (answered("image_url", image_url={"url": URL, "x": 1}), "hfr"),
        # Parts.
        (part("text", text="x"), ""),
        (part("text", text="x", y=1), "hr"),
        (part("text", text="x", y=None), ""),
        (part("text", text="x", max_anything=1), "hfr"),
        (part("text", text="x", fps=1), "hfr"),
        (part("text", text="x", FPS=1), "hfr"),
        (part("thinking", thinking=[{"type": "text", "text": "t"}], closed=True), "r"),
        (part("image_url", image_url={"url": URL, "detail": "low"}), ""),
        (part("image_url", image_url={"url": URL, "format": "image/png"}), "r"),
        (part("image_url", image_url={"url": URL, "x": 1}), "hfr"),
        (part("image_url", image_url={"url": URL, "x": None}), ""),
        (part("video_url", video_url={"url": URL}), "r"),
        (part("video_url", video_url=URL), "r"),
        (part("video_url", video_url={"url": URL, "fps": 1}), "hfr"),
        (part("video_url", video_url={"url": URL, "\ud83d": 1}), "hfr"),
        (part("text", text="x", video_url={"url": URL}), "hr"),
        (part("video", video=[URL, URL]), "hr"),
        (part("video", video={"url": [URL, URL]}), "hr"),
        (part("video", video={"url": {"url": URL, "fps": 9}}), "hr"),
        (said(user([{"video_url": {"url": URL}}])), "r"),
        (part("video_url", video_url={"url": URL}, uuid="1"), "hr"),
        (part("document", document={"url": URL}), "hr"),
        (
            {"prediction": {"type": "content", "content": [{"type": "text", "text": "", "x": 1}]}},
            "hr",
        ),
        # Other objects.
        ({"stream_options": {"continuous_usage_stats": True}}, "r"),
        ({"stream_options": {"x": 1}}, "hr"),
        ({"response_format": {"type": "structural_tag", "structures": []}}, "r"),
        ({"response_format": {"type": "grammar", "grammar": "x"}}, "r"),
        ({"tools": [WEATHER | {"strict": True}]}, "r"),
        ({"tools": [WEATHER | {"googleSearch": {}}]}, "hr"),
        ({"tools": [{"type": "function", "function": {"name": "f", "returns": {}}}]}, "r"),
        ({"tools": [WEATHER], "tool_choice": {**WEATHER, "x": 1}}, "r"),
        ({"web_search_options": {"max_results": 5}}, "hr"),
    ],
    ids=lambda value: json.dumps(value)[:70],
)  # fmt: skip
def test_unknown_members_pass_by_the_setting(members: dict[str, Any], refused_by: str) -> None:
    found = {
        kind: named(members, of)
        for kind, of in (("h", harmless()), ("f", forward()), ("r", refuse()))
    }

    assert "".join(kind for kind in found if found[kind]) == refused_by


def test_a_member_is_named_by_its_path() -> None:
    members = {
        "x": 1,
        **said(user(), user([{"type": "image_url", "image_url": {"url": URL, "y": 1}}], z=1)),
        **kwargs(a=1),
        "tools": [WEATHER, WEATHER | {"b": 1}],
    }

    assert sorted(named(members, priced())) == [
        "chat_template_kwargs.a",
        "messages[1].content[0].image_url.y",
        "messages[1].z",
        "tools[1].b",
        "x",
    ]


def test_no_more_members_are_told_than_any_violations() -> None:
    members = {f"x{number}": 1 for number in range(100)}

    assert len(named(members, priced())) == MOST_VIOLATIONS


@pytest.mark.parametrize("name", ["x" * 5000, "a\nb", "\x00", "é\u2028", "\ud83d", '"\\'])
def test_a_name_of_any_kind_can_be_told(name: str) -> None:
    for members in ({name: 1}, kwargs(**{name: 1}), said(user(**{name: 1}))):
        (violation,) = validation.refused(params(**members), priced())

        assert len(violation.param) <= 240
        assert violation.param.isprintable()
        assert violation.param.encode()
        assert violation.message.encode()


# ------------------------------------------------------------------------------ the model's entry


@pytest.mark.parametrize(
    ("refused", "members", "told"),
    [
        ([], {"service_tier": "priority", "x": 1}, []),
        (["service_tier"], {}, []),
        (["service_tier"], {"service_tier": None}, []),
        (["service_tier"], {"service_tier": "priority"}, ["service_tier"]),
        (["service_tier"], {"serviceTier": "priority"}, ["service_tier"]),
        (["x"], {"X": 1}, ["x"]),
        (["x"], {"x": None, "y": 1}, []),
        (["x", "b", "a"], {"x": 0, "a": False}, ["a", "x"]),
        # Members with several fields, and arrays and maps.
        (["stop"], {"stop": "x"}, ["stop"]),
        (["stop"], {"stop": ["x"]}, ["stop"]),
        (["tool_choice"], {"tool_choice": "none"}, ["tool_choice"]),
        (["tools"], {"tools": [WEATHER]}, ["tools"]),
        (["logit_bias"], {"logit_bias": {"1": 1}}, ["logit_bias"]),
        (["max_tokens"], {"max_completion_tokens": 1}, []),
        (["seed"], {"seed": 0}, ["seed"]),
        (['"x'], {'"x': 1}, ['"x']),
        # Harmless ones too.
        (["top_k"], {"top_k": 1}, ["top_k"]),
        (["thinking"], {"thinking": {"type": "enabled"}}, ["thinking"]),
    ],
)
def test_an_operator_refuses_members_by_their_names(
    refused: list[str], members: dict[str, Any], told: list[str]
) -> None:
    of = model(refused_members=frozenset(refused))
    violations = validation.refused(params(**members), of)

    assert [(violation.param, violation.code) for violation in violations] == [
        (name, PARAMETER) for name in told
    ]


def test_what_is_refused_and_allowed_is_refused_and_told_once() -> None:
    both = frozenset({"service_tier", "x", "best_of"})
    of = priced(refused_members=both, allowed_members=both)
    members = {"service_tier": "priority", "x": 1, "best_of": 2}

    assert named(members, of) == sorted(both)


@pytest.mark.parametrize(
    ("allowed", "members"),
    [
        ("documents", {"documents": [{"text": "x"}]}),
        ("best_of", {"best_of": 4}),
        ("max_anything", {"max_anything": 4}),
        ("service_tier", {"service_tier": "priority"}),
        ("modalities", {"modalities": ["text", "image"]}),
        ("web_search_options", {"web_search_options": {}}),
        ("cache_control", {"cache_control": {"type": "ephemeral"}}),
        ("prompt_cache_options.ttl", {"prompt_cache_options": {"ttl": "1h"}}),
        ("chat_template_kwargs.custom", kwargs(custom=[{"any": "thing"}])),
        ("chat_template_kwargs.padding", kwargs(padding="max_length")),
        ("messages.x", said(user(x=1))),
        ("messages.content.uuid", part("image_url", image_url={"url": URL}, uuid="1")),
        (
            "messages.content.cache_control",
            part("text", text="x", cache_control={"type": "ephemeral"}),
        ),
        (
            "messages.content.image_url.max_dynamic_patch",
            part("image_url", image_url={"url": URL, "max_dynamic_patch": 4}),
        ),
        ("messages.content.video_url.fps", part("video_url", video_url={"url": URL, "fps": 1})),
        (
            "messages.content.prompt_cache_breakpoint.ttl",
            part("text", text="x", prompt_cache_breakpoint={"mode": "explicit", "ttl": "1h"}),
        ),
        ("tools.cache_control", {"tools": [WEATHER | {"cache_control": {"type": "ephemeral"}}]}),
    ],
    ids=str,
)
def test_an_operator_allows_single_members_above_every_table(
    allowed: str, members: dict[str, Any]
) -> None:
    for setting in ("harmless", "forward", "refuse"):
        outer = frozenset({allowed, allowed.partition(".")[0], allowed.rpartition(".")[0]})
        of = priced(allowed_members=outer, unknown_members=setting)

        assert named(members, of) == []
    assert len(named(members, priced())) == 1


def test_allowing_an_object_does_not_allow_what_lengthens_a_prompt_inside_it() -> None:
    of = refuse(allowed_members=frozenset({"chat_template_kwargs"}))

    assert named(kwargs(enable_thinking=True), of) == []
    assert named(kwargs(padding=True), of) == ["chat_template_kwargs.padding"]


# ----------------------------------------------------------------- the contract's own, at a price


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"service_tier": "auto"}, None),
        ({"service_tier": "default"}, None),
        *(
            ({"service_tier": tier}, ("service_tier", VALUE))
            for tier in ("priority", "flex", "scale", "fast", "performance", "on_demand", "AUTO")
        ),
        ({"modalities": ["text"]}, None),
        ({"modalities": []}, None),
        ({"modalities": ["image"]}, ("modalities", VALUE)),
        ({"modalities": ["text", "audio"]}, ("modalities", VALUE)),
        ({"audio": {"voice": "alloy", "format": "wav"}}, ("audio", PARAMETER)),
        ({"web_search_options": {}}, ("web_search_options", PARAMETER)),
        ({"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}}, None),
        ({"prompt_cache_options": {"ttl": "1h"}}, ("prompt_cache_options.ttl", VALUE)),
        (
            part("text", text="x", prompt_cache_breakpoint={"mode": "explicit", "ttl": "1h"}),
            ("messages[0].content[0].prompt_cache_breakpoint.ttl", VALUE),
        ),
        ({"tools": [WEATHER, {"type": "custom", "custom": {"name": "c"}}]}, None),
        ({"tools": [WEATHER, SEARCH]}, ("tools[1].type", VALUE)),
        (said(user(cache_control={"type": "ephemeral"})), ("messages[0].cache_control", PARAMETER)),
        (
            part("text", text="x", cache_control={"type": "ephemeral"}),
            ("messages[0].content[0].cache_control", PARAMETER),
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "cache_control": {}}}]},
            ("tools[0].function.cache_control", PARAMETER),
        ),
    ],
    ids=lambda value: json.dumps(value)[:70],
)  # fmt: skip
def test_what_is_billed_separately_is_refused_unless_the_model_is_free(
    members: dict[str, Any], told: tuple[str, str] | None
) -> None:
    expected = [told] if told else []
    for of in (priced(), forward(**PRICES)):
        violations = validation.refused(params(**members), of)

        assert [(violation.param, violation.code) for violation in violations] == expected
    assert named(members, model()) == []


@pytest.mark.parametrize(
    ("of", "passes"),
    [
        (model(), True),
        (model(allowed_tools=frozenset()), False),
        (model(allowed_tools=frozenset({"web_search"})), True),
        (priced(), False),
        (priced(allowed_tools=frozenset({"web_search"})), True),
        (priced(allowed_tools=frozenset({"code_interpreter"})), False),
        (refuse(allowed_tools=frozenset({"web_search"})), True),
    ],
    ids=str,
)  # fmt: skip
def test_tools_that_the_upstream_runs_pass_by_their_types(of: Model, passes: bool) -> None:
    assert named({"tools": [WEATHER, SEARCH]}, of) == ([] if passes else ["tools[1].type"])


def test_a_function_does_not_bring_a_hosted_tool_along() -> None:
    disguised = {"tools": [WEATHER | {"googleSearch": {}}]}

    assert named(disguised, forward()) == []
    for of in (
        priced(),
        forward(**PRICES),
        forward(allowed_tools=frozenset()),
        priced(allowed_tools=frozenset({"web_search"})),
    ):
        assert named(disguised, of) == ["tools[0].googleSearch"]


# ------------------------------------------------------------------------- values without effect


def kept(members: dict[str, Any], of: Model) -> dict[str, Any]:
    """Return the remaining members of an accepted request with these members."""
    request = params(**members)
    assert validation.refused(request, of) == []
    validation.take_out_what_says_nothing(request, of)
    document = json.loads(openai_json.encode_request(request))
    return {name: document[name] for name in document if name not in ("model", "messages")}


@pytest.mark.parametrize(
    "member",
    [
        *({"fallbacks": []}, {"options": {}}, {"use_beam_search": False}, {"num_retries": 0}),
        *({"api_key": ""}, {"models": []}, {"echo": False}, {"extra_headers": {}}, {"plugins": []}),
        *({"max_retries": 0}, {"additional_drop_params": []}, {"chat_template": ""}),
        *({"Api_Key": ""}, {"verbose": False}, {"lora_path": ""}),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "of", [priced(), forward(), refuse()], ids=["harmless", "forward", "refuse"]
)
def test_what_says_nothing_is_taken_out(member: dict[str, Any], of: Model) -> None:
    assert kept({**member, "temperature": 0.5}, of) == {"temperature": 0.5}


@pytest.mark.parametrize("of", [priced(), refuse()], ids=["harmless", "refuse"])
@pytest.mark.parametrize("value", [False, "", [], {}], ids=str)
def test_so_is_an_unknown_member_that_would_be_rejected(value: Any, of: Model) -> None:
    assert kept({"x": value, "temperature": 0.5}, of) == {"temperature": 0.5}


@pytest.mark.parametrize(
    "of", [priced(), forward(), refuse()], ids=["harmless", "forward", "refuse"]
)
def test_an_empty_member_of_the_contract_stays(of: Model) -> None:
    members = {"tools": [], "stop": [], "metadata": {}, "logit_bias": {}, "user": ""}
    assert kept(members, of) == members


@pytest.mark.parametrize(
    "member",
    [
        # Here false and an empty array have an effect, and 0 is no limit or the first.
        *({"ssl_verify": False}, {"separate_reasoning": False}, {"incremental_output": False}),
        *({"lora": []}, {"adapter": {}}, {"search_parameters": {}}),
        *({"max_output_tokens": 0}, {"num_predict": 0}, {"timeout": 0}, {"id_slot": 0}),
        *({"routed_dp_rank": 0}, {"priority": 0}, {"best_of": 0}, {"n_predict": 0}),
        *(
            {"options": {"a": 1}},
            {"fallbacks": [""]},
            {"api_key": " "},
            {"use_beam_search": "false"},
        ),
    ],
    ids=str,
)
def test_what_says_something_is_refused(member: dict[str, Any]) -> None:
    assert named(member, priced()) == [*member]


@pytest.mark.parametrize(
    ("of", "member"),
    [
        (priced(), {"best_of": None, "api_key": None, "x": None}),
        (priced(), {"top_k": 0, "ignore_eos": False, "stop_token_ids": [], "guided_json": {}}),
        (priced(allowed_members=frozenset({"options"})), {"options": {}}),
        (forward(), {"x": [], "y": False, "z": ""}),
        (forward(), {"enable_search": False, "guardrails": []}),
    ],
    ids=str,
)
def test_what_passes_passes_as_it_is(of: Model, member: dict[str, Any]) -> None:
    assert kept(member, of) == member


def test_what_an_operator_refuses_is_refused_with_any_value() -> None:
    of = model(refused_members=frozenset({"fallbacks"}))

    assert named({"fallbacks": []}, of) == ["fallbacks"]


# ---------------------------------------------------------------------------- errors in the answer


@pytest.mark.parametrize(
    ("members", "message", "setting"),
    [
        (
            {"x": 1},
            "Unsupported parameter: 'x'. The model 'a/b:c' does not accept it.",
            "allowed_members",
        ),
        (
            {"n_predict": 1},
            "Unsupported parameter: 'n_predict'. Use 'max_tokens' to limit the output and 'n' to "
            "request several choices.",
            "allowed_members",
        ),
        (
            {"service_tier": "priority"},
            "Unsupported value for 'service_tier': the model supports 'auto' and 'default', but "
            "got 'priority'.",
            "allowed_members",
        ),
        (
            {"web_search_options": {}},
            "Unsupported parameter: 'web_search_options'. It is billed separately, and this model "
            "has no price for it.",
            "allowed_members",
        ),
        (
            {"tools": [SEARCH]},
            "Unsupported value for 'tools[0].type': the model supports 'custom', 'function' and "
            "'mcp', but got 'web_search'.",
            "allowed_tools",
        ),
        (
            {"user": "u"},
            "Unsupported parameter: 'user'. The model 'a/b:c' does not accept it.",
            "refused_members",
        ),
        (
            kwargs(max_length=1),
            "Unsupported parameter: 'chat_template_kwargs.max_length'. It can lengthen the prompt.",
            "allowed_members",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_caller_is_told_the_member_and_the_log_the_setting(
    members: dict[str, Any], message: str, setting: str
) -> None:
    of = priced(
        name="a/b:c",
        refused_members=frozenset({"user"}),
        allowed_tools=frozenset({"mcp"}),
    )
    (violation,) = validation.refused(params(**members), of)

    assert violation.message == message
    assert violation.setting == f"models.a/b:c.{setting}"
    assert setting not in violation.message


CANARY = "canary-7f3a"


def test_no_violation_quotes_a_value_that_is_not_one_of_a_set() -> None:
    members = {
        **dict.fromkeys(dialects.REFUSED, CANARY),
        **kwargs(padding=CANARY, x=CANARY),
        "tools": [{"type": "x", CANARY: CANARY}],
        **part("video_url", video_url={"url": CANARY, "fps": CANARY}),
    }
    for name, value in members.items():
        for violation in validation.refused(params(**{name: value}), priced()):
            assert CANARY not in repr(violation)
