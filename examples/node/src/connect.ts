// The connection to the service, and the metadata of every call.

import { Client, Metadata, credentials } from "@grpc/grpc-js";
import { Caller } from "./caller.js";

/** One address, or a name of several: dns:///chat-service-headless:50051. */
const TARGET = process.env.CHAT_TARGET ?? "127.0.0.1:50051";

export const MODEL = process.env.CHAT_MODEL ?? "default";

const OPTIONS = {
  // Each call goes to the next address of the name.
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  // Ping a silent server, also between calls, and notice within 10 s that it is gone.
  "grpc.keepalive_time_ms": 60_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1,
  // The default of 4 MiB is too small for the largest answers.
  "grpc.max_receive_message_length": 64 * 1024 * 1024,
};

/** Returns a client and its caller. A process needs one: it carries any number of calls. */
export function connect(): { client: Client; caller: Caller } {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${process.env.CHAT_KEY ?? ""}`);
  const client = new Client(TARGET, credentials.createInsecure(), OPTIONS); // or createSsl
  return { client, caller: new Caller(client, metadata) };
}
