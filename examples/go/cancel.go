package main

import (
	"context"
	"fmt"

	chat "acme.example/assistant/gen/chatcompletion/v1"
	"google.golang.org/grpc/status"
)

// cancel stops after the first chunk. The service then closes its request to the upstream.
func cancel(ctx context.Context, client chat.ChatCompletionServiceClient) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	call, err := client.StreamChatCompletion(ctx, &chat.StreamChatCompletionRequest{Params: hello()})
	if err != nil {
		return err
	}
	if _, err := call.Recv(); err != nil {
		return err
	}
	stop()
	for err == nil { // chunks that had arrived, then the end
		_, err = call.Recv()
	}
	fmt.Println(status.Code(err)) // Canceled
	return nil
}
