//! A function that the model calls.

use tonic::Status;

use crate::chat::{chat_message, ChatMessage, FunctionDefinition, RawJson, Tool};
use crate::connect::Client;
use crate::requests::{ask, said, whole};

/// The schema stays text, because the model sees the order of its members.
const SCHEMA: &str =
    r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}"#;

fn weather_tool() -> Tool {
    Tool {
        r#type: Some("function".to_owned()),
        function: Some(FunctionDefinition {
            name: Some("get_weather".to_owned()),
            parameters: Some(RawJson {
                text: SCHEMA.to_owned(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Returns the result as JSON. A model can send arguments that are no JSON.
fn get_weather(_arguments: &str) -> String {
    r#"{"degrees": 21}"#.to_owned()
}

/// Asks, runs the functions that the model calls, and sends their results back.
pub async fn tools(client: &mut Client) -> Result<(), Status> {
    let mut params = ask("Call get_weather for Paris.");
    params.tools.push(weather_tool());
    loop {
        let response = client.create_chat_completion(whole(params.clone())).await?;
        let completion = response.into_inner().completion.unwrap_or_default();
        let mut choices = completion.choices.into_iter();
        let message = choices
            .find_map(|choice| choice.message)
            .unwrap_or_default();
        if message.tool_calls.is_empty() {
            if let Some(chat_message::Content::ContentText(text)) = message.content {
                println!("{text}");
            }
            return Ok(());
        }
        params.messages.push(message.clone()); // the model reads its own calls
        for call in message.tool_calls {
            let function = call.function.clone().unwrap_or_default();
            println!("called {}", function.name());
            params.messages.push(ChatMessage {
                tool_call_id: call.id,
                ..said("tool", &get_weather(function.arguments()))
            });
        }
    }
}
