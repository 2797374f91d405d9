// Command assistant runs the examples that the command line names, or all of them.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	chat "acme.example/assistant/gen/chatcompletion/v1"
)

//go:generate buf generate

var examples = []struct {
	name string
	run  func(context.Context, chat.ChatCompletionServiceClient) error
}{
	{"unary", unary},
	{"stream", stream},
	{"deadline", deadline},
	{"cancel", cancel},
	{"tools", tools},
	{"errors", failures},
}

func main() {
	conn, err := connect()
	if err != nil {
		exit(err)
	}
	defer conn.Close()
	client := chat.NewChatCompletionServiceClient(conn)
	for _, example := range examples {
		if len(os.Args) == 1 || slices.Contains(os.Args[1:], example.name) {
			fmt.Println("==", example.name)
			if err := example.run(withKey(context.Background()), client); err != nil {
				exit(err)
			}
		}
	}
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, describe(err))
	os.Exit(1)
}
