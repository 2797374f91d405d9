import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.function.Consumer;

/** Prints the line of each scenario for a library in Java. A method returns the line's members. */
abstract class Scenarios {
  static final String BASE_URL = System.getenv("BASE_URL");
  static final String API_KEY = System.getenv("API_KEY");
  static final String HELLO = "Hello";
  static final String AGAIN = "And once more?";
  static final String RAIN = "Rain.";

  /** The simulator calls a tool whose name is in the user's message. */
  static final String ASK = "Which weather?";

  static final ObjectMapper JSON = new ObjectMapper();

  abstract Map<String, Object> whole() throws Exception;

  /** Streams a completion of a model, and passes on each piece. */
  abstract Map<String, Object> streamed(String name, Consumer<String> piece) throws Exception;

  abstract Map<String, Object> tools() throws Exception;

  abstract Map<String, Object> structured() throws Exception;

  /** Sends a request with `top_p` 3. */
  abstract Map<String, Object> refused() throws Exception;

  abstract Map<String, Object> history() throws Exception;

  void report() throws Exception {
    line("whole", this::whole);
    for (String name :
        List.of("streamed", "broken-error", "broken-cut", "broken-end", "broken-first")) {
      line(name, () -> collected(name));
    }
    line("tools", this::tools);
    line("structured", this::structured);
    line("refused", this::refused);
    line("history", this::history);
    System.exit(0); // the libraries' threads would keep the process alive
  }

  static void same(Object streamed, Object whole) {
    if (!streamed.equals(whole)) {
      throw new IllegalStateException(streamed + " is not " + whole);
    }
  }

  static Map<String, Object> called(String name, String arguments, String text) throws Exception {
    return Map.of(
        "call", Map.of("name", name, "arguments", JSON.readTree(arguments)), "text", text);
  }

  private Map<String, Object> collected(String name) {
    List<String> pieces = new ArrayList<>();
    Map<String, Object> told = new LinkedHashMap<>();
    try {
      Consumer<String> keep = piece -> pieces.addAll(piece.isEmpty() ? List.of() : List.of(piece));
      told.putAll(streamed(name, keep));
    } catch (Exception failure) {
      told.putAll(described(failure));
    }
    told.put("text", String.join("", pieces));
    told.put("pieces", pieces.size());
    return told;
  }

  private static void line(String scenario, Callable<Map<String, Object>> run) throws Exception {
    Map<String, Object> told = new LinkedHashMap<>(Map.of("scenario", scenario));
    try {
      told.putAll(run.call());
    } catch (Exception failure) {
      told.putAll(described(failure));
    }
    System.out.println(JSON.writeValueAsString(told));
  }

  private static Map<String, Object> described(Throwable failure) {
    String message = String.valueOf(failure.getMessage());
    return Map.of(
        "error", Map.of("class", failure.getClass().getSimpleName(), "message", message));
  }
}
