//! Tests of the pusher.

use super::*;
use crate::hub_client::HubResponse;

#[test]
fn only_hub_rejections_drop_snapshots() {
    let rejection = r#"{"error":{"code":"malformed","message":"x"}}"#;
    for (status, body, expected) in [
        (200, r#"{"accepted":1,"duplicates":0,"rejected":[],"interval_ms":500}"#, "acked"),
        (200, "<html>captive portal</html>", "retry"),
        (200, "null", "retry"),
        (204, "", "retry"),
        (409, r#"{"error":{"code":"unknown_shape"}}"#, "shapes"),
        (409, "{}", "retry"),
        (400, rejection, "rejected"),
        (408, "", "interrupted"),
        (504, "<html>nginx</html>", "interrupted"),
        (413, "<html>nginx</html>", "too_large"),
        (413, rejection, "too_large"),
        (401, rejection, "unauthorized"),
        (403, rejection, "unauthorized"),
        (401, r#"{"error":{"code":"unknown_agent"}}"#, "unknown_agent"),
        (401, "<html>log in</html>", "retry"),
        (403, r#"{"error":{"code":"agent_revoked"}}"#, "revoked"),
        (403, "<html>no</html>", "retry"),
        (404, rejection, "retry"),
        (429, rejection, "retry"),
        (503, rejection, "retry"),
    ] {
        let response = HubResponse { status, body: body.to_owned(), retry_after: None, date: None };
        let outcome = match classify(&response, 0) {
            PushOutcome::Acked(_) => "acked",
            PushOutcome::ShapesRequested => "shapes",
            PushOutcome::Rejected(_) => "rejected",
            PushOutcome::TooLarge(..) => "too_large",
            PushOutcome::Interrupted(_) => "interrupted",
            PushOutcome::Unauthorized(..) => "unauthorized",
            PushOutcome::Retry(..) => "retry",
            PushOutcome::UnknownAgent(_) => "unknown_agent",
            PushOutcome::Revoked => "revoked",
        };
        assert_eq!(outcome, expected, "{status} {body}");
    }
}

/// Hub that responds to each request with the next of the given responses and returns the batches.
fn fake_hub(responses: &'static [(u16, &'static str)]) -> (String, std::thread::JoinHandle<Vec<Batch>>) {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let (mut batches, mut connection) = (Vec::new(), None);
        for (status, body) in responses {
            let reader = connection.get_or_insert_with(|| BufReader::new(listener.accept().unwrap().0));
            let mut length = 0;
            for line in reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes).unwrap();
            let bytes = zstd::bulk::decompress(&bytes, limits::MAX_DECOMPRESSED_BYTES).unwrap();
            batches.push(wire::decode_batch(bytes.into()).unwrap());
            let head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n\r\n", body.len());
            reader.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
        batches
    };
    (url, std::thread::spawn(serve))
}

#[test]
fn valid_part_of_a_rejected_snapshot_is_sent() {
    use perfwatch_model::{BootId, Column, Shape, Snapshot};
    let column = |metric: &'static str, instance: &str| Column {
        metric: metric.into(),
        dimension: "sensor".into(),
        instance: instance.into(),
        decimals: 0,
    };
    let columns = vec![column("system.uptime", ""), column("fan.speed", "a"), column("fan.speed", "a")];
    let snapshot = Snapshot {
        boot: BootId::generate(),
        seq: 5,
        at_ms: 1,
        interval_ms: 1,
        shape: Arc::new(Shape::new(columns)),
        values: vec![7, 8, 9],
        processes: Vec::new(),
        facts: None,
        errors: Vec::new(),
    };
    let rejected = r#"{"error":{"code":"malformed_batch","message":"duplicate fan.speed"}}"#;
    let accepted = r#"{"accepted":1,"duplicates":0,"rejected":[]}"#;
    let (url, hub) = fake_hub(Box::leak(Box::new([(400, rejected), (200, accepted)])));
    let folder = tempfile::tempdir().unwrap();
    let config = AgentConfig {
        hub: url,
        token: Some(crate::AgentToken::new("secret".to_owned())),
        ca: None,
        name: None,
        state: folder.path().to_owned(),
        interval: Duration::from_secs(1),
        procfs: "/proc".into(),
        sysfs: "/sys".into(),
        rootfs: "/".into(),
        disabled_collectors: Vec::new(),
        collector_intervals: std::collections::BTreeMap::new(),
        options: perfwatch_collect::CollectorOptions::default(),
        max_spool_bytes: 4 << 20,
        max_backoff: MAX_INTERVAL,
    };
    let mut spool = Spool::open(&folder.path().join("spool"), 1 << 20);
    spool.append(&snapshot);
    let shared = Arc::new(AgentState::new(spool, 1_000));
    let clock: Arc<dyn Clock> = Arc::new(perfwatch_model::SystemClock::new());
    let mut pusher = Pusher::new(shared.clone(), clock, &config, HostId::generate(), "x".to_owned()).unwrap();
    let pending = shared.lock().pending_batch(10).unwrap();
    let batch = spool::read_batch(pending, 10, MAX_BATCH_BYTES);
    assert_eq!(pusher.send_and_ack(&batch), None);
    assert_eq!(shared.lock().pending(), 0);
    // The hub asked for twice as many snapshots as the agent is configured to send.
    assert_eq!(shared.interval_ms.load(Ordering::Relaxed), 1_000);
    let reduced = hub.join().unwrap().pop().unwrap();
    let shape = Arc::new(wire::decode_shape(reduced.shapes[0].clone()).unwrap());
    let shapes = |_| Some(shape.clone());
    let sent = wire::decode_snapshot(reduced.snapshots[0].clone(), &shapes, &|text| text.into()).unwrap();
    assert_eq!((sent.seq, &sent.values[..]), (5, &[7, 8][..]));
    assert!(sent.errors[0].message.contains("duplicate fan.speed"), "{:?}", sent.errors);
}

#[test]
fn responses_with_collectors_are_compatible_in_both_directions() {
    let parse = |text| serde_json::from_str::<IngestResponse>(text).unwrap();
    // A hub without requests, and a hub whose requests have more fields than this agent knows.
    assert!(parse(r#"{"accepted":1}"#).collectors.is_empty());
    let newer = parse(r#"{"accepted":1,"collectors":{"disk":{"interval_ms":5000,"mode":"light"}}}"#);
    assert_eq!(newer.collectors["disk"].interval_ms, Some(5_000));
    // Agents of earlier versions receive what they received before.
    let text = serde_json::to_string(&IngestResponse::default()).unwrap();
    assert!(!text.contains("collectors"), "{text}");
}
