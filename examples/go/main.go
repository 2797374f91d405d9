// Command assistant requests a completion from the service, then the same completion as a stream.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	chat "acme.example/assistant/gen/chatcompletion/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

//go:generate buf generate

func main() {
	target := cmp.Or(os.Getenv("CHAT_TARGET"), "127.0.0.1:50051")
	if err := run(target, os.Getenv("CHAT_KEY")); err != nil {
		fmt.Fprintln(os.Stderr, describe(err))
		os.Exit(1)
	}
}

func run(target, key string) error {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := chat.NewChatCompletionServiceClient(conn)
	params := &chat.ChatCompletionParams{
		Model: proto.String("default"),
		Messages: []*chat.ChatMessage{{
			Role:    proto.String("user"),
			Content: &chat.ChatMessage_ContentText{ContentText: "Hello"},
		}},
	}
	// The deadline bounds both calls, including the upstream's work.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)

	response, err := client.CreateChatCompletion(ctx, &chat.CreateChatCompletionRequest{Params: params})
	if err != nil {
		return err
	}
	for _, choice := range response.GetCompletion().GetChoices() {
		fmt.Println(choice.GetMessage().GetContentText())
	}
	fmt.Println(response.GetCompletion().GetUsage().GetTotalTokens(), "tokens")

	stream, err := client.StreamChatCompletion(ctx, &chat.StreamChatCompletionRequest{Params: params})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err == io.EOF { // The stream is complete.
			fmt.Println()
			return nil
		}
		if err != nil {
			return err
		}
		for _, choice := range response.GetChunk().GetChoices() {
			fmt.Print(choice.GetDelta().GetContentText())
		}
	}
}

// describe returns the reason, the HTTP status and the message of a failed call.
func describe(err error) string {
	for _, found := range status.Convert(err).Details() {
		if detail, ok := found.(*chat.ErrorDetail); ok {
			reason := strings.TrimPrefix(detail.GetReason().String(), "ERROR_REASON_")
			return fmt.Sprintf("%s (HTTP %d, retryable: %t): %s", reason, detail.GetHttpStatus(),
				detail.GetRetryable(), detail.GetError().GetMessage())
		}
	}
	return err.Error() // Not from the service: for example, the connection failed.
}
