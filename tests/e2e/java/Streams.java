import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Streams one completion of each model with langchain4j.
 *
 * <p>java -cp 'target/VERSION/*' Streams.java BASE_URL KEY PATIENCE MODEL...
 *
 * <p>Prints a line for each model: the model, how its stream ended, and its text, separated by tabs.
 */
public final class Streams {
  public static void main(String[] arguments) throws Exception {
    long patience = Long.parseLong(arguments[2]);
    for (int index = 3; index < arguments.length; index++) {
      OpenAiStreamingChatModel model =
          OpenAiStreamingChatModel.builder()
              .baseUrl(arguments[0])
              .apiKey(arguments[1])
              .modelName(arguments[index])
              .maxTokens(13)
              .build();
      StringBuffer text = new StringBuffer();
      CompletableFuture<String> ending = new CompletableFuture<>();
      model.chat(
          "Hello",
          new StreamingChatResponseHandler() {
            @Override
            public void onPartialResponse(String part) {
              text.append(part);
            }

            @Override
            public void onCompleteResponse(ChatResponse response) {
              ending.complete("complete");
            }

            @Override
            public void onError(Throwable error) {
              ending.complete("error");
            }
          });
      String ended = ending.get(patience, TimeUnit.SECONDS);
      System.out.println(arguments[index] + "\t" + ended + "\t" + text);
    }
    System.exit(0); // the client's threads would keep the process alive
  }

  private Streams() {}
}
