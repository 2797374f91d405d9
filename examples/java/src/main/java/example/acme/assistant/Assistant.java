package example.acme.assistant;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import example.chatcompletion.v1.ChatCompletionParams;
import example.chatcompletion.v1.ChatCompletionServiceGrpc;
import example.chatcompletion.v1.ChatMessage;
import example.chatcompletion.v1.CreateChatCompletionRequest;
import example.chatcompletion.v1.ErrorDetail;
import example.chatcompletion.v1.StreamChatCompletionRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.concurrent.TimeUnit;

/** Requests a completion from the service, then the same completion as a stream. */
public final class Assistant {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  public static void main(String[] arguments) throws Exception {
    var target = System.getenv().getOrDefault("CHAT_TARGET", "127.0.0.1:50051");
    var channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
    try {
      run(channel, System.getenv().getOrDefault("CHAT_KEY", ""));
    } catch (StatusRuntimeException failure) {
      System.err.println(describe(failure));
      System.exit(1);
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private static void run(ManagedChannel channel, String key) {
    var metadata = new Metadata();
    metadata.put(AUTHORIZATION, "Bearer " + key);
    // The deadline bounds both calls, including the upstream's work.
    var stub =
        ChatCompletionServiceGrpc.newBlockingStub(channel)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata))
            .withDeadlineAfter(30, TimeUnit.SECONDS);
    var params =
        ChatCompletionParams.newBuilder()
            .setModel("default")
            .addMessages(ChatMessage.newBuilder().setRole("user").setContentText("Hello"))
            .build();

    var request = CreateChatCompletionRequest.newBuilder().setParams(params).build();
    var completion = stub.createChatCompletion(request).getCompletion();
    completion.getChoicesList().stream()
        .map(choice -> choice.getMessage().getContentText())
        .forEach(System.out::println);
    System.out.println(completion.getUsage().getTotalTokens() + " tokens");

    var streamed = StreamChatCompletionRequest.newBuilder().setParams(params).build();
    stub.streamChatCompletion(streamed)
        .forEachRemaining(
            response ->
                response.getChunk().getChoicesList().stream()
                    .map(choice -> choice.getDelta().getContentText())
                    .forEach(System.out::print));
    System.out.println(); // No exception: the stream is complete.
  }

  /** Returns the reason, the HTTP status and the message of a failed call. */
  private static String describe(StatusRuntimeException failure)
      throws InvalidProtocolBufferException {
    for (Any found : StatusProto.fromThrowable(failure).getDetailsList()) {
      if (found.is(ErrorDetail.class)) {
        ErrorDetail detail = found.unpack(ErrorDetail.class);
        return "%s (HTTP %d, retryable: %s): %s"
            .formatted(
                detail.getReason().name().replaceFirst("^ERROR_REASON_", ""),
                detail.getHttpStatus(),
                detail.getRetryable(),
                detail.getError().getMessage());
      }
    }
    return failure.getMessage(); // Not from the service: for example, the connection failed.
  }

  private Assistant() {}
}
