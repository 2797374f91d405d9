// Why a call failed: the reason, the parameter at fault, and when to try again.

import { durationMs } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { HELLO } from "./calls";
import type { Print } from "./calls";
import type { Chat } from "./connect";
import { ErrorDetailSchema, ErrorReason } from "./gen/chatcompletion/v1/error_pb";
import { RetryInfoSchema } from "./gen/google/rpc/error_details_pb";

/** Returns a failure as one line. */
export function describe(thrown: unknown): string {
  const failure = ConnectError.from(thrown);
  const [found] = failure.findDetails(ErrorDetailSchema);
  if (found === undefined) return failure.message; // not from the service
  const delay = failure.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const again = delay ? `after ${durationMs(delay)} ms` : found.retryable ? "yes" : "no";
  return (
    `${ErrorReason[found.reason]} (HTTP ${found.httpStatus}, ` +
    `param ${found.error?.param ?? "none"}, retry ${again}): ${found.error?.message}`
  );
}

/** Sends a parameter that is out of range. */
export async function errors(chat: Chat, print: Print): Promise<void> {
  try {
    await chat.createChatCompletion({ params: { ...HELLO, temperature: 3 } });
  } catch (error) {
    print(`${describe(error)}\n`);
  }
}
