//! What lists show of alerts: course of the metric, largest process, silences, statistics.

use super::harness::{START_MS, TestHub, TestSite, channel, cpu_rule, host, silence};
use crate::{Alert, ChannelHealth, Spark, SparkKey};
use perfwatch_auth::identity::{Credential, Principal};
use perfwatch_auth::{AuthSnapshot, Identity};
use perfwatch_model::{Clock as _, ProcessRow};
use perfwatch_rules::silence::Matcher;
use perfwatch_store::accounts::Role;
use std::sync::Arc;

fn key(number: u128, metric: &str) -> SparkKey {
    SparkKey { host: host(number), metric: metric.to_owned(), instance: String::new() }
}

/// Identity without a limit to hosts.
fn everything() -> Identity {
    let principal = Principal::Account { id: uuid::Uuid::nil(), name: "a".to_owned() };
    let identity = Identity::for_ingest(principal, Credential::Bearer(String::new()));
    Identity { role: Some(Role::Viewer), ..identity }
}

async fn spark(hub: &TestHub, number: u128, metric: &str) -> Option<Arc<Spark>> {
    hub.alerting.sparks(vec![key(number, metric)]).await.remove(&key(number, metric))
}

fn firing_alert(hub: &TestHub) -> Arc<Alert> {
    let state = hub.alerting.snapshot();
    state.incidents.iter().flat_map(|open| open.firing()).next().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn spark_has_the_means_of_the_last_half_hour() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    assert_eq!(spark(&hub, 1, "cpu.usage").await, None, "the host is unknown");
    hub.run(host(1), 60, 200).await;
    hub.run(host(1), 60, 400).await;
    // The unknown host is remembered for a moment.
    hub.advance_s(20).await;
    let course = spark(&hub, 1, "cpu.usage").await.unwrap();
    assert_eq!((course.values.len(), course.step_ms), (60, 30_000));
    let recorded: Vec<f64> = course.values.iter().copied().flatten().collect();
    assert!((4..=6).contains(&recorded.len()), "{recorded:?}");
    assert_eq!((recorded[0], *recorded.last().unwrap()), (20.0, 40.0));
    hub.run(host(1), 10, 900).await;
    assert_eq!(spark(&hub, 1, "cpu.usage").await.unwrap(), course, "shared for some seconds");
    hub.advance_s(16).await;
    assert_ne!(spark(&hub, 1, "cpu.usage").await.unwrap(), course);
    for metric in ["clock.skew", "", "load.per_core", "disk.utilization"] {
        assert_eq!(spark(&hub, 1, metric).await, None, "{metric}");
    }
}

#[tokio::test(start_paused = true)]
async fn alert_names_its_largest_process_and_the_end_of_its_silence() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let matcher = Matcher { hosts: vec![host(1).0], ..Matcher::default() };
    let (short, long) = (silence(matcher.clone(), START_MS, 600), silence(matcher, START_MS, 900));
    let other = silence(Matcher { hosts: vec![host(2).0], ..Matcher::default() }, START_MS, 900);
    hub.set_definitions(vec![cpu_rule()], vec![], vec![short.clone(), long.clone(), other.clone()]).await;
    hub.run(host(1), 60, 100).await;
    for _ in 0..10 {
        let mut snapshot = (*hub.next_snapshot(2_000, [950, 500], 0)).clone();
        let process = |pid, name: &str, cpu_tenths| ProcessRow {
            pid,
            name: name.into(),
            cpu_tenths,
            ..ProcessRow::default()
        };
        snapshot.processes = vec![process(7, "idle", 10), process(9, "burner", 4_120)];
        hub.ingest(host(1), vec![snapshot], Some(0)).await;
        hub.advance_s(2).await;
    }
    let alert = firing_alert(&hub);
    let largest = alert.body.largest_consumer.clone().unwrap();
    assert_eq!((largest.name.as_str(), largest.pid, largest.baseline), ("burner", 9, None));
    let (state, now_ms) = (hub.alerting.snapshot(), site.clock.wall_ms());
    let (everything, tags) = (everything(), AuthSnapshot::default());
    let held_back = |silence| state.held_back(silence, &everything, &tags, now_ms);
    assert_eq!((held_back(&short), held_back(&other)), (1, 0));
    assert_eq!(state.silenced_until_ms(&alert, &tags, now_ms), long.ends_ms);
    assert_eq!(state.held_back(&long, &everything, &tags, START_MS + 1_000_000), 0, "the silence is over");
}

#[tokio::test(start_paused = true)]
async fn channel_health_and_statistics_follow_the_incidents() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let (working, failing) = (channel("works"), channel("fails"));
    site.notifier.fail("fails", super::harness::unavailable("connection refused"));
    hub.set_definitions(vec![cpu_rule()], vec![working.clone(), failing.clone()], vec![]).await;
    hub.run(host(1), 40, 950).await;
    let health = hub.alerting.channel_health(START_MS).await.unwrap();
    assert_eq!(health[&working.id], ChannelHealth { sent_24h: 1, ..ChannelHealth::default() });
    assert_eq!(health[&failing.id], ChannelHealth { waiting: 1, retrying: 1, ..ChannelHealth::default() });
    hub.run(host(1), 20, 100).await;
    let tags = Arc::new(AuthSnapshot::default());
    let now_ms = site.clock.wall_ms();
    let statistics = hub.alerting.statistics((START_MS, now_ms), &everything(), tags.clone()).await.unwrap();
    assert_eq!((statistics.per_day.len(), statistics.per_day[0].warning), (1, 1));
    let resolve_ms = statistics.resolve_median_ms.unwrap();
    assert!((20_000..60_000).contains(&resolve_ms), "{resolve_ms}");
    let firings = hub.alerting.daily_firings(&everything(), tags).await.unwrap();
    assert_eq!(firings[&cpu_rule().id], [0, 0, 0, 0, 0, 0, 1]);
}
