//! WebSocket clients in processes of their own, and the delays of the messages that they receive. All processes use the
//! same clock.

use crate::hub_process::HubProcess;
use crate::process::Running;
use anyhow::Context as _;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use perfwatch_model::{Clock, SystemClock};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Clients of a process: a process has 20,000 file descriptors on many systems, and a share of the processors.
const MAX_PROCESS_CLIENTS: usize = 2_500;
/// Clients of an account, below the limit of the hub.
const ACCOUNT_CLIENTS: usize = 1_000;
/// Handshakes at once of a process.
const MAX_HANDSHAKES: usize = 32;
/// The library clears the buffer before each read: the default of 128 KiB would take most of the time of a client.
const READ_BUFFER_BYTES: usize = 16 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);

/// A client: its account, its subscription, and the number of messages after which it ends.
struct ClientPlan {
    bearer: String,
    /// Without a subscription the client receives full snapshots of all hosts.
    subscription: Option<Value>,
    messages: u64,
}

/// Processes with connected clients.
pub(crate) struct ClientProcesses(Vec<Running>);

/// End of the plans, which are a line of the standard input of a client process. The clients count messages after the
/// end of the input.
const PLANS_END: &[u8] = b"\n";

impl ClientProcesses {
    /// Starts a client for each subscription, and waits until all are connected. From then on each client ends after a
    /// number of messages. A client that counted earlier would end before the last client is connected.
    pub(crate) fn start(
        hub: &HubProcess,
        admin: &str,
        subscriptions: &[Option<Value>],
        messages: u64,
        clock: &dyn Clock,
    ) -> anyhow::Result<Self> {
        let accounts = subscriptions.len().div_ceil(ACCOUNT_CLIENTS);
        let viewer = |number| hub.create_user(&format!("viewer-{number}"), "viewer");
        let bearers: Vec<String> = (0..accounts).map(viewer).collect::<anyhow::Result<_>>()?;
        let plan = |(number, subscription): (usize, &Option<Value>)| json!({ "bearer": bearers[number % accounts], "subscription": subscription, "messages": messages });
        let plans: Vec<Value> = subscriptions.iter().enumerate().map(plan).collect();
        let processes = plans.len().div_ceil(MAX_PROCESS_CLIENTS).max(1);
        let start = |plans: &[Value]| {
            let mut child = Command::new(std::env::current_exe()?)
                .args(["live-clients", &hub.address])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut input = child.stdin.take().context("no input")?;
            serde_json::to_writer(&mut input, plans)?;
            input.write_all(PLANS_END)?;
            Ok((Running(child), input))
        };
        let running = plans.chunks(plans.len().div_ceil(processes).max(1)).map(start);
        let (processes, inputs): (_, Vec<ChildStdin>) =
            running.collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip();
        let all_connected = format!("perfwatch_websocket_connections{{state=\"live\"}} {}\n", plans.len());
        let deadline = clock.monotonic() + CONNECT_TIMEOUT;
        // Without clients, the metric does not exist.
        while !plans.is_empty() && !hub.text("/metrics", admin, None)?.contains(&all_connected) {
            anyhow::ensure!(clock.monotonic() < deadline, "not all of {} clients are connected", plans.len());
            std::thread::sleep(Duration::from_millis(200));
        }
        drop(inputs);
        Ok(Self(processes))
    }

    /// Waits for the end of all clients. Returns the delays of their messages in milliseconds.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<f64>> {
        let mut delays = Vec::new();
        for mut process in self.0 {
            let received: Vec<f64> = serde_json::from_reader(process.0.stdout.take().context("no output")?)?;
            anyhow::ensure!(process.0.wait()?.success(), "a client process failed");
            delays.extend(received);
        }
        Ok(delays)
    }
}

/// Client process: reads its plans from standard input, prints the delays.
pub(crate) fn clients(address: &str) -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let plans: Vec<Value> = serde_json::from_str(&line)?;
    let are_all_connected = Arc::new(AtomicBool::new(false));
    let at_end = are_all_connected.clone();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        at_end.store(true, Ordering::Relaxed);
        std::io::Result::Ok(())
    });
    let plan = |plan: Value| ClientPlan {
        bearer: plan["bearer"].as_str().unwrap_or_default().to_owned(),
        subscription: plan.get("subscription").filter(|subscription| !subscription.is_null()).cloned(),
        messages: plan["messages"].as_u64().unwrap_or_default(),
    };
    let plans: Vec<ClientPlan> = plans.into_iter().map(plan).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let delays = runtime.block_on(async {
        let handshakes = Semaphore::new(MAX_HANDSHAKES);
        let mut clients: FuturesUnordered<_> =
            plans.iter().map(|plan| receive(address, plan, &handshakes, &are_all_connected)).collect();
        let mut delays = Vec::new();
        while let Some(received) = clients.next().await {
            delays.extend(received?);
        }
        anyhow::Ok(delays)
    })?;
    serde_json::to_writer(std::io::stdout(), &delays)?;
    Ok(())
}

async fn connect(address: &str, plan: &ClientPlan) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let mut request = format!("ws://{address}/api/ws/metrics").into_client_request()?;
    request.headers_mut().insert("authorization", plan.bearer.parse()?);
    let stream = TcpStream::connect(address).await?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    if let Some(subscription) = &plan.subscription {
        let message = json!({ "subscribe": subscription });
        socket.send(Message::Text(message.to_string().into())).await?;
    }
    Ok(socket)
}

/// Delays of the messages that a client receives once all are connected, in milliseconds.
async fn receive(
    address: &str,
    plan: &ClientPlan,
    handshakes: &Semaphore,
    are_all_connected: &AtomicBool,
) -> anyhow::Result<Vec<i64>> {
    let turn = handshakes.acquire().await?;
    let mut socket = connect(address, plan).await?;
    drop(turn);
    let clock = SystemClock::new();
    let mut delays = Vec::new();
    while (delays.len() as u64) < plan.messages {
        let Some(message) = socket.next().await else { break };
        let now_ms = clock.wall_ms();
        if let Message::Text(text) = message?
            && are_all_connected.load(Ordering::Relaxed)
            && let Some(at_ms) = message_time_ms(&text)
        {
            delays.push(now_ms - at_ms);
        }
    }
    Ok(delays)
}

/// Returns the time of a message without decoding all of it, because every client receives it.
fn message_time_ms(text: &str) -> Option<i64> {
    if let Some((_, time)) = text.split_once("\"t\":") {
        return time.split(',').next()?.parse().ok();
    }
    let timestamp = text.strip_prefix("{\"timestamp\":\"")?.split('"').next()?;
    // The date is today: all processes use the same clock.
    let digits: Vec<i64> = timestamp[11..23].split([':', '.']).filter_map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds, ms] = digits[..] else {
        return None;
    };
    let day_ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms;
    let midnight_ms = SystemClock::new().wall_ms() / 86_400_000 * 86_400_000;
    Some(midnight_ms + day_ms)
}
