//! A whole answer, a stream, a deadline and a cancellation.

use std::io::{stdout, Write};
use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::chat::{chat_message, chat_message_delta};
use crate::connect::Client;
use crate::requests::{ask, streamed, whole};

/// Prints a whole answer and its number of tokens.
pub async fn unary(client: &mut Client) -> Result<(), Status> {
    let response = client.create_chat_completion(whole(ask("Hello"))).await?;
    let completion = response.into_inner().completion.unwrap_or_default();
    for choice in completion.choices {
        let message = choice.message.unwrap_or_default();
        if let Some(chat_message::Content::ContentText(text)) = message.content {
            println!("{text}");
        }
    }
    let usage = completion.usage.unwrap_or_default();
    println!("{} tokens", usage.total_tokens());
    Ok(())
}

/// Prints an answer while it arrives. A stream that ends without an error is complete.
pub async fn stream(client: &mut Client) -> Result<(), Status> {
    let response = client
        .stream_chat_completion(streamed(ask("Hello")))
        .await?;
    let mut responses = response.into_inner();
    while let Some(response) = responses.next().await {
        for choice in response?.chunk.unwrap_or_default().choices {
            let delta = choice.delta.unwrap_or_default();
            if let Some(chat_message_delta::Content::ContentText(text)) = delta.content {
                print!("{text}");
                let _ = stdout().flush();
            }
        }
    }
    println!();
    Ok(())
}

/// Gives a call less time than it needs. tonic reports a deadline of its own as Cancelled.
pub async fn deadline(client: &mut Client) -> Result<(), Status> {
    let mut request = whole(ask("Hello"));
    request.set_timeout(Duration::from_millis(50));
    let failure = client.create_chat_completion(request).await.err();
    println!("{:?}", failure.map_or(Code::Ok, |status| status.code()));
    Ok(())
}

/// Stops after the first chunk. The service then closes its request to the upstream.
pub async fn cancel(client: &mut Client) -> Result<(), Status> {
    let response = client
        .stream_chat_completion(streamed(ask("Hello")))
        .await?;
    let mut responses = response.into_inner();
    responses.next().await.transpose()?;
    drop(responses);
    println!("dropped");
    Ok(())
}
