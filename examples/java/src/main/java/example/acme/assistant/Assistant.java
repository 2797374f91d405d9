package example.acme.assistant;

import example.chatcompletion.v1.ChatCompletionServiceGrpc.ChatCompletionServiceBlockingStub;
import io.grpc.StatusRuntimeException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** Runs the examples that the command line names, or all of them. */
public final class Assistant {
  private static final Map<String, Consumer<ChatCompletionServiceBlockingStub>> EXAMPLES =
      new LinkedHashMap<>();

  static {
    EXAMPLES.put("unary", Calls::unary);
    EXAMPLES.put("stream", Calls::stream);
    EXAMPLES.put("deadline", Calls::deadline);
    EXAMPLES.put("cancel", Calls::cancel);
    EXAMPLES.put("tools", Tools::tools);
    EXAMPLES.put("errors", Failures::errors);
  }

  public static void main(String[] arguments) throws InterruptedException {
    var channel = Connection.channel();
    try {
      for (var name : arguments.length == 0 ? EXAMPLES.keySet() : List.of(arguments)) {
        System.out.println("== " + name);
        EXAMPLES.get(name).accept(Connection.stub(channel));
      }
    } catch (StatusRuntimeException failure) {
      System.err.println(Failures.describe(failure));
      System.exit(1);
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private Assistant() {}
}
