// Calls methods of services that protoc-gen-es generated, with grpc-js.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type {
  DescMessage, DescMethod, DescMethodServerStreaming, DescMethodUnary, MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { Client, Metadata } from "@grpc/grpc-js";
import type { CallOptions, ClientReadableStream } from "@grpc/grpc-js";

export class Caller {
  constructor(
    private readonly client: Client,
    private readonly metadata: Metadata,
  ) {}

  /** Returns the response. Rejects with a ServiceError. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageInitShape<I>, options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      this.client.makeUnaryRequest(
        path(method), writer(method), reader(method), create(method.input, request),
        this.metadata, options, (error, response) => (error ? reject(error) : resolve(response!)),
      );
    });
  }

  /** Returns the responses as a stream to iterate with `for await`. Throws a ServiceError. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>, request: MessageInitShape<I>,
    options: CallOptions = {},
  ): ClientReadableStream<MessageShape<O>> {
    return this.client.makeServerStreamRequest(
      path(method), writer(method), reader(method), create(method.input, request),
      this.metadata, options,
    );
  }
}

const path = (method: DescMethod) => `/${method.parent.typeName}/${method.name}`;

const writer = <I extends DescMessage>(method: { input: I }) =>
  (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message));

const reader = <O extends DescMessage>(method: { output: O }) =>
  (bytes: Buffer) => fromBinary(method.output, bytes);
