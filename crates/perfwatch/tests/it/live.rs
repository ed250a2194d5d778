//! WebSocket: one message per tick, subscriptions, slow clients, no leaks.

use crate::access::add_user;
use crate::support::{TestHub, eventually, now_ms};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn connect(hub: &TestHub) -> Socket {
    connect_with(hub, &hub.token).await
}

async fn connect_with(hub: &TestHub, token: &str) -> Socket {
    let mut request = format!("ws://{}/api/ws/metrics", hub.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    connect_async(request).await.unwrap().0
}

async fn next_json(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("no message");
        match message.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn send_message(socket: &mut Socket, message: Value) {
    socket.send(Message::Text(message.to_string().into())).await.unwrap();
}

fn post(hub: &TestHub, host: &str, at_ms: i64, usage: f64) {
    let body = json!({ "timestamp": at_ms, "host": host, "interval_ms": 1000, "cpu": { "usage": usage },
                       "memory": { "used": 5 }, "processes": { "top": [{ "pid": 1, "name": "init" }] } });
    assert_eq!(hub.post_json(&body).body["accepted"], 1);
}

/// Returns the number of WebSocket connections in all states.
fn connections(hub: &TestHub) -> i64 {
    let text = hub.get("/metrics").text;
    let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap();
    text.lines().filter(|line| line.starts_with("perfwatch_websocket_connections{")).map(count).sum()
}

#[test]
fn full_snapshots_without_subscription() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    block_on(async {
        let mut socket = connect(&hub).await;
        eventually("the client is connected", || connections(&hub) == 1);
        send_message(&mut socket, json!({ "unsubscribe": 1 })).await;
        let at = now_ms();
        for tick in 0..3 {
            post(&hub, "a", at + tick, 10.0 + tick as f64);
            post(&hub, "b", at + tick, 20.0);
        }
        for tick in 0..3 {
            let a = next_json(&mut socket).await;
            assert_eq!((&a["host"], &a["cpu"]["usage"]), (&json!("a"), &json!(10 + tick)));
            assert_eq!(next_json(&mut socket).await["host"], "b");
        }
    });
}

/// A page of a large fleet does not receive the fleet on its way to subscribe.
#[test]
fn client_that_subscribes_at_once_receives_no_full_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    post(&hub, "a", now_ms(), 1.0);
    block_on(async {
        for at in (now_ms()..).step_by(1_000) {
            let started_ms = now_ms();
            let mut socket = connect(&hub).await;
            post(&hub, "b", at, 1.0);
            let subscription = json!({ "hosts": ["a"], "metrics": ["cpu.usage"] });
            send_message(&mut socket, json!({ "subscribe": subscription })).await;
            send_message(&mut socket, json!({ "ping": 1 })).await;
            // A slow machine is late.
            if now_ms() - started_ms < 300 {
                assert_eq!(next_json(&mut socket).await["type"], "pong");
                break;
            }
        }
    });
}

#[test]
fn subscription_sends_backfill_then_columns() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let at = now_ms() - 5_000;
    post(&hub, "a", at, 1.0);
    post(&hub, "a", at + 1000, 2.0);
    post(&hub, "b", at, 9.0);
    let id = hub.get("/api/v1/hosts/a").body["id"].clone();
    block_on(async {
        let mut socket = connect(&hub).await;
        let subscription =
            json!({ "id": 7, "hosts": ["a"], "metrics": ["cpu.*"], "processes": true, "backfill_s": 300 });
        send_message(&mut socket, json!({ "subscribe": subscription })).await;
        let backfill = next_json(&mut socket).await;
        assert_eq!((&backfill["type"], &backfill["id"]), (&json!("backfill"), &json!(7)));
        let entry = &backfill["hosts"][0];
        assert_eq!(entry["columns"], json!([{ "metric": "cpu.usage", "instance": "", "decimals": 2 }]));
        assert_eq!((&entry["t"], &entry["v"]), (&json!([at, at + 1000]), &json!([[100, 200]])));
        assert_eq!(entry["processes"][0]["name"], "init");

        post(&hub, "b", at + 2000, 9.0);
        post(&hub, "a", at + 2000, 3.5);
        let tick = next_json(&mut socket).await;
        assert_eq!((&tick["type"], &tick["hosts"][0]["host"]), (&json!("tick"), &id));
        assert_eq!((&tick["hosts"][0]["v"], &tick["hosts"][0]["shape"]), (&json!([350]), &entry["shape"]));

        // A new shape is sent before its first tick; a repeated subscription sends new rows only.
        let cpu = json!({ "usage": 4, "core": { "0": { "usage": 1 } } });
        let body = json!({ "timestamp": at + 3000, "host": "a", "cpu": cpu });
        hub.post_json(&body);
        let columns = next_json(&mut socket).await;
        assert_eq!((&columns["type"], columns["columns"].as_array().unwrap().len()), (&json!("columns"), 2));
        // JSON objects are unordered: cpu.core sorts before cpu.usage.
        assert_eq!(next_json(&mut socket).await["hosts"][0]["v"], json!([10, 400]));
        let subscription = json!({ "id": 7, "hosts": ["a"], "metrics": ["cpu.usage"], "backfill_s": 300,
                                   "since": { id.as_str().unwrap(): at + 1000 } });
        send_message(&mut socket, json!({ "subscribe": subscription })).await;
        let remaining = next_json(&mut socket).await;
        let times: Vec<&Value> = remaining["hosts"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|entry| entry["t"].as_array().unwrap())
            .collect();
        assert_eq!(times, [&json!(at + 2000), &json!(at + 3000)]);

        send_message(&mut socket, json!({ "unsubscribe": 7 })).await;
        send_message(&mut socket, json!({ "ping": 3 })).await;
        assert_eq!(next_json(&mut socket).await, json!({ "type": "pong", "ping": 3 }));
        for (message, code) in [
            (json!({ "subscribe": { "hosts": ["unknown"] } }), "unknown_host"),
            (json!({ "shout": 1 }), "invalid_message"),
            (json!({}), "invalid_message"),
            (json!([1, 2]), "invalid_message"),
        ] {
            send_message(&mut socket, message).await;
            assert_eq!(next_json(&mut socket).await["error"]["code"], code);
        }
    });
}

#[test]
fn large_backfill_is_split_into_messages() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let at = now_ms() - 200_000;
    let metrics: serde_json::Map<String, Value> =
        (0..600).map(|n| (format!("m{n}"), json!(123_456.789))).collect();
    for tick in 0..3 {
        let list: Vec<Value> = (0..200)
            .map(|n| json!({ "host": "big", "timestamp": at + tick * 200 + n, "big": metrics }))
            .collect();
        let body = zstd::bulk::compress(Value::Array(list).to_string().as_bytes(), 1).unwrap();
        let response = hub.post(&body, &[("Content-Encoding", "zstd")]);
        assert_eq!(response.body["accepted"], 200, "{}", response.text);
    }
    block_on(async {
        let mut socket = connect(&hub).await;
        send_message(&mut socket, json!({ "subscribe": { "hosts": ["big"], "backfill_s": 300 } })).await;
        let (mut times, mut messages) = (Vec::new(), 0);
        while times.len() < 600 {
            let backfill = next_json(&mut socket).await;
            assert_eq!(backfill["type"], "backfill");
            messages += 1;
            for entry in backfill["hosts"].as_array().unwrap() {
                times.extend(entry["t"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap()));
            }
        }
        assert!(messages > 3 && times.is_sorted(), "{messages}");
    });
}

#[test]
fn ticks_of_many_hosts_are_coalesced() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    block_on(async {
        let mut socket = connect(&hub).await;
        send_message(&mut socket, json!({ "subscribe": { "metrics": ["cpu.usage"] } })).await;
        eventually("the client is connected", || connections(&hub) == 1);
        let at = now_ms();
        for host in 0..20 {
            post(&hub, &format!("h{host}"), at, 1.0);
        }
        let (mut hosts, mut ticks) = (0, 0);
        while hosts < 20 {
            let message = next_json(&mut socket).await;
            if message["type"] == "tick" {
                ticks += 1;
                hosts += message["hosts"].as_array().unwrap().len();
            }
        }
        assert!(ticks <= 10, "{ticks} messages for 20 hosts");
    });
}

/// The client reads nothing, and the hub sends more than all buffers between them hold.
#[test]
fn slow_client_is_dropped_without_memory_growth() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    block_on(async {
        let slow_client = connect(&hub).await;
        eventually("the client is connected", || connections(&hub) == 1);
        let before = hub.process.resident_kib();
        let rows: Vec<Value> =
            (0..200).map(|pid| json!({ "pid": pid, "command": "x".repeat(1000) })).collect();
        let at = now_ms();
        // 40 kB compressed, 200 kB per message, 60 MB in total.
        for tick in 0..300 {
            let body =
                json!({ "timestamp": at + tick, "host": "a", "processes": { "top": rows } }).to_string();
            let body = zstd::bulk::compress(body.as_bytes(), 1).unwrap();
            assert_eq!(hub.post(&body, &[("Content-Encoding", "zstd")]).body["accepted"], 1);
        }
        eventually("the slow client is disconnected", || connections(&hub) == 0);
        let metrics = hub.get("/metrics").text;
        assert!(
            metrics.contains("perfwatch_websocket_disconnects_total{reason=\"send_timeout\"} 1"),
            "{metrics}"
        );
        // The recent window holds the snapshots and their encodings: 2 × 200 kB each.
        let growth = hub.process.resident_kib().saturating_sub(before);
        assert!(growth < 250 << 10, "{growth} KiB");
        drop(slow_client);
    });
}

#[test]
fn disconnected_clients_release_resources() {
    const CYCLES: usize = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let no_rate_limit = [("PERFWATCH_HUB_LIMITS_API_REQUESTS_PER_SECOND", "100000")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &no_rate_limit);
    post(&hub, "a", now_ms(), 1.0);
    // Messages of an account are paced: an account may send 4,000 at once.
    let users = [("vera", "viewer-password-1"), ("vito", "viewer-password-2")];
    let tokens = users.map(|user| {
        add_user(&hub, user, "viewer", &[]);
        hub.create_token(user, "viewer")
    });
    let tokens = [&hub.token, &tokens[0], &tokens[1]];
    let cycle = |count: usize| {
        block_on(async {
            let connect_and_leave = async |n: usize| {
                let mut socket = connect_with(&hub, tokens[n % tokens.len()]).await;
                send_message(
                    &mut socket,
                    json!({ "subscribe": { "hosts": ["a"], "metrics": ["cpu.usage"], "backfill_s": 300 } }),
                )
                .await;
                assert_eq!(next_json(&mut socket).await["type"], "backfill");
                // Half of the clients send a close frame, half drop the connection.
                if n.is_multiple_of(2) {
                    socket.close(None).await.unwrap();
                }
            };
            futures_util::stream::iter(0..count).for_each_concurrent(16, connect_and_leave).await;
        });
        eventually("all clients are disconnected", || connections(&hub) == 0);
    };
    cycle(500);
    let (memory, open_fds) = (hub.process.resident_kib(), hub.process.open_fds());
    cycle(CYCLES);
    eventually("sockets are closed", || hub.process.open_fds() <= open_fds + 2);
    let growth = hub.process.resident_kib().saturating_sub(memory);
    assert!(growth < 4 << 10, "memory grew by {growth} KiB after {CYCLES} clients");
}

#[test]
fn shutdown_closes_websockets_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = TestHub::start(folder.path());
    block_on(async {
        let mut socket = connect(&hub).await;
        eventually("the client is connected", || connections(&hub) == 1);
        assert_eq!(hub.process.terminate(), 0);
        let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else { panic!("no close frame") };
        assert_eq!(u16::from(frame.code), 1001);
    });
    assert!(hub.process.log().contains("hub stopped"), "{}", hub.process.log());
}
