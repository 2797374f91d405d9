// A function that the model calls.

import { create } from "@bufbuild/protobuf";
import { said } from "./calls";
import type { Print } from "./calls";
import { MODEL } from "./connect";
import type { Chat } from "./connect";
import { ChatCompletionParamsSchema, ChatMessageSchema } from "./gen/chatcompletion/v1/chat_completion_pb";

const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

const GET_WEATHER = {
  type: "function",
  function: { name: "get_weather", parameters: { text: JSON.stringify(SCHEMA) } }, // stays text
};

/** Returns the result as JSON. A model can send arguments that are no JSON. */
const getWeather = (asked: string) => JSON.stringify({ asked, degrees: 21 });

/** Asks, runs the functions that the model calls, and sends their results back. */
export async function tools(chat: Chat, print: Print): Promise<void> {
  const params = create(ChatCompletionParamsSchema, {
    model: MODEL,
    messages: [said("user", "Call get_weather for Paris.")],
    tools: [GET_WEATHER],
  });
  for (;;) {
    const { completion } = await chat.createChatCompletion({ params });
    const message = completion!.choices[0].message!;
    if (message.toolCalls.length === 0) {
      print(`${message.content.value}\n`);
      return;
    }
    params.messages.push(message); // the model reads its own calls
    for (const call of message.toolCalls) {
      print(`called ${call.function?.name}\n`);
      const result = said("tool", getWeather(call.function?.arguments ?? ""));
      params.messages.push(create(ChatMessageSchema, { ...result, toolCallId: call.id }));
    }
  }
}
