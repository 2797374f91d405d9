// Package reporting prints the line of each scenario for a library in Go.
package reporting

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The texts of the scenarios. The simulator calls a tool whose name is in the user's message.
const (
	Hello = "Hello"
	Again = "And once more?"
	Ask   = "Which weather?"
	Rain  = "Rain."
)

// Schema is that of the tool's arguments and of the structured output.
var Schema = map[string]any{
	"type": "object",
	"properties": map[string]any{
		"city": map[string]any{"type": "string"},
		"days": map[string]any{"type": "integer"},
	},
	"required":             []string{"city", "days"},
	"additionalProperties": false,
}

// Told has the members of a line.
type Told = map[string]any

// Scenarios has a function for each scenario. Streamed gets the model, and a function for each piece.
type Scenarios struct {
	Whole, Tools, Structured, Refused, History func() (Told, error)
	Streamed                                   func(string, func(string)) (Told, error)
	// Message returns what a user shows of an error.
	Message func(error) string
}

// Report runs every scenario.
func Report(scenarios Scenarios) {
	line := func(scenario string, run func() (Told, error)) {
		told, err := run()
		if told == nil {
			told = Told{}
		}
		if err != nil {
			told["error"] = Told{"class": fmt.Sprintf("%T", err), "message": scenarios.Message(err)}
		}
		told["scenario"] = scenario
		text, err := json.Marshal(told)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(text))
	}
	line("whole", scenarios.Whole)
	for _, name := range []string{"streamed", "broken-error", "broken-cut", "broken-end", "broken-first"} {
		line(name, func() (Told, error) {
			var pieces []string
			told, err := scenarios.Streamed(name, func(piece string) {
				if piece != "" {
					pieces = append(pieces, piece)
				}
			})
			if told == nil {
				told = Told{}
			}
			told["text"], told["pieces"] = strings.Join(pieces, ""), len(pieces)
			return told, err
		})
	}
	line("tools", scenarios.Tools)
	line("structured", scenarios.Structured)
	line("refused", scenarios.Refused)
	line("history", scenarios.History)
}
