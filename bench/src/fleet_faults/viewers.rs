//! Viewers: WebSocket clients that subscribe to all hosts and reconnect as the dashboard does, and record
//! when new data of each host arrived.

use crate::health::lock;
use anyhow::Context as _;
use fastrand::Rng;
use futures_util::{SinkExt as _, StreamExt as _};
use perfwatch_model::{Clock as _, SystemClock};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Times of the dashboard: see `web/src/api/live.ts`. The viewers do not poll while they have no WebSocket.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(8);
const PING_AFTER: Duration = Duration::from_secs(20);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
const RESUBSCRIBE_DELAY: Duration = Duration::from_secs(1);
const BACKFILL_S: u32 = 60;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Arrival of the newest snapshot of a host so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Monotonic time of the arrival.
    pub(super) at: Duration,
    /// Time of the snapshot, Unix milliseconds.
    pub(super) snapshot_ms: i64,
}

/// What a viewer received, by host id.
#[derive(Debug, Default, Clone)]
pub(super) struct View {
    pub(super) hosts: HashMap<String, Vec<Arrival>>,
    /// Connections that ended or could not be opened.
    pub(super) reconnections: u64,
}

impl View {
    fn record(&mut self, host: &str, snapshot_ms: i64, at: Duration) {
        let arrivals = self.hosts.entry(host.to_owned()).or_default();
        if arrivals.last().is_none_or(|last| last.snapshot_ms < snapshot_ms) {
            arrivals.push(Arrival { at, snapshot_ms });
        }
    }

    /// Records the data of a message.
    fn receive(&mut self, message: &Value, at: Duration) {
        for entry in message["hosts"].as_array().into_iter().flatten() {
            let host = entry["host"].as_str().unwrap_or_default();
            // A tick has one time, a backfill those of all its rows.
            let times = entry["t"].as_array().map_or(std::slice::from_ref(&entry["t"]), Vec::as_slice);
            if let Some(newest) = times.iter().filter_map(Value::as_i64).max() {
                self.record(host, newest, at);
            }
        }
    }
}

/// Running viewers; end with the runtime.
pub(super) struct Viewers {
    views: Vec<Arc<Mutex<View>>>,
}

impl Viewers {
    /// Connects viewers in tasks of the current runtime.
    pub(super) fn start(
        address: &str,
        bearer: &str,
        count: usize,
        (clock, rng): (SystemClock, &mut Rng),
    ) -> anyhow::Result<Self> {
        let mut request = format!("ws://{address}/api/ws/metrics").into_client_request()?;
        request.headers_mut().insert("authorization", bearer.parse().context("token")?);
        let start = |_| {
            let view: Arc<Mutex<View>> = Arc::default();
            tokio::spawn(watch(request.clone(), view.clone(), clock, rng.fork()));
            view
        };
        Ok(Self { views: (0..count).map(start).collect() })
    }

    pub(super) fn views(&self) -> Vec<View> {
        self.views.iter().map(|view| lock(view).clone()).collect()
    }
}

/// Keeps one viewer connected.
async fn watch(request: Request, view: Arc<Mutex<View>>, clock: SystemClock, mut rng: Rng) {
    let mut attempt = 0;
    loop {
        let connecting = tokio::time::timeout(RESPONSE_TIMEOUT, connect_async(request.clone()));
        if let Ok(Ok((mut socket, _))) = connecting.await {
            attempt = 0;
            receive_all(&mut socket, &view, clock).await;
        }
        lock(&view).reconnections += 1;
        let backoff = MIN_BACKOFF.saturating_mul(1 << attempt).min(MAX_BACKOFF);
        attempt = (attempt + 1).min(16);
        tokio::time::sleep(backoff.mul_f64(0.5 + rng.f64() / 2.0)).await;
    }
}

async fn subscribe(socket: &mut Socket) -> Option<()> {
    let subscription = json!({ "id": 1, "metrics": ["cpu.usage"], "backfill_s": BACKFILL_S });
    send(socket, &json!({ "subscribe": subscription })).await
}

async fn send(socket: &mut Socket, message: &Value) -> Option<()> {
    socket.send(Message::Text(message.to_string().into())).await.ok()
}

/// Receives until the connection ends or does not answer.
async fn receive_all(socket: &mut Socket, view: &Mutex<View>, clock: SystemClock) -> Option<()> {
    subscribe(socket).await?;
    let mut timeout = PING_AFTER;
    loop {
        let message = match tokio::time::timeout(timeout, socket.next()).await {
            Ok(message) => message?.ok()?,
            Err(_) if timeout == PING_AFTER => {
                send(socket, &json!({ "ping": 1 })).await?;
                timeout = RESPONSE_TIMEOUT;
                continue;
            }
            Err(_) => return None,
        };
        let Message::Text(text) = message else { continue };
        timeout = PING_AFTER;
        let message: Value = serde_json::from_str(&text).unwrap_or_default();
        match message["type"].as_str() {
            Some("tick" | "backfill") => lock(view).receive(&message, clock.monotonic()),
            Some("lagged") => subscribe(socket).await?,
            Some("error") => {
                tokio::time::sleep(RESUBSCRIBE_DELAY).await;
                subscribe(socket).await?;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_records_new_data_only() {
        let mut view = View::default();
        let receive = |view: &mut View, t: Value, at_s: u64| {
            let message = json!({ "type": "tick", "hosts": [{ "host": "a", "t": t }] });
            view.receive(&message, Duration::from_secs(at_s));
        };
        receive(&mut view, json!([10, 20]), 1);
        receive(&mut view, json!(20), 2);
        receive(&mut view, json!(15), 3);
        receive(&mut view, json!(21), 4);
        let arrivals: Vec<_> =
            view.hosts["a"].iter().map(|arrival| (arrival.at.as_secs(), arrival.snapshot_ms)).collect();
        assert_eq!(arrivals, [(1, 20), (4, 21)]);
    }
}
