//! Responses that report the progress of an action as server-sent events before its result. Event streams
//! are not compressed, so that each event is sent at once.

use crate::error::ApiError;
use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

/// Returns whether a client accepts an event stream.
fn accepts_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// Responds with the result of an action as JSON. A client that accepts `text/event-stream` receives the
/// progress first, then the event `result`, or `error` with the code and the message. The action is dropped
/// when the client disconnects.
///
/// # Errors
/// Returns the error of the action, unless it is sent as an event.
pub async fn respond_with_progress<P, R>(
    headers: &HeaderMap,
    progress: UnboundedReceiver<P>,
    action: impl Future<Output = Result<R, ApiError>> + Send + 'static,
) -> Result<Response, ApiError>
where
    P: Serialize + Send + 'static,
    R: Serialize,
{
    if !accepts_events(headers) {
        return Ok(Json(action.await?).into_response());
    }
    let progress = stream::unfold(progress, |mut progress| async move {
        let event = progress.recv().await?;
        Some((Event::default().json_data(event), progress))
    });
    let result = stream::once(action).map(|result| match result {
        Ok(response) => Event::default().event("result").json_data(response),
        Err(error) => Event::default().event("error").json_data([error.code(), error.message()]),
    });
    Ok(Sse::new(stream::select(progress, result)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use axum::http::HeaderValue;
    use tokio::sync::mpsc;

    async fn respond(accept: &'static str, result: Result<&'static str, ApiError>) -> Result<String, String> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        let (sender, receiver) = mpsc::unbounded_channel();
        let action = async move {
            for step in [1, 2] {
                sender.send(step).unwrap();
                tokio::task::yield_now().await;
            }
            result
        };
        let response = respond_with_progress(&headers, receiver, action).await;
        let response = response.map_err(|error| error.code().to_owned())?;
        let body = to_bytes(response.into_body(), 1_000).await.unwrap();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn progress_is_sent_to_clients_of_event_streams() {
        let events = "data: 1\n\ndata: 2\n\nevent: result\ndata: \"done\"\n\n";
        assert_eq!(respond("text/event-stream", Ok("done")).await.unwrap(), events);
        assert_eq!(respond("application/json", Ok("done")).await.unwrap(), "\"done\"");
        let refused = || Err(ApiError::conflict("busy", "try later"));
        let events = "data: 1\n\ndata: 2\n\nevent: error\ndata: [\"busy\",\"try later\"]\n\n";
        assert_eq!(respond("text/event-stream", refused()).await.unwrap(), events);
        assert_eq!(respond("*/*", refused()).await.unwrap_err(), "busy");
    }
}
