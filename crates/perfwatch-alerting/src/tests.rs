//! Alerting from snapshot to notification, under a clock that the tests advance.

mod backtester;
mod channel_secrets;
mod fairness;
mod harness;
mod lists;
mod paused_store;
mod recipients;
mod replays;
mod simulated_fleet;
mod timing;

use crate::OpenIncident;
use crate::timeline::timeline_event;
use harness::{
    START_MS, TestHub, TestSite, channel, cpu_rule, host, sent_notifications, silence, unavailable,
};
use perfwatch_auth::AuthError;
use perfwatch_model::{Clock, HumanDuration};
use perfwatch_rules::channel::{Channel, QuietHours};
use perfwatch_rules::incident::Ack;
use perfwatch_rules::incident::NotificationReason::{Opened, Reminder, Reopened, Resolved};
use perfwatch_rules::notification::SendError;
use perfwatch_rules::rule::{GroupBy, Rule, Severity};
use perfwatch_rules::silence::Matcher;
use perfwatch_rules::weekly_window::WeeklyWindow;
use perfwatch_store::incidents::IncidentEventKind;
use perfwatch_store::outbox::NotificationState;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn flapping_load_is_one_incident() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.set_definitions(vec![cpu_rule()], vec![channel("a")], vec![]).await;
    hub.run(host(1), 20, 200).await;
    hub.run(host(1), 20, 950).await;
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    for _ in 0..10 {
        // Between the thresholds the alert keeps firing; below, it is resolved.
        hub.run(host(1), 10, 850).await;
        hub.run(host(1), 4, 300).await;
        hub.run(host(1), 20, 950).await;
    }
    hub.run(host(1), 4, 300).await;
    hub.wait_for(|hub| hub.sent_count() >= 4).await;
    hub.advance_s(2).await;
    assert_eq!(
        hub.take_sent(),
        sent_notifications(&[("a", Opened), ("a", Resolved), ("a", Reopened), ("a", Resolved)])
    );
    let state = hub.alerting.snapshot();
    assert_eq!(state.incidents.iter().count(), 1);
    assert_eq!(state.incidents.iter().next().unwrap().alerts.len(), 11);
    // After the flap hold, the incident is resolved and its channel is notified.
    hub.advance_s(601).await;
    assert_eq!(hub.take_sent(), sent_notifications(&[("a", Resolved)]));
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn restart_sends_only_unsent_notifications() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.set_definitions(vec![cpu_rule()], vec![channel("a"), channel("b")], vec![]).await;
    // One channel is notified, the other is unavailable when the hub stops.
    site.notifier.fail("b", unavailable("connection refused"));
    hub.run(host(1), 20, 950).await;
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    // A second host is pending for 6 of 10 seconds.
    hub.run(host(2), 8, 950).await;
    hub.crash().await;
    let sent: Vec<_> = site.notifier.take_sent().into_iter().map(|sent| (sent.kind, sent.reason)).collect();
    assert_eq!(sent, sent_notifications(&[("a", Opened)]));
    site.notifier.recover();

    let mut hub = site.open().await;
    hub.restore_recent_window().await;
    hub.start();
    hub.advance_s(2).await;
    hub.run(host(1), 4, 950).await;
    hub.run(host(2), 6, 950).await;
    // The second host remained pending and fires after its 10 seconds.
    hub.wait_for(|hub| hub.sent_count() >= 3).await;
    let mut sent = hub.take_sent();
    sent.sort_by_key(|(kind, _)| kind.clone());
    assert_eq!(sent, sent_notifications(&[("a", Opened), ("b", Opened), ("b", Opened)]));
    hub.run(host(1), 4, 100).await;
    hub.wait_for(|hub| hub.sent_count() == 2).await;
    assert_eq!(hub.list_notifications(NotificationState::Pending).await.len(), 0);
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn channel_outage_preserves_order_and_lists_permanent_failure() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.set_definitions(vec![cpu_rule()], vec![channel("down"), channel("refuses")], vec![]).await;
    site.notifier.fail("down", unavailable("connection refused"));
    site.notifier.fail("refuses", SendError::Permanent("HTTP 400".to_owned()));
    hub.run(host(1), 20, 950).await;
    hub.run(host(1), 4, 100).await;
    hub.run(host(2), 20, 950).await;
    for _ in 0..60 {
        hub.advance_s(60).await;
        hub.send(host(1), [100, 500], 0).await;
        hub.send(host(2), [950, 500], 0).await;
    }
    hub.advance_s(2).await;
    assert_eq!(hub.sent_count(), 0);
    let pending = hub.list_notifications(NotificationState::Pending).await;
    assert_eq!(pending.len(), 3, "{pending:?}");
    assert!(
        pending.iter().any(|row| row.attempts >= 2 && row.error.as_deref() == Some("connection refused")),
        "{pending:?}"
    );
    let failed = hub.list_notifications(NotificationState::Failed).await;
    assert!(failed.len() >= 2, "{failed:?}");
    assert!(failed.iter().all(|row| row.error.as_deref() == Some("HTTP 400")), "{failed:?}");
    site.notifier.recover();
    hub.advance_s(601).await;
    hub.send(host(2), [950, 500], 0).await;
    hub.wait_for(|hub| hub.sent_count() == 3).await;
    let sent = site.notifier.take_sent();
    let sent: Vec<_> = sent.iter().map(|sent| (sent.reason, sent.subject.as_str())).collect();
    assert_eq!(sent, [(Opened, "host-1: rule 1"), (Resolved, "host-1: rule 1"), (Opened, "host-2: rule 1")]);
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn quiet_hours_defer_and_silences_suppress() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let window =
        WeeklyWindow { days: vec![], from: "09:00".into(), to: "11:00".into(), timezone: String::new() };
    let quiet = Channel {
        quiet_hours: Some(QuietHours { window, except_severity: Severity::Critical }),
        ..channel("quiet")
    };
    let matcher = Matcher { hosts: vec![host(3).0], ..Matcher::default() };
    let half_hour = silence(matcher, START_MS, 30 * 60);
    hub.set_definitions(vec![cpu_rule()], vec![quiet, channel("loud")], vec![half_hour]).await;
    for number in 1..=3 {
        hub.run(host(number), 20, 950).await;
    }
    hub.wait_for(|hub| hub.sent_count() == 2).await;
    assert_eq!(
        hub.take_sent(),
        sent_notifications(&[("loud", Opened), ("loud", Opened)]),
        "the third is silenced"
    );
    // The silence ends while the alert fires.
    hub.advance_s(30 * 60).await;
    for number in 1..=3 {
        hub.send(host(number), [950, 500], 0).await;
    }
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    assert_eq!(hub.take_sent(), sent_notifications(&[("loud", Opened)]));
    // The quiet hours end with a digest.
    hub.advance_s(31 * 60).await;
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    let sent = site.notifier.take_sent();
    assert_eq!((sent[0].kind.as_str(), sent[0].subject.as_str()), ("quiet", "3 notifications"));
    hub.crash().await;
}

/// Acknowledges the only incident, for a time or until it is resolved.
async fn acknowledge(hub: &TestHub, duration_ms: Option<i64>) {
    let id = hub.alerting.snapshot().incidents.iter().next().unwrap().incident.id;
    let change = |open: &mut OpenIncident, now_ms: i64| {
        let until_ms = duration_ms.map(|duration_ms| now_ms + duration_ms);
        open.incident.ack = Some(Ack { by: "user a".into(), at_ms: now_ms, until_ms });
        let event = timeline_event(id, now_ms, IncidentEventKind::Acknowledged, "acknowledged");
        Ok::<_, AuthError>((event, None))
    };
    assert!(hub.alerting.update_incident(id, None, change).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn joining_alert_ends_the_acknowledgment() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let by_rule = Rule { group_by: GroupBy::Rule, ..cpu_rule() };
    hub.set_definitions(vec![by_rule], vec![channel("team")], vec![]).await;
    hub.run(host(1), 20, 950).await;
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    acknowledge(&hub, None).await;
    let is_acknowledged =
        |hub: &TestHub| hub.alerting.snapshot().incidents.iter().next().unwrap().incident.ack.is_some();
    hub.run(host(1), 20, 950).await;
    assert!(is_acknowledged(&hub), "the same alert goes on");
    hub.run(host(2), 20, 950).await;
    hub.wait_for(|hub| hub.sent_count() == 2).await;
    assert!(!is_acknowledged(&hub), "nobody knows of the second host");
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn acknowledgment_stops_escalation_until_it_expires() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    let boss = Channel { escalate_after: HumanDuration::from_s(900), ..channel("boss") };
    let team = Channel { repeat_interval: HumanDuration::from_s(600), ..channel("team") };
    hub.set_definitions(vec![cpu_rule()], vec![boss, team], vec![]).await;
    hub.run(host(1), 20, 950).await;
    hub.wait_for(|hub| hub.sent_count() == 1).await;
    hub.advance_s(600).await;
    hub.wait_for(|hub| hub.sent_count() == 2).await;
    assert_eq!(hub.take_sent(), sent_notifications(&[("team", Opened), ("team", Reminder)]));
    // The incident is acknowledged for half an hour: no channel is notified.
    acknowledge(&hub, Some(1_800_000)).await;
    hub.advance_s(700).await;
    assert_eq!(hub.take_sent(), []);
    let suppressed = hub.list_notifications(NotificationState::Suppressed).await;
    let is_acknowledged = |error: Option<&str>| error == Some("incident acknowledged");
    assert!(suppressed.iter().any(|row| is_acknowledged(row.error.as_deref())), "{suppressed:?}");
    // The acknowledgment expires.
    hub.advance_s(1_200).await;
    hub.wait_for(|hub| hub.sent_count() >= 1).await;
    assert!(hub.take_sent().contains(&("team".to_owned(), Reminder)));
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn harness_advances_both_clocks() {
    let site = TestSite::new();
    let hub = site.open().await;
    let start = tokio::time::Instant::now();
    hub.advance(Duration::from_millis(2_500)).await;
    assert_eq!(site.clock.wall_ms() - START_MS, 2_500);
    assert!(start.elapsed() >= Duration::from_millis(2_500));
    hub.crash().await;
}
