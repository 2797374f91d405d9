package example.acme.assistant;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.RetryInfo;
import example.chatcompletion.v1.ChatCompletionServiceGrpc.ChatCompletionServiceBlockingStub;
import example.chatcompletion.v1.CreateChatCompletionRequest;
import example.chatcompletion.v1.ErrorDetail;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;

/** Why a call failed: the reason, the parameter at fault, and when to try again. */
final class Failures {
  /** Returns a failure as one line. */
  static String describe(StatusRuntimeException failure) {
    ErrorDetail found = null;
    RetryInfo wait = null;
    try {
      for (var detail : StatusProto.fromThrowable(failure).getDetailsList()) {
        if (detail.is(ErrorDetail.class)) {
          found = detail.unpack(ErrorDetail.class);
        } else if (detail.is(RetryInfo.class)) {
          wait = detail.unpack(RetryInfo.class);
        }
      }
    } catch (InvalidProtocolBufferException broken) {
      found = null;
    }
    if (found == null) {
      return failure.getMessage(); // not from the service
    }
    var again = found.getRetryable() ? "yes" : "no";
    if (wait != null) {
      var delay = wait.getRetryDelay();
      again = "after %d ms".formatted(delay.getSeconds() * 1000 + delay.getNanos() / 1_000_000);
    }
    return "%s (HTTP %d, param %s, retry %s): %s"
        .formatted(
            found.getReason().name().replaceFirst("^ERROR_REASON_", ""),
            found.getHttpStatus(),
            found.getError().hasParam() ? found.getError().getParam() : "none",
            again,
            found.getError().getMessage());
  }

  /** Sends a parameter that is out of range. */
  static void errors(ChatCompletionServiceBlockingStub stub) {
    var params = Calls.HELLO.toBuilder().setTemperature(3);
    try {
      stub.createChatCompletion(CreateChatCompletionRequest.newBuilder().setParams(params).build());
    } catch (StatusRuntimeException failure) {
      System.out.println(describe(failure));
    }
  }

  private Failures() {}
}
