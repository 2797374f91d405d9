"""Members of a request that are not of the contract, or that an operator refuses.

members(params)         the rule on names that upstreams know and the contract does not
refused(params, model)  ──► [] or the members that an operator refuses
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.errors import Violation
from service.models import Model
from service.validation.aliases import folded

REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        name: reason
        for reason, names in {
            "it can make the prompt longer than what was held": (
                *("chat_template", "mm_processor_kwargs", "media_io_kwargs"),
            ),
            "it can make more output than n choices within their limit": (
                *("best_of", "use_beam_search", "num_beams", "num_return_sequences"),
                *("candidate_count", "max_new_tokens", "max_output_tokens", "num_predict"),
            ),
            "it can choose another model than the one that is priced": (
                *("models", "model_list", "fallbacks", "context_window_fallbacks", "route"),
                *("provider", "custom_llm_provider", "lora_path", "deployment_id"),
            ),
            "it can send the call elsewhere": (
                *("api_base", "base_url", "api_key", "api_version", "organization"),
                *("headers", "extra_headers", "extra_query", "proxy", "kv_transfer_params"),
                *("bootstrap_host", "bootstrap_port"),
            ),
            "it can say anything else of this list": (
                *("extra_body", "litellm_params", "options", "vllm_xargs"),
            ),
            "it can add work that is paid for but not held": (
                *("plugins", "num_retries", "logits_processors", "custom_logit_processor"),
            ),
        }.items()
        for name in names
    }
)
"""Members that upstreams know and the contract does not, and why they are refused."""

REFUSED_INSIDE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"chat_template_kwargs": ("chat_template",)}
)
"""Members that are refused in an object that is not."""

_REFUSED: Final = {folded(name): name for name in REFUSED}


def refused(params: ChatCompletionParams, model: Model) -> list[Violation]:
    """Return the members of a request that the operator refuses for a model."""
    names = {folded(name): name for name in model.refused_members}
    found = {name for name in model.refused_members if openai_json.has_member(params, name)}
    found |= {names[folded(name)] for name in _said(params) if folded(name) in names}
    return [Violation(param=name, message="Not allowed for this model.") for name in sorted(found)]


def _said(message: Any) -> Iterator[str]:
    """Yield the names that the fields of a message do not say, but for explicit nulls."""
    extra = message.extra_json
    return (name for name in extra if extra[name] != "null")


def members(params: ChatCompletionParams) -> Iterator[Violation]:
    """Find names that upstreams know and the contract does not, which are refused."""
    for name in _said(params):
        meant = _REFUSED.get(folded(name))
        if meant is not None:
            yield Violation(param=meant, message=f"Not allowed: {REFUSED[meant]}.")
    for outer, names in REFUSED_INSIDE.items():
        inside = set(map(folded, _inside(params.extra_json.get(outer, "null"))))
        for inner in names:
            if folded(inner) in inside:
                yield Violation(param=f"{outer}.{inner}", message=f"Not allowed: {REFUSED[inner]}.")


def _inside(text: str) -> Iterator[str]:
    """Yield the names in a JSON object; none where it is no object."""
    value = json.loads(text, parse_int=str, parse_float=str)
    if isinstance(value, dict):
        yield from value
