"""The members that upstreams add to OpenAI's contract, as tables.

    REFUSED            can change the cost or the destination of a call   rejected
    REFUSED_PREFIXES   prefixes of such names                             rejected
    REFUSED_WORDS      words in such names                                rejected
    CHARGED            are billed separately                              rejected unless the model
                                                                          is free
    HARMLESS           sampling, output format, reasoning within the      accepted unless the model
                       output limit                                       accepts only the contract
    TEMPLATE_REFUSED, TEMPLATE_HARMLESS, ATTACHMENT, REFUSED_INSIDE, HARMLESS_INSIDE, ECHOED
                       the same for nested objects of a request

`members` applies these tables; the settings of a model can override them. Names are folded
(`aliases.folded`) before they are compared with tables of rejected names; accepted names must match
exactly.

Sources: request schemas of vLLM, SGLang, llama.cpp, TGI, LMDeploy, TensorRT-LLM, Aphrodite, MLX,
KoboldCpp, text-generation-webui, TabbyAPI, mistral.rs, Dynamo and LiteLLM; the API references of
OpenRouter, Together, Fireworks, Groq, Mistral, xAI, Qwen, Perplexity, Azure, Helicone, Cloudflare.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

_PROMPT: Final = "It can lengthen the prompt."
_OUTPUT: Final = "Use 'max_tokens' to limit the output and 'n' to request several choices."
_MODEL: Final = "Use 'model' to select a model."
_ELSEWHERE: Final = "It can redirect the request or change its credentials."
_STATE: Final = "It can reach data or workers that are shared with other requests."
_ANYTHING: Final = "It can set other parameters that are not supported."
_WORK: Final = "It can add work beyond one answer within its limits."
_RETRIES: Final = "It can change timeouts and retries, which the server controls."
_COUNT: Final = "It can change how the answer is delivered, so that it cannot be counted."
_SIZE: Final = "It can make the answer much larger than its text."
_RECORDS: Final = "It can change how the request is recorded."
_PRICE: Final = "It can change the price of the request."
_MOCK: Final = "It can replace the model's answer."


def _reasons(names: Mapping[str, tuple[str, ...]]) -> Mapping[str, str]:
    return MappingProxyType({name: reason for reason in names for name in names[reason]})


REFUSED: Final = _reasons(
    {
        _PROMPT: (
            *("chat_template", "mm_processor_kwargs", "media_io_kwargs", "template_vars"),
            *("ensure_alternating_roles", "user_continue_message", "assistant_continue_message"),
            *("instruction_template_str", "chat_template_str", "instruction_template"),
            *("prompt_template", "preset", "character", "role_mapping", "custom_prompt_dict"),
            *("roles", "initial_prompt_value", "final_prompt_value", "bos_token", "eos_token"),
            *("name1", "name2", "user_name", "bot_name", "adapter"),
            *("supports_system_message", "disable_add_transform_inline_image_block"),
            # Prompts and conversations that the upstream stores.
            *("prompt_id", "prompt_variables", "prompt_version", "prompt_label"),
            *("prompt_environment", "inputs", "environment", "version_id"),
            *("previous_response_id", "session_params", "session_id", "conversation_params"),
            *("cached_content", "data_sources", "enhancements", "store_messages"),
            # Replacements of the messages.
            *("prompt", "input_ids", "prompt_token_ids", "prompt_token_ids_b64", "transforms"),
            # Pictures, sounds and films.
            *("max_dynamic_patch", "min_dynamic_patch", "images_config", "video_config"),
            *("use_audio_in_video", "vl_high_resolution_images", "images", "image_data"),
        ),
        _OUTPUT: (
            *("best_of", "use_beam_search", "num_beams", "num_return_sequences", "n_best"),
            *("candidate_count", "num_completions", "num_samples", "num_outputs", "n_cmpl"),
            *("max_new_tokens", "max_output_tokens", "num_predict", "n_predict", "max_length"),
            *("max_gen_len", "max_tokens_to_sample", "max_token_count", "max_generated_tokens"),
            *("tokens_to_generate", "max_tokens_second", "auto_max_new_tokens"),
            *("additional_drop_params", "allowed_openai_params", "drop_params"),
            "context_length_exceeded_behavior",
        ),
        _MODEL: (
            *("models", "model_list", "fallbacks", "context_window_fallbacks", "route"),
            *("content_policy_fallbacks", "default_fallbacks", "context_window_fallback_dict"),
            *("provider", "custom_llm_provider", "lora_path", "deployment_id"),
            *("lora", "lora_request", "adapters", "draft_model", "num_draft_tokens"),
            *("specific_deployment", "order", "weight", "tags", "tag_regex"),
            *("enable_tag_filtering", "routing_strategy", "allowed_model_region"),
            *("provider_affinity_header", "compliance", "targets", "strategy", "model_group"),
            *("loadbalance", "retry_on_status_codes", "router_settings_override"),
            *("router_settings", "hf_model_name", "attempted_targets", "fallback_depth"),
        ),
        _ELSEWHERE: (
            *("api_base", "base_url", "api_key", "api_version", "organization"),
            *("headers", "extra_headers", "extra_query", "proxy", "provider_specific_header"),
            *("azure", "litellm_credential_name", "ssl_verify", "client", "shared_session"),
            *("user_config", "litellm_metadata", "model_info", "model_config"),
            *("model_alias_map", "region_name", "custom_host", "virtual_key", "forward_headers"),
            *("default_headers", "default_query", "request_headers", "client_id"),
            *("client_secret", "tenant_id", "proxy_server_request", "use_litellm_proxy"),
            *("use_in_pass_through", "configurable_clientside_auth_params", "secret_fields"),
            *("bucket_name", "data_residency", "use_client", "use_chat_completions_api"),
        ),
        _STATE: (
            *("kv_transfer_params", "ec_transfer_params", "bootstrap_host", "bootstrap_port"),
            *("bootstrap_room", "migration_request", "with_cache", "preserve_cache"),
            *("disaggregated_params", "routed_dp_rank", "data_parallel_rank"),
            *("disagg_prefill_dp_rank", "id_slot", "rid", "request_id", "extra_key", "genkey"),
            *("cache_salt", "priority", "agent_hierarchy", "trace", "debug", "ttl"),
            *("vector_store_id", "vector_store_ids", "model_file_id_mapping"),
        ),
        _ANYTHING: (
            *("extra_body", "litellm_params", "options", "vllm_xargs", "aphrodite_xargs"),
            *("custom_params", "generation_config", "inference_config", "parameters"),
            *("additional_model_request_fields", "sampling_params", "nvext", "config"),
            *("override_params", "default_params", "kwargs"),
        ),
        _WORK: (
            *("plugins", "logits_processors", "custom_logit_processor", "max_tool_rounds"),
            *("max_tool_calls", "stop_server_tools_when", "max_turns", "agent_count"),
            *("max_agentic_loops", "enable_shell", "code_execution_permission"),
            *("agent_permission", "enable_code_interpreter", "mcp_servers", "compound_custom"),
            *("files", "search_tool_name", "silent_model", "fastest_response"),
            "disable_global_guardrails",
        ),
        _RETRIES: (
            *("timeout", "request_timeout", "stream_timeout", "force_timeout"),
            *("client_side_timeout", "num_retries", "max_retries", "retry_policy"),
            *("retry_strategy", "max_fallbacks"),
        ),
        _COUNT: (
            *("stream_interval", "stream_reasoning", "separate_reasoning", "incremental_output"),
            *("deferred", "cache", "caching", "cache_key", "preset_cache_key", "caching_groups"),
            *("complete_response", "response_fields", "_debug_render_only", "chat_parser"),
            *(
                "sse_ping_interval",
                "base_model",
                "self",
                "original_function",
                "acompletion",
                "text_completion",
            ),
            *("merge_reasoning_content_in_choices", "stream_chunk_size", "stream_response"),
            *("aembedding", "aimg_generation", "atext_completion", "allm_passthrough_route"),
            *("async_call", "include_server_side_tool_invocations"),
        ),
        _SIZE: (
            *("n_probs", "prompt_logprobs", "echo", "echo_last", "return_hidden_states"),
            *("return_routed_experts", "return_sampling_mask", "return_meta_info"),
            *("return_flat_raw_output_top_logprobs", "return_prompt_text"),
            *("return_prompt_token_ids", "return_token_ids", "return_input_ids_in_sglext"),
            *("return_output_ids_in_sglext", "logprob_token_ids", "verbose"),
            *("return_progress", "raw_output", "perf_metrics_in_response"),
        ),
        _RECORDS: (
            *("no-log", "turn_off_message_logging", "logger_fn", "litellm_request_debug"),
            *("litellm_disabled_callbacks", "completion_call_id"),
            *("log_client_error_tracebacks", "fireworks_forward_user_id"),
        ),
        _PRICE: (
            *("rpm", "tpm", "itpm", "otpm", "budget_duration", "soft_budget", "cooldown_time"),
            "enable_prompt_caching",
        ),
    }
)
"""Names at the top level, each with the text of its error."""

REFUSED_PREFIXES: Final = _reasons(
    {
        _ELSEWHERE: (
            *("litellm_", "langfuse_", "langsmith_", "aws_", "vertex_", "azure_", "watsonx_"),
            *("anthropic_", "openai_", "s3_", "gcs_", "dd_", "posthog_", "humanloop_", "arize_"),
            *("wandb_", "weave_", "helicone_", "portkey_", "bedrock_", "sagemaker_"),
            *("signoz_", "newrelic_", "supabase_", "valkey_", "milvus_", "github_copilot_"),
        ),
        _MODEL: ("auto_router_", "complexity_router_", "adaptive_router_", "quality_router_"),
        _ANYTHING: ("_",),
        _OUTPUT: ("max_", "num_", "n_"),
        _SIZE: ("return_",),
        _PRICE: ("cache_creation_input_", "cache_read_input_"),
        _MOCK: ("mock_",),
    }
)
"""Prefixes of names, in snake case, each with the text of its error."""

REFUSED_WORDS: Final = _reasons(
    {
        _ELSEWHERE: (
            *("endpoint", "api_key", "api_base", "base_url", "credential", "credentials"),
            *("password", "oauth", "token_exchange"),
        ),
        _RETRIES: ("retry", "timeout", "keepalive"),
        _RECORDS: ("callback", "callbacks"),
        _PRICE: ("cost_per", "pricing", "uplift"),
    }
)
"""Words in names, in snake case, each with the text of its error. Gateways have many such names."""

_BILLED: Final = "It is billed separately, and this model has no price for it."

CHARGED: Final = frozenset(
    {
        *("cache_control", "cache_control_injection_points", "image_config"),
        *("connectors", "safety_model", "policies"),
        *("guardrails", "guardrail_config", "search_parameters", "search_settings"),
        *("search_options", "enable_search", "include_domains", "exclude_domains"),
        *("search_mode", "search_domain_filter", "return_images"),
    }
)
"""Members at the top level; `cache_control` at any level."""

CHARGED_REASON: Final = _BILLED

HARMLESS: Final = frozenset(
    {
        # OpenRouter's option to report usage: {"include": true}.
        "usage",
        # The sampling of tokens.
        *("top_k", "min_p", "top_a", "tfs", "typical_p", "typical", "top_n_sigma", "nsigma"),
        *("top_p_min", "epsilon_cutoff", "eta_cutoff", "repetition_penalty", "repeat_penalty"),
        *("rep_pen", "repetition_penalty_range", "repeat_last_n", "repetition_context_size"),
        *("presence_context_size", "frequency_context_size", "no_repeat_ngram_size"),
        *("repetition_ngram_size", "encoder_repetition_penalty", "length_penalty"),
        *("early_stopping", "dry_multiplier", "dry_base", "dry_allowed_length"),
        *("dry_penalty_last_n", "dry_range", "dry_max_ngram", "dry_sequence_breakers"),
        *("xtc_probability", "xtc_threshold", "mirostat", "mirostat_mode", "mirostat_tau"),
        *("mirostat_eta", "mirostat_lr", "mirostat_target", "dynatemp_range", "dynatemp_min"),
        *("dynatemp_max", "dynatemp_low", "dynatemp_high", "dynatemp_exponent"),
        *("smoothing_factor", "smoothing_curve", "temperature_last", "skew", "samplers"),
        *("sampler_order", "sampler_priority", "do_sample", "random_seed"),
        # The end of the response, within the output limit.
        *("min_tokens", "min_new_tokens", "ignore_eos", "ban_eos_token", "stop_token_ids"),
        *("stop_regex", "include_stop_str_in_output", "no_stop_trim", "skip_special_tokens"),
        *("spaces_between_special_tokens", "bad_words", "allowed_token_ids", "banned_tokens"),
        *("banned_strings", "t_max_predict_ms", "repetition_detection"),
        # The format of the response.
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar"),
        *("guided_decoding_backend", "structured_outputs", "regex", "ebnf", "grammar"),
        *("grammar_string", "json_schema", "n_indent"),
        # Reasoning, within the output limit.
        *("reasoning", "thinking", "enable_thinking", "thinking_budget"),
        *("thinking_budget_tokens", "thinking_token_budget", "reasoning_budget_tokens"),
        *("reasoning_format", "include_reasoning"),
        # The prompt, without making it longer than the messages.
        *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
        *("truncate_prompt_tokens", "truncation_side", "cache_prompt", "n_keep", "n_discard"),
        *("n_cache_reuse", "timings_per_token", "chat_template_kwargs"),
    }
)
"""Members at the top level. `chat_template_kwargs` has separate tables."""

# ----------------------------------------------------------------------- values without effect

SAY_SOMETHING_EMPTY: Final = frozenset(
    {
        # The value false has the rejected effect.
        *("ssl_verify", "separate_reasoning", "stream_reasoning", "incremental_output", "cache"),
        # An empty value still has an effect: no adapter, a search with its defaults.
        *("lora", "adapters", "adapter", "caching"),
        *("search_parameters", "search_settings", "search_options", "cache_control"),
    }
)
"""Members for which only null has no effect. For others, false, "", [] and {} have none either."""

ZERO_SAYS_NOTHING: Final = frozenset({"num_retries", "max_retries", "max_fallbacks"})
"""Members for which 0 has no effect either. For others it does: at some upstreams, a limit of 0 is
no limit, slot or rank 0 is the first, and a timeout of 0 fails a call that has begun."""

# ----------------------------------------------------------------------------- nested objects

TEMPLATE_REFUSED: Final = frozenset(
    {
        # Arguments of transformers' apply_chat_template.
        *("chat_template", "tokenize", "padding", "max_length", "truncation", "return_tensors"),
        *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "conversation"),
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        # Variables that it passes to the template: texts around each message.
        *("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token"),
        *("mask_token", "additional_special_tokens"),
    }
)
"""Members of chat_template_kwargs that are rejected with any value."""

TEMPLATE_HARMLESS: Final = frozenset(
    {
        *("enable_thinking", "thinking", "thinking_budget", "reasoning_effort"),
        *("preserve_thinking", "clear_thinking", "date_string", "builtin_tools"),
    }
)
"""Members of chat_template_kwargs that are accepted with a short value; others only as booleans."""

TEMPLATE_REASON: Final = _PROMPT

ATTACHMENT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "video_url": frozenset({"url"}),
        "audio_url": frozenset({"url"}),
        "input_video": frozenset({"url", "data", "format"}),
        "video": frozenset({"url", "data", "format"}),
        "image": frozenset({"url", "data", "format"}),
    }
)
"""The members of parts for a picture, sound or film, and the accepted members inside each. Any
other member can change its number of tokens: frames per second, maximum pixels, tiles."""

ATTACHMENT_OBJECTS: Final = frozenset({"ImageUrl", "InputAudio", "InputFile"})
"""The same, by message of the contract."""

ATTACHMENT_TYPES: Final[tuple[Literal["image_url", "input_audio", "file"], ...]] = (
    *("image_url", "input_audio", "file"),
)
"""The types of parts with a picture, sound or film, and their members."""

ATTACHMENT_REASON: Final = "It can change the number of tokens of an attachment."

REFUSED_INSIDE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "ContentPart": frozenset(
            {
                *("fps", "nframes", "min_frames", "max_frames", "min_pixels", "max_pixels"),
                *("total_pixels", "resized_height", "resized_width", "max_dynamic_patch"),
                *("min_dynamic_patch", "max_long_side_pixel", "max_tokens_per_frame"),
                "max_image_tokens",
            }
        ),
        "ChatMessage": frozenset({"images", "videos", "audios"}),
    }
)
"""Members of nested objects, by message of the contract, that change the number of tokens."""

HARMLESS_INSIDE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        # The result of an MCP server has `is_error`.
        "ChatMessage": frozenset({"prefix", "partial", "is_error"}),
        # The reasoning of a completion that is sent back; the detail of a picture as a string.
        "ContentPart": frozenset({"thinking", "reasoning", "signature", "closed", "detail"}),
        "ImageUrl": frozenset({"format"}),
        "InputFile": frozenset({"format"}),
        "StreamOptions": frozenset({"continuous_usage_stats"}),
        "Tool": frozenset({"strict"}),
    }
)
"""The accepted members of objects whose other members are rejected."""

ECHOED: Final = frozenset(
    {
        *("ToolCall", "FunctionCall", "CustomCall", "MessageAudio", "Annotation", "UrlCitation"),
        *("ToolChoice", "ToolName", "AllowedTools", "FunctionDefinition", "CustomToolDefinition"),
        *("CustomToolFormat", "Grammar", "ResponseFormat", "JsonSchemaFormat"),
    }
)
"""Objects whose unknown members are all accepted. Callers send completions back unchanged, and
tools and formats are text, which the hold covers by its bytes. The same applies to messages of the
assistant and their parts, except pictures, sounds and films."""
