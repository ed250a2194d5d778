//! One collection: all collectors in sequence, derivation and snapshot included.

use crate::counting_allocator::{BYTES, CALLS};
use crate::process::{percentiles, spawn_sleepers};
use crate::tiny::repetitions;
use perfwatch_collect::{
    COLLECTORS, Cadence, CollectorCache, CollectorOptions, CollectorSet, Deriver, LocalRoot, SnapshotBuilder,
    read_all,
};
use perfwatch_model::{Clock, SystemClock, wire};
use std::path::Path;
use std::sync::atomic::Ordering;

const ROUNDS: u64 = 200;

pub(crate) fn run(processes: u64) -> anyhow::Result<()> {
    let sleepers = spawn_sleepers(processes)?;
    let slow = COLLECTORS.iter().filter(|collector| collector.cadence != Cadence::EveryTick);
    let slow: Vec<String> = slow.map(|collector| collector.name.to_owned()).collect();
    measure("collectors of every tick", &slow)?;
    measure("all collectors at once", &[])?;
    drop(sleepers);
    Ok(())
}

fn measure(label: &str, disabled: &[String]) -> anyhow::Result<()> {
    let source = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), Path::new("/"));
    let set = CollectorSet::new(disabled, CollectorOptions::default());
    let clock = SystemClock::new();
    let (mut cache, mut deriver, mut builder) =
        (CollectorCache::default(), Deriver::default(), SnapshotBuilder::default());
    let (mut durations, mut by_collector) = (Vec::new(), std::collections::BTreeMap::<&str, Vec<f64>>::new());
    let (mut calls, mut bytes, mut wire_bytes, mut columns, mut total) = (0, 0, 0, 0, 0.0);
    let rounds = repetitions(ROUNDS);
    for round in 0..=rounds {
        let before = (CALLS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
        let started = clock.monotonic();
        let reading = read_all(&source, &set, &mut cache, &clock);
        let derived = deriver.derive(&reading, &set.options);
        let snapshot = builder.build(reading.boot, round, reading.wall_ms, 0, derived);
        let duration = clock.monotonic().saturating_sub(started);
        // The first round fills the caches.
        if round > 0 {
            durations.push(duration.as_secs_f64() * 1000.0);
            calls += CALLS.load(Ordering::Relaxed) - before.0;
            bytes += BYTES.load(Ordering::Relaxed) - before.1;
            for part in &reading.parts {
                by_collector.entry(part.collector).or_default().push(part.duration.as_secs_f64() * 1000.0);
            }
        }
        wire_bytes = wire::encode_snapshot(&snapshot).len();
        columns = snapshot.values.len();
        total = snapshot.value("processes.total", "").unwrap_or_default();
        // Elapsed time longer than a kernel tick, so that some processes are always active.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (p50, p99, max) = percentiles(durations);
    println!(
        "{label}, {total} processes, {columns} columns: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms"
    );
    println!(
        "  {} allocations, {} kB; {wire_bytes} B on the wire before compression",
        calls / rounds,
        bytes / rounds / 1000
    );
    for (collector, durations) in by_collector {
        let (p50, p99, _) = percentiles(durations);
        println!("  {collector:<12} p50 {p50:>6.3} ms  p99 {p99:>6.3} ms");
    }
    Ok(())
}
