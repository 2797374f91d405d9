package example.acme.assistant;

import example.chatcompletion.v1.ChatCompletionServiceGrpc;
import example.chatcompletion.v1.ChatCompletionServiceGrpc.ChatCompletionServiceBlockingStub;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.util.concurrent.TimeUnit;

/** The channel to the service, and the metadata of every call. */
final class Connection {
  /** One address, or a name of several: dns:///chat-service-headless:50051. */
  static final String TARGET = variable("CHAT_TARGET", "127.0.0.1:50051");

  static final String MODEL = variable("CHAT_MODEL", "default");

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  /** Returns a channel. A process needs one: it carries any number of calls at a time. */
  static ManagedChannel channel() {
    return Grpc.newChannelBuilder(TARGET, InsecureChannelCredentials.create()) // or Tls…
        // Each call goes to the next address of the name.
        .defaultLoadBalancingPolicy("round_robin")
        // Ping a silent server, also between calls, and notice within 10 s that it is gone.
        .keepAliveTime(60, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .keepAliveWithoutCalls(true)
        // The default of 4 MiB is too small for the largest answers.
        .maxInboundMessageSize(64 << 20)
        .build();
  }

  /** Returns a stub whose calls send the API key. */
  static ChatCompletionServiceBlockingStub stub(ManagedChannel channel) {
    var metadata = new Metadata();
    metadata.put(AUTHORIZATION, "Bearer " + variable("CHAT_KEY", ""));
    return ChatCompletionServiceGrpc.newBlockingStub(channel)
        .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
  }

  private static String variable(String name, String otherwise) {
    return System.getenv().getOrDefault(name, otherwise);
  }

  private Connection() {}
}
