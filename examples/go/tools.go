package main

import (
	"context"
	"encoding/json"
	"fmt"

	chat "acme.example/assistant/gen/chatcompletion/v1"
	"google.golang.org/protobuf/proto"
)

var weatherTool = &chat.Tool{
	Type: proto.String("function"),
	Function: &chat.FunctionDefinition{
		Name: proto.String("get_weather"),
		// JSON stays text, because the model sees the order of its members.
		Parameters: &chat.RawJson{Text: `{"type": "object",
			"properties": {"city": {"type": "string"}}, "required": ["city"]}`},
	},
}

// getWeather returns the result as JSON. A model can send arguments that are no JSON.
func getWeather(arguments string) string {
	result, _ := json.Marshal(map[string]any{"asked": arguments, "degrees": 21})
	return string(result)
}

// tools asks, runs the functions that the model calls, and sends their results back.
func tools(ctx context.Context, client chat.ChatCompletionServiceClient) error {
	params := &chat.ChatCompletionParams{
		Model:    proto.String(model),
		Messages: []*chat.ChatMessage{user("Call get_weather for Paris.")},
		Tools:    []*chat.Tool{weatherTool},
	}
	for {
		response, err := client.CreateChatCompletion(ctx, &chat.CreateChatCompletionRequest{Params: params})
		if err != nil {
			return err
		}
		message := response.GetCompletion().GetChoices()[0].GetMessage()
		if len(message.GetToolCalls()) == 0 {
			fmt.Println(message.GetContentText())
			return nil
		}
		params.Messages = append(params.Messages, message) // the model reads its own calls
		for _, call := range message.GetToolCalls() {
			fmt.Println("called", call.GetFunction().GetName())
			result := getWeather(call.GetFunction().GetArguments())
			params.Messages = append(params.Messages, &chat.ChatMessage{
				Role:       proto.String("tool"),
				ToolCallId: proto.String(call.GetId()),
				Content:    &chat.ChatMessage_ContentText{ContentText: result},
			})
		}
	}
}
