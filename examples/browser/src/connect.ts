// The client, and the metadata of every call. Envoy keeps connections alive and balances calls.

import { createClient } from "@connectrpc/connect";
import type { Client, Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { ChatCompletionService } from "./gen/chatcompletion/v1/chat_completion_service_pb";

export type Chat = Client<typeof ChatCompletionService>;

const page = new URL(location.href).searchParams;

export const MODEL = page.get("model") ?? "default";

/** Sends the API key with each call. */
const withKey: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Bearer ${page.get("key") ?? ""}`);
  return next(request);
};

export const chat: Chat = createClient(
  ChatCompletionService,
  createGrpcWebTransport({
    baseUrl: page.get("target") ?? "http://127.0.0.1:8081",
    interceptors: [withKey],
    defaultTimeoutMs: 60_000, // the deadline bounds all work for a call, including the upstream's
  }),
);
