package example.acme.assistant;

import example.chatcompletion.v1.ChatCompletionParams;
import example.chatcompletion.v1.ChatCompletionServiceGrpc.ChatCompletionServiceBlockingStub;
import example.chatcompletion.v1.ChatMessage;
import example.chatcompletion.v1.CreateChatCompletionRequest;
import example.chatcompletion.v1.FunctionDefinition;
import example.chatcompletion.v1.RawJson;
import example.chatcompletion.v1.Tool;

/** A function that the model calls. */
final class Tools {
  /** The schema stays text, because the model sees the order of its members. */
  private static final String SCHEMA =
      """
      {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
      """;

  private static final Tool GET_WEATHER =
      Tool.newBuilder()
          .setType("function")
          .setFunction(
              FunctionDefinition.newBuilder()
                  .setName("get_weather")
                  .setParameters(RawJson.newBuilder().setText(SCHEMA.strip())))
          .build();

  /** Returns the result as JSON. A model can send arguments that are no JSON. */
  private static String getWeather(String arguments) {
    return "{\"degrees\": 21}";
  }

  /** Asks, runs the functions that the model calls, and sends their results back. */
  static void tools(ChatCompletionServiceBlockingStub stub) {
    var params =
        ChatCompletionParams.newBuilder()
            .setModel(Connection.MODEL)
            .addTools(GET_WEATHER)
            .addMessages(
                ChatMessage.newBuilder()
                    .setRole("user")
                    .setContentText("Call get_weather for Paris."));
    while (true) {
      var request = CreateChatCompletionRequest.newBuilder().setParams(params).build();
      var message = stub.createChatCompletion(request).getCompletion().getChoices(0).getMessage();
      if (message.getToolCallsCount() == 0) {
        System.out.println(message.getContentText());
        return;
      }
      params.addMessages(message); // the model reads its own calls
      for (var call : message.getToolCallsList()) {
        System.out.println("called " + call.getFunction().getName());
        params.addMessages(
            ChatMessage.newBuilder()
                .setRole("tool")
                .setToolCallId(call.getId())
                .setContentText(getWeather(call.getFunction().getArguments())));
      }
    }
  }

  private Tools() {}
}
