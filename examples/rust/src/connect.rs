//! The channel to the service, and the metadata of every call.

use std::env;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Status};

use crate::chat::chat_completion_service_client::ChatCompletionServiceClient;

pub type Client = ChatCompletionServiceClient<InterceptedService<Channel, WithKey>>;

/// Returns an environment variable, or another text if it is not set.
pub fn variable(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

/// Returns a client. A process needs one channel: it carries any number of calls at a time.
pub fn connect() -> Result<Client, Error> {
    // Each call goes to one of these addresses, which commas separate.
    let targets = variable("CHAT_TARGET", "127.0.0.1:50051");
    let endpoints = targets.split(',').map(|target| {
        Endpoint::from_shared(format!("http://{target}")).map(|endpoint| {
            endpoint
                // Ping a silent server, also between calls; notice within 10 s that it is gone.
                .http2_keep_alive_interval(Duration::from_secs(60))
                .keep_alive_timeout(Duration::from_secs(10))
                .keep_alive_while_idle(true)
        })
    });
    let channel = Channel::balance_list(endpoints.collect::<Result<Vec<_>, _>>()?.into_iter());
    let client = ChatCompletionServiceClient::with_interceptor(channel, WithKey);
    // The default of 4 MiB is too small for the largest answers.
    Ok(client.max_decoding_message_size(64 << 20))
}

/// Sends the API key with each call.
#[derive(Clone)]
pub struct WithKey;

impl tonic::service::Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let key: MetadataValue<Ascii> = format!("Bearer {}", variable("CHAT_KEY", ""))
            .parse()
            .map_err(|_| Status::unauthenticated("CHAT_KEY is not a key"))?;
        request.metadata_mut().insert("authorization", key);
        Ok(request)
    }
}
