// The request as code: curl, Python, Node and grpcurl. The key stays in the variable CHAT_KEY.

/** The parameters that OpenAI's SDK for Python has names for. It takes others as `extra_body`. */
export const NAMED = new Set([
  "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
  "max_completion_tokens", "max_tokens", "messages", "metadata", "modalities", "model",
  "moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key",
  "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "response_format",
  "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options",
  "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
  "web_search_options",
]);

/** The parameters that are plain fields of ChatCompletionParams, by their JavaScript type. */
const PLAIN = typed({
  string: [
    "model", "prompt_cache_key", "reasoning_effort", "safety_identifier", "service_tier", "user",
    "verbosity",
  ],
  number: [
    "frequency_penalty", "max_completion_tokens", "max_tokens", "n", "presence_penalty", "seed",
    "temperature", "top_logprobs", "top_p",
  ],
  boolean: ["logprobs", "parallel_tool_calls", "store"],
});

/** The members that are plain fields of ChatMessage. */
const PLAIN_OF_MESSAGE = typed({
  string: ["name", "reasoning", "reasoning_content", "refusal", "role", "tool_call_id"],
});

function typed(names) {
  return new Map(Object.entries(names).flatMap(([kind, all]) => all.map((name) => [name, kind])));
}

/** Return the request as a curl command. */
export function curl(base, text) {
  const streams = parsed(text).stream === true ? " -N" : "";
  return [
    `curl${streams} ${quoted(`${base}/chat/completions`)} \\`,
    `  -H "Authorization: Bearer $CHAT_KEY" -H 'Content-Type: application/json' \\`,
    `  -d ${quoted(text)}`,
  ].join("\n");
}

/** Return the request as a program with OpenAI's SDK for Python. */
export function python(base, text) {
  const named = [];
  const others = {};
  for (const [name, value] of Object.entries(parsed(text))) {
    if (NAMED.has(name)) named.push(`    ${name}=${pythonic(value, 4)},`);
    else others[name] = value;
  }
  if (Object.keys(others).length) named.push(`    extra_body=${pythonic(others, 4)},`);
  const streams = parsed(text).stream === true;
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(base)}, api_key=os.environ["CHAT_KEY"])`,
    `${streams ? "stream" : "completion"} = client.chat.completions.create(`,
    ...named,
    ")",
    ...(streams
      ? [
          "for chunk in stream:",
          "    for choice in chunk.choices:",
          '        print(choice.delta.content or "", end="", flush=True)',
        ]
      : ["print(completion.choices[0].message.content)"]),
    "",
  ].join("\n");
}

/** Return the request as a program with OpenAI's SDK for Node.js. */
export function node(base, text) {
  const streams = parsed(text).stream === true;
  const request = JSON.stringify(parsed(text), null, 2);
  return [
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: ${JSON.stringify(base)}, apiKey: process.env.CHAT_KEY });`,
    `const ${streams ? "stream" : "completion"} = await client.chat.completions.create(${request});`,
    ...(streams
      ? [
          "for await (const chunk of stream) {",
          '  process.stdout.write(chunk.choices[0]?.delta.content ?? "");',
          "}",
        ]
      : ["console.log(completion.choices[0].message.content);"]),
    "",
  ].join("\n");
}

/** Return the request as a grpcurl command for the service behind the bridge. */
export function grpcurl(base, text) {
  const request = parsed(text);
  const method = request.stream === true ? "StreamChatCompletion" : "CreateChatCompletion";
  const host = new URL(base).hostname;
  return [
    'grpcurl -plaintext -H "Authorization: Bearer $CHAT_KEY" \\',
    `  -d ${quoted(JSON.stringify({ params: message(request) }, null, 2))} \\`,
    `  ${host}:50051 chatcompletion.v1.ChatCompletionService/${method}`,
  ].join("\n");
}

/** Return the parameters as the JSON form of the protobuf message ChatCompletionParams.
 *
 * The service reads each member that has no field here from extra_json, as text.
 */
export function message(request) {
  const params = {};
  const extra = {};
  for (const [name, value] of Object.entries(request)) {
    if (name === "stream") continue; // the method decides
    else if (name === "messages" && isMessages(value)) params.messages = value.map(chatMessage);
    else if (name === "stop" && typeof value === "string") params.stop_text = value;
    else if (PLAIN.get(name) === typeof value) params[name] = value;
    else if (name === "stream_options" && isPlainOptions(value)) params[name] = value;
    else extra[name] = JSON.stringify(value);
  }
  return Object.keys(extra).length ? { ...params, extra_json: extra } : params;
}

function chatMessage(said) {
  const fields = {};
  const extra = {};
  for (const [name, value] of Object.entries(said)) {
    if (name === "content" && typeof value === "string") fields.content_text = value;
    else if (PLAIN_OF_MESSAGE.get(name) === typeof value) fields[name] = value;
    else extra[name] = JSON.stringify(value);
  }
  return Object.keys(extra).length ? { ...fields, extra_json: extra } : fields;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

const isMessages = (value) => Array.isArray(value) && value.length > 0 && value.every(isObject);

const isPlainOptions = (value) =>
  isObject(value) &&
  Object.entries(value).every(([name, on]) => name === "include_usage" && typeof on === "boolean");

function parsed(text) {
  const value = JSON.parse(text);
  if (!isObject(value)) throw new SyntaxError("The request must be a JSON object.");
  return value;
}

const quoted = (text) => (/^[\w:/.@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function pythonic(value, indent) {
  const inner = " ".repeat(indent + 4);
  const outer = " ".repeat(indent);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const items = isList
    ? value.map((item) => `${inner}${pythonic(item, indent + 4)},\n`)
    : Object.entries(value).map(
        ([name, item]) => `${inner}${JSON.stringify(name)}: ${pythonic(item, indent + 4)},\n`,
      );
  const [open, close] = isList ? "[]" : "{}";
  return items.length ? `${open}\n${items.join("")}${outer}${close}` : open + close;
}
