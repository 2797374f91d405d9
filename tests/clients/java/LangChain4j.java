import dev.langchain4j.agent.tool.ToolExecutionRequest;
import dev.langchain4j.agent.tool.ToolSpecification;
import dev.langchain4j.data.message.AiMessage;
import dev.langchain4j.data.message.ChatMessage;
import dev.langchain4j.data.message.ToolExecutionResultMessage;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.chat.request.ResponseFormat;
import dev.langchain4j.model.chat.request.ResponseFormatType;
import dev.langchain4j.model.chat.request.json.JsonObjectSchema;
import dev.langchain4j.model.chat.request.json.JsonSchema;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** langchain4j's models of OpenAI. */
final class LangChain4j extends Scenarios {
  private static final long PATIENCE = 20; // seconds

  private static final JsonObjectSchema WEATHER =
      JsonObjectSchema.builder()
          .addStringProperty("city")
          .addIntegerProperty("days")
          .required("city", "days")
          .build();

  private static OpenAiChatModel.OpenAiChatModelBuilder model(String name) {
    return OpenAiChatModel.builder()
        .baseUrl(BASE_URL)
        .apiKey(API_KEY)
        .modelName(name)
        .strictJsonSchema(true)
        .maxRetries(0);
  }

  private static ChatResponse complete(String name, ChatMessage... messages) {
    return model(name).build().chat(messages);
  }

  @Override
  Map<String, Object> whole() {
    ChatResponse answer = complete("whole", UserMessage.from(HELLO));
    return Map.of(
        "text", answer.aiMessage().text(), "tokens", answer.tokenUsage().outputTokenCount());
  }

  @Override
  Map<String, Object> streamed(String name, Consumer<String> piece) throws Exception {
    ChatRequest request = ChatRequest.builder().messages(UserMessage.from(HELLO)).build();
    return Map.of("tokens", streamed(name, request, piece).tokenUsage().outputTokenCount());
  }

  private static ChatResponse streamed(String name, ChatRequest request, Consumer<String> piece)
      throws Exception {
    OpenAiStreamingChatModel model =
        OpenAiStreamingChatModel.builder()
            .baseUrl(BASE_URL)
            .apiKey(API_KEY)
            .modelName(name)
            .build();
    CompletableFuture<ChatResponse> ending = new CompletableFuture<>();
    model.chat(
        request,
        new StreamingChatResponseHandler() {
          @Override
          public void onPartialResponse(String part) {
            piece.accept(part);
          }

          @Override
          public void onCompleteResponse(ChatResponse response) {
            ending.complete(response);
          }

          @Override
          public void onError(Throwable error) {
            ending.completeExceptionally(error);
          }
        });
    try {
      return ending.get(PATIENCE, TimeUnit.SECONDS);
    } catch (ExecutionException failure) {
      throw (Exception) failure.getCause();
    }
  }

  @Override
  Map<String, Object> tools() throws Exception {
    ToolSpecification tool =
        ToolSpecification.builder().name("weather").parameters(WEATHER).build();
    OpenAiChatModel model = model("tools").build();
    UserMessage ask = UserMessage.from(ASK);
    ChatRequest.Builder request = ChatRequest.builder().toolSpecifications(tool);
    AiMessage asked = model.chat(request.messages(ask).build()).aiMessage();
    same(streamed("tools", request.build(), piece -> {}).aiMessage(), asked);
    ToolExecutionRequest call = asked.toolExecutionRequests().get(0);
    ChatMessage result = ToolExecutionResultMessage.from(call, RAIN);
    AiMessage answer = model.chat(request.messages(ask, asked, result).build()).aiMessage();
    return called(call.name(), call.arguments(), answer.text());
  }

  @Override
  Map<String, Object> structured() throws Exception {
    JsonSchema schema = JsonSchema.builder().name("weather").rootElement(WEATHER).build();
    ResponseFormat format =
        ResponseFormat.builder().type(ResponseFormatType.JSON).jsonSchema(schema).build();
    List<ChatMessage> messages = List.of(UserMessage.from(HELLO));
    ChatRequest request =
        ChatRequest.builder().messages(messages).responseFormat(format).build();
    String text = model("structured").build().chat(request).aiMessage().text();
    return Map.of("object", JSON.readTree(text));
  }

  @Override
  Map<String, Object> refused() {
    model("refused").topP(3.0).build().chat(HELLO);
    return Map.of();
  }

  @Override
  Map<String, Object> history() {
    UserMessage hello = UserMessage.from(HELLO);
    AiMessage first = complete("history", hello).aiMessage();
    ChatResponse second = complete("history", hello, first, UserMessage.from(AGAIN));
    return Map.of("text", second.aiMessage().text());
  }

  public static void main(String[] arguments) throws Exception {
    new LangChain4j().report();
  }
}
