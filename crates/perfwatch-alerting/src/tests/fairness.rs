//! Notifications despite obstacles: failing channels, a flapping incident, a later silence.

use super::harness::{TestSite, channel, cpu_rule, host, rule, sent_notifications, silence, unavailable};
use perfwatch_model::{Clock, HumanDuration};
use perfwatch_rules::channel::Channel;
use perfwatch_rules::incident::NotificationReason::{Opened, Reopened, Updated};
use perfwatch_rules::rule::Rule;
use perfwatch_rules::silence::Matcher;
use perfwatch_store::outbox::NotificationState;
use serde_json::json;

/// CPU rule that fires immediately.
fn cpu_rule_without_hold() -> Rule {
    Rule { hold_for: HumanDuration::default(), ..cpu_rule() }
}

#[tokio::test(start_paused = true)]
async fn failing_channel_does_not_block_others() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let channels = vec![channel("failing"), channel("working")];
    hub.set_definitions(vec![cpu_rule_without_hold()], channels, vec![]).await;
    site.notifier.fail("failing", unavailable("connection refused"));
    // More notifications than the dispatcher reads per round, each of another host.
    for number in 1..=230 {
        hub.send(host(number), [950, 500], 0).await;
    }
    hub.wait_for(|hub| hub.sent_count() >= 1).await;
    let first_batch = hub.sent_count();
    hub.advance_s(2).await;
    hub.send(host(999), [950, 500], 0).await;
    hub.wait_for(|hub| hub.sent_count() > first_batch).await;
    hub.advance_s(10).await;
    let sent = site.notifier.take_sent();
    assert!(sent.iter().all(|sent| sent.kind == "working"));
    let is_new_host = |subject: &str| subject.contains("999") || subject.ends_with(" notifications");
    assert!(sent.last().is_some_and(|sent| is_new_host(&sent.subject)), "{sent:?}");
    let rows = hub.list_notifications(NotificationState::Sent).await;
    assert!(rows.len() >= 100, "the list ends at a hundred: {}", rows.len());
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn new_alert_notifies_in_a_flapping_incident() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let memory_rule =
        rule(2, json!({"kind": "threshold", "metric": "memory.used_percent", "threshold": 90}), 0);
    hub.set_definitions(vec![cpu_rule_without_hold(), memory_rule], vec![channel("a")], vec![]).await;
    for _ in 0..5 {
        hub.run(host(1), 4, 950).await;
        hub.run(host(1), 4, 100).await;
    }
    hub.wait_for(|hub| hub.sent_count() == 4).await;
    hub.take_sent();
    hub.send(host(1), [100, 990], 0).await;
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    let sent = site.notifier.take_sent();
    assert_eq!((sent[0].reason, sent[0].subject.as_str()), (Reopened, "host-1: rule 2"));
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn later_silence_suppresses_reminders_and_expiry_notifies() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let team = Channel { repeat_interval: HumanDuration::from_s(300), ..channel("team") };
    hub.set_definitions(vec![cpu_rule()], vec![team.clone()], vec![]).await;
    hub.run(host(1), 20, 950).await;
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    let one_hour = silence(Matcher::default(), hub.clock.wall_ms(), 3_600);
    hub.set_definitions(vec![cpu_rule()], vec![team], vec![one_hour]).await;
    for _ in 0..4 {
        hub.advance_s(301).await;
    }
    assert_eq!(hub.take_sent(), sent_notifications(&[("team", Opened)]));
    let suppressed = hub.list_notifications(NotificationState::Suppressed).await;
    assert!(suppressed.iter().any(|row| row.error.as_deref() == Some("silenced")), "{suppressed:?}");
    // The rest of the hour.
    hub.advance_s(3_600 - 4 * 301 + 1).await;
    assert_eq!(hub.take_sent(), []);
    // Alerts that fire at the end of the silence are grouped for half a minute.
    hub.advance_s(31).await;
    assert_eq!(hub.take_sent(), sent_notifications(&[("team", Updated)]));
    hub.crash().await;
}
