// Server-sent events, as the bridge sends them: `data: {…}` lines, comments, `data: [DONE]`.

/** Yield the data of each event of a stream of bytes. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  }
}

/** Add a chunk of a streamed completion to the answer so far. */
export function add(answer, chunk) {
  for (const piece of chunk.choices ?? []) {
    const choice = choiceOf(answer, piece.index ?? 0);
    take(choice, piece.delta ?? {});
    if (piece.finish_reason) choice.finish = piece.finish_reason;
  }
  if (chunk.usage) answer.usage = chunk.usage;
  if (chunk.model) answer.model = chunk.model;
}

/** Return the answer of a completion that was not streamed. */
export function whole(completion) {
  const answer = empty();
  for (const each of completion.choices ?? []) {
    const choice = choiceOf(answer, each.index ?? 0);
    take(choice, each.message ?? {});
    choice.finish = each.finish_reason ?? "";
  }
  answer.usage = completion.usage ?? null;
  answer.model = completion.model ?? "";
  return answer;
}

/** Return an answer without anything in it. */
export function empty() {
  return { choices: new Map(), usage: null, model: "" };
}

function choiceOf(answer, index) {
  if (!answer.choices.has(index)) {
    answer.choices.set(index, { text: "", reasoning: "", calls: [], finish: "" });
  }
  return answer.choices.get(index);
}

function take(choice, said) {
  choice.text += textOf(said.content) + (said.refusal ?? "");
  choice.reasoning += said.reasoning_content ?? said.reasoning ?? "";
  for (const [position, call] of (said.tool_calls ?? []).entries()) {
    const known = (choice.calls[call.index ?? position] ??= { id: "", name: "", input: "" });
    const body = call.function ?? call.custom ?? {};
    known.id ||= call.id ?? "";
    known.name += body.name ?? "";
    known.input += body.arguments ?? body.input ?? "";
  }
}

function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map((part) => part.text ?? "").join("");
}

const SUFFICIENT = new Set(["prompt", "completion", "effective_from"]);

/** Return the cost of an answer in credits: the reported one, or one from the model's prices. */
export function cost(usage, pricing) {
  if (!usage) return null;
  if (usage.cost != null) return Number(usage.cost);
  if (pricing?.prompt == null || pricing?.completion == null) return null;
  // Other prices can apply to some of the tokens.
  if (Object.keys(pricing).some((name) => !SUFFICIENT.has(name))) return null;
  return (
    (usage.prompt_tokens ?? 0) * Number(pricing.prompt) +
    (usage.completion_tokens ?? 0) * Number(pricing.completion)
  );
}
