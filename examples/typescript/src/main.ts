// Requests a completion from the service, then the same completion as a stream.
import { create } from "@bufbuild/protobuf";
import { type CallOptions, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { ChatCompletionParamsSchema } from "./gen/chatcompletion/v1/chat_completion_pb.js";
import { ChatCompletionService } from "./gen/chatcompletion/v1/chat_completion_service_pb.js";
import { ErrorDetailSchema, ErrorReason } from "./gen/chatcompletion/v1/error_pb.js";

async function run(target: string, key: string): Promise<void> {
  const client = createClient(
    ChatCompletionService,
    createGrpcTransport({ baseUrl: `http://${target}` }),
  );
  const params = create(ChatCompletionParamsSchema, {
    model: "default",
    messages: [{ role: "user", content: { case: "contentText", value: "Hello" } }],
  });
  // The deadline bounds each call, including the upstream's work.
  const options: CallOptions = {
    headers: { authorization: `Bearer ${key}` },
    timeoutMs: 30_000,
  };

  const { completion } = await client.createChatCompletion({ params }, options);
  for (const { message } of completion?.choices ?? []) {
    console.log(message?.content.case === "contentText" ? message.content.value : "");
  }
  console.log(`${completion?.usage?.totalTokens ?? 0n} tokens`);

  for await (const { chunk } of client.streamChatCompletion({ params }, options)) {
    for (const { delta } of chunk?.choices ?? []) {
      if (delta?.content.case === "contentText") process.stdout.write(delta.content.value);
    }
  }
  console.log(); // No error: the stream is complete.
}

/** Returns the reason, the HTTP status and the message of a failed call. */
function describe(thrown: unknown): string {
  const failure = ConnectError.from(thrown);
  const [detail] = failure.findDetails(ErrorDetailSchema);
  if (detail === undefined) return failure.message; // Not from the service: for example, the connection failed.
  const { error, httpStatus, reason, retryable } = detail;
  return `${ErrorReason[reason]} (HTTP ${httpStatus}, retryable: ${retryable}): ${error?.message}`;
}

try {
  await run(process.env.CHAT_TARGET ?? "127.0.0.1:50051", process.env.CHAT_KEY ?? "");
} catch (error) {
  console.error(describe(error));
  process.exitCode = 1;
}
