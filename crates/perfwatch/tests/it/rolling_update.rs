//! Rolling update of two hubs behind a TCP balancer, under load: no request fails after a retry, and every acknowledged
//! snapshot is stored once.

use crate::history::exported;
use crate::support::{AGENT, Process, TestHub, eventually, has_consecutive_sequences, now_ms};
use perfwatch_testkit::Postgres;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Time between two readiness checks of the balancer.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two requests of a client.
const REQUEST_INTERVAL: Duration = Duration::from_millis(20);

/// Names of the hosts that scripts send for.
const SENDERS: [&str; 3] = ["sender-a", "sender-b", "sender-c"];

/// TCP balancer: new connections go to the ready backends in turn.
struct Balancer {
    address: String,
    stop: Arc<AtomicBool>,
}

fn is_ready(http: &ureq::Agent, address: &str) -> bool {
    http.get(format!("http://{address}/readyz")).call().is_ok()
}

fn http() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
    config.build().new_agent()
}

/// Copies bytes until one side ends.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

impl Balancer {
    fn start(backends: [String; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let ready: Arc<[AtomicBool; 2]> = Arc::default();
        let (checked, backends_of_check, stopped) = (ready.clone(), backends.clone(), stop.clone());
        std::thread::spawn(move || {
            // Each check has its own connection: an open one would keep a draining hub.
            while !stopped.load(Ordering::Relaxed) {
                for (flag, backend) in checked.iter().zip(&backends_of_check) {
                    flag.store(is_ready(&http(), backend), Ordering::Relaxed);
                }
                std::thread::sleep(CHECK_INTERVAL);
            }
        });
        let next = AtomicUsize::new(0);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let first = next.fetch_add(1, Ordering::Relaxed);
                let order = [first % 2, (first + 1) % 2];
                let usable = order.into_iter().filter(|index| ready[*index].load(Ordering::Relaxed));
                let Some(backend) =
                    usable.filter_map(|index| TcpStream::connect(&backends[index]).ok()).next()
                else {
                    continue;
                };
                let (client_copy, backend_copy) = (client.try_clone().unwrap(), backend.try_clone().unwrap());
                std::thread::spawn(move || copy(client, backend));
                std::thread::spawn(move || copy(backend_copy, client_copy));
            }
        });
        Self { address, stop }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Requests and retries of one client.
#[derive(Default)]
struct Tally {
    requests: usize,
    retried: usize,
    acknowledged: BTreeSet<u64>,
}

/// Sends numbered snapshots until the flag is set, each again until it is acknowledged.
fn send_snapshots(base: &str, token: &str, host: &str, stop: &AtomicBool) -> Tally {
    let (http, mut tally) = (http(), Tally::default());
    for seq in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let body =
            json!({ "host": host, "seq": seq, "timestamp": now_ms(), "cpu": { "usage": 1 } }).to_string();
        let send = || {
            let post = http
                .post(format!("{base}/ingest/metrics"))
                .header("Authorization", format!("Bearer {token}"));
            post.header("Content-Type", "application/json").send(&body)
        };
        tally.requests += 1;
        eventually("a snapshot is acknowledged", || {
            let sent = send();
            if let Err(error) = &sent {
                tally.retried += 1;
                eprintln!("{host} {seq}: {error}");
            }
            sent.is_ok()
        });
        tally.acknowledged.insert(seq);
        std::thread::sleep(REQUEST_INTERVAL);
    }
    tally
}

/// Reads as a script does: a request that fails is repeated.
fn read_hosts(base: &str, token: &str, stop: &AtomicBool) -> Tally {
    let (http, mut tally) = (http(), Tally::default());
    let get = || -> Result<String, ureq::Error> {
        let request =
            http.get(format!("{base}/api/v1/hosts")).header("Authorization", format!("Bearer {token}"));
        let (mut response, mut text) = (request.call()?, String::new());
        response.body_mut().as_reader().read_to_string(&mut text)?;
        Ok(text)
    };
    while !stop.load(Ordering::Relaxed) {
        tally.requests += 1;
        if let Err(first) = get() {
            tally.retried += 1;
            get().unwrap_or_else(|second| panic!("{first}, then {second}"));
        }
        std::thread::sleep(REQUEST_INTERVAL);
    }
    tally
}

fn start_hub(folder: &Path, listen: &str, database: &str) -> TestHub {
    let variables = [("PERFWATCH_HUB_SHUTDOWN_DELAY", "2s")];
    TestHub::start_with_env(folder, &["hub", "--listen", listen, "--store", database], &variables)
}

/// Sequence numbers that the hubs have stored, each at most once per hub: a hub shows the unsealed rows that it received.
fn stored(hubs: &[TestHub], host: &str) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for hub in hubs {
        let rows = exported(hub, host);
        let unique: BTreeSet<u64> = rows.iter().copied().collect();
        assert_eq!(rows.len(), unique.len(), "{host}: duplicate rows");
        all.extend(unique);
    }
    all
}

#[test]
fn rolling_update_loses_no_request_and_no_acknowledged_snapshot() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let postgres = Postgres::start();
    let database = postgres.database("shared");
    let start = |index: usize, listen: &str| start_hub(folders[index].path(), listen, &database);
    let mut hubs = [start(0, "127.0.0.1:0"), start(1, "127.0.0.1:0")];
    let addresses = [hubs[0].address.clone(), hubs[1].address.clone()];
    let balancer = Balancer::start(addresses.clone());
    let (base, token, stop) =
        (format!("http://{}", balancer.address), hubs[0].token.clone(), AtomicBool::new(false));
    eventually("the balancer has a ready hub", || is_ready(&http(), &balancer.address));
    // Both hubs know the hosts by name: two hubs that receive a new name at the same time create two hosts.
    for host in SENDERS {
        hubs[0].post_json(&json!({ "host": host, "seq": 0, "cpu": { "usage": 1 } }));
        eventually("the other hub knows the host", || {
            hubs[1].get(&format!("/api/v1/hosts/{host}")).status == 200
        });
    }
    let arguments = ["--hub", &base, "--interval", "250ms", "--name", "agent", "--token", &token];
    let mut agent = Process::spawn(AGENT, folders[2].path(), "agent", &arguments);
    let (senders, reads) = std::thread::scope(|scope| {
        let spawn = |host: &'static str| {
            let (base, token, stop) = (&base, &token, &stop);
            (host, scope.spawn(move || send_snapshots(base, token, host, stop)))
        };
        let senders = SENDERS.map(spawn);
        let reader = scope.spawn(|| read_hosts(&base, &token, &stop));
        // Elapsed time of load on both hubs, before and between the updates.
        std::thread::sleep(Duration::from_secs(2));
        for index in [0, 1] {
            let http = http();
            hubs[index].process.signal("TERM");
            eventually("the hub reports that it drains", || !is_ready(&http, &addresses[index]));
            assert!(
                http.get(format!("http://{}/healthz", addresses[index])).call().is_ok(),
                "the hub still serves"
            );
            assert_eq!(hubs[index].process.child.wait().unwrap().code(), Some(0));
            hubs[index] = start(index, &addresses[index]);
            std::thread::sleep(Duration::from_secs(2));
            let log = hubs[index].process.log();
            assert!(!log.contains(" ERROR "), "{log}");
        }
        stop.store(true, Ordering::Relaxed);
        (senders.map(|(host, sender)| (host, sender.join().unwrap())), reader.join().unwrap())
    });
    assert_eq!(agent.terminate(), 0);
    for (host, tally) in &senders {
        let expected: BTreeSet<u64> = std::iter::once(0).chain(tally.acknowledged.iter().copied()).collect();
        let retried = tally.retried;
        assert_eq!(stored(&hubs, host), expected, "{host}: {} requests, {retried} retried", tally.requests);
        assert!(tally.requests > 100, "{host}: {}", tally.requests);
    }
    assert!(reads.requests > 100, "{}", reads.requests);
    // The only requests to repeat met the end of an open connection; the drain closes them between two requests.
    let retried: usize = senders.iter().map(|(_, tally)| tally.retried).sum::<usize>() + reads.retried;
    assert!(retried <= 4, "{retried} requests were retried");
    let ticks: Vec<u64> = stored(&hubs, "agent").into_iter().collect();
    assert!(ticks.len() > 20 && has_consecutive_sequences(&ticks), "{ticks:?}");
}
