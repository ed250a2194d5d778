//! Memory of a hub per host: resident memory with a full recent window, for several sizes of the fleet.

use crate::fleet::{BATCH_ROWS, INTERVAL_MS, SENDERS};
use crate::hub_process::{FLEET_SETTINGS, HubProcess};
use crate::store::Scratch;
use crate::tiny::shorten;
use perfwatch::simulate::SimHost;
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Clock, SystemClock, limits};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time after which the allocator has returned what is no longer used.
const SETTLE_TIME: Duration = Duration::from_secs(20);

/// Measures a hub with each number of hosts.
pub(crate) fn run(fleets: &[u64]) -> anyhow::Result<()> {
    let clock = SystemClock::new();
    println!("resident memory of a hub; each host sends its last five minutes at {INTERVAL_MS} ms");
    fleets.iter().try_for_each(|hosts| measure(usize::try_from(*hosts)?, &clock))
}

fn measure(hosts: usize, clock: &dyn Clock) -> anyhow::Result<()> {
    let scratch = Scratch::new("memory")?;
    let hub = HubProcess::start(&scratch.0, FLEET_SETTINGS)?;
    let admin = hub.create_user("root-admin", "admin")?;
    let mut fleet = hub.enroll_fleet(&admin, hosts)?;
    let (columns, processes) = fleet.first_mut().map_or((0, 0), |(host, _)| {
        let tick = host.tick(clock.wall_ms() - limits::RECENT_WINDOW_MS, 0);
        (tick.values.len(), tick.processes.len())
    });
    std::thread::sleep(shorten(SETTLE_TIME));
    let idle_mb = hub.resident_mb()?;
    let (started, sent) = (clock.monotonic(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for share in fleet.chunks_mut(hosts.div_ceil(SENDERS)) {
            scope.spawn(|| {
                let http = ureq::agent();
                for (host, bearer) in share {
                    match send_past(&http, &hub.url, host, bearer, clock) {
                        Ok(count) => _ = sent.fetch_add(count, Ordering::Relaxed),
                        Err(error) => println!("sender failed: {error:#}"),
                    }
                }
            });
        }
    });
    let sending = clock.monotonic().saturating_sub(started);
    std::thread::sleep(shorten(SETTLE_TIME));
    let full_mb = hub.resident_mb()?;
    println!(
        "  {hosts:>5} hosts, {columns} columns and {processes} processes: {idle_mb:.0} MB before, {full_mb:.0} MB with \
         {} snapshots sent in {:.0} s: {:.0} KB per host",
        sent.into_inner(),
        sending.as_secs_f64(),
        (full_mb - idle_mb) * 1024.0 / hosts as f64
    );
    Ok(())
}

/// Sends the recent window of a host, oldest snapshots first. Returns the number of snapshots.
fn send_past(
    http: &ureq::Agent,
    url: &str,
    host: &mut SimHost,
    bearer: &str,
    clock: &dyn Clock,
) -> anyhow::Result<u64> {
    let rows = limits::RECENT_WINDOW_MS / INTERVAL_MS;
    // The window moves on while other hosts send.
    let end_ms = clock.wall_ms();
    let ticks: Vec<_> = (1..=rows)
        .map(|n| host.tick(end_ms - (rows - n) * INTERVAL_MS, INTERVAL_MS.cast_unsigned() as u32))
        .collect();
    for (index, ticks) in ticks.chunks(BATCH_ROWS).enumerate() {
        let batch = Batch {
            host_id: host.id.to_bytes().to_vec().into(),
            host_name: host.name.clone(),
            shapes: if index == 0 { vec![wire::encode_shape(host.shape())] } else { Vec::new() },
            snapshots: ticks.iter().map(wire::encode_snapshot).collect(),
            sent_at_ms: clock.wall_ms(),
            facts: None,
        };
        let request = http.post(format!("{url}/ingest/metrics")).header("Authorization", bearer);
        let request = request.header("Content-Type", wire::CONTENT_TYPE);
        request.send(&wire::encode_batch(&batch)[..])?.body_mut().read_to_string()?;
    }
    Ok(ticks.len() as u64)
}
