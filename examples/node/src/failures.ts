// Why a call failed: the reason, the parameter at fault, and when to try again.

import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";
import { HELLO, within } from "./calls.js";
import type { Caller } from "./caller.js";
import { ChatCompletionService } from "./gen/chatcompletion/v1/chat_completion_service_pb.js";
import { ErrorDetailSchema, ErrorReason } from "./gen/chatcompletion/v1/error_pb.js";
import { RetryInfoSchema, StatusSchema } from "./gen/google/rpc/error_details_pb.js";

/** Returns a failure as one line. */
export function describe(error: ServiceError): string {
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const details = packed ? fromBinary(StatusSchema, packed as Buffer).details : [];
  const find = <T>(read: (one: (typeof details)[number]) => T | undefined) =>
    details.map(read).find((one) => one !== undefined);
  const found = find((one) => anyUnpack(one, ErrorDetailSchema));
  if (found === undefined) return error.message; // not from the service
  const delay = find((one) => anyUnpack(one, RetryInfoSchema))?.retryDelay;
  const again = delay ? `after ${durationMs(delay)} ms` : found.retryable ? "yes" : "no";
  return (
    `${ErrorReason[found.reason]} (HTTP ${found.httpStatus}, ` +
    `param ${found.error?.param ?? "none"}, retry ${again}): ${found.error?.message}`
  );
}

/** Sends a parameter that is out of range. */
export async function errors(caller: Caller): Promise<void> {
  const params = { ...HELLO, temperature: 3 };
  try {
    await caller.unary(
      ChatCompletionService.method.createChatCompletion, { params }, within(60_000),
    );
  } catch (error) {
    console.log(describe(error as ServiceError));
  }
}
