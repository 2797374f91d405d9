// The actions of a user of OpenAI's SDK. Each returns its result as JSON.

import { z } from "zod";

const HELLO = [{ role: "user", content: "Hello" }];

const Weather = z.object({
  city: z.string(),
  days: z.number().int(),
  unit: z.enum(["celsius", "fahrenheit"]),
});

export function described(error) {
  const { status, code, type, param, requestID, message } = error;
  return {
    class: error.constructor.name,
    status: status ?? null,
    code: code ?? null,
    type: type ?? null,
    param: param ?? null,
    requestID: requestID ?? null,
    shouldRetry: error.headers?.get("x-should-retry") ?? null,
    message,
  };
}

// The clock of the upstream's records: CLOCK_MONOTONIC, in seconds.
const now = () => Number(process.hrtime.bigint()) / 1e9;

async function collected(stream) {
  const chunks = [];
  try {
    for await (const chunk of stream) chunks.push(chunk);
  } catch (error) {
    return { chunks, error: described(error) };
  }
  return { chunks, error: null };
}

let held = null;

export const cases = {
  async create({ client }, members) {
    const completion = await client.chat.completions.create({ messages: HELLO, ...members });
    return { completion, requestID: completion._request_id };
  },

  async stream({ client }, members) {
    const request = { messages: HELLO, stream: true, ...members };
    return await collected(await client.chat.completions.create(request));
  },

  async streamHelper({ client }, members) {
    const events = [];
    const stream = client.chat.completions
      .stream({ messages: HELLO, ...members })
      .on("content", () => events.push("content"))
      .on("finalContent", () => events.push("finalContent"))
      .on("end", () => events.push("end"));
    const completion = await stream.finalChatCompletion();
    return { events, completion, usage: await stream.totalUsage() };
  },

  async parse({ client, zod }, members) {
    const response_format = zod.zodResponseFormat(Weather, "weather");
    const request = { messages: HELLO, response_format, ...members };
    const whole = await client.chat.completions.parse(request);
    const streamed = await client.chat.completions.stream(request).finalChatCompletion();
    return {
      parsed: Weather.parse(whole.choices[0].message.parsed),
      streamed: Weather.parse(streamed.choices[0].message.parsed),
    };
  },

  async tools({ client, zod }, members) {
    const request = {
      messages: HELLO,
      tools: [zod.zodFunction({ name: "weather", parameters: Weather })],
      tool_choice: { type: "function", function: { name: "weather" } },
      ...members,
    };
    const whole = await client.chat.completions.parse(request);
    const streamed = await client.chat.completions.stream(request).finalChatCompletion();
    const called = (completion) => {
      const [call] = completion.choices[0].message.tool_calls;
      return { ...call.function, id: call.id, finish_reason: completion.choices[0].finish_reason };
    };
    return { whole: called(whole), streamed: called(streamed) };
  },

  async runTools({ client, zod }, members) {
    const asked = [];
    const run = (streamed) =>
      client.chat.completions.runTools({
        messages: [{ role: "user", content: "Which weather?" }],
        tools: [
          zod.zodFunction({
            name: "weather",
            parameters: Weather,
            function: (question) => {
              asked.push(Weather.parse(question));
              return "Rain.";
            },
          }),
        ],
        ...(streamed ? { stream: true } : {}),
        ...members,
      });
    const whole = run(false);
    const contents = [await whole.finalContent()];
    contents.push(await run(true).finalContent());
    return {
      contents,
      roles: whole.messages.map((message) => message.role),
      asked,
    };
  },

  async withResponse({ client }, members) {
    const headers = async (request, options) => {
      const { data, response, request_id } = await client.chat.completions
        .create({ messages: HELLO, ...members, ...request }, options)
        .withResponse();
      if (request.stream) await collected(data);
      return { ...Object.fromEntries(response.headers), requestID: request_id };
    };
    return {
      whole: await headers({}, { headers: { "x-request-id": "req-of-the-caller" } }),
      streamed: await headers({ stream: true }),
    };
  },

  async models({ client }, { model }) {
    const ids = [];
    for await (const listed of client.models.list()) ids.push(listed.id);
    return { ids, found: await client.models.retrieve(model) };
  },

  async unknownModel({ client }, { model }) {
    return await client.models.retrieve(model);
  },

  // Several concurrent requests with different options, each of which fails.
  async failures({ OpenAI, options }, { requests }) {
    return await Promise.all(
      requests.map(async ({ options: own, members, headers, route }) => {
        const client = new OpenAI({ ...options, ...own });
        try {
          if (route) {
            const [method, path] = route;
            await client[method](path, method === "get" ? {} : { body: members });
          } else {
            await client.chat.completions.create(members, { headers });
          }
        } catch (error) {
          return described(error);
        }
        return null;
      }),
    );
  },

  // --------------------------------------------------------------------------- disconnections

  async leaveByAbort({ client }, members) {
    const request = { messages: HELLO, stream: true, ...members };
    const stream = await client.chat.completions.create(request);
    let at;
    for await (const _ of stream) {
      at = now();
      stream.controller.abort();
    }
    return { at };
  },

  async leaveByBreak({ client }, members) {
    const request = { messages: HELLO, stream: true, ...members };
    const stream = await client.chat.completions.create(request);
    let at;
    for await (const _ of stream) {
      at = now();
      break;
    }
    return { at };
  },

  async leaveByHelper({ client }, members) {
    const stream = client.chat.completions.stream({ messages: HELLO, ...members });
    const at = new Promise((resolve) => {
      stream.once("chunk", () => {
        resolve(now());
        stream.abort();
      });
    });
    await stream.done().catch(() => {});
    return { at: await at, aborted: stream.aborted };
  },

  // `hold` starts a request without a response; `leave` aborts it.
  async hold({ client }, members) {
    const controller = new AbortController();
    const request = { messages: HELLO, ...members };
    const failure = client.chat.completions
      .create(request, { signal: controller.signal })
      .then(() => null, described);
    held = { controller, failure };
  },

  async leave() {
    const at = now();
    held.controller.abort();
    return { at, error: await held.failure };
  },
};
