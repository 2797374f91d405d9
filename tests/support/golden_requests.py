"""Golden requests: a server must forward each of `REQUESTS` unchanged."""

from tests.support.golden import Golden, MistypedGolden


def _request(name: str, why: str, members: str, fields: str) -> Golden:
    return Golden(
        name=name,
        why=why,
        json='{"model":"default","messages":[{"role":"user","content":"Hi"}],' + members + "}",
        message='model: "default" messages { role: "user" content_text: "Hi" } ' + fields,
    )


def _messages(name: str, why: str, messages: str, fields: str) -> Golden:
    return Golden(
        name=name,
        why=why,
        json='{"model":"default","messages":[' + messages + "]}",
        message='model: "default" ' + fields,
    )


REQUESTS: tuple[Golden, ...] = (
    Golden(
        name="smallest",
        why="what every example sends",
        json='{"model":"default","messages":[{"role":"user","content":"Hi"}]}',
        message='model: "default" messages { role: "user" content_text: "Hi" }',
    ),
    _request(
        "sampling",
        "doubles that are and are not integers; zero is a value",
        '"temperature":0.7,"top_p":1,"presence_penalty":-0.5,"frequency_penalty":0,"n":2,"seed":0',
        "temperature: 0.7 top_p: 1 presence_penalty: -0.5 frequency_penalty: 0 n: 2 seed: 0",
    ),
    _request(
        "numbers in other spellings",
        "a number in a field is spelt anew",
        '"temperature":1.0,"top_p":5e-1,"n":1e0,"seed":42.0',
        "temperature: 1 top_p: 0.5 n: 1 seed: 42",
    ),
    _request(
        "limits of int64",
        "beyond 2**53, where a double would round",
        '"seed":-9223372036854775808,"max_completion_tokens":16',
        "seed: -9223372036854775808 max_completion_tokens: 16",
    ),
    _request(
        "older names",
        "deprecated members still arrive",
        '"max_tokens":16,"user":"u-1","prompt_cache_retention":"24h"',
        'max_tokens: 16 user: "u-1" prompt_cache_retention: "24h"',
    ),
    _request(
        "nulls",
        "openai-python sends a None as null; absent and null differ",
        '"temperature":null,"stop":null,"tools":null,"logit_bias":null,"audio":null,'
        '"stream":null,"metadata":null,"tool_choice":null,"modalities":null',
        'null_fields: "\\x04\\x06\\x08\\x0a\\x0b\\x15\\x1a\\x1b\\x1e"',
    ),
    _request(
        "empty collections",
        "vLLM refuses tools [] and accepts no tools: what came must arrive",
        '"tools":[],"logit_bias":{},"metadata":{},"modalities":[],"functions":[]',
        'extra_json { key: "tools" value: "[]" } extra_json { key: "logit_bias" value: "{}" } '
        'extra_json { key: "metadata" value: "{}" } extra_json { key: "modalities" value: "[]" } '
        'extra_json { key: "functions" value: "[]" }',
    ),
    _request("stop as a string", "a union", '"stop":"END"', 'stop_text: "END"'),
    _request(
        "stop as a list",
        "the other arm of the union",
        '"stop":["a","\\n",""]',
        'stop_list { items: "a" items: "\\n" items: "" }',
    ),
    _request(
        "streamed",
        "picks the RPC",
        '"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}',
        "stream: true stream_options { include_usage: true include_obfuscation: false }",
    ),
    _request("not streamed", "openai-python's parse says so", '"stream":false', "stream: false"),
    _request(
        "logprobs",
        "a boolean and its integer",
        '"logprobs":true,"top_logprobs":5',
        "logprobs: true top_logprobs: 5",
    ),
    _request(
        "logit bias",
        "vLLM takes fractions",
        '"logit_bias":{"50256":-100,"1":0.5,"2":0}',
        'logit_bias { key: "50256" value: -100 } logit_bias { key: "1" value: 0.5 } '
        'logit_bias { key: "2" value: 0 }',
    ),
    _request(
        "metadata",
        "a map with names of any characters",
        '"metadata":{"a":"1","":"","\\"q":"ä"}',
        'metadata { key: "a" value: "1" } metadata { key: "" value: "" } '
        'metadata { key: "\\"q" value: "ä" }',
    ),
    _request(
        "a function tool",
        "the schema stays as it is: order, spelling of numbers, escapes",
        '"tools":[{"type":"function","function":{"name":"f","description":"d",'
        '"parameters":{"type":"object","properties":{"b":{"minimum":1.0},"a":{"const":1e2}},'
        '"x":"\\u00e4"},"strict":true}}],"tool_choice":"auto","parallel_tool_calls":false',
        'tools { type: "function" function { name: "f" description: "d" parameters { text: '
        '\'{"type":"object","properties":{"b":{"minimum":1.0},"a":{"const":1e2}},'
        '"x":"\\\\u00e4"}\' } strict: true } } '
        'tool_choice_mode: "auto" parallel_tool_calls: false',
    ),
    _request(
        "a function without parameters",
        "absent, null and empty parameters are three things",
        '"tools":[{"type":"function","function":{"name":"f"}},'
        '{"type":"function","function":{"name":"g","parameters":null,"strict":null}},'
        '{"type":"function","function":{"name":"h","parameters":{}}}]',
        'tools { type: "function" function { name: "f" } } '
        'tools { type: "function" function { name: "g" '
        'null_fields: "\\x03\\x04" } } '
        'tools { type: "function" function { name: "h" parameters { text: "{}" } } }',
    ),
    _request(
        "a custom tool",
        "its input is text in a grammar",
        '"tools":[{"type":"custom","custom":{"name":"c","description":"d","format":'
        '{"type":"grammar","grammar":{"definition":"start: /a/","syntax":"lark"}}}}],'
        '"tool_choice":{"type":"custom","custom":{"name":"c"}}',
        'tools { type: "custom" custom { name: "c" description: "d" format { type: "grammar" '
        'grammar { definition: "start: /a/" syntax: "lark" } } } } '
        'tool_choice_object { type: "custom" custom { name: "c" } }',
    ),
    _request(
        "a vendor's tool",
        "a type that the contract does not have brings its own body",
        '"tools":[{"type":"web_search","web_search":{"max":3}}]',
        'tools { type: "web_search" extra_json { key: "web_search" value: \'{"max":3}\' } }',
    ),
    _request(
        "a named function",
        "the object arm of tool_choice",
        '"tools":[{"type":"function","function":{"name":"f"}}],'
        '"tool_choice":{"type":"function","function":{"name":"f"}}',
        'tools { type: "function" function { name: "f" } } '
        'tool_choice_object { type: "function" function { name: "f" } }',
    ),
    _request(
        "allowed tools",
        "a list of tools inside of tool_choice",
        '"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":'
        '"allowed_tools","allowed_tools":{"mode":"required","tools":'
        '[{"type":"function","function":{"name":"f"}}]}}',
        'tools { type: "function" function { name: "f" } } '
        'tool_choice_object { type: "allowed_tools" allowed_tools { mode: "required" '
        'tools { type: "function" function { name: "f" } } } }',
    ),
    _request(
        "functions",
        "the older form of tools",
        '"functions":[{"name":"f","parameters":{"type":"object"}}],"function_call":"auto"',
        'functions { name: "f" parameters { text: \'{"type":"object"}\' } } '
        'function_call_mode: "auto"',
    ),
    _request(
        "a function by name",
        "the object arm of function_call",
        '"functions":[{"name":"f"}],"function_call":{"name":"f"}',
        'functions { name: "f" } function_call_object { name: "f" }',
    ),
    _request(
        "a JSON schema",
        "what openai-python's parse sends",
        '"response_format":{"type":"json_schema","json_schema":{"name":"r","description":"d",'
        '"schema":{"$defs":{},"type":"object","additionalProperties":false},"strict":true}}',
        'response_format { type: "json_schema" json_schema { name: "r" description: "d" schema { '
        'text: \'{"$defs":{},"type":"object","additionalProperties":false}\' } '
        "strict: true } }",
    ),
    _request(
        "a vendor's format",
        "vLLM's structural tags",
        '"response_format":{"type":"structural_tag","structures":[{"begin":"<f>"}]}',
        'response_format { type: "structural_tag" extra_json { key: "structures" '
        'value: \'[{"begin":"<f>"}]\' } }',
    ),
    _request(
        "audio",
        "a voice by name",
        '"modalities":["text","audio"],"audio":{"voice":"alloy","format":"wav"}',
        'modalities: "text" modalities: "audio" audio { voice_name: "alloy" format: "wav" }',
    ),
    _request(
        "a voice of one's own",
        "the object arm of voice",
        '"modalities":["audio"],"audio":{"voice":{"id":"v-1"},"format":"pcm16"}',
        'modalities: "audio" audio { voice_object { id: "v-1" } format: "pcm16" }',
    ),
    _request(
        "a prediction",
        "a union inside of an object",
        '"prediction":{"type":"content","content":"x"}',
        'prediction { type: "content" content_text: "x" }',
    ),
    _request(
        "a prediction in parts",
        "the list arm",
        '"prediction":{"type":"content","content":[{"type":"text","text":"x"}]}',
        'prediction { type: "content" content_parts { items { type: "text" text: "x" } } }',
    ),
    _request(
        "web search",
        "four levels of objects; a null location",
        '"web_search_options":{"search_context_size":"low","user_location":{"type":"approximate",'
        '"approximate":{"country":"CH","region":"ZH","city":"Zürich","timezone":null}}}',
        'web_search_options { search_context_size: "low" user_location { type: "approximate" '
        'approximate { country: "CH" region: "ZH" city: "Zürich" '
        'null_fields: "\\x04" } } }',
    ),
    _request(
        "empty objects",
        "an object without members is there",
        '"stream_options":{},"stream":true,"web_search_options":{},"prompt_cache_options":{}',
        "stream_options { } stream: true web_search_options { } prompt_cache_options { }",
    ),
    _request(
        "everything by name",
        "plain strings and booleans",
        '"reasoning_effort":"high","verbosity":"low","store":false,"service_tier":"flex",'
        '"safety_identifier":"s","prompt_cache_key":"k",'
        '"prompt_cache_options":{"ttl":"30m","mode":"explicit"}',
        'reasoning_effort: "high" verbosity: "low" store: false service_tier: "flex" '
        'safety_identifier: "s" prompt_cache_key: "k" '
        'prompt_cache_options { ttl: "30m" mode: "explicit" }',
    ),
    _request(
        "moderation",
        "a policy for one direction, null for the other",
        '"moderation":{"model":"omni","policy":{"input":{"mode":"block"},"output":null}}',
        'moderation { model: "omni" policy { input { mode: "block" } null_fields: "\\x02" } }',
    ),
    _request(
        "vendor members",
        "what vLLM and others add travels as it is",
        '"top_k":-1,"min_p":0.050,"stop_token_ids":[1,2],"chat_template_kwargs":{"a":{"b":null}},'
        '"guided_json":"{}","extra_big":123456789012345678901234567890,"flag":true',
        'extra_json { key: "top_k" value: "-1" } extra_json { key: "min_p" value: "0.050" } '
        'extra_json { key: "stop_token_ids" value: "[1,2]" } '
        'extra_json { key: "chat_template_kwargs" value: \'{"a":{"b":null}}\' } '
        'extra_json { key: "guided_json" value: \'"{}"\' } '
        'extra_json { key: "extra_big" value: "123456789012345678901234567890" } '
        'extra_json { key: "flag" value: "true" }',
    ),
    _request(
        "odd names",
        "an empty name, a quoted one, a name of ours",
        '"":1,"\\"q":2,"extra_json":4,"stop_text":5,"a.b":6',
        'extra_json { key: "" value: "1" } '
        'extra_json { key: \'"\\\\"q"\' value: "2" } '
        'extra_json { key: "extra_json" value: "4" } '
        'extra_json { key: "stop_text" value: "5" } extra_json { key: "a.b" value: "6" }',
    ),
    _request(
        "half of a surrogate pair as a name",
        "the service rejects it",
        '"\\ud83d":3',
        'extra_json { key: \'"\\\\ud83d"\' value: "3" }',
    ),
    _messages(
        "a conversation",
        "each role",
        '{"role":"developer","content":"d","name":"n"},{"role":"system","content":"s"},'
        '{"role":"user","content":""},{"role":"assistant","content":"a","refusal":null}',
        'messages { role: "developer" content_text: "d" name: "n" } '
        'messages { role: "system" content_text: "s" } '
        'messages { role: "user" content_text: "" } '
        'messages { role: "assistant" content_text: "a" '
        'null_fields: "\\x07" }',
    ),
    _messages(
        "parts",
        "each kind of part",
        '{"role":"user","content":[{"type":"text","text":"t",'
        '"prompt_cache_breakpoint":{"mode":"explicit"}},'
        '{"type":"image_url","image_url":{"url":"data:image/png;base64,AA==","detail":"low"}},'
        '{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}},'
        '{"type":"file","file":{"filename":"f","file_data":"AA==","file_id":"i"}}]},'
        '{"role":"assistant","content":[{"type":"refusal","refusal":"r"}]}',
        'messages { role: "user" content_parts { items { type: "text" text: "t" '
        'prompt_cache_breakpoint { mode: "explicit" } } '
        'items { type: "image_url" image_url { url: "data:image/png;base64,AA==" detail: "low" } } '
        'items { type: "input_audio" input_audio { data: "AA==" format: "wav" } } '
        'items { type: "file" file { filename: "f" file_data: "AA==" file_id: "i" } } } } '
        'messages { role: "assistant" content_parts { items { type: "refusal" refusal: "r" } } }',
    ),
    _messages(
        "vendor parts",
        "a part of a type that the contract does not have",
        '{"role":"user","content":[{"type":"video_url","video_url":{"url":"u"},"uuid":"1"},'
        '{"type":"text","text":"t","cache_control":{"type":"ephemeral"}}]}',
        'messages { role: "user" content_parts { items { type: "video_url" '
        'extra_json { key: "video_url" value: \'{"url":"u"}\' } '
        'extra_json { key: "uuid" value: \'"1"\' } } '
        'items { type: "text" text: "t" '
        'extra_json { key: "cache_control" value: \'{"type":"ephemeral"}\' } } } }',
    ),
    _messages(
        "tool calls",
        "what runTools sends back; arguments are text and need not be JSON",
        '{"role":"user","content":"u"},{"role":"assistant","content":null,"tool_calls":['
        '{"id":"c1","type":"function","function":{"name":"f","arguments":"{\\"a\\": "}},'
        '{"id":"c2","type":"custom","custom":{"name":"g","input":"x"}}]},'
        '{"role":"tool","tool_call_id":"c1","content":"1"},'
        '{"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"2"}]}',
        'messages { role: "user" content_text: "u" } '
        'messages { role: "assistant" '
        'tool_calls { id: "c1" type: "function" '
        'function { name: "f" arguments: \'{"a": \' } } '
        'tool_calls { id: "c2" type: "custom" custom { name: "g" input: "x" } } '
        'null_fields: "\\x02" } '
        'messages { role: "tool" tool_call_id: "c1" content_text: "1" } '
        'messages { role: "tool" tool_call_id: "c2" '
        'content_parts { items { type: "text" text: "2" } } }',
    ),
    _messages(
        "a completion sent back",
        "openai-python echoes the nulls of what it received",
        '{"role":"user","content":"u"},{"role":"assistant","content":"a","refusal":null,'
        '"annotations":null,"audio":null,"function_call":null,"tool_calls":null,'
        '"reasoning":"r","reasoning_content":"rc"}',
        'messages { role: "user" content_text: "u" } '
        'messages { role: "assistant" content_text: "a" reasoning: "r" reasoning_content: "rc" '
        'null_fields: "\\x05\\x07\\x08\\x09\\x0a" }',
    ),
    _messages(
        "older calls",
        "a function's answer may be null",
        '{"role":"user","content":"u"},{"role":"assistant","content":null,'
        '"function_call":{"name":"f","arguments":"{}"}},'
        '{"role":"function","name":"f","content":null}',
        'messages { role: "user" content_text: "u" } '
        'messages { role: "assistant" function_call { name: "f" arguments: "{}" } '
        'null_fields: "\\x02" } '
        'messages { role: "function" name: "f" null_fields: "\\x02" }',
    ),
    _messages(
        "an audio message",
        "referred to by its id",
        '{"role":"user","content":"u"},{"role":"assistant","content":"a","audio":{"id":"a-1"}}',
        'messages { role: "user" content_text: "u" } '
        'messages { role: "assistant" content_text: "a" audio { id: "a-1" } }',
    ),
    _messages(
        "half of a surrogate pair",
        "no protobuf string can hold it; the rest is typed all the same. The service rejects it",
        '{"role":"user","content":"\\ud83d\\ude00"},{"role":"user","content":"\\ud83d"},'
        '{"role":"user","content":[{"type":"text","text":"a\\udc00b"}]}',
        'messages { role: "user" content_text: "😀" } '
        'messages { role: "user" extra_json { key: "content" value: \'"\\\\ud83d"\' } } '
        'messages { role: "user" content_parts { items { type: "text" '
        'extra_json { key: "text" value: \'"a\\\\udc00b"\' } } } }',
    ),
    _messages(
        "characters that end lines elsewhere",
        "legal in JSON strings, and not line ends in an event stream",
        '{"role":"user","content":"a\u2028b\u2029c\u0085d\\n\\r\\u0000\\u001f\x7f"}',
        'messages { role: "user" content_text: "a\u2028b\u2029c\u0085d\\n\\r\\000\\037\\177" }',
    ),
    _messages(
        "members of a vendor in a message",
        "at the object where they stand",
        '{"role":"user","content":"u","prefix":true,"cache_control":null,"meta":[{"a":[]}]}',
        'messages { role: "user" content_text: "u" '
        'extra_json { key: "prefix" value: "true" } '
        'extra_json { key: "cache_control" value: "null" } '
        'extra_json { key: "meta" value: \'[{"a":[]}]\' } }',
    ),
)


def _mistyped(name: str, members: str, *params: str, out_of_range: bool = False) -> MistypedGolden:
    return MistypedGolden(
        name=name,
        json='{"model":"default","messages":[{"role":"user","content":"Hi"}],' + members + "}",
        params=params,
        out_of_range=out_of_range,
    )


MISTYPED: tuple[MistypedGolden, ...] = (
    MistypedGolden(name="model", json='{"model":1,"messages":[{"role":"u"}]}', params=("model",)),
    MistypedGolden(
        name="messages as an object", json='{"model":"default","messages":{}}', params=("messages",)
    ),
    MistypedGolden(
        name="a message as a string",
        json='{"model":"default","messages":[{"role":"user","content":"Hi"},"x"]}',
        params=("messages[1]",),
    ),
    MistypedGolden(
        name="role and content",
        json='{"model":"default","messages":[{"role":1,"content":2},{"role":"user","content":{}}]}',
        params=("messages[0].content", "messages[0].role", "messages[1].content"),
    ),
    MistypedGolden(
        name="a part as a number",
        json='{"model":"default","messages":[{"role":"user","content":[{"type":"text"},7]}]}',
        params=("messages[0].content[1]",),
    ),
    MistypedGolden(
        name="a part's member",
        json='{"model":"default","messages":[{"role":"user","content":[{"type":"text","text":1},'
        '{"type":"image_url","image_url":{"url":[]}}]}]}',
        params=("messages[0].content[0].text", "messages[0].content[1].image_url.url"),
    ),
    _mistyped("temperature as a string", '"temperature":"1"', "temperature"),
    _mistyped("a boolean as a number", '"n":true,"top_p":false', "n", "top_p"),
    _mistyped("a number as a boolean", '"stream":1', "stream"),
    _mistyped("a fraction as an integer", '"max_tokens":1.5', "max_tokens"),
    _mistyped("an integer beyond int64", '"max_tokens":1e19', "max_tokens", out_of_range=True),
    _mistyped("an infinite double", '"temperature":1e999', "temperature", out_of_range=True),
    _mistyped("a number in stop", '"stop":["a",1]', "stop[1]"),
    _mistyped("stop as a number", '"stop":1', "stop"),
    _mistyped("tools as an object", '"tools":{"type":"function"}', "tools"),
    _mistyped("null in tools", '"tools":[null]', "tools[0]"),
    _mistyped("tool choice as a list", '"tool_choice":["auto"]', "tool_choice"),
    _mistyped("a bias as a string", '"logit_bias":{"1":"1"}', "logit_bias"),
    _mistyped("an infinite bias", '"logit_bias":{"1":1e400}', "logit_bias", out_of_range=True),
    _mistyped("metadata with a number", '"metadata":{"a":1}', "metadata"),
    _mistyped("an object as a string", '"stream_options":"x"', "stream_options"),
    _mistyped("a member of an object", '"audio":{"voice":1,"format":"wav"}', "audio.voice"),
    _mistyped("a tool's name", '"tools":[{"function":{"name":{}}}]', "tools[0].function.name"),
)
