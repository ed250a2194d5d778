//! Agent behind a reverse proxy with a body limit: smaller batches, smaller snapshots, and a log of the reason.

use crate::support::{AGENT, Process, TestHub, eventually, has_consecutive_sequences};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reverse proxy that rejects bodies above a limit with 413 and a page, without the envelope of the hub.
struct LimitingProxy {
    url: String,
    limit: Arc<AtomicUsize>,
}

impl LimitingProxy {
    fn start(hub: &TestHub, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (address, shared) = (hub.address.clone(), Arc::new(AtomicUsize::new(limit)));
        let limit = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (address, limit) = (address.clone(), limit.clone());
                // A client that disconnects ends its thread only.
                std::thread::spawn(move || forward(connection.ok()?, &address, &limit));
            }
        });
        Self { url, limit: shared }
    }
}

/// Forwards one request; `None` if a connection ends early.
fn forward(client: TcpStream, hub: &str, limit: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    for line in reader.by_ref().lines() {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        head += &format!("{line}\r\n");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut client = reader.into_inner();
    if length > limit.load(Ordering::Relaxed) {
        let page = "<html><head><title>413 Request Entity Too Large</title></head></html>";
        let head =
            "HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: text/html\r\nConnection: close\r\n";
        return write!(client, "{head}Content-Length: {}\r\n\r\n{page}", page.len()).ok();
    }
    let mut hub = TcpStream::connect(hub).ok()?;
    write!(hub, "{head}Connection: close\r\n\r\n").ok()?;
    hub.write_all(&body).ok()?;
    std::io::copy(&mut hub, &mut client).ok().map(|_| ())
}

fn start_agent(folder: &std::path::Path, proxy: &LimitingProxy, hub: &TestHub) -> Process {
    let args = ["--hub", &proxy.url, "--interval", "250ms", "--name", "it", "--token", &hub.token];
    Process::spawn(AGENT, folder, "agent", &args)
}

#[test]
fn backlog_is_sent_in_smaller_batches_behind_a_body_limit() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let proxy = LimitingProxy::start(&hub, 0);
    let agent = start_agent(folder.path(), &proxy, &hub);
    eventually("the reason is logged", || agent.log().contains("too small for any snapshot"));
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert!(agent.log().contains("exceeds the body limit") && agent.log().contains("HTTP 413"));
    proxy.limit.store(20_000, Ordering::Relaxed);
    eventually("the backlog arrives", || hub.seqs("it").len() > 24);
    assert!(has_consecutive_sequences(&hub.seqs("it")));
    let log = agent.log();
    assert!(log.contains("connection to the hub restored"), "{log}");
    assert!(log.lines().filter(|line| line.contains("WARN")).count() < 6, "{log}");
}

#[test]
fn snapshot_above_the_body_limit_is_sent_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let proxy = LimitingProxy::start(&hub, 900);
    let agent = start_agent(folder.path(), &proxy, &hub);
    eventually("parts of snapshots arrive", || hub.seqs("it").len() > 3);
    let log = agent.log();
    assert!(log.contains("sending it without processes"), "{log}");
    assert_eq!(log.matches("sending it without processes").count(), 1, "{log}");
    let recent = hub.get("/api/metrics/recent?host=it").body;
    let error = &recent["snapshots"][0]["errors"]["hub"];
    assert!(error.as_str().is_some_and(|text| text.contains("HTTP 413")), "{recent}");
    // Without the limit, snapshots are complete again.
    proxy.limit.store(usize::MAX, Ordering::Relaxed);
    eventually("complete snapshots arrive", || {
        let recent = hub.get("/api/metrics/recent?host=it").body;
        let snapshots = recent["snapshots"].as_array().cloned().unwrap_or_default();
        snapshots
            .last()
            .is_some_and(|last| last["processes"]["top"].as_array().is_some_and(|top| !top.is_empty()))
    });
}

#[test]
fn changed_reason_of_an_outage_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let proxy = LimitingProxy::start(&hub, usize::MAX);
    let address = hub.address.clone();
    let agent = start_agent(folder.path(), &proxy, &hub);
    eventually("snapshots arrive", || hub.seqs("it").len() > 1);
    hub.process.kill();
    eventually("the outage is logged", || agent.log().contains("hub unreachable"));
    proxy.limit.store(0, Ordering::Relaxed);
    eventually("the new reason is logged", || agent.log().contains("HTTP 413"));
    proxy.limit.store(usize::MAX, Ordering::Relaxed);
    let _hub = TestHub::start_with(folder.path(), &["hub", "--listen", &address]);
    eventually("the agent recovers", || agent.log().contains("connection to the hub restored"));
}
