#!/bin/sh
# Runs the examples that the command line names, or all: sh examples.sh unary stream.
# The service supports reflection, so that grpcurl needs no files of the contract.
set -eu
target=${CHAT_TARGET:-127.0.0.1:50051}
model=${CHAT_MODEL:-default}

# Calls a method: call METHOD PARAMETERS [OPTION…]. grpcurl replaces ${CHAT_KEY} itself, so that the
# key is not in the list of processes. The deadline bounds the upstream's work too.
call() {
  method=$1 params=$2
  shift 2
  grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${CHAT_KEY}' \
    -max-time 60 -keepalive-time 60 -max-msg-sz 67108864 "$@" \
    -d "{\"params\": $params}" "$target" "chatcompletion.v1.ChatCompletionService/$method"
}

hello="{\"model\": \"$model\", \"messages\": [{\"role\": \"user\", \"content_text\": \"Hello\"}]}"

unary() {
  call CreateChatCompletion "$hello"
}

# Prints each chunk as it arrives.
stream() {
  call StreamChatCompletion "$hello"
}

# Gives a call less time than it needs.
deadline() {
  call CreateChatCompletion "$hello" -max-time 0.05 2>&1 || true
}

# Stops after the first chunk, as Ctrl-C does. The service then closes its request to the upstream.
cancel() {
  call StreamChatCompletion "$hello" | sed '/^}/q'
}

# Asks, and sends the result of the function back with the model's own call.
tools() {
  question='{"role": "user", "content_text": "Call get_weather for Paris."}'
  schema='{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}'
  tool="{\"type\": \"function\", \"function\": {
    \"name\": \"get_weather\", \"parameters\": {\"text\": \"$schema\"}}}"
  call CreateChatCompletion "{\"model\": \"$model\", \"tools\": [$tool], \"messages\": [$question]}"
  asked='{"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function",
    "function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}}]}'
  result='{"role": "tool", "tool_call_id": "call_1", "content_text": "{\"degrees\": 21}"}'
  call CreateChatCompletion \
    "{\"model\": \"$model\", \"tools\": [$tool], \"messages\": [$question, $asked, $result]}"
}

# Sends a parameter that is out of range. grpcurl prints the details of the failure.
errors() {
  call CreateChatCompletion "{\"temperature\": 3, ${hello#\{}" 2>&1 || true
}

[ $# -gt 0 ] || set -- unary stream deadline cancel tools errors
for name; do
  echo "== $name"
  "$name"
done
