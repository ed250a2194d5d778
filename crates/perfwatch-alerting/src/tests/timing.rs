//! Hosts without data, restarts, and backfilled data.

use super::harness::{TestSite, channel, cpu_rule, host, rule, sent_notifications};
use perfwatch_rules::incident::NotificationReason::{Opened, Resolved};
use serde_json::json;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn no_data_alert_fires_once_and_not_on_restart() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let no_data_rule = rule(2, json!({"kind": "no_data", "grace": "60s"}), 0);
    hub.set_definitions(vec![no_data_rule], vec![channel("a")], vec![]).await;
    for _ in 0..20 {
        for number in 1..=8 {
            hub.send(host(number), [100, 500], 0).await;
        }
        hub.advance_s(2).await;
    }
    // The first host stops sending.
    for _ in 0..40 {
        for number in 2..=8 {
            hub.send(host(number), [100, 500], 0).await;
        }
        hub.advance_s(2).await;
    }
    let sent = site.notifier.take_sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].subject, "host-1: rule 2");
    hub.crash().await;
    // The downtime of the hub is no silence of the hosts. The alert of the first host continues.
    site.clock.advance(Duration::from_secs(600));
    let mut hub = site.start().await;
    hub.advance_s(2).await;
    for _ in 0..2 {
        for number in 2..=8 {
            hub.send(host(number), [100, 500], 0).await;
        }
        hub.advance_s(50).await;
    }
    assert_eq!(hub.take_sent(), []);
    hub.advance_s(1).await;
    hub.send(host(1), [100, 500], 0).await;
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    assert_eq!(hub.take_sent(), sent_notifications(&[("a", Resolved)]));
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn backfilled_alerts_are_recorded_without_notification() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.set_definitions(vec![cpu_rule()], vec![channel("a")], vec![]).await;
    hub.send(host(1), [100, 500], 3_700_000).await;
    hub.wait_until_idle().await;
    for ago_s in (3_000..3_600_i64).rev().step_by(2) {
        let cpu = if (3_200..3_300).contains(&ago_s) { 950 } else { 100 };
        hub.send(host(1), [cpu, 500], ago_s * 1_000).await;
    }
    hub.advance_s(1).await;
    assert_eq!(hub.take_sent(), []);
    let state = hub.alerting.snapshot();
    let open = state.incidents.iter().next().expect("the alert is recorded");
    let reasons: Vec<_> = open.alerts.iter().map(|alert| alert.body.resolve_reason.as_deref()).collect();
    assert_eq!(reasons, [Some("backfilled")]);
    // An alert that started in backfilled data and still fires is notified.
    for ago_s in (0..600_i64).rev().step_by(2) {
        hub.send(host(1), [950, 500], ago_s * 1_000).await;
    }
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    hub.run(host(1), 10, 950).await;
    assert_eq!(hub.take_sent(), sent_notifications(&[("a", Opened)]));
    hub.crash().await;
}
