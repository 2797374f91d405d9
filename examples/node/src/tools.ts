// A function that the model calls.

import { create } from "@bufbuild/protobuf";
import { said, within } from "./calls.js";
import type { Caller } from "./caller.js";
import { MODEL } from "./connect.js";
import { ChatCompletionParamsSchema, ChatMessageSchema } from "./gen/chatcompletion/v1/chat_completion_pb.js";
import { ChatCompletionService } from "./gen/chatcompletion/v1/chat_completion_service_pb.js";

const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

const GET_WEATHER = {
  type: "function",
  function: { name: "get_weather", parameters: { text: JSON.stringify(SCHEMA) } }, // stays text
};

/** Returns the result as JSON. A model can send arguments that are no JSON. */
const getWeather = (asked: string) => JSON.stringify({ asked, degrees: 21 });

/** Asks, runs the functions that the model calls, and sends their results back. */
export async function tools(caller: Caller): Promise<void> {
  const params = create(ChatCompletionParamsSchema, {
    model: MODEL,
    messages: [said("user", "Call get_weather for Paris.")],
    tools: [GET_WEATHER],
  });
  for (;;) {
    const response = await caller.unary(
      ChatCompletionService.method.createChatCompletion, { params }, within(60_000),
    );
    const message = response.completion!.choices[0].message!;
    if (message.toolCalls.length === 0) {
      console.log(message.content.value);
      return;
    }
    params.messages.push(message); // the model reads its own calls
    for (const call of message.toolCalls) {
      console.log("called", call.function?.name);
      const result = said("tool", getWeather(call.function?.arguments ?? ""));
      params.messages.push(create(ChatMessageSchema, { ...result, toolCallId: call.id }));
    }
  }
}
