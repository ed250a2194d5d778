//! Replays of hosts whose newest snapshots are old: they spooled during an outage of the hub.

use super::harness::{TestHub, TestSite, channel, cpu_rule, host};
use crate::OpenIncident;
use perfwatch_model::{Clock as _, HostId, Snapshot};
use perfwatch_store::incidents::{IncidentFilter, IncidentRow};
use std::sync::Arc;

const HOUR_MS: i64 = 3_600_000;
const LOADED: [i64; 2] = [950, 500];
const NORMAL: [i64; 2] = [300, 500];

/// Snapshots of a load of 20 s, one every 2 s, which began an hour ago.
fn old_load(hub: &mut TestHub) -> Vec<Arc<Snapshot>> {
    let snapshot = |index: i64| {
        let values = if index < 10 { LOADED } else { NORMAL };
        hub.next_snapshot(2_000, values, HOUR_MS - index * 2_000)
    };
    (0..12).map(snapshot).collect()
}

/// Times of firing and resolution of all alerts, relative to a time, in seconds.
async fn alert_times(hub: &TestHub, since_ms: i64) -> Vec<(i64, Option<i64>)> {
    let filter = IncidentFilter { to_ms: i64::MAX, limit: 100, ..IncidentFilter::default() };
    let mut times = Vec::new();
    for row in IncidentRow::list(hub.alerting.store(), filter).await.unwrap() {
        let OpenIncident { alerts, .. } = hub.alerting.load_with_alerts(&row).await.unwrap();
        let seconds = |at_ms: i64| (at_ms - since_ms) / 1_000;
        times.extend(alerts.iter().map(|alert| (seconds(alert.fired_ms), alert.resolved_ms.map(seconds))));
    }
    times
}

/// Accepts a batch of a host at once, as the pipeline does.
async fn accept(hub: &TestHub, host: HostId, batch: &[Arc<Snapshot>]) {
    let _append_lock = hub.history.append(host, batch.to_vec()).await.unwrap();
    batch.iter().for_each(|snapshot| hub.alerting.evaluate_snapshot(host, snapshot, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn first_batch_of_a_host_is_evaluated_however_old() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.set_definitions(vec![cpu_rule()], vec![channel("a")], vec![]).await;
    let batch = old_load(&mut hub);
    // All of it arrives before the replay of the new host.
    accept(&hub, host(1), &batch).await;
    hub.advance_s(3).await;
    assert_eq!(alert_times(&hub, batch[0].at_ms).await, [(10, Some(20))]);
    assert_eq!(hub.sent_count(), 0, "a backfill is not notified");
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn pending_alert_continues_after_an_outage_of_an_hour() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.set_definitions(vec![cpu_rule()], vec![channel("a")], vec![]).await;
    let since_ms = site.clock.wall_ms();
    hub.run(host(1), 6, 950).await;
    hub.crash().await;
    site.clock.advance(std::time::Duration::from_hours(1));
    let mut hub = site.open().await;
    hub.restore_recent_window().await;
    hub.start();
    hub.advance_s(1).await;
    // What the agent spooled: the load goes on until second 20.
    let spooled = |index: i64| {
        let values = if index < 10 { LOADED } else { NORMAL };
        Arc::new(Snapshot {
            seq: 100 + u64::try_from(index).unwrap(),
            at_ms: since_ms + index * 2_000,
            ..(*hub.next_snapshot(2_000, values, 0)).clone()
        })
    };
    let batch: Vec<_> = (3..12).map(spooled).collect();
    accept(&hub, host(1), &batch).await;
    hub.advance_s(3).await;
    assert_eq!(alert_times(&hub, since_ms).await, [(10, Some(20))], "pending since second 0");
    hub.crash().await;
}
