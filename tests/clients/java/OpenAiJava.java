import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.core.http.StreamResponse;
import com.openai.helpers.ChatCompletionAccumulator;
import com.openai.models.chat.completions.ChatCompletion;
import com.openai.models.chat.completions.ChatCompletionChunk;
import com.openai.models.chat.completions.ChatCompletionCreateParams;
import com.openai.models.chat.completions.ChatCompletionMessage;
import com.openai.models.chat.completions.ChatCompletionMessageFunctionToolCall;
import com.openai.models.chat.completions.ChatCompletionStreamOptions;
import com.openai.models.chat.completions.ChatCompletionToolMessageParam;
import java.util.Map;
import java.util.function.Consumer;

/** OpenAI's SDK for Java. */
final class OpenAiJava extends Scenarios {
  /** The arguments of the tool, whose name is the class's in snake case, and the output. */
  public static final class weather {
    public String city;
    public int days;
  }

  private final OpenAIClient client =
      OpenAIOkHttpClient.builder().baseUrl(BASE_URL).apiKey(API_KEY).maxRetries(0).build();

  private static ChatCompletionCreateParams.Builder ask(String name, String said) {
    return ChatCompletionCreateParams.builder().model(name).addUserMessage(said);
  }

  private ChatCompletion complete(ChatCompletionCreateParams.Builder params) {
    return client.chat().completions().create(params.build());
  }

  private static String textOf(ChatCompletion answer) {
    return answer.choices().get(0).message().content().orElseThrow();
  }

  @Override
  Map<String, Object> whole() {
    ChatCompletion answer = complete(ask("whole", HELLO));
    return Map.of(
        "text", textOf(answer), "tokens", answer.usage().orElseThrow().completionTokens());
  }

  @Override
  Map<String, Object> streamed(String name, Consumer<String> piece) {
    ChatCompletionStreamOptions withUsage =
        ChatCompletionStreamOptions.builder().includeUsage(true).build();
    ChatCompletionCreateParams params = ask(name, HELLO).streamOptions(withUsage).build();
    ChatCompletionAccumulator accumulator = ChatCompletionAccumulator.create();
    try (StreamResponse<ChatCompletionChunk> stream =
        client.chat().completions().createStreaming(params)) {
      stream.stream()
          .peek(accumulator::accumulate)
          .flatMap(chunk -> chunk.choices().stream())
          .forEach(choice -> choice.delta().content().ifPresent(piece));
    }
    ChatCompletion answer = accumulator.chatCompletion();
    return Map.of("tokens", answer.usage().orElseThrow().completionTokens());
  }

  @Override
  Map<String, Object> tools() throws Exception {
    ChatCompletionCreateParams.Builder params = ask("tools", ASK).addTool(weather.class);
    ChatCompletionMessage asked = complete(params).choices().get(0).message();
    ChatCompletionMessageFunctionToolCall call = asked.toolCalls().orElseThrow().get(0).asFunction();
    call.function().arguments(weather.class); // it parses
    ChatCompletionAccumulator accumulator = ChatCompletionAccumulator.create();
    try (StreamResponse<ChatCompletionChunk> stream =
        client.chat().completions().createStreaming(params.build())) {
      stream.stream().forEach(accumulator::accumulate);
    }
    ChatCompletionMessage built = accumulator.chatCompletion().choices().get(0).message();
    same(built.toolCalls().orElseThrow().get(0).asFunction(), call);
    params.addMessage(asked);
    params.addMessage(
        ChatCompletionToolMessageParam.builder().toolCallId(call.id()).content(RAIN).build());
    String text = textOf(complete(params));
    return called(call.function().name(), call.function().arguments(), text);
  }

  @Override
  Map<String, Object> structured() {
    var params = ask("structured", HELLO).responseFormat(weather.class).build();
    var answer = client.chat().completions().create(params);
    weather found = answer.choices().get(0).message().content().orElseThrow();
    return Map.of("object", Map.of("city", found.city, "days", found.days));
  }

  @Override
  Map<String, Object> refused() {
    complete(ask("refused", HELLO).topP(3));
    return Map.of();
  }

  @Override
  Map<String, Object> history() {
    ChatCompletionMessage first = complete(ask("history", HELLO)).choices().get(0).message();
    ChatCompletionCreateParams.Builder again = ask("history", HELLO).addMessage(first);
    return Map.of("text", textOf(complete(again.addUserMessage(AGAIN))));
  }

  public static void main(String[] arguments) throws Exception {
    new OpenAiJava().report();
  }
}
