//! Delivers queued notifications, one channel at a time and in order, at least once.
//!
//! A failed delivery is retried with exponential backoff; a rejected notification is marked as failed
//! and the next one follows. A hub that stops between delivery and commit delivers the notification
//! again under the same id.

use crate::delivery_record::record_delivery;
use crate::in_flight::{DeliveryRound, InFlightGuard};
use crate::incident_service::IncidentService;
use crate::metrics::AlertingMetrics;
use crate::notification_builder::NotificationBuilder;
use crate::recipients::{continuation, deferred_row, recorded_body};
use crate::reminder::schedule_reminder;
use crate::revalidation::{Revalidation, Revalidator};
use crate::sender::NotificationSender;
use crate::timeline::timeline_event;
use perfwatch_model::{Clock, FailureStreak};
use perfwatch_rules::channel::Channel;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{self, Delivery, Notification, SendError};
use perfwatch_rules::rule::Severity;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::incidents::{IncidentEventKind, IncidentEventRow};
use perfwatch_store::outbox::{NotificationRow, NotificationState, Outbox};
use perfwatch_store::{CommitError, LeasedTask, Store, StoreError, TaskLease, Transaction};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Maximum number of channels that are served concurrently.
const MAX_CONCURRENT_CHANNELS: usize = 8;
/// Maximum number of rows that are read per channel and round.
const MAX_ROWS_PER_CHANNEL: i64 = 200;
/// Interval at which the outbox is polled for notifications that became due.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Delay before the first retry; doubled with each attempt.
const INITIAL_BACKOFF_MS: i64 = 5_000;
/// Maximum delay before a retry.
const MAX_BACKOFF_MS: i64 = 600_000;
/// Maximum delay before a retry if the receiver requests it.
const MAX_RETRY_AFTER_MS: i64 = 3_600_000;
/// Maximum exponent of the backoff.
const MAX_BACKOFF_DOUBLINGS: u32 = 20;
/// Maximum age of a notification that is retried, or that waits for a disabled channel.
const MAX_PENDING_AGE_MS: i64 = 2 * 86_400_000;
/// Maximum number of due notifications that are sent one by one. More are combined to a digest.
const MAX_SEPARATE_ROWS: usize = 15;

/// Outcome of an attempt to deliver a notification.
#[derive(Clone)]
enum DeliveryOutcome {
    /// Accepted, by at least one recipient.
    Sent(Delivery),
    /// Notification is obsolete, for the given reason.
    Suppressed(&'static str),
    /// No recipient accepted it. The results by recipient are empty if all are treated alike.
    Failed(SendError, Delivery),
}

/// Due notifications of a channel, divided by how they are delivered.
struct DeliveryPlan {
    digest: Vec<NotificationRow>,
    separate: Vec<NotificationRow>,
}

/// Deliverer of the outbox. Of several hubs, the holder of a lease delivers.
pub(crate) struct NotificationDispatcher {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) incidents: Arc<IncidentService>,
    pub(crate) revalidator: Revalidator,
    pub(crate) sender: NotificationSender,
    pub(crate) builder: NotificationBuilder,
    pub(crate) metrics: AlertingMetrics,
    /// Notified when the outbox contains new notifications.
    pub(crate) wake: Arc<Notify>,
}

impl NotificationDispatcher {
    /// Delivers notifications until shutdown.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_CHANNELS));
        let in_flight: Arc<Mutex<HashSet<Uuid>>> = Arc::default();
        let mut failures = FailureStreak::default();
        // Deliveries end before the hub releases the lease: another hub would send what is on its way again.
        let deliveries = TaskTracker::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            let started = self.clock.monotonic();
            let due = self.channels_due().await;
            let run = (self.clock.wall_ms(), self.clock.monotonic().saturating_sub(started));
            let error = due.as_ref().err().map(ToString::to_string);
            self.metrics.tasks.record("notifications", Some(POLL_INTERVAL), run, error);
            if let Some(error) = failures.first_error(&due) {
                tracing::warn!(%error, "failed to load due notifications");
            }
            let Ok(Some((lease, channels))) = due else { continue };
            for channel in channels {
                let Some(guard) = InFlightGuard::try_acquire(&in_flight, channel) else { continue };
                let (dispatcher, permits) = (self.clone(), permits.clone());
                let round = DeliveryRound { lease, stop: stop.clone() };
                deliveries.spawn(async move {
                    let _guard = guard;
                    let _permit = permits.acquire_owned().await;
                    if let Err(error) = dispatcher.flush_channel(channel, &round).await {
                        tracing::warn!(%error, "failed to deliver notifications of a channel");
                    }
                });
            }
        }
        deliveries.close();
        deliveries.wait().await;
    }

    /// Returns whether this hub still delivers what it read. A hub that was suspended since leaves it to the next
    /// holder, also if it holds the lease again.
    fn may_send(&self, round: &DeliveryRound) -> bool {
        let lease = self.store.lease(LeasedTask::NotificationDispatch);
        !round.stop.is_cancelled() && lease == Some(round.lease)
    }

    /// Channels with due notifications, if this hub holds the lease. The state is refreshed first,
    /// because another hub may have enqueued the notifications.
    async fn channels_due(&self) -> Result<Option<(TaskLease, Vec<Uuid>)>, StoreError> {
        let Some(lease) = self.store.lease(LeasedTask::NotificationDispatch) else { return Ok(None) };
        let channels = Outbox::channels_due(&*self.store, self.clock.wall_ms()).await?;
        if channels.is_empty() {
            return Ok(None);
        }
        self.incidents.refresh_from_store().await?;
        Ok(Some((lease, channels)))
    }

    /// Delivers the due notifications of a channel in order, until one must be retried.
    async fn flush_channel(&self, id: Uuid, round: &DeliveryRound) -> Result<(), CommitError> {
        let state = self.incidents.snapshot();
        let now_ms = self.clock.wall_ms();
        let Some(channel) = state.definitions.channel(id) else {
            let tx = Transaction::build(|tx| tx.notifications().suppress_for_channel(id, now_ms));
            return self.store.commit(tx).await;
        };
        // Severities that quiet hours defer stay queued and do not block the others.
        let deliverable: Vec<&str> = [Severity::Info, Severity::Warning, Severity::Critical]
            .into_iter()
            .filter(|severity| channel.muted_until(*severity, now_ms).is_none())
            .map(Severity::name)
            .collect();
        let Some(last) = deliverable.last() else { return Ok(()) };
        // The query has three parameters: the last severity is repeated.
        let severities = [0, 1, 2].map(|index| *deliverable.get(index).unwrap_or(last));
        let rows = Outbox::due(&*self.store, id, severities, now_ms, MAX_ROWS_PER_CHANNEL).await?;
        if !channel.enabled {
            return self.expire(&rows, now_ms).await;
        }
        // Recipients that were deferred do not delay the notifications to the others.
        let (continuations, rows): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| continuation(row).is_some());
        for row in continuations.iter().filter(|row| row.retry_at_ms <= now_ms) {
            if !self.deliver(channel, row, round).await? {
                break;
            }
        }
        // Order is kept: a notification that waits for its retry blocks the later ones of the channel.
        if rows.first().is_some_and(|first| first.retry_at_ms > now_ms) {
            return Ok(());
        }
        let DeliveryPlan { mut digest, separate } = self.plan_delivery(channel, rows);
        if digest.len() > 1 {
            if !self.send_digest(channel, &digest, round).await? {
                return Ok(());
            }
            digest.clear();
        }
        for row in digest.iter().chain(&separate) {
            if !self.deliver(channel, row, round).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Divides due notifications. A digest contains those that quiet hours deferred, or all of a large
    /// backlog. Receivers that track incidents get every notification.
    fn plan_delivery(&self, channel: &Channel, rows: Vec<NotificationRow>) -> DeliveryPlan {
        let tracks_incidents = notification::find_kind(&*self.sender.notifier, &channel.kind)
            .is_some_and(|kind| kind.tracks_incidents);
        if tracks_incidents {
            return DeliveryPlan { digest: Vec::new(), separate: rows };
        }
        if rows.len() > MAX_SEPARATE_ROWS {
            return DeliveryPlan { digest: rows, separate: Vec::new() };
        }
        let was_deferred = |row: &NotificationRow| {
            let severity = Severity::parse(&row.severity).unwrap_or_default();
            channel.muted_until(severity, row.created_ms).is_some()
        };
        let (digest, separate) = rows.into_iter().partition(was_deferred);
        DeliveryPlan { digest, separate }
    }

    /// Suppresses notifications that waited too long for a disabled channel.
    async fn expire(&self, rows: &[NotificationRow], now_ms: i64) -> Result<(), CommitError> {
        let reason = Some("channel disabled for two days");
        let mut tx = Transaction::default();
        for row in rows.iter().filter(|row| now_ms - row.created_ms > MAX_PENDING_AGE_MS) {
            tx.notifications().finish(row.id, NotificationState::Suppressed, reason, now_ms);
        }
        let count = tx.len();
        self.store.commit(tx).await?;
        (0..count).for_each(|_| self.metrics.count_notification(NotificationState::Suppressed));
        Ok(())
    }

    /// Delivers several notifications as a digest. Returns whether the next notification may follow.
    async fn send_digest(
        &self,
        channel: &Channel,
        rows: &[NotificationRow],
        round: &DeliveryRound,
    ) -> Result<bool, CommitError> {
        let (mut included_rows, mut notifications) = (Vec::new(), Vec::new());
        for row in rows {
            match self.revalidator.revalidate(channel, row).await? {
                Revalidation::Send(notification) => {
                    included_rows.push(row);
                    notifications.push(*notification);
                }
                Revalidation::Suppress(reason) => {
                    self.record_outcome(channel, row, DeliveryOutcome::Suppressed(reason), (None, round))
                        .await?;
                }
                Revalidation::Unreadable => {
                    self.record_outcome(channel, row, unreadable(), (None, round)).await?;
                }
            }
        }
        let Some(first) = notifications.first() else { return Ok(true) };
        if !self.may_send(round) {
            return Ok(false);
        }
        // A repeated digest has the id of its first notification again.
        let digest = match notifications.len() {
            1 => first.clone(),
            _ => Notification {
                id: first.id,
                ..self.builder.build_digest(&notifications, self.clock.wall_ms())
            },
        };
        let outcome = self.try_send(channel, &digest).await;
        let is_sent = matches!(outcome, DeliveryOutcome::Sent(_));
        for (index, row) in included_rows.into_iter().enumerate() {
            // The digest continues once, with its first row.
            let sent = (index == 0 && is_sent).then_some(&digest);
            // If the digest is retried, the first row alone records the time of the retry.
            if !self.record_outcome(channel, row, outcome.clone(), (sent, round)).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Delivers a notification. Returns whether the next notification may follow.
    async fn deliver(
        &self,
        channel: &Channel,
        row: &NotificationRow,
        round: &DeliveryRound,
    ) -> Result<bool, CommitError> {
        // A continuation has the content that the other recipients received.
        let revalidation = match continuation(row) {
            Some(notification) => Revalidation::Send(Box::new(notification)),
            None => self.revalidator.revalidate(channel, row).await?,
        };
        match revalidation {
            Revalidation::Send(_) if !self.may_send(round) => Ok(false),
            Revalidation::Send(notification) => {
                let outcome = self.try_send(channel, &notification).await;
                self.record_outcome(channel, row, outcome, (Some(&notification), round)).await
            }
            Revalidation::Suppress(reason) => {
                self.record_outcome(channel, row, DeliveryOutcome::Suppressed(reason), (None, round)).await
            }
            Revalidation::Unreadable => self.record_outcome(channel, row, unreadable(), (None, round)).await,
        }
    }

    async fn try_send(&self, channel: &Channel, notification: &Notification) -> DeliveryOutcome {
        match self.sender.send(channel, notification).await {
            Ok(delivery) if delivery.is_sent() => DeliveryOutcome::Sent(delivery),
            Ok(delivery) => {
                let reason = delivery.problem().unwrap_or_default();
                DeliveryOutcome::Failed(SendError::Transient { reason, retry_after: None }, delivery)
            }
            Err(error) => DeliveryOutcome::Failed(error, Delivery::default()),
        }
    }

    /// Records the outcome of a delivery. Returns whether the next notification may follow. `sent` is the
    /// content that is sent to deferred recipients, too.
    async fn record_outcome(
        &self,
        channel: &Channel,
        row: &NotificationRow,
        outcome: DeliveryOutcome,
        (sent, round): (Option<&Notification>, &DeliveryRound),
    ) -> Result<bool, CommitError> {
        let now_ms = self.clock.wall_ms();
        let event = |kind: IncidentEventKind, text: &str| {
            let text = format!("{} ({}) {text}", channel.name, channel.kind);
            timeline_event(row.incident, now_ms, kind, text)
        };
        let mut tx = Transaction::default();
        let state = match outcome {
            DeliveryOutcome::Sent(delivery) => {
                record_sent(&mut tx, &event, row, &delivery, now_ms);
                let backoff_ms = backoff_ms(row.attempts, None);
                let deferred = sent.and_then(|sent| deferred_row(row, sent, &delivery, now_ms + backoff_ms));
                if let Some(deferred) = deferred {
                    tx.notifications().enqueue(&deferred, None);
                }
                schedule_reminder(&mut tx, channel, row, now_ms);
                NotificationState::Sent
            }
            DeliveryOutcome::Suppressed(reason) => {
                let state = NotificationState::Suppressed;
                tx.notifications().finish(row.id, state, Some(reason), now_ms);
                state
            }
            DeliveryOutcome::Failed(SendError::Transient { reason: error, retry_after }, delivery)
                if now_ms - row.created_ms < MAX_PENDING_AGE_MS =>
            {
                let retry_in_ms = backoff_ms(row.attempts, retry_after);
                let channel = &channel.name;
                tracing::info!(channel, error, retry_in_ms, "notification delivery failed; retrying");
                // A digest is repeated for all recipients, because its rows are retried together.
                let delivery = sent.map(|_| delivery).unwrap_or_default();
                record_retry(&mut tx, row, &delivery, now_ms + retry_in_ms, &error);
                if row.attempts == 0 {
                    let text = format!("delivery failed, retrying: {error}");
                    tx.incident_events().insert(&event(IncidentEventKind::NotificationRetrying, &text));
                }
                self.metrics.notification_retries.inc();
                NotificationState::Pending
            }
            DeliveryOutcome::Failed(error, _) => {
                let error = error.to_string();
                tracing::warn!(channel = channel.name, error, "notification failed permanently");
                let state = NotificationState::Failed;
                let text = format!("delivery failed permanently: {error}");
                tx.notifications().finish(row.id, state, Some(&error), now_ms);
                tx.incident_events().insert(&event(IncidentEventKind::NotificationFailed, &text));
                state
            }
        };
        let is_final = state != NotificationState::Pending;
        if is_final {
            self.metrics.count_notification(state);
        }
        let record = || self.store.commit(tx.clone());
        match state {
            NotificationState::Sent => record_delivery(record, &round.stop).await?,
            _ => record().await?,
        }
        Ok(is_final)
    }

    /// Makes a failed notification pending again.
    ///
    /// # Errors
    /// Returns [`CommitError::Conflict`] if the notification is not failed.
    pub(crate) async fn requeue(&self, id: i64, entry: AuditEntry) -> Result<(), CommitError> {
        let now_ms = self.clock.wall_ms();
        let entry = AuditEntry { at_ms: now_ms, ..entry };
        let mut tx = Transaction::default();
        tx.notifications().requeue(id, now_ms);
        tx.audit().insert(&entry);
        self.store.commit(tx).await?;
        self.wake.notify_one();
        Ok(())
    }

    /// Sends a notification immediately, without the outbox.
    ///
    /// # Errors
    /// Returns the [`SendError`] of the delivery.
    pub(crate) async fn send(
        &self,
        channel: &Channel,
        notification: &Notification,
    ) -> Result<Delivery, SendError> {
        self.sender.send(channel, notification).await
    }

    /// Notification that tests a channel.
    pub(crate) fn test_notification(&self) -> Notification {
        self.builder.test_notification(self.clock.wall_ms())
    }

    /// Notification for the preview of templates: of the newest active incident, or an invented example.
    pub(crate) fn example_notification(&self) -> Notification {
        let state = self.incidents.snapshot();
        let now_ms = self.clock.wall_ms();
        match state.incidents.iter().max_by_key(|open| open.incident.opened_ms) {
            Some(newest) => self.builder.build_notification(newest, NotificationReason::Opened, now_ms),
            None => self.builder.example_notification(now_ms),
        }
    }
}

/// Records that a notification was sent, and the recipients that did not accept it.
fn record_sent(
    tx: &mut Transaction,
    event: &dyn Fn(IncidentEventKind, &str) -> IncidentEventRow,
    row: &NotificationRow,
    delivery: &Delivery,
    now_ms: i64,
) {
    let problem = delivery.problem();
    tx.notifications().finish(row.id, NotificationState::Sent, problem.as_deref(), now_ms);
    if let Some(body) = recorded_body(row, delivery) {
        tx.notifications().set_body(row.id, &body);
    }
    tx.incident_events().insert(&event(IncidentEventKind::Notified, &format!("notified: {}", row.reason)));
    if let Some(problem) = problem {
        tracing::warn!(channel = %row.channel, error = problem, "notification failed for some recipients");
        let text = format!("not delivered to all recipients: {problem}");
        tx.incident_events().insert(&event(IncidentEventKind::NotificationFailed, &text));
    }
}

/// Schedules the next attempt, for the deferred recipients if the server distinguished them.
fn record_retry(
    tx: &mut Transaction,
    row: &NotificationRow,
    delivery: &Delivery,
    retry_at_ms: i64,
    error: &str,
) {
    if let Some(body) = recorded_body(row, delivery) {
        tx.notifications().set_body(row.id, &body);
    }
    if continuation(row).is_some() {
        tx.notifications().postpone(row.id, retry_at_ms, error);
    } else {
        tx.notifications().retry_at(row.id, retry_at_ms, error);
    }
}

fn unreadable() -> DeliveryOutcome {
    let error = SendError::Permanent("notification is unreadable".to_owned());
    DeliveryOutcome::Failed(error, Delivery::default())
}

/// Delay before the next attempt, in milliseconds.
fn backoff_ms(attempts: i64, retry_after: Option<Duration>) -> i64 {
    let doublings = u32::try_from(attempts).unwrap_or(MAX_BACKOFF_DOUBLINGS).min(MAX_BACKOFF_DOUBLINGS);
    let backoff_ms = INITIAL_BACKOFF_MS.saturating_mul(1 << doublings).min(MAX_BACKOFF_MS);
    let requested_ms = retry_after.map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
    backoff_ms.max(requested_ms.map_or(0, |delay_ms| delay_ms.min(MAX_RETRY_AFTER_MS)))
}
