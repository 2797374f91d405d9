package example.acme.assistant;

import example.chatcompletion.v1.ChatCompletionParams;
import example.chatcompletion.v1.ChatCompletionServiceGrpc.ChatCompletionServiceBlockingStub;
import example.chatcompletion.v1.ChatMessage;
import example.chatcompletion.v1.CreateChatCompletionRequest;
import example.chatcompletion.v1.StreamChatCompletionRequest;
import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.util.concurrent.TimeUnit;

/** A whole answer, a stream, a deadline and a cancellation. */
final class Calls {
  static final ChatCompletionParams HELLO =
      ChatCompletionParams.newBuilder()
          .setModel(Connection.MODEL)
          .addMessages(ChatMessage.newBuilder().setRole("user").setContentText("Hello"))
          .build();

  private static final CreateChatCompletionRequest WHOLE =
      CreateChatCompletionRequest.newBuilder().setParams(HELLO).build();
  private static final StreamChatCompletionRequest STREAMED =
      StreamChatCompletionRequest.newBuilder().setParams(HELLO).build();

  /** Prints a whole answer and its number of tokens. */
  static void unary(ChatCompletionServiceBlockingStub stub) {
    // The deadline bounds all work for the call, including the upstream's.
    var timed = stub.withDeadlineAfter(60, TimeUnit.SECONDS);
    var completion = timed.createChatCompletion(WHOLE).getCompletion();
    for (var choice : completion.getChoicesList()) {
      System.out.println(choice.getMessage().getContentText());
    }
    System.out.println(completion.getUsage().getTotalTokens() + " tokens");
  }

  /** Prints an answer while it arrives. A stream that ends without an exception is complete. */
  static void stream(ChatCompletionServiceBlockingStub stub) {
    var timed = stub.withDeadlineAfter(60, TimeUnit.SECONDS);
    var responses = timed.streamChatCompletion(STREAMED);
    while (responses.hasNext()) {
      for (var choice : responses.next().getChunk().getChoicesList()) {
        System.out.print(choice.getDelta().getContentText());
      }
    }
    System.out.println();
  }

  /** Gives a call less time than it needs. */
  static void deadline(ChatCompletionServiceBlockingStub stub) {
    try {
      stub.withDeadlineAfter(50, TimeUnit.MILLISECONDS).createChatCompletion(WHOLE);
    } catch (StatusRuntimeException failure) {
      System.out.println(failure.getStatus().getCode());
    }
  }

  /** Stops after the first chunk. The service then closes its request to the upstream. */
  static void cancel(ChatCompletionServiceBlockingStub stub) {
    var context = Context.current().withCancellation();
    context.run(
        () -> {
          var responses = stub.streamChatCompletion(STREAMED);
          responses.next();
          context.cancel(null);
          try {
            responses.forEachRemaining(response -> {}); // what had arrived, then the end
          } catch (StatusRuntimeException failure) {
            System.out.println(failure.getStatus().getCode());
          }
        });
  }

  private Calls() {}
}
