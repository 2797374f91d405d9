// A whole answer, a stream, a deadline and a cancellation.

import { status } from "@grpc/grpc-js";
import type { ServiceError } from "@grpc/grpc-js";
import type { Caller } from "./caller.js";
import { MODEL } from "./connect.js";
import { ChatCompletionService } from "./gen/chatcompletion/v1/chat_completion_service_pb.js";

const { createChatCompletion, streamChatCompletion } = ChatCompletionService.method;

/** Returns a message with a text. A oneof is an object with its case and its value. */
export const said = (role: string, text: string) =>
  ({ role, content: { case: "contentText", value: text } }) as const;

export const HELLO = { model: MODEL, messages: [said("user", "Hello")] };

/** Returns the options of a call that ends within a number of milliseconds. */
export const within = (milliseconds: number) => ({ deadline: Date.now() + milliseconds });

/** Prints a whole answer and its number of tokens. */
export async function unary(caller: Caller): Promise<void> {
  // The deadline bounds all work for the call, including the upstream's.
  const response = await caller.unary(createChatCompletion, { params: HELLO }, within(60_000));
  for (const { message } of response.completion?.choices ?? []) {
    console.log(message?.content.value);
  }
  console.log(`${response.completion?.usage?.totalTokens} tokens`);
}

/** Prints an answer while it arrives. A stream that ends without an error is complete. */
export async function stream(caller: Caller): Promise<void> {
  for await (const { chunk } of caller.stream(
    streamChatCompletion, { params: HELLO }, within(60_000),
  )) {
    for (const { delta } of chunk?.choices ?? []) {
      if (delta?.content.case === "contentText") process.stdout.write(delta.content.value);
    }
  }
  process.stdout.write("\n");
}

/** Gives a call less time than it needs. */
export async function deadline(caller: Caller): Promise<void> {
  try {
    await caller.unary(createChatCompletion, { params: HELLO }, within(50));
  } catch (error) {
    console.log(status[(error as ServiceError).code]);
  }
}

/** Stops after the first chunk. The service then closes its request to the upstream. */
export async function cancel(caller: Caller): Promise<void> {
  const call = caller.stream(streamChatCompletion, { params: HELLO }, within(60_000));
  try {
    for await (const _ of call) call.cancel();
  } catch (error) {
    console.log(status[(error as ServiceError).code]);
  }
}
