//! Outcome of an ingest request, derived from the response of the hub or of a proxy.

use crate::hub_client::HubResponse;
use perfwatch_model::wire::{self, IngestResponse};
use std::time::Duration;

/// Outcome of one attempt to send a batch.
#[derive(Debug)]
pub(crate) enum PushOutcome {
    Acked(IngestResponse),
    ShapesRequested,
    /// Permanent rejection of the batch with the reason.
    Rejected(String),
    /// Body above the limit of the hub or of a proxy, with the reason and the size of the body.
    TooLarge(String, usize),
    /// Request without a response in time, with the reason.
    Interrupted(String),
    /// Temporary failure with the reason and the delay that the hub requested.
    Retry(String, Option<Duration>),
    /// Secret unknown to the hub: another hub, or one whose store was replaced.
    UnknownAgent(String),
    /// Credential missing or rejected, with the reason.
    Unauthorized(String, Option<Duration>),
    /// Agent revoked by an administrator.
    Revoked,
}

/// Returns whether a rejected snapshot may be accepted in part: not if its time is wrong.
pub(crate) fn is_rejected_for_form(code: &str) -> bool {
    matches!(code, "malformed_batch" | "value_out_of_range")
}

/// Outcome of an ingest request. Only a rejection by the hub itself drops snapshots: a proxy between
/// agent and hub may respond with any status.
pub(crate) fn classify(response: &HubResponse, body_len: usize) -> PushOutcome {
    let (status, retry_after, code) = (response.status, response.retry_after, response.error("code"));
    let reason = || format!("HTTP {status} {}", response.error("message")).trim_end().to_owned();
    match status {
        200..=299 => match serde_json::from_str::<IngestResponse>(&response.body) {
            Ok(response) => PushOutcome::Acked(response),
            Err(_) => PushOutcome::Retry(
                format!("HTTP {status}, but the response is not from a PerfWatch hub"),
                retry_after,
            ),
        },
        409 if code == wire::ERROR_UNKNOWN_SHAPE => PushOutcome::ShapesRequested,
        401 if code == "authentication_required" => {
            let reason = "authentication required: start with --token TOKEN";
            PushOutcome::Unauthorized(reason.to_owned(), retry_after)
        }
        401 if code == "unknown_agent" => PushOutcome::UnknownAgent(reason()),
        403 if code == "agent_revoked" => PushOutcome::Revoked,
        401 | 403 if !code.is_empty() => PushOutcome::Unauthorized(reason(), retry_after),
        408 | 504 => PushOutcome::Interrupted(reason()),
        // Also without the envelope of the hub: the limit may be that of a proxy.
        413 => PushOutcome::TooLarge(reason(), body_len),
        400 | 422 if !code.is_empty() => PushOutcome::Rejected(reason()),
        _ => PushOutcome::Retry(reason(), retry_after),
    }
}
