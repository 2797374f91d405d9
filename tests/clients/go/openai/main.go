// OpenAI's SDK for Go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"chatcompletion.tests/clients/reporting"
)

type told = reporting.Told

var (
	client = openai.NewClient(
		option.WithBaseURL(os.Getenv("BASE_URL")),
		option.WithAPIKey(os.Getenv("API_KEY")),
		option.WithMaxRetries(0),
	)
	background = context.Background()
	hello      = openai.UserMessage(reporting.Hello)
)

func ask(name string, messages ...openai.ChatCompletionMessageParamUnion) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: name, Messages: messages}
}

func complete(params openai.ChatCompletionNewParams) (*openai.ChatCompletion, error) {
	return client.Chat.Completions.New(background, params)
}

func whole() (told, error) {
	answer, err := complete(ask("whole", hello))
	if err != nil {
		return nil, err
	}
	return told{"text": answer.Choices[0].Message.Content, "tokens": answer.Usage.CompletionTokens}, nil
}

func streamed(name string, piece func(string)) (told, error) {
	params := ask(name, hello)
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(background, params)
	defer stream.Close()
	accumulator := openai.ChatCompletionAccumulator{}
	for stream.Next() {
		chunk := stream.Current()
		if !accumulator.AddChunk(chunk) {
			return nil, errors.New("the accumulator refuses a chunk")
		}
		if len(chunk.Choices) > 0 {
			piece(chunk.Choices[0].Delta.Content)
		}
	}
	return told{"tokens": accumulator.Usage.CompletionTokens}, stream.Err()
}

func tools() (told, error) {
	tool := openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
		Name:       "weather",
		Parameters: openai.FunctionParameters(reporting.Schema),
	})
	params := ask("tools", openai.UserMessage(reporting.Ask))
	params.Tools = []openai.ChatCompletionToolUnionParam{tool}
	asked, err := complete(params)
	if err != nil {
		return nil, err
	}
	called := asked.Choices[0].Message
	call := called.ToolCalls[0]
	accumulator := openai.ChatCompletionAccumulator{}
	stream := client.Chat.Completions.NewStreaming(background, params)
	for stream.Next() {
		accumulator.AddChunk(stream.Current())
	}
	built := accumulator.Choices[0].Message.ToolCalls[0]
	if stream.Err() != nil || built.ID != call.ID || built.Function.Arguments != call.Function.Arguments {
		return nil, errors.New("the streamed call is not the same")
	}
	params.Messages = append(params.Messages, called.ToParam(), openai.ToolMessage(reporting.Rain, call.ID))
	answer, err := complete(params)
	if err != nil {
		return nil, err
	}
	return told{
		"text": answer.Choices[0].Message.Content,
		"call": told{"name": call.Function.Name, "arguments": json.RawMessage(call.Function.Arguments)},
	}, nil
}

func structured() (told, error) {
	params := ask("structured", hello)
	schema := openai.ResponseFormatJSONSchemaParam{
		JSONSchema: openai.ResponseFormatJSONSchemaJSONSchemaParam{
			Name: "weather", Schema: reporting.Schema, Strict: openai.Bool(true),
		},
	}
	params.ResponseFormat.OfJSONSchema = &schema
	answer, err := complete(params)
	if err != nil {
		return nil, err
	}
	return told{"object": json.RawMessage(answer.Choices[0].Message.Content)}, nil
}

func refused() (told, error) {
	params := ask("refused", hello)
	params.TopP = openai.Float(3)
	_, err := complete(params)
	return told{}, err
}

func history() (told, error) {
	first, err := complete(ask("history", hello))
	if err != nil {
		return nil, err
	}
	again := openai.UserMessage(reporting.Again)
	answer, err := complete(ask("history", hello, first.Choices[0].Message.ToParam(), again))
	if err != nil {
		return nil, err
	}
	return told{"text": answer.Choices[0].Message.Content}, nil
}

// The text of the SDK's error has only the status.
func message(err error) string {
	var failure *openai.Error
	if errors.As(err, &failure) {
		return failure.Message
	}
	return err.Error()
}

func main() {
	reporting.Report(reporting.Scenarios{
		Whole: whole, Streamed: streamed, Tools: tools, Structured: structured,
		Refused: refused, History: history, Message: message,
	})
}
