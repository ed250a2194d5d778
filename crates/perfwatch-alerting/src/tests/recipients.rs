//! Deliveries that only some recipients accept.

use super::harness::{TestSite, channel, cpu_rule, host};
use perfwatch_rules::notification::{Delivery, Notification, RecipientResult, RecipientState};
use perfwatch_store::outbox::{NotificationRow, NotificationState};

fn result(recipient: &str, state: RecipientState, reason: &str) -> RecipientResult {
    RecipientResult { recipient: recipient.to_owned(), state, reason: reason.to_owned() }
}

fn recipients(row: &NotificationRow) -> Vec<RecipientResult> {
    serde_json::from_str::<Notification>(&row.body).unwrap().recipients
}

#[tokio::test(start_paused = true)]
async fn deferred_recipient_is_retried_alone_and_delays_no_other() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.set_definitions(vec![cpu_rule()], vec![channel("mail")], vec![]).await;
    let partial = [
        result("a@x.org", RecipientState::Sent, ""),
        result("b@x.org", RecipientState::Refused, "550 no such user"),
        result("c@x.org", RecipientState::Deferred, "451 greylisted"),
    ];
    let deferred = Delivery { recipients: partial[2..].to_vec() };
    *site.notifier.delivery.lock().unwrap() = Delivery { recipients: partial.to_vec() };
    while hub.sent_count() == 0 {
        hub.run(host(1), 2, 950).await;
    }
    // Every attempt for the deferred recipient fails for an hour.
    *site.notifier.delivery.lock().unwrap() = deferred.clone();
    let sent = hub.list_notifications(NotificationState::Sent).await;
    assert_eq!(recipients(&sent[0]), partial);
    let error = sent[0].error.as_deref();
    assert_eq!(error, Some("b@x.org refused: 550 no such user; c@x.org deferred: 451 greylisted"));
    for _ in 0..60 {
        hub.advance_s(60).await;
        hub.send(host(1), [950, 500], 0).await;
    }
    let pending = hub.list_notifications(NotificationState::Pending).await;
    assert_eq!(pending.len(), 1, "{pending:?}");
    assert!(pending[0].attempts >= 4 && pending[0].due_ms == pending[0].retry_at_ms, "{pending:?}");
    assert_eq!(recipients(&pending[0]), deferred.recipients);
    // A notification in the meantime is sent to all.
    *site.notifier.delivery.lock().unwrap() = Delivery::default();
    hub.run(host(2), 20, 950).await;
    hub.advance_s(601).await;
    let pending = hub.list_notifications(NotificationState::Pending).await;
    assert!(pending.is_empty(), "{pending:?}");
    let sent = hub.list_notifications(NotificationState::Sent).await;
    assert_eq!(sent.len(), 3, "{sent:?}");
    hub.crash().await;
}

#[tokio::test(start_paused = true)]
async fn refused_recipients_are_not_tried_again_with_deferred_ones() {
    let site = TestSite::new();
    let mut hub = site.start().await;
    hub.set_definitions(vec![cpu_rule()], vec![channel("mail")], vec![]).await;
    let none_sent = [
        result("b@x.org", RecipientState::Refused, "550 no such user"),
        result("c@x.org", RecipientState::Deferred, "451 greylisted"),
    ];
    *site.notifier.delivery.lock().unwrap() = Delivery { recipients: none_sent.to_vec() };
    hub.run(host(1), 20, 950).await;
    let pending = hub.list_notifications(NotificationState::Pending).await;
    assert_eq!(recipients(&pending[0]), none_sent);
    let accepted = [none_sent[0].clone(), result("c@x.org", RecipientState::Sent, "")];
    *site.notifier.delivery.lock().unwrap() = Delivery { recipients: accepted.to_vec() };
    hub.advance_s(601).await;
    let sent = hub.list_notifications(NotificationState::Sent).await;
    assert_eq!((sent.len(), recipients(&sent[0])), (1, accepted.to_vec()));
    assert_eq!(sent[0].error.as_deref(), Some("b@x.org refused: 550 no such user"));
    hub.crash().await;
}
