package main

import (
	"context"
	"fmt"
	"io"
	"time"

	chat "acme.example/assistant/gen/chatcompletion/v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func hello() *chat.ChatCompletionParams {
	return &chat.ChatCompletionParams{
		Model:    proto.String(model),
		Messages: []*chat.ChatMessage{user("Hello")},
	}
}

func user(text string) *chat.ChatMessage {
	return &chat.ChatMessage{
		Role:    proto.String("user"),
		Content: &chat.ChatMessage_ContentText{ContentText: text},
	}
}

// unary prints a whole answer and its number of tokens.
func unary(ctx context.Context, client chat.ChatCompletionServiceClient) error {
	// The deadline bounds all work for the call, including the upstream's.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	response, err := client.CreateChatCompletion(ctx, &chat.CreateChatCompletionRequest{Params: hello()})
	if err != nil {
		return err
	}
	for _, choice := range response.GetCompletion().GetChoices() {
		fmt.Println(choice.GetMessage().GetContentText())
	}
	fmt.Println(response.GetCompletion().GetUsage().GetTotalTokens(), "tokens")
	return nil
}

// deadline gives a call less time than it needs.
func deadline(ctx context.Context, client chat.ChatCompletionServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := client.CreateChatCompletion(ctx, &chat.CreateChatCompletionRequest{Params: hello()})
	fmt.Println(status.Code(err)) // DeadlineExceeded
	return nil
}

// stream prints an answer while it arrives.
func stream(ctx context.Context, client chat.ChatCompletionServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel() // also after an early return: it ends the call
	call, err := client.StreamChatCompletion(ctx, &chat.StreamChatCompletionRequest{Params: hello()})
	if err != nil {
		return err
	}
	for {
		response, err := call.Recv()
		if err == io.EOF { // the answer is complete
			fmt.Println()
			return nil
		} else if err != nil {
			return err
		}
		for _, choice := range response.GetChunk().GetChoices() {
			fmt.Print(choice.GetDelta().GetContentText())
		}
	}
}
