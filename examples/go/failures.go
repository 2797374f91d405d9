package main

import (
	"context"
	"fmt"
	"strings"

	chat "acme.example/assistant/gen/chatcompletion/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// describe returns why a call failed, the parameter at fault, and when to try again.
func describe(err error) string {
	var found *chat.ErrorDetail
	var wait *errdetails.RetryInfo
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *chat.ErrorDetail:
			found = detail
		case *errdetails.RetryInfo:
			wait = detail
		}
	}
	if found == nil {
		return err.Error() // not from the service
	}
	reason := strings.TrimPrefix(found.GetReason().String(), "ERROR_REASON_")
	param := "none"
	if found.GetError().Param != nil {
		param = found.GetError().GetParam()
	}
	again := "no"
	if wait != nil {
		again = fmt.Sprintf("after %d ms", wait.GetRetryDelay().AsDuration().Milliseconds())
	} else if found.GetRetryable() {
		again = "yes"
	}
	return fmt.Sprintf("%s (HTTP %d, param %s, retry %s): %s",
		reason, found.GetHttpStatus(), param, again, found.GetError().GetMessage())
}

// failures sends a parameter that is out of range.
func failures(ctx context.Context, client chat.ChatCompletionServiceClient) error {
	params := hello()
	params.Temperature = proto.Float64(3)
	_, err := client.CreateChatCompletion(ctx, &chat.CreateChatCompletionRequest{Params: params})
	if err != nil {
		fmt.Println(describe(err))
	}
	return nil
}
