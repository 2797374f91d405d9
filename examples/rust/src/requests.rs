//! Parts of requests.

use std::time::Duration;

use tonic::Request;

use crate::chat::{
    chat_message, ChatCompletionParams, ChatMessage, CreateChatCompletionRequest,
    StreamChatCompletionRequest,
};
use crate::connect::variable;

/// Returns a message with a text. A oneof is an enum.
pub fn said(role: &str, text: &str) -> ChatMessage {
    ChatMessage {
        role: Some(role.to_owned()),
        content: Some(chat_message::Content::ContentText(text.to_owned())),
        ..Default::default()
    }
}

/// Returns parameters with one message of the user.
pub fn ask(text: &str) -> ChatCompletionParams {
    ChatCompletionParams {
        model: Some(variable("CHAT_MODEL", "default")),
        messages: vec![said("user", text)],
        ..Default::default()
    }
}

/// Returns the request of a whole answer.
pub fn whole(params: ChatCompletionParams) -> Request<CreateChatCompletionRequest> {
    let params = Some(params);
    within(
        Duration::from_secs(60),
        CreateChatCompletionRequest { params },
    )
}

/// Returns the request of a streamed answer.
pub fn streamed(params: ChatCompletionParams) -> Request<StreamChatCompletionRequest> {
    let params = Some(params);
    within(
        Duration::from_secs(60),
        StreamChatCompletionRequest {
            params,
            ..Default::default()
        },
    )
}

/// Returns a request with a deadline, which bounds all work for the call, the upstream's too.
fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}
