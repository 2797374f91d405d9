"""Golden completions, chunks and errors: a server must return each of them unchanged."""

from tests.support.golden import Golden


def _completion(name: str, why: str, members: str, fields: str) -> Golden:
    return Golden(
        name=name,
        why=why,
        json='{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m",'
        '"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},'
        '"finish_reason":"stop"}],' + members + "}",
        message='id: "chatcmpl-1" object: "chat.completion" created: 1700000000 model: "m" '
        'choices { index: 0 message { role: "assistant" content_text: "Hi" } '
        'finish_reason: "stop" } ' + fields,
    )


def _answer(name: str, why: str, choice: str, fields: str) -> Golden:
    return Golden(
        name=name,
        why=why,
        json='{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m",'
        '"choices":[{"index":0,' + choice + "}]}",
        message='id: "chatcmpl-1" object: "chat.completion" created: 1700000000 model: "m" '
        "choices { index: 0 " + fields + " }",
    )


def _chunk(name: str, why: str, members: str, fields: str) -> Golden:
    return Golden(
        name=name,
        why=why,
        json='{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,'
        '"model":"m",' + members + "}",
        message='id: "chatcmpl-1" object: "chat.completion.chunk" created: 1700000000 '
        'model: "m" ' + fields,
    )


def _delta(name: str, why: str, delta: str, fields: str) -> Golden:
    return _chunk(
        name,
        why,
        '"choices":[{"index":0,"delta":{' + delta + '},"finish_reason":null}]',
        "choices { index: 0 delta { " + fields + ' } null_fields: "\\x03" }',
    )


COMPLETIONS: tuple[Golden, ...] = (
    _completion(
        "usage",
        "with all the details; zero is a value",
        '"usage":{"prompt_tokens":3,"completion_tokens":0,"total_tokens":3,'
        '"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":1,"text_tokens":2,'
        '"image_tokens":0,"cache_write_tokens":0},'
        '"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"text_tokens":0,'
        '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}',
        "usage { prompt_tokens: 3 completion_tokens: 0 total_tokens: 3 "
        "prompt_tokens_details { audio_tokens: 0 cached_tokens: 1 text_tokens: 2 "
        "image_tokens: 0 cache_write_tokens: 0 } "
        "completion_tokens_details { reasoning_tokens: 0 audio_tokens: 0 text_tokens: 0 "
        "accepted_prediction_tokens: 0 rejected_prediction_tokens: 0 } }",
    ),
    _completion(
        "a vendor's usage",
        "details null, and a price",
        '"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,'
        '"prompt_tokens_details":null,"cost":0.00012}',
        "usage { prompt_tokens: 3 completion_tokens: 1 total_tokens: 4 "
        'null_fields: "\\x04" '
        'extra_json { key: "cost" value: "0.00012" } }',
    ),
    _completion(
        "nulls",
        "what vLLM sends",
        '"usage":null,"service_tier":null,"system_fingerprint":null,"prompt_logprobs":null,'
        '"kv_transfer_params":null,"metadata":null,"moderation":null',
        'null_fields: "\\x06\\x07\\x08\\x09\\x0a" '
        'extra_json { key: "prompt_logprobs" value: "null" } '
        'extra_json { key: "kv_transfer_params" value: "null" }',
    ),
    _completion(
        "tier, fingerprint, metadata",
        "the rest of the top level",
        '"service_tier":"default","system_fingerprint":"fp","metadata":{"a":"b"}',
        'service_tier: "default" system_fingerprint: "fp" metadata { key: "a" value: "b" }',
    ),
    _completion(
        "moderation",
        "verbatim: its categories grow",
        '"moderation":{"input":{"type":"moderation_results","results":[{"category_scores":'
        '{"violence":1e-05}}]},"output":{"type":"error","code":"x","message":"y"}}',
        'moderation { text: \'{"input":{"type":"moderation_results","results":[{"category_scores":'
        '{"violence":1e-05}}]},"output":{"type":"error","code":"x","message":"y"}}\' }',
    ),
    _answer(
        "null content",
        "a tool call has none",
        '"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c1",'
        '"type":"function","function":{"name":"f","arguments":"{}"}}]},'
        '"finish_reason":"tool_calls","logprobs":null',
        'message { role: "assistant" tool_calls { id: "c1" type: "function" '
        'function { name: "f" arguments: "{}" } } '
        'null_fields: "\\x02\\x07" } '
        'finish_reason: "tool_calls" null_fields: "\\x04"',
    ),
    _answer(
        "a refusal",
        "content null, refusal text",
        '"message":{"role":"assistant","content":null,"refusal":"no"},"finish_reason":"stop"',
        'message { role: "assistant" refusal: "no" null_fields: "\\x02" } finish_reason: "stop"',
    ),
    _answer(
        "citations",
        "annotations with their offsets",
        '"message":{"role":"assistant","content":"c","annotations":[{"type":"url_citation",'
        '"url_citation":{"start_index":0,"end_index":1,"url":"u","title":""}}]},'
        '"finish_reason":"stop"',
        'message { role: "assistant" content_text: "c" annotations { type: "url_citation" '
        'url_citation { start_index: 0 end_index: 1 url: "u" title: "" } } } '
        'finish_reason: "stop"',
    ),
    _answer(
        "audio",
        "a spoken answer",
        '"message":{"role":"assistant","content":null,"audio":{"id":"a","data":"AA==",'
        '"transcript":"t","expires_at":1700000000}},"finish_reason":"stop"',
        'message { role: "assistant" audio { id: "a" data: "AA==" transcript: "t" '
        'expires_at: 1700000000 } null_fields: "\\x02" } '
        'finish_reason: "stop"',
    ),
    _answer(
        "log probabilities",
        "bytes null, empty and cut; -9999.0; an exponent; an int in place of a double",
        '"message":{"role":"assistant","content":"ä"},"finish_reason":"stop","logprobs":{"content":'
        '[{"token":"\\u00c3","logprob":-0.0009109065448865294,"bytes":[195],"top_logprobs":['
        '{"token":"a","logprob":-9999.0,"bytes":null},{"token":"b","logprob":-1e-07,"bytes":[]}]},'
        '{"token":"","logprob":0,"bytes":[0,255],"top_logprobs":[]}],"refusal":null}',
        'message { role: "assistant" content_text: "ä" } finish_reason: "stop" logprobs { '
        'content { token: "Ã" logprob: -0.0009109065448865294 bytes: "\\303" '
        'top_logprobs { token: "a" logprob: -9999 null_fields: "\\x03" } '
        'top_logprobs { token: "b" logprob: -1e-07 bytes: "" } } '
        'content { token: "" logprob: 0 bytes: "\\000\\377" '
        'extra_json { key: "top_logprobs" value: "[]" } } '
        'null_fields: "\\x02" }',
    ),
    _answer(
        "reasoning",
        "both vendors' names",
        '"message":{"role":"assistant","content":"c","reasoning_content":"a","reasoning":"b"},'
        '"finish_reason":"stop","stop_reason":null,"token_ids":null',
        'message { role: "assistant" content_text: "c" reasoning_content: "a" reasoning: "b" } '
        'finish_reason: "stop" extra_json { key: "stop_reason" value: "null" } '
        'extra_json { key: "token_ids" value: "null" }',
    ),
    _answer(
        "content in parts",
        "Mistral's thinking",
        '"message":{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text",'
        '"text":"t"}]},{"type":"text","text":"x"}]},"finish_reason":"stop"',
        'message { role: "assistant" content_parts { items { type: "thinking" '
        'extra_json { key: "thinking" value: \'[{"type":"text","text":"t"}]\' } } '
        'items { type: "text" text: "x" } } } finish_reason: "stop"',
    ),
    Golden(
        name="several choices",
        why="index 0 is said; the order is the upstream's",
        json='{"id":"i","object":"chat.completion","created":1,"model":"m","choices":['
        '{"index":1,"message":{"role":"assistant","content":"b"},"finish_reason":"length"},'
        '{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}',
        message='id: "i" object: "chat.completion" created: 1 model: "m" '
        'choices { index: 1 message { role: "assistant" content_text: "b" } '
        'finish_reason: "length" } '
        'choices { index: 0 message { role: "assistant" content_text: "" } '
        'finish_reason: "stop" }',
    ),
    Golden(
        name="wrong types",
        why="responses are not validated: they reach the caller as they are",
        json='{"id":7,"object":"chat.completion","created":"1700000000","model":"m","choices":['
        '{"index":"0","message":{"role":"assistant","content":{"a":1},"tool_calls":[null]},'
        '"finish_reason":{"type":"stop"},"logprobs":[1,2]}],"usage":{"prompt_tokens":1.5,'
        '"completion_tokens":18446744073709551616,"total_tokens":true}}',
        message='object: "chat.completion" model: "m" choices { message { role: "assistant" '
        'extra_json { key: "content" value: \'{"a":1}\' } '
        'extra_json { key: "tool_calls" value: "[null]" } } '
        'extra_json { key: "index" value: \'"0"\' } '
        'extra_json { key: "finish_reason" value: \'{"type":"stop"}\' } '
        'extra_json { key: "logprobs" value: "[1,2]" } } '
        'usage { extra_json { key: "prompt_tokens" value: "1.5" } '
        'extra_json { key: "completion_tokens" value: "18446744073709551616" } '
        'extra_json { key: "total_tokens" value: "true" } } '
        'extra_json { key: "id" value: "7" } '
        'extra_json { key: "created" value: \'"1700000000"\' }',
    ),
    Golden(
        name="no choices",
        why="an empty array is there",
        json='{"id":"i","object":"chat.completion","created":0,"model":"","choices":[]}',
        message='id: "i" object: "chat.completion" created: 0 model: "" '
        'extra_json { key: "choices" value: "[]" }',
    ),
)

CHUNKS: tuple[Golden, ...] = (
    _delta(
        "the first",
        "a role and empty content",
        '"role":"assistant","content":"","refusal":null',
        'role: "assistant" content_text: "" null_fields: "\\x07"',
    ),
    _chunk(
        "a usual one",
        "what OpenAI sends with include_usage",
        '"system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":" a"},'
        '"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"x7"',
        'system_fingerprint: "fp" choices { index: 0 delta { content_text: " a" } '
        'null_fields: "\\x03\\x04" } '
        'obfuscation: "x7" null_fields: "\\x06"',
    ),
    _chunk(
        "the last of a choice",
        "an empty delta is there",
        '"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"service_tier":"default"',
        'choices { index: 0 delta { } finish_reason: "stop" } service_tier: "default"',
    ),
    _chunk(
        "the usage",
        "no choices",
        '"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}',
        "usage { prompt_tokens: 1 completion_tokens: 2 total_tokens: 3 } "
        'extra_json { key: "choices" value: "[]" }',
    ),
    _delta(
        "null content",
        "absent, null and empty content are three things",
        '"content":null',
        'null_fields: "\\x02"',
    ),
    _delta(
        "a tool call begins",
        "index 0 is said",
        '"tool_calls":[{"index":0,"id":"c1","type":"function",'
        '"function":{"name":"f","arguments":""}}]',
        'tool_calls { index: 0 id: "c1" type: "function" function { name: "f" arguments: "" } }',
    ),
    _delta(
        "a tool call goes on",
        "an absent id must not become an empty one: SDKs refuse that",
        '"tool_calls":[{"index":0,"function":{"arguments":"{\\"a"}}]',
        "tool_calls { index: 0 function { arguments: '{\"a' } }",
    ),
    _delta(
        "a tool call with nulls",
        "as some upstreams send it",
        '"tool_calls":[{"index":1,"id":null,"type":null,"function":{"name":null,'
        '"arguments":"}"}}],"content":""',
        'tool_calls { index: 1 function { arguments: "}" '
        'null_fields: "\\x01" } '
        'null_fields: "\\x02\\x03" } '
        'content_text: ""',
    ),
    _delta(
        "a custom tool call",
        "not in the document, but in the wild",
        '"tool_calls":[{"index":0,"id":"c","type":"custom","custom":{"name":"g","input":"x"}}]',
        'tool_calls { index: 0 id: "c" type: "custom" custom { name: "g" input: "x" } }',
    ),
    _delta(
        "empty tool calls",
        "an empty array is there",
        '"tool_calls":[],"content":"x"',
        'content_text: "x" extra_json { key: "tool_calls" value: "[]" }',
    ),
    _delta(
        "an older call",
        "function_call in pieces",
        '"function_call":{"name":"f","arguments":""}',
        'function_call { name: "f" arguments: "" }',
    ),
    _delta(
        "reasoning",
        "in every token of a reasoning model",
        '"reasoning_content":"r","reasoning":"s","content":null',
        'reasoning_content: "r" reasoning: "s" null_fields: "\\x02"',
    ),
    _delta(
        "a cut emoji",
        "its first half; the second is in the next chunk",
        '"content":"a\\ud83d"',
        'extra_json { key: "content" value: \'"a\\\\ud83d"\' }',
    ),
    _delta(
        "the other half",
        "a low surrogate alone",
        '"content":"\\ude00b","role":null',
        'extra_json { key: "content" value: \'"\\\\ude00b"\' } null_fields: "\\x01"',
    ),
    _delta(
        "an audio delta",
        "in pieces",
        '"audio":{"id":"a","data":"AA==","transcript":"t"}',
        'audio { id: "a" data: "AA==" transcript: "t" }',
    ),
    _delta(
        "content in parts",
        "Mistral streams its thinking so",
        '"content":[{"type":"thinking","thinking":[]},{"type":"text","text":"t"}]',
        'content_parts { items { type: "thinking" '
        'extra_json { key: "thinking" value: "[]" } } items { type: "text" text: "t" } }',
    ),
    _delta(
        "unknown members",
        "name and tool_call_id are members of a message, not of a delta",
        '"content":"x","name":"n","tool_call_id":"t","padding":[[]]',
        'content_text: "x" '
        'extra_json { key: "name" value: \'"n"\' } '
        'extra_json { key: "tool_call_id" value: \'"t"\' } '
        'extra_json { key: "padding" value: "[[]]" }',
    ),
    _chunk(
        "log probabilities",
        "of what was added",
        '"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null,"logprobs":'
        '{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}]}}]',
        'choices { index: 0 delta { content_text: "a" } logprobs { content { token: "a" '
        'logprob: -0.5 bytes: "a" extra_json { key: "top_logprobs" value: "[]" } } } '
        'null_fields: "\\x03" }',
    ),
    _chunk(
        "moderation",
        "verbatim",
        '"choices":[],"moderation":{"input":null}',
        'moderation { text: \'{"input":null}\' } extra_json { key: "choices" value: "[]" }',
    ),
    _chunk(
        "Azure's filters",
        "vendor members at each level",
        '"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null,'
        '"content_filter_results":{"hate":{"filtered":false}}}],"prompt_filter_results":[]',
        'choices { index: 0 delta { content_text: "a" } '
        'null_fields: "\\x03" '
        'extra_json { key: "content_filter_results" '
        'value: \'{"hate":{"filtered":false}}\' } } '
        'extra_json { key: "prompt_filter_results" value: "[]" }',
    ),
)

ERRORS: tuple[Golden, ...] = (
    Golden(
        name="all four",
        why="the usual error",
        json='{"error":{"message":"m","type":"invalid_request_error","param":"messages[0].role",'
        '"code":"invalid_value"}}',
        message='message: "m" type: "invalid_request_error" param: "messages[0].role" '
        'code_text: "invalid_value"',
    ),
    Golden(
        name="nulls",
        why="where there is no param and no code",
        json='{"error":{"message":"m","type":"server_error","param":null,"code":null}}',
        message='message: "m" type: "server_error" null_fields: "\\x03\\x04"',
    ),
    Golden(
        name="a number as code",
        why="vLLM's",
        json='{"error":{"message":"m","type":"BadRequestError","param":null,"code":400}}',
        message='message: "m" type: "BadRequestError" code_number: 400 null_fields: "\\x03"',
    ),
    Golden(
        name="any param",
        why="Ollama's may be anything; vendors add members",
        json='{"error":{"message":"m","type":"t","param":{"a":1},"code":1.5,"metadata":{"raw":[]}}}',
        message='message: "m" type: "t" '
        'extra_json { key: "param" value: \'{"a":1}\' } '
        'extra_json { key: "code" value: "1.5" } '
        'extra_json { key: "metadata" value: \'{"raw":[]}\' }',
    ),
)
