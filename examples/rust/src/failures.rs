//! Why a call failed: the reason, the parameter at fault, and when to try again.

use prost::Message;
use tonic::Status;
use tonic_types::{pb, StatusExt};

use crate::chat::ErrorDetail;
use crate::connect::Client;
use crate::requests::{ask, whole};

/// Returns a failure as one line.
pub fn describe(failure: &Status) -> String {
    let details = pb::Status::decode(failure.details())
        .unwrap_or_default()
        .details;
    let name = "/chatcompletion.v1.ErrorDetail";
    let packed = details.iter().find(|one| one.type_url.ends_with(name));
    let Some(Ok(found)) = packed.map(|one| ErrorDetail::decode(&*one.value)) else {
        return format!("{:?}: {}", failure.code(), failure.message()); // not from the service
    };
    let again = match failure
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
    {
        Some(delay) => format!("after {} ms", delay.as_millis()),
        None if found.retryable => "yes".to_owned(),
        None => "no".to_owned(),
    };
    let reason = found
        .reason()
        .as_str_name()
        .trim_start_matches("ERROR_REASON_");
    let error = found.error.clone().unwrap_or_default();
    format!(
        "{reason} (HTTP {}, param {}, retry {again}): {}",
        found.http_status,
        error.param.as_deref().unwrap_or("none"),
        error.message(),
    )
}

/// Sends a parameter that is out of range.
pub async fn errors(client: &mut Client) -> Result<(), Status> {
    let mut params = ask("Hello");
    params.temperature = Some(3.0);
    if let Err(failure) = client.create_chat_completion(whole(params)).await {
        println!("{}", describe(&failure));
    }
    Ok(())
}
