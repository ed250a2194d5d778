//! A backtest finds the alerts that live evaluation recorded on the same data.

use super::harness::{START_MS, TestHub, TestSite, host, rule};
use crate::Alert;
use perfwatch_model::Clock;
use perfwatch_store::incidents::{AlertFilter, AlertRow};
use serde_json::json;
use std::time::Duration;

const DAYS: i64 = 7;
const SNAPSHOT_INTERVAL_MS: u32 = 20_000;
/// Rows that are appended to the history in one commit.
const ROWS_PER_COMMIT: usize = 1_000;

/// Evaluates and stores seven days of a host: a reproducible random walk with gaps. Only the clock of the
/// hub advances, because running its timers for each second of a week takes too long.
async fn random_walk(hub: &mut TestHub) {
    let (mut cpu, mut memory, mut noise) = (300_i64, 400_i64, 7_u64);
    let mut rows = Vec::new();
    for step in 0..DAYS * 86_400_000 / i64::from(SNAPSHOT_INTERVAL_MS) {
        hub.clock.advance(Duration::from_millis(SNAPSHOT_INTERVAL_MS.into()));
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let change = |shift: u32| i64::try_from((noise >> shift) % 121).unwrap() - 60;
        cpu = (cpu + change(33)).clamp(0, 1_000);
        memory = (memory + change(45) / 3).clamp(100, 900);
        if step % 5_000 > 4_900 {
            continue;
        }
        let snapshot = hub.next_snapshot(SNAPSHOT_INTERVAL_MS, [cpu, memory], 0);
        hub.alerting.evaluate_snapshot(host(1), &snapshot, Some(0));
        rows.push(snapshot);
        if rows.len() == ROWS_PER_COMMIT {
            let _append_lock = hub.history.append(host(1), std::mem::take(&mut rows)).await.unwrap();
        }
    }
    let _append_lock = hub.history.append(host(1), rows).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn backtest_matches_live_alerts() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let rules = vec![
        rule(
            1,
            json!({"kind": "threshold", "metric": "cpu.usage", "threshold": 90, "clear_threshold": 80}),
            60,
        ),
        rule(
            2,
            json!({"kind": "threshold", "metric": "memory.used_percent", "aggregate": "mean",
                "window": "10m", "threshold": 70, "clear_threshold": 60}),
            0,
        ),
        rule(
            3,
            json!({"kind": "change", "metric": "memory.used_percent", "window": "10m", "offset": "2h",
                "threshold": 60}),
            0,
        ),
        rule(
            4,
            json!({"kind": "threshold", "metric": "cpu.usage", "aggregate": "p95", "window": "30m",
                "compare": "below", "threshold": 20, "clear_threshold": 30}),
            300,
        ),
    ];
    hub.set_definitions(rules.clone(), vec![], vec![]).await;
    hub.send(host(1), [100, 500], 0).await;
    hub.wait_until_idle().await;
    random_walk(&mut hub).await;
    hub.wait_until_idle().await;
    let now_ms = hub.clock.wall_ms();
    let filter = AlertFilter::Host(host(1).0, 0, i64::MAX);
    let rows = AlertRow::list(hub.alerting.store(), filter).await.unwrap();
    assert!(rows.len() < 500, "the list is complete: {}", rows.len());
    for rule in rules {
        let alerts = rows.iter().filter(|row| row.rule == rule.id).filter_map(Alert::from_row);
        let mut live: Vec<_> =
            alerts.map(|alert| (alert.body.pending_since_ms, alert.fired_ms, alert.resolved_ms)).collect();
        live.sort_unstable();
        let range = (START_MS, now_ms + 1);
        let result = hub.alerting.backtest(rule.clone(), vec![host(1)], range).await.unwrap();
        assert!(!result.hosts[0].downsampled && result.skipped_hosts == 0);
        let intervals = result.hosts[0].firing_intervals.iter();
        let mut tested: Vec<_> = intervals
            .map(|interval| (interval.pending_since_ms, interval.fired_ms, interval.resolved_ms))
            .collect();
        tested.sort_unstable();
        assert!(live.len() >= 3, "{} fired {} times only", rule.name, live.len());
        assert_eq!(tested, live, "{}", rule.name);
    }
    hub.crash().await;
}
