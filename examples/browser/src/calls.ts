// A whole answer, a stream, a deadline and a cancellation.

import { Code, ConnectError } from "@connectrpc/connect";
import { MODEL } from "./connect";
import type { Chat } from "./connect";

export type Print = (text: string) => void;

/** Returns a message with a text. A oneof is an object with its case and its value. */
export const said = (role: string, text: string) =>
  ({ role, content: { case: "contentText", value: text } }) as const;

export const HELLO = { model: MODEL, messages: [said("user", "Hello")] };

/** Prints a whole answer and its number of tokens. */
export async function unary(chat: Chat, print: Print): Promise<void> {
  const { completion } = await chat.createChatCompletion({ params: HELLO });
  for (const { message } of completion?.choices ?? []) print(`${message?.content.value}\n`);
  print(`${completion?.usage?.totalTokens} tokens\n`);
}

/** Prints an answer while it arrives. A stream that ends without an error is complete. */
export async function stream(chat: Chat, print: Print): Promise<void> {
  for await (const { chunk } of chat.streamChatCompletion({ params: HELLO })) {
    for (const { delta } of chunk?.choices ?? []) {
      if (delta?.content.case === "contentText") print(delta.content.value);
    }
  }
  print("\n");
}

/** Gives a call less time than it needs. */
export async function deadline(chat: Chat, print: Print): Promise<void> {
  try {
    await chat.createChatCompletion({ params: HELLO }, { timeoutMs: 50 });
  } catch (error) {
    print(`${Code[ConnectError.from(error).code]}\n`);
  }
}

/** Stops after the first chunk. The service then closes its request to the upstream. */
export async function cancel(chat: Chat, print: Print): Promise<void> {
  const stop = new AbortController();
  try {
    for await (const _ of chat.streamChatCompletion({ params: HELLO }, { signal: stop.signal })) {
      stop.abort();
    }
  } catch (error) {
    print(`${Code[ConnectError.from(error).code]}\n`);
  }
}
