//! Protobuf batches from many senders over HTTP: decoding, limits, durable commit, publishing.

use crate::fleet::BenchHub;
use crate::store::Scratch;
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Clock, HostId, Snapshot, SystemClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SENDERS: usize = 8;

pub(crate) fn run(seconds: u64) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let scratch = Scratch::new("ingest")?;
    let hub = BenchHub::start(&runtime, scratch.sqlite(clock.clone())?, &clock, 10 << 30)?;
    let set = perfwatch_collect::CollectorSet::new(&[], perfwatch_collect::CollectorOptions::default());
    let root = perfwatch_collect::LocalRoot::new("/proc".as_ref(), "/sys".as_ref(), "/".as_ref());
    let snapshot = perfwatch_agent::collect_once(Arc::new(root), &set, Duration::from_millis(200), &clock)?;
    println!(
        "{SENDERS} senders and the hub share the cores of this machine; \
         snapshots of {} columns, uncompressed",
        snapshot.values.len()
    );
    for size in [1, 25] {
        let sent = Arc::new(AtomicU64::new(0));
        let deadline = clock.monotonic() + Duration::from_secs(seconds / 2);
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                let (snapshot, sent, clock) = (snapshot.clone(), sent.clone(), clock.clone());
                let (url, bearer) = (format!("{}/ingest/metrics", hub.url), hub.bearer());
                scope.spawn(move || send((&url, &bearer), snapshot, size, &sent, &*clock, deadline));
            }
        });
        let rate = sent.load(Ordering::Relaxed) as f64 / Duration::from_secs(seconds / 2).as_secs_f64();
        println!("  {size:>2} per request: {rate:>8.0} snapshots/s");
    }
    hub.stop();
    Ok(())
}

fn send(
    (url, bearer): (&str, &str),
    mut snapshot: Snapshot,
    size: usize,
    sent: &AtomicU64,
    clock: &dyn Clock,
    deadline: Duration,
) {
    let http = ureq::agent();
    let host = HostId::generate();
    let mut shapes = vec![wire::encode_shape(&snapshot.shape)];
    while clock.monotonic() < deadline {
        let snapshots = (0..size)
            .map(|_| {
                snapshot.seq += 1;
                snapshot.at_ms = clock.wall_ms();
                wire::encode_snapshot(&snapshot)
            })
            .collect();
        let batch = Batch {
            host_id: host.to_bytes().to_vec().into(),
            host_name: host.to_string(),
            shapes: std::mem::take(&mut shapes),
            snapshots,
            sent_at_ms: clock.wall_ms(),
            facts: None,
        };
        let request =
            http.post(url).header("Authorization", bearer).header("Content-Type", wire::CONTENT_TYPE);
        if request.send(&wire::encode_batch(&batch)[..]).is_ok() {
            sent.fetch_add(size as u64, Ordering::Relaxed);
        }
    }
}
