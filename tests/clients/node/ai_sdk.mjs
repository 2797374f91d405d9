// Vercel's AI SDK, with the provider that the first argument names.
//
//     node ai_sdk.mjs openai-compatible      @ai-sdk/openai-compatible
//     node ai_sdk.mjs openai                 @ai-sdk/openai, its model for Chat Completions

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const options = { baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY };
const providers = {
  "openai-compatible": () =>
    createOpenAICompatible({
      name: "bridge",
      includeUsage: true,
      supportsStructuredOutputs: true,
      ...options,
    }),
  openai: () => createOpenAI(options).chat,
};
const model = providers[process.argv[2]]();
const Weather = z.object({ city: z.string(), days: z.number().int() });
const HELLO = { role: "user", content: "Hello" };
const BROKEN = ["broken-error", "broken-cut", "broken-end", "broken-first"];

const ask = (name, members) => generateText({ model: model(name), maxRetries: 0, ...members });

async function streamed(name) {
  const pieces = [];
  const told = await collected(name, pieces).catch(described);
  return { ...told, text: pieces.join(""), pieces: pieces.length };
}

async function collected(name, pieces) {
  let failure;
  const answer = streamText({
    model: model(name),
    messages: [HELLO],
    maxRetries: 0,
    onError: ({ error }) => (failure ??= error),
  });
  try {
    for await (const piece of answer.textStream) pieces.push(piece);
  } catch (error) {
    failure ??= error; // the end of the connection, after the error event
  }
  if (failure) throw failure;
  return { tokens: (await answer.usage).outputTokens };
}

const scenarios = {
  async whole() {
    const { text, usage } = await ask("whole", { messages: [HELLO] });
    return { text, tokens: usage.outputTokens };
  },
  streamed: () => streamed("streamed"),
  async tools() {
    const question = {
      messages: [{ role: "user", content: "Which weather?" }],
      tools: { weather: tool({ inputSchema: Weather, execute: () => "Rain." }) },
      stopWhen: stepCountIs(3),
    };
    const { text, steps } = await ask("tools", question);
    const streaming = streamText({ model: model("tools"), maxRetries: 0, ...question });
    const streamedSteps = await streaming.steps;
    const [call] = steps[0].toolCalls;
    same(streamedSteps[0].toolCalls[0].input, call.input);
    same(await streaming.text, text);
    return { text, call: { name: call.toolName, arguments: call.input } };
  },
  async structured() {
    const question = { messages: [HELLO], output: Output.object({ schema: Weather }) };
    const whole = await ask("structured", question);
    const pieces = streamText({ model: model("structured"), maxRetries: 0, ...question });
    for await (const _ of pieces.textStream);
    const last = await pieces.output;
    same(last, whole.output);
    return { object: whole.output };
  },
  refused: () => ask("refused", { messages: [HELLO], topP: 3 }),
  async history() {
    const first = await ask("history", { messages: [HELLO] });
    const again = { role: "user", content: "And once more?" };
    const messages = [HELLO, ...first.response.messages, again];
    return { text: (await ask("history", { messages })).text };
  },
  ...Object.fromEntries(BROKEN.map((name) => [name, () => streamed(name)])),
};

function same(streamed, whole) {
  if (JSON.stringify(streamed) !== JSON.stringify(whole)) throw new Error("not the same");
}

function described(error) {
  return { error: { class: error?.name ?? typeof error, message: String(error?.message ?? error) } };
}

for (const [scenario, run] of Object.entries(scenarios)) {
  const told = await run().catch(described);
  console.log(JSON.stringify({ scenario, ...told }));
}
