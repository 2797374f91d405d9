// go-openai, of sashabaranov.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/sashabaranov/go-openai"
	"github.com/sashabaranov/go-openai/jsonschema"

	"chatcompletion.tests/clients/reporting"
)

type told = reporting.Told
type message = openai.ChatCompletionMessage

var (
	client     = connected()
	background = context.Background()
	hello      = message{Role: openai.ChatMessageRoleUser, Content: reporting.Hello}
)

type weather struct {
	City string `json:"city"`
	Days int    `json:"days"`
}

func connected() *openai.Client {
	config := openai.DefaultConfig(os.Getenv("API_KEY"))
	config.BaseURL = os.Getenv("BASE_URL")
	return openai.NewClientWithConfig(config)
}

func ask(name string, messages ...message) openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{Model: name, Messages: messages}
}

func complete(request openai.ChatCompletionRequest) (openai.ChatCompletionResponse, error) {
	answer, err := client.CreateChatCompletion(background, request)
	if err == nil && len(answer.Choices) == 0 {
		err = errors.New("no choices")
	}
	return answer, err
}

func whole() (told, error) {
	answer, err := complete(ask("whole", hello))
	if err != nil {
		return nil, err
	}
	return told{"text": answer.Choices[0].Message.Content, "tokens": answer.Usage.CompletionTokens}, nil
}

func streamed(name string, piece func(string)) (told, error) {
	request := ask(name, hello)
	request.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	stream, err := client.CreateChatCompletionStream(background, request)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	result := told{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return result, nil
		}
		if err != nil {
			return nil, err
		}
		if chunk.Usage != nil {
			result["tokens"] = chunk.Usage.CompletionTokens
		}
		if len(chunk.Choices) > 0 {
			piece(chunk.Choices[0].Delta.Content)
		}
	}
}

func tools() (told, error) {
	definition := openai.FunctionDefinition{Name: "weather", Parameters: reporting.Schema}
	request := ask("tools", message{Role: openai.ChatMessageRoleUser, Content: reporting.Ask})
	request.Tools = []openai.Tool{{Type: openai.ToolTypeFunction, Function: &definition}}
	asked, err := complete(request)
	if err != nil {
		return nil, err
	}
	called := asked.Choices[0].Message
	call := called.ToolCalls[0]
	result := message{Role: openai.ChatMessageRoleTool, Content: reporting.Rain, ToolCallID: call.ID}
	request.Messages = append(request.Messages, called, result)
	answer, err := complete(request)
	if err != nil {
		return nil, err
	}
	return told{
		"text": answer.Choices[0].Message.Content,
		"call": told{"name": call.Function.Name, "arguments": json.RawMessage(call.Function.Arguments)},
	}, nil
}

func structured() (told, error) {
	schema, err := jsonschema.GenerateSchemaForType(weather{})
	if err != nil {
		return nil, err
	}
	request := ask("structured", hello)
	request.ResponseFormat = &openai.ChatCompletionResponseFormat{
		Type: openai.ChatCompletionResponseFormatTypeJSONSchema,
		JSONSchema: &openai.ChatCompletionResponseFormatJSONSchema{
			Name: "weather", Schema: schema, Strict: true,
		},
	}
	answer, err := complete(request)
	if err != nil {
		return nil, err
	}
	var found weather
	err = schema.Unmarshal(answer.Choices[0].Message.Content, &found)
	return told{"object": found}, err
}

func refused() (told, error) {
	request := ask("refused", hello)
	request.TopP = 3
	_, err := complete(request)
	return told{}, err
}

func history() (told, error) {
	first, err := complete(ask("history", hello))
	if err != nil {
		return nil, err
	}
	again := message{Role: openai.ChatMessageRoleUser, Content: reporting.Again}
	answer, err := complete(ask("history", hello, first.Choices[0].Message, again))
	if err != nil {
		return nil, err
	}
	return told{"text": answer.Choices[0].Message.Content}, nil
}

func main() {
	reporting.Report(reporting.Scenarios{
		Whole: whole, Streamed: streamed, Tools: tools, Structured: structured,
		Refused: refused, History: history, Message: error.Error,
	})
}
