//! Receiver of notifications: records each request with its time, and answers after a delay, so that faults
//! meet deliveries on their way.

use super::links::listen;
use crate::health::lock;
use perfwatch_model::{Clock, SystemClock};
use serde_json::Value;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Maximum size of a request.
const MAX_REQUEST_BYTES: usize = 1 << 20;
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Notification as it was received.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// Monotonic time of the receipt.
    pub(super) at: Duration,
    /// Id of the notification, the same if it is delivered again.
    pub(super) id: String,
    /// Why it was sent, such as `opened`.
    pub(super) reason: String,
    /// Id of the incident.
    pub(super) incident: String,
}

/// Running receiver; ends with the runtime.
pub(super) struct Webhook {
    pub(super) url: String,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
}

impl Webhook {
    /// Starts on a free port.
    pub(super) async fn start(clock: SystemClock, response_delay: Duration) -> anyhow::Result<Self> {
        let deliveries: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let received = deliveries.clone();
        let address = listen(move |mut stream: TcpStream| {
            let received = received.clone();
            async move {
                let mut buffer = Vec::new();
                while let Ok(Some(body)) = read_request(&mut stream, &mut buffer).await {
                    lock(&received).push(delivery(&body, clock.monotonic()));
                    tokio::time::sleep(response_delay).await;
                    if stream.write_all(RESPONSE).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { url: format!("http://{}/hook", address.await?), deliveries })
    }

    /// Everything that was received, in order.
    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.deliveries).clone()
    }
}

fn delivery(body: &Value, at: Duration) -> Delivery {
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    Delivery { at, id: text("id"), reason: text("reason"), incident: text("incident") }
}

/// Reads one request and returns its body; `None` at the end of the connection. `buffer` contains what was
/// read of the next request.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Value>> {
    loop {
        if let Some(end) = request_end(buffer) {
            let body = serde_json::from_slice(&buffer[end.0..end.1]).unwrap_or_default();
            buffer.drain(..end.1);
            return Ok(Some(body));
        }
        if buffer.len() > MAX_REQUEST_BYTES || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Start and end of the body, once the request is complete.
fn request_end(buffer: &[u8]) -> Option<(usize, usize)> {
    let head_end = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..head_end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let end = head_end + length.unwrap_or(0_usize);
    (buffer.len() >= end).then_some((head_end, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_with_their_body() {
        let request = b"POST /hook HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}POST";
        let head = request.len() - "{}POST".len();
        assert_eq!(request_end(request), Some((head, head + 2)));
        assert_eq!(request_end(&request[..=head]), None);
        assert_eq!(request_end(b"POST / HTTP/1.1\r\n"), None);
    }
}
