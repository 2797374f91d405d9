"""The known members of upstreams beyond the contract, none of which must be forwarded.

The lists are separate from those of the code, and come from the request schemas of the servers. If
the code loses a row, a test fails.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service import validation
from service.models import Model
from service.validation import dialects, members
from service.validation.aliases import folded
from tests.support.samples import model, params

PRICED = model(input_price=10**9, output_price=10**9)
FORWARDING = model(input_price=10**9, output_price=10**9, unknown_members="forward")
FREE = model()


def named(text: str) -> list[str]:
    return text.split()


# ------------------------------------------------------------------------------------ by effect

UNBOUNDED = named(
    """
ensure_alternating_roles user_continue_message assistant_continue_message
additional_drop_params allowed_openai_params drop_params
n_predict n_cmpl
auto_max_new_tokens
instruction_template_str chat_template_str instruction_template prompt_template preset character
role_mapping custom_prompt_dict roles initial_prompt_value final_prompt_value bos_token eos_token
name1 name2 user_name bot_name
adapter template_vars
generationConfig generation_config inferenceConfig additionalModelRequestFields parameters
sampling_params nvext config options extra_body
max_length max_gen_len max_tokens_to_sample max_token_count max_generated_tokens
tokens_to_generate max_tokens_second n_best num_completions num_samples num_outputs candidateCount
max_tool_rounds max_tool_calls stop_server_tools_when max_turns agent_count max_agentic_loops
enable_shell code_execution_permission agent_permission enable_code_interpreter mcp_servers
compound_custom files
prompt_id prompt_variables prompt_version prompt_label prompt_environment inputs environment
version_id previous_response_id session_params session_id conversation_params cached_content
data_sources dataSources enhancements
chat_template mm_processor_kwargs media_io_kwargs
best_of use_beam_search num_beams num_return_sequences candidate_count max_new_tokens
max_output_tokens num_predict
plugins logits_processors custom_logit_processor vllm_xargs litellm_params
context_length_exceeded_behavior prompt transforms store_messages search_tool_name
disable_global_guardrails
"""
)

FAMILIES = named(
    """
auto_router_config auto_router_default_model complexity_router_config adaptive_router_config
quality_router_config aws_access_key_id aws_region_name aws_sagemaker_endpoint
aws_bedrock_runtime_endpoint azure_endpoint azure_ad_token langfuse_secret_key langfuse_public_key
input_cost_per_second output_cost_per_character cache_read_input_audio_token_cost
cache_creation_input_token_cost_above_1hr mock_response mock_tool_calls
mock_timeout cache_read_input_token_cost humanloop_api_key arize_space_id wandb_api_key
weave_project_id helicone_api_key portkey_config bedrock_runtime_url sagemaker_endpoint dd_api_key
gcs_bucket_name
langfuse_host langsmith_base_url posthog_api_url s3_endpoint_url vertex_credentials vertex_project
watsonx_region_name litellm_x anthropic_x openai_x _x max_x num_x n_x return_x
signoz_ingestion_key newrelic_region supabase_client valkey_host milvus_db_name
github_copilot_auth_type
"""
)
"""Names that only a prefix rejects."""

WORDED = named(
    """
endpoint tokenExchange_scope api_key my-api-key api_base_of base_url_of credential my_credentials
password_of use_xai_oauth token_exchange_profile retry stream_timeout_by_service_tier
allow_client_keepalive_override callback callbacks success_callback output_cost_per_x
input_cost_per_token citation_cost_per_token custom_pricing tieredPricing regional_uplift_eu
"""
)
"""Names that only a word in them rejects."""

REDIRECTING = named(
    """
provider_specific_header azure litellm_credential_name ssl_verify client shared_session user_config
litellm_metadata model_info model_config model_alias_map region_name



ec_transfer_params aphrodite_xargs migration_request with_cache preserve_cache
disaggregated_params bootstrap_room routed_dp_rank data_parallel_rank disagg_prefill_dp_rank id_slot
rid request_id extra_key genkey cache_salt priority agent_hierarchy custom_params trace debug
api_base base_url api_key api_version organization headers extra_headers extra_query proxy
kv_transfer_params bootstrap_host bootstrap_port ttl
"""
)

OTHER_MODELS = named(
    """
lora lora_request adapters draft_model num_draft_tokens content_policy_fallbacks default_fallbacks
context_window_fallback_dict specific_deployment order weight tags tag_regex enable_tag_filtering
routing_strategy allowed_model_region provider_affinity_header

compliance models model_list fallbacks context_window_fallbacks route provider custom_llm_provider
lora_path deployment_id
"""
)

BILLED = named(
    """
image_config cache_control search_parameters search_settings search_options enable_search
include_domains exclude_domains search_mode search_domain_filter connectors safety_model guardrails
cache_control_injection_points
guardrail_config policies
"""
)

PICTURES = named(
    """
max_dynamic_patch min_dynamic_patch images_config video_config use_audio_in_video
vl_high_resolution_images images image_data
"""
)

GATEWAYS = named(
    """
targets strategy model_group loadbalance retry_on_status_codes router_settings_override custom_host
virtual_key forward_headers default_headers default_query request_headers client_id client_secret
tenant_id proxy_server_request use_litellm_proxy use_in_pass_through
configurable_clientside_auth_params override_params default_params cooldown_time rpm tpm
budget_duration soft_budget supports_system_message disable_add_transform_inline_image_block
router_settings hf_model_name attempted_targets fallback_depth secret_fields bucket_name
data_residency use_client use_chat_completions_api vector_store_id vector_store_ids
model_file_id_mapping kwargs merge_reasoning_content_in_choices stream_chunk_size stream_response
aembedding aimg_generation atext_completion allm_passthrough_route async_call
include_server_side_tool_invocations completion_call_id log_client_error_tracebacks
fireworks_forward_user_id itpm otpm enable_prompt_caching
"""
)
"""Members that are meant for a gateway between this service and the upstream."""

UNPAID = named(
    """
timeout request_timeout stream_timeout force_timeout client_side_timeout max_retries num_retries
retry_policy retry_strategy max_fallbacks silent_model fastest_response
stream_interval stream_reasoning separate_reasoning incremental_output deferred cache caching
cache_key preset_cache_key caching_groups complete_response response_fields _debug_render_only
n_probs prompt_logprobs echo echo_last return_hidden_states return_routed_experts
return_sampling_mask return_meta_info return_input_ids_in_sglext return_output_ids_in_sglext
return_flat_raw_output_top_logprobs return_prompt_text return_prompt_token_ids return_token_ids
return_images logprob_token_ids verbose return_progress raw_output
self original_function acompletion text_completion
base_model no-log litellm_disabled_callbacks turn_off_message_logging logger_fn
litellm_request_debug
input_ids prompt_token_ids prompt_token_ids_b64 chat_parser sse_ping_interval
perf_metrics_in_response
"""
)

HARMLESS = named(
    """
usage
top_k min_p top_a tfs typical_p typical top_n_sigma nsigma top_p_min epsilon_cutoff eta_cutoff
repetition_penalty repeat_penalty rep_pen repetition_penalty_range repeat_last_n
repetition_context_size presence_context_size frequency_context_size no_repeat_ngram_size
encoder_repetition_penalty length_penalty early_stopping dry_multiplier dry_base dry_allowed_length
dry_penalty_last_n dry_range dry_sequence_breakers xtc_probability xtc_threshold mirostat
mirostat_mode mirostat_tau mirostat_eta dynatemp_range dynatemp_min dynatemp_max dynatemp_low
dynatemp_high dynatemp_exponent smoothing_factor smoothing_curve temperature_last skew samplers
sampler_order sampler_priority do_sample random_seed min_tokens min_new_tokens ignore_eos
ban_eos_token stop_token_ids stop_regex include_stop_str_in_output no_stop_trim skip_special_tokens
spaces_between_special_tokens bad_words allowed_token_ids banned_tokens banned_strings guided_json
guided_regex guided_choice guided_grammar guided_decoding_backend structured_outputs regex ebnf
grammar grammar_string json_schema repetition_detection reasoning thinking enable_thinking
thinking_budget thinking_budget_tokens thinking_token_budget reasoning_budget_tokens
reasoning_format include_reasoning add_generation_prompt continue_final_message
truncate_prompt_tokens truncation_side cache_prompt timings_per_token n_indent n_keep n_discard
n_cache_reuse add_special_tokens dry_max_ngram mirostat_lr mirostat_target repetition_ngram_size
t_max_predict_ms
"""
)

TEMPLATE = named(
    """
tokenize padding max_length truncation return_tensors return_dict return_assistant_tokens_mask
tokenizer_kwargs conversation messages tools documents add_generation_prompt continue_final_message
chat_template eos_token bos_token pad_token unk_token sep_token cls_token mask_token
additional_special_tokens
"""
)

PREFIXES = named(
    """
litellm_ langfuse_ langsmith_ aws_ vertex_ azure_ watsonx_ anthropic_ openai_ s3_ gcs_ dd_ posthog_
humanloop_ arize_ wandb_ weave_ helicone_ portkey_ bedrock_ sagemaker_ signoz_ newrelic_ supabase_
valkey_ milvus_ github_copilot_ cache_creation_input_ cache_read_input_ mock_
auto_router_ complexity_router_ adaptive_router_ quality_router_ _ max_ num_ n_ return_
"""
)
WORDS = named(
    """
endpoint api_key api_base base_url credential credentials password oauth token_exchange retry
timeout keepalive callback callbacks cost_per pricing uplift
"""
)
SAY_SOMETHING_EMPTY = named(
    """
ssl_verify separate_reasoning stream_reasoning incremental_output cache lora adapters adapter
caching search_parameters search_settings search_options cache_control
"""
)
TEMPLATE_HARMLESS = named(
    """
enable_thinking thinking thinking_budget reasoning_effort preserve_thinking clear_thinking
date_string builtin_tools
"""
)
INSIDE = {
    "ContentPart": named(
        """
fps nframes min_frames max_frames min_pixels max_pixels total_pixels resized_height resized_width
max_dynamic_patch min_dynamic_patch max_long_side_pixel max_tokens_per_frame max_image_tokens
"""
    ),
    "ChatMessage": named("images videos audios"),
}
PASSING_INSIDE = {
    "ChatMessage": named("prefix partial is_error"),
    "ContentPart": named("thinking reasoning signature closed detail"),
    "ImageUrl": named("format"),
    "InputFile": named("format"),
    "StreamOptions": named("continuous_usage_stats"),
    "Tool": named("strict"),
}

URL = "https://a.example/x"
PARTS: Mapping[str, dict[str, Any]] = {
    **{
        f"image_url.{name}": {"type": "image_url", "image_url": {"url": URL, name: 9}}
        for name in ("max_dynamic_patch", "max_long_side_pixel", "fps", "anything")
    },
    **{
        f"video_url.{name}": {"type": "video_url", "video_url": {"url": URL, name: 9}}
        for name in ("fps", "max_frames", "max_tokens_per_frame", "max_image_tokens", "any")
    },
    **{
        name: {"type": "video", "video": URL, name: 9}
        for name in (
            *("fps", "nframes", "max_frames", "max_pixels", "min_pixels", "total_pixels"),
            *("resized_height", "resized_width"),
        )
    },
    "audio_url.rate": {"type": "audio_url", "audio_url": {"url": URL, "rate": 1}},
    "input_audio.x": {"type": "input_audio", "input_audio": {"data": "", "x": 1}},
    "file.x": {"type": "file", "file": {"file_id": "f", "x": 1}},
    "video.fps": {"type": "video", "video": {"url": URL, "fps": 60}},
}
INSIDE_PARTS = {f"messages[0].content[0].{path}": part for path, part in PARTS.items()}


def at_fault(request: ChatCompletionParams, of: Model) -> list[str]:
    return [violation.param for violation in validation.refused(request, of)]


# Values with an effect, for members that have values without one.
VALUE = [1]


@pytest.mark.parametrize(
    "name",
    [
        *UNBOUNDED,
        *FAMILIES,
        *WORDED,
        *REDIRECTING,
        *OTHER_MODELS,
        *BILLED,
        *PICTURES,
        *UNPAID,
        *GATEWAYS,
    ],
)
def test_what_changes_a_price_is_refused_by_default(name: str) -> None:
    assert at_fault(params(**{name: VALUE}), PRICED) == [name]


@pytest.mark.parametrize(
    "name",
    [*UNBOUNDED, *FAMILIES, *WORDED, *REDIRECTING, *OTHER_MODELS, *PICTURES, *UNPAID, *GATEWAYS],
)
def test_it_is_refused_as_well_where_unknown_members_pass(name: str) -> None:
    assert at_fault(params(**{name: VALUE}), FORWARDING) == [name]
    assert at_fault(params(**{name: VALUE}), FREE) in ([name], []), "billed ones cost nothing here"
    if name not in dialects.CHARGED:
        assert at_fault(params(**{name: VALUE}), FREE) == [name]


@pytest.mark.parametrize("name", BILLED)
def test_what_is_billed_separately_passes_if_the_model_is_free(name: str) -> None:
    assert at_fault(params(**{name: VALUE}), FORWARDING) == [name]
    assert at_fault(params(**{name: VALUE}), FREE) == []


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("of", [PRICED, FORWARDING, FREE], ids=["priced", "forward", "free"])
def test_what_is_harmless_passes(name: str, of: Model) -> None:
    assert at_fault(params(**{name: VALUE}), of) == []


@pytest.mark.parametrize("name", TEMPLATE)
@pytest.mark.parametrize("value", [True, False, None, 4000, "max_length", {"a": 1}], ids=repr)
@pytest.mark.parametrize("of", [PRICED, FORWARDING, FREE], ids=["priced", "forward", "free"])
def test_arguments_of_what_renders_templates_are_refused(name: str, value: Any, of: Model) -> None:
    request = params(chat_template_kwargs={"enable_thinking": True, name: value})

    assert at_fault(request, of) == [f"chat_template_kwargs.{name}"]


@pytest.mark.parametrize(("path", "part"), INSIDE_PARTS.items(), ids=INSIDE_PARTS)
@pytest.mark.parametrize("of", [PRICED, FORWARDING, FREE], ids=["priced", "forward", "free"])
def test_what_resizes_an_attachment_is_refused(path: str, part: dict[str, Any], of: Model) -> None:
    request = params(messages=[{"role": "user", "content": [part]}])

    assert at_fault(request, of) == [path]


@pytest.mark.parametrize(
    "kind",
    [
        *("web_search", "web_search_premium", "code_interpreter", "image_generation"),
        *("document_library", "connector", "mcp", "openrouter:web_search", "openrouter:subagent"),
    ],
)
def test_hosted_tools_are_refused_unless_the_model_is_free(kind: str) -> None:
    request = params(tools=[{"type": kind, kind: {"server_url": URL}}])

    assert at_fault(request, PRICED) == ["tools[0].type"]
    assert at_fault(request, FORWARDING) == ["tools[0].type"]
    assert at_fault(request, FREE) == []


@pytest.mark.parametrize(
    "name", ["spoint", "api_keys_of_mine", "timeouts", "xcost_per", "t_oauths"]
)
def test_a_part_of_a_word_is_not_the_word(name: str) -> None:
    assert at_fault(params(**{name: VALUE}), FORWARDING) == []


# ------------------------------------------------------------------------ the tables themselves

CONTRACT = {folded(name) for name in openai_json.member_names(ChatCompletionParams)}


def test_no_row_of_a_table_is_lost_and_none_is_new() -> None:
    """Every row is in a list of this file, so that a second rule for a name hides no loss."""
    refused = [*UNBOUNDED, *REDIRECTING, *OTHER_MODELS, *BILLED, *PICTURES, *UNPAID, *GATEWAYS]
    rows = [*dialects.REFUSED, *dialects.CHARGED]

    assert sorted(set(map(folded, rows))) == sorted(set(map(folded, refused)))
    assert {*dialects.REFUSED_PREFIXES} == {*PREFIXES}
    assert {*dialects.REFUSED_WORDS} == {*WORDS}
    assert {*dialects.HARMLESS} == {*HARMLESS, "chat_template_kwargs"}
    assert {*dialects.TEMPLATE_REFUSED} == {*TEMPLATE}
    assert {*dialects.TEMPLATE_HARMLESS} == {*TEMPLATE_HARMLESS}
    assert {*dialects.SAY_SOMETHING_EMPTY} == {*SAY_SOMETHING_EMPTY}
    assert {*dialects.ZERO_SAYS_NOTHING} == {"num_retries", "max_retries", "max_fallbacks"}
    assert {kind: {*names} for kind, names in INSIDE.items()} == dialects.REFUSED_INSIDE
    assert {kind: {*names} for kind, names in PASSING_INSIDE.items()} == dialects.HARMLESS_INSIDE


def test_no_name_is_in_two_tables() -> None:
    tables = [dialects.REFUSED.keys(), dialects.CHARGED, dialects.HARMLESS, CONTRACT]
    names = [set(map(folded, table)) for table in tables]

    assert sum(map(len, tables)) == len(set().union(*names))


def test_the_tables_inside_do_not_overlap_either() -> None:
    assert not {*map(folded, dialects.TEMPLATE_REFUSED)} & {
        *map(folded, dialects.TEMPLATE_HARMLESS)
    }
    for kind, harmless in dialects.HARMLESS_INSIDE.items():
        assert not harmless & dialects.REFUSED_INSIDE.get(kind, frozenset())


def test_every_object_of_the_tables_is_one_of_a_request() -> None:
    kinds = {shape.rpartition(".")[2] for shape in openai_json.documents.SHAPES}

    assert kinds >= {
        *dialects.ATTACHMENT_OBJECTS, *dialects.ECHOED,
        *dialects.HARMLESS_INSIDE, *dialects.REFUSED_INSIDE,
    }  # fmt: skip


def test_what_says_something_empty_is_a_member_of_the_tables() -> None:
    refused = dialects.REFUSED.keys() | dialects.CHARGED

    assert refused >= dialects.SAY_SOMETHING_EMPTY | dialects.ZERO_SAYS_NOTHING


def test_every_reason_is_a_sentence_for_callers() -> None:
    tables = (dialects.REFUSED, dialects.REFUSED_PREFIXES, dialects.REFUSED_WORDS)
    reasons = {reason for table in tables for reason in table.values()}

    for reason in reasons:
        assert reason[0].isupper()
        assert reason.endswith(".")
        assert len(f"Unsupported parameter: '{'x' * 40}'. {reason}") < 160


def test_the_charged_members_of_the_contract_are_known_to_it() -> None:
    assert {name.partition(".")[0] for name in members.PRICED} <= openai_json.member_names(
        ChatCompletionParams
    )


def test_every_name_is_in_this_file_once() -> None:
    names = [
        *UNBOUNDED,
        *FAMILIES,
        *REDIRECTING,
        *GATEWAYS,
        *OTHER_MODELS,
        *BILLED,
        *PICTURES,
        *UNPAID,
        *HARMLESS,
    ]

    assert len(names) == len(set(names))
    assert json.dumps(names).isascii()
