// The turns of a conversation: what was said, and the figures of an answer.

/** One turn, at the end of the conversation. */
export class Turn {
  stopped = false;
  summary = "";
  #log;
  #element;
  #choices = new Map();
  #pending = null;

  constructor(log, kind, name) {
    this.#log = log;
    this.#element = made("article", `turn ${kind}`, made("h2", "", name));
    log.append(this.#element);
    if (kind === "assistant") {
      this.#element.classList.add("running");
      this.#element.setAttribute("aria-busy", "true");
      this.#element.append(made("div", "said"));
    }
    log.scrollTop = log.scrollHeight;
  }

  /** Show a text. */
  say(text) {
    this.#element.append(made("div", "said", text));
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** Whether an answer has anything to show. */
  has(answer) {
    return [...answer.choices.values()].some(
      (choice) => choice.text || choice.reasoning || choice.calls.length,
    );
  }

  /** Show an answer so far, at the next frame. */
  show(answer) {
    this.#pending ??= requestAnimationFrame(() => {
      this.#pending = null;
      this.#draw(answer);
    });
  }

  /** Show the end of an answer: its failure, and its figures. */
  end({ failed, answer, first, took, cost, requestId }) {
    if (this.#pending !== null) cancelAnimationFrame(this.#pending);
    this.#pending = null;
    this.#draw(answer);
    this.#element.classList.remove("running");
    this.#element.removeAttribute("aria-busy");
    if (!this.has(answer)) this.#element.querySelector(".said")?.remove();
    if (failed) {
      const details = failed.details.filter(Boolean).join(" · ");
      this.#element.append(made("div", "failed", failed.message, made("small", "", details)));
    }
    const found = figures({ answer, first, took, cost, requestId, stopped: this.stopped });
    if (!failed || this.has(answer)) {
      const pairs = found.map(([name, value]) => made("div", "", made("dt", "", name), made("dd", "", value)));
      this.#element.append(made("dl", "figures", ...pairs));
      this.summary = found.slice(0, 3).map(([name, value]) => `${name}: ${value}`).join(", ");
    }
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  #draw(answer) {
    const follows = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 80;
    for (const [index, choice] of [...answer.choices].sort(([a], [b]) => a - b)) {
      const shown = this.#choice(index, answer.choices.size);
      fill(shown.reasoning, choice.reasoning);
      shown.reasoning.parentElement.hidden = choice.reasoning === "";
      fill(shown.text, choice.text);
      const calls = choice.calls.map((call) => `${call.name}(${call.input})`).join("\n");
      fill(shown.calls, calls);
      shown.calls.hidden = calls === "";
    }
    if (follows) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #choice(index, count) {
    if (this.#choices.size === 0) this.#element.querySelector(".said")?.remove();
    if (!this.#choices.has(index)) {
      const reasoning = made("div", "said");
      const thoughts = made("details", "", made("summary", "", "Reasoning"), reasoning);
      const text = made("div", "said");
      const calls = made("pre", "");
      if (count > 1 || index > 0) this.#element.append(made("h2", "", `Choice ${index + 1}`));
      this.#element.append(thoughts, calls, text);
      this.#choices.set(index, { reasoning, text, calls });
    }
    return this.#choices.get(index);
  }
}

const seconds = (milliseconds) =>
  milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;

const DECIMAL = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: false });

/** Milliseconds of output from which its speed is shown: an answer that arrives at once has none. */
const SHORTEST_OUTPUT = 100;

/** Return the figures of an answer, as pairs of a name and a value. */
export function figures({ answer, first, took, cost, requestId, stopped }) {
  const usage = answer.usage;
  const finish = [...answer.choices.values()].map((choice) => choice.finish).filter(Boolean);
  const found = [];
  if (first !== null) found.push(["First token", seconds(first)]);
  if (usage) found.push(["Tokens", `${usage.prompt_tokens ?? "?"} in, ${usage.completion_tokens ?? "?"} out`]);
  if (cost !== null) found.push(["Cost", `${DECIMAL.format(cost)} credits`]);
  if (usage?.completion_tokens > 1 && first !== null && took - first >= SHORTEST_OUTPUT) {
    const speed = ((usage.completion_tokens - 1) * 1000) / (took - first);
    found.push(["Speed", `${DECIMAL.format(speed)} tokens/s`]);
  }
  found.push(["Total", seconds(took)]);
  if (stopped || finish.length) found.push(["Ended", stopped ? "stopped" : [...new Set(finish)].join(", ")]);
  if (requestId) found.push(["Request", requestId]);
  return found;
}

function made(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

function fill(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
