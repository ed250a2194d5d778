//! Hostile viewer: an API token that may read.

use super::agent::HOST_ID;
use super::attack::{Attack, Attacker};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

const SOCKETS: u64 = 2_000;
/// Sockets that change their selections without an end.
const CHANGING_SOCKETS: u64 = 10;
/// Metrics of one selection.
const SELECTED_METRICS: u64 = 1_000;
/// Connections that read nothing.
const SLOW_READERS: usize = 50;

pub(crate) const ATTACKS: &[Attack] = &[
    ("viewer: 2,000 WebSockets that read nothing", many_sockets),
    ("viewer: new selections without an end", many_selections),
    ("viewer: recent snapshots of the largest host", recent),
    ("viewer: all series of the largest host", all_series),
    ("viewer: export of the largest host", export),
    ("viewer: incident searches", incident_searches),
    ("viewer: slow reads", slow_reads),
    ("viewer: audit entries", audit_entries),
];

fn request(attacker: &Attacker) -> Option<tokio_tungstenite::tungstenite::handshake::client::Request> {
    let mut request = format!("ws://{}/api/ws/metrics", attacker.address).into_client_request().ok()?;
    request.headers_mut().insert("authorization", attacker.viewer.parse().ok()?);
    Some(request)
}

/// Selection that no other socket has.
fn selection(socket: u64, id: u64) -> Message {
    let metrics: Vec<String> = (0..SELECTED_METRICS).map(|n| format!("cpu.{socket}.{id}.{n}*")).collect();
    let metrics: Vec<&str> = metrics.iter().map(String::as_str).chain(["*"]).collect();
    let subscribe = json!({ "id": id % 16, "metrics": metrics, "processes": true, "backfill_s": 300 });
    Message::Text(json!({ "subscribe": subscribe }).to_string().into())
}

/// Opens a socket; the refusal is its status.
async fn connect(
    attacker: &Attacker,
) -> Result<
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
    String,
> {
    let request = request(attacker).ok_or("invalid address")?;
    match tokio::time::timeout(Duration::from_secs(20), connect_async(request)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => Err(response.status().as_str().to_owned()),
        Ok(Err(_)) => Err("no response".to_owned()),
        Err(_) => Err("timeout".to_owned()),
    }
}

fn run_sockets(attacker: &Attacker, count: u64, each: impl AsyncFn(u64)) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        futures_util::future::join_all((0..count).map(|number| each(number))).await;
    });
    runtime.shutdown_background();
    // All of them at once, until the deadline.
    while !attacker.is_over() {
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn many_sockets(attacker: &Attacker, attack: &'static str) {
    run_sockets(attacker, SOCKETS, async |number| {
        // Spread over the first seconds.
        tokio::time::sleep(Duration::from_millis(number * 5)).await;
        match connect(attacker).await {
            Ok(mut socket) => {
                attacker.count(attack, "opened".to_owned());
                let _ = socket.send(selection(number, 1)).await;
                while !attacker.is_over() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Err(code) => attacker.count(attack, code),
        }
    });
}

fn many_selections(attacker: &Attacker, attack: &'static str) {
    run_sockets(attacker, CHANGING_SOCKETS, async |number| {
        let mut id = 0;
        while !attacker.is_over() {
            let Ok(mut socket) = connect(attacker).await else {
                attacker.count(attack, "not opened".to_owned());
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            while !attacker.is_over() {
                id += 1;
                if socket.send(selection(1_000_000 + number, id)).await.is_err() {
                    attacker.count(attack, "closed by the hub".to_owned());
                    break;
                }
                attacker.count(attack, "sent".to_owned());
                // Reads a little, so that the connection stays open.
                let _ = tokio::time::timeout(Duration::from_millis(50), socket.next()).await;
            }
        }
    });
}

fn recent(attacker: &Attacker, attack: &'static str) {
    let metrics = "network.rx_bytes,".repeat(400);
    let paths = [
        format!("/api/metrics/recent?host={HOST_ID}"),
        format!("/api/metrics/recent?host={HOST_ID}&metric=network.rx_bytes,network.tx_bytes"),
        format!("/api/metrics/recent?host={HOST_ID}&metric={metrics}"),
    ];
    attacker.repeat(attack, |http, number| {
        attacker.get(http, &paths[number as usize % paths.len()], &attacker.viewer)
    });
}

fn all_series(attacker: &Attacker, attack: &'static str) {
    let paths = ["*", "network.*", "network.rx_bytes", "*{*},*,network.*"]
        .map(|metric| format!("/api/v1/hosts/{HOST_ID}/series?metric={metric}&from=-30d&points=100000"));
    attacker.repeat(attack, |http, number| {
        attacker.get(http, &paths[number as usize % paths.len()], &attacker.viewer)
    });
}

fn export(attacker: &Attacker, attack: &'static str) {
    attacker.repeat(attack, |http, number| {
        let format = if number % 2 == 0 { "csv" } else { "jsonl" };
        let path = format!("/api/v1/hosts/{HOST_ID}/export?format={format}&from=-30d&tier=raw");
        attacker.get(http, &path, &attacker.viewer)
    });
}

fn incident_searches(attacker: &Attacker, attack: &'static str) {
    attacker.repeat(attack, |http, number| {
        let text = "%25_".repeat(number as usize % 500 + 1);
        let path = format!("/api/v1/incidents/history?text={text}&from=0&limit=200");
        attacker.get(http, &path, &attacker.viewer)
    });
}

fn slow_reads(attacker: &Attacker, attack: &'static str) {
    let request = format!(
        "GET /api/v1/hosts/{HOST_ID}/series?metric=*&from=-1h HTTP/1.1\r\n\
         Host: hub\r\nAuthorization: {}\r\n\r\n",
        attacker.viewer
    );
    attacker.hold_connections(attack, SLOW_READERS, &request, b'\n');
}

fn audit_entries(attacker: &Attacker, attack: &'static str) {
    attacker.repeat(attack, |http, number| {
        let login = json!({ "name": format!("nobody-{number}"), "password": "wrong" });
        let routes = ["/api/v1/auth/login", "/api/v1/auth/token"];
        attacker.send_json(http, ("POST", routes[number as usize % 2]), &attacker.viewer, &login)
    });
}
