//! async-openai.

use std::env;
use std::error::Error;

use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionMessageToolCalls, ChatCompletionRequestAssistantMessage,
    ChatCompletionResponseMessage, CreateChatCompletionRequest,
};
use async_openai::Client;
use futures::StreamExt;
use serde_json::{from_str, from_value, json, to_value, Value};

type Failure = Box<dyn Error>;

/// The scenarios of a stream; all but the first break.
const STREAMED: [&str; 5] = [
    "streamed",
    "broken-error",
    "broken-cut",
    "broken-end",
    "broken-first",
];

struct User(Client<OpenAIConfig>);

impl User {
    /// Asks the model of a scenario. A member of `more` replaces one of the usual request.
    fn request(name: &str, more: Value) -> Result<CreateChatCompletionRequest, Failure> {
        let mut request = json!({"model": name, "messages": [user("Hello")]});
        for (member, value) in more.as_object().into_iter().flatten() {
            request[member] = value.clone();
        }
        Ok(from_value(request)?)
    }

    async fn complete(
        &self,
        name: &str,
        more: Value,
    ) -> Result<(ChatCompletionResponseMessage, u32), Failure> {
        let mut answer = self.0.chat().create(Self::request(name, more)?).await?;
        let tokens = answer.usage.map_or(0, |usage| usage.completion_tokens);
        Ok((answer.choices.swap_remove(0).message, tokens))
    }

    async fn scenario(&self, name: &str, pieces: &mut Vec<String>) -> Result<Value, Failure> {
        match name {
            "whole" => {
                let (message, tokens) = self.complete(name, json!({})).await?;
                Ok(json!({"text": message.content, "tokens": tokens}))
            }
            "tools" => self.tools().await,
            "structured" => {
                let format = json!({"name": "weather", "strict": true, "schema": schema()});
                let format = json!({"type": "json_schema", "json_schema": format});
                let more = json!({"response_format": format});
                let (message, _) = self.complete(name, more).await?;
                let object: Value = from_str(&message.content.unwrap_or_default())?;
                Ok(json!({"object": object}))
            }
            "refused" => {
                self.complete(name, json!({"top_p": 3})).await?;
                Ok(json!({}))
            }
            "history" => {
                let (first, _) = self.complete(name, json!({})).await?;
                let messages = json!([user("Hello"), sent_back(&first)?, user("And once more?")]);
                let (second, _) = self.complete(name, json!({"messages": messages})).await?;
                Ok(json!({"text": second.content}))
            }
            _ => self.streamed(name, pieces).await,
        }
    }

    async fn streamed(&self, name: &str, pieces: &mut Vec<String>) -> Result<Value, Failure> {
        let more = json!({"stream_options": {"include_usage": true}});
        let mut stream = self
            .0
            .chat()
            .create_stream(Self::request(name, more)?)
            .await?;
        let mut told = json!({});
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if let Some(usage) = chunk.usage {
                told["tokens"] = json!(usage.completion_tokens);
            }
            let said = chunk
                .choices
                .into_iter()
                .filter_map(|choice| choice.delta.content);
            pieces.extend(said.filter(|piece| !piece.is_empty()));
        }
        Ok(told)
    }

    async fn tools(&self) -> Result<Value, Failure> {
        let function = json!({"name": "weather", "parameters": schema()});
        let tools = json!([{"type": "function", "function": function}]);
        let ask = user("Which weather?");
        let more = json!({"tools": tools, "messages": [ask]});
        let (asked, _) = self.complete("tools", more).await?;
        let calls = asked.tool_calls.as_deref().unwrap_or_default();
        let [ChatCompletionMessageToolCalls::Function(call)] = calls else {
            return Err("not one call of a function".into());
        };
        let result = json!({"role": "tool", "tool_call_id": call.id, "content": "Rain."});
        let messages = json!([ask, sent_back(&asked)?, result]);
        let more = json!({"tools": tools, "messages": messages});
        let (answer, _) = self.complete("tools", more).await?;
        let arguments: Value = from_str(&call.function.arguments)?;
        let called = json!({"name": call.function.name, "arguments": arguments});
        Ok(json!({"text": answer.content, "call": called}))
    }
}

/// Returns a message of the assistant as one of a request.
fn sent_back(message: &ChatCompletionResponseMessage) -> Result<Value, Failure> {
    let back: ChatCompletionRequestAssistantMessage = from_value(to_value(message)?)?;
    let mut back = to_value(back)?;
    back["role"] = json!("assistant");
    Ok(back)
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn schema() -> Value {
    let properties = json!({"city": {"type": "string"}, "days": {"type": "integer"}});
    json!({"type": "object", "properties": properties, "required": ["city", "days"],
           "additionalProperties": false})
}

fn described(failure: &Failure) -> Value {
    let class = match failure.downcast_ref::<OpenAIError>() {
        Some(OpenAIError::ApiError(_)) => "ApiError",
        Some(OpenAIError::StreamError(_)) => "StreamError",
        Some(OpenAIError::Reqwest(_)) => "Reqwest",
        Some(OpenAIError::JSONDeserialize(..)) => "JSONDeserialize",
        Some(_) => "OpenAIError",
        None => "other",
    };
    json!({"class": class, "message": failure.to_string()})
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let config = OpenAIConfig::new()
        .with_api_base(env::var("BASE_URL").expect("BASE_URL"))
        .with_api_key(env::var("API_KEY").expect("API_KEY"));
    let user = User(Client::with_config(config));
    for name in ["whole", "tools", "structured", "refused", "history"]
        .iter()
        .chain(&STREAMED)
    {
        let mut pieces = Vec::new();
        let mut told = match user.scenario(name, &mut pieces).await {
            Ok(told) => told,
            Err(failure) => json!({"error": described(&failure)}),
        };
        told["scenario"] = json!(name);
        if STREAMED.contains(name) {
            told["text"] = json!(pieces.concat());
            told["pieces"] = json!(pieces.len());
        }
        println!("{told}");
    }
}
