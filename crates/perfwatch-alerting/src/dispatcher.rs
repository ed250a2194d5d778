//! Messages on their way out: each channel in its own order, one at a time; what can't go out
//! now waits longer each time, what never can is put aside and shown. At least once: a hub that
//! dies between telling and writing so down tells again, under the same id.

use super::{Alerting, incident_service, notification_builder};
use perfwatch_rules::channel::Channel;
use perfwatch_rules::incident::{IncidentPhase, NotificationReason};
use perfwatch_rules::notification::{self, Notification, RenderedNotification, SendError};
use perfwatch_rules::render;
use perfwatch_rules::rule::Severity;
use perfwatch_store::incidents::IncidentEventKind;
use perfwatch_store::outbox::{NotificationRow, NotificationState, Outbox};
use perfwatch_store::{CommitError, SqlStatement, StoreError, Write};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Channels that are spoken to at one time.
const MAX_CONCURRENT_CHANNELS: usize = 8;
/// Looked at together, of one channel.
const MAX_ROWS_PER_CHANNEL: i64 = 200;
/// How soon what is due by time alone is noticed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const LEASE_MS: i64 = 15_000;
/// First wait after a failure, doubled each time.
const INITIAL_BACKOFF_MS: i64 = 5_000;
const MAX_BACKOFF_MS: i64 = 600_000;
/// What could not be said for so long is not said any more.
const MAX_RETRY_AGE_MS: i64 = 2 * 86_400_000;
/// More than this is told in one message.
const DIGEST_THRESHOLD: usize = 15;

/// A channel that is being spoken to; free again whatever happens.
struct InFlightGuard(Arc<Mutex<HashSet<Uuid>>>, Uuid);

impl InFlightGuard {
    /// None where somebody speaks to it already.
    fn try_acquire(all: &Arc<Mutex<HashSet<Uuid>>>, channel: Uuid) -> Option<Self> {
        let free = all.lock().unwrap_or_else(PoisonError::into_inner).insert(channel);
        free.then(|| Self(all.clone(), channel))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// What becomes of a message.
#[derive(Clone)]
enum DeliveryOutcome {
    Sent,
    /// Nobody needs it any more.
    Suppressed(&'static str),
    Failed(SendError),
}

impl Alerting {
    /// Until the hub stops.
    pub(super) async fn run_dispatcher(self: Arc<Self>, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONCURRENT_CHANNELS));
        let busy: Arc<Mutex<HashSet<Uuid>>> = Arc::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            let channels = match self.channels_due().await {
                Ok(channels) => channels,
                Err(error) => {
                    tracing::debug!(%error, "failed to load due notifications");
                    continue;
                }
            };
            for channel in channels {
                let Some(busy) = InFlightGuard::try_acquire(&busy, channel) else { continue };
                let (alerting, slots) = (self.clone(), slots.clone());
                tokio::spawn(async move {
                    let _busy = busy;
                    let _slot = slots.acquire_owned().await;
                    if let Err(error) = alerting.flush_channel(channel).await {
                        tracing::debug!(?error, "failed to deliver notifications of a channel");
                    }
                });
            }
        }
    }

    /// Channels that something is due for, where it is this hub that says it; what they are to say is
    /// then known here too, whichever hub wrote it.
    async fn channels_due(&self) -> Result<Vec<Uuid>, StoreError> {
        let channels = Outbox::channels_due(self.store(), self.now_ms()).await?;
        // A lease is a write: only where there is something to say.
        if channels.is_empty() || !self.store().acquire_lease("notification_dispatch", LEASE_MS).await? {
            return Ok(Vec::new());
        }
        self.refresh_from_store().await?;
        Ok(channels)
    }

    /// What is due for one channel, in its order, as far as it gets.
    async fn flush_channel(&self, id: Uuid) -> Result<(), CommitError> {
        let state = self.snapshot();
        let now_ms = self.now_ms();
        let Some(channel) = state.definitions.channel(id) else {
            return self.commit(vec![Outbox::suppress_for_channel(id, now_ms)]).await;
        };
        // What is kept for the morning stays where it is, and does not stop what may go now.
        let all = [Severity::Info, Severity::Warning, Severity::Critical];
        let loud: Vec<&str> = all
            .into_iter()
            .filter(|severity| channel.muted_until(*severity, now_ms).is_none())
            .map(Severity::name)
            .collect();
        let Some(last) = loud.last() else { return Ok(()) };
        let severities = [0, 1, 2].map(|at| *loud.get(at).unwrap_or(last));
        let rows = Outbox::due(self.store(), id, severities, now_ms, MAX_ROWS_PER_CHANNEL).await?;
        if rows.first().is_some_and(|first| first.retry_at_ms > now_ms) {
            return Ok(());
        }
        if !channel.enabled {
            return self.expire(&rows, now_ms).await;
        }
        let severity = |row: &NotificationRow| Severity::parse(&row.severity).unwrap_or_default();
        let machine = notification::find_kind(&*self.deps.notifier, &channel.kind)
            .is_some_and(|kind| kind.tracks_incidents);
        let (waited, rows): (Vec<_>, Vec<_>) = match (machine, rows.len() > DIGEST_THRESHOLD) {
            (true, _) => (Vec::new(), rows),
            (false, true) => (rows, Vec::new()),
            (false, false) => {
                rows.into_iter().partition(|row| channel.muted_until(severity(row), row.created_ms).is_some())
            }
        };
        if waited.len() > 1 && !self.send_digest(channel, &waited).await? {
            return Ok(());
        }
        let one_by_one = if waited.len() == 1 { waited } else { Vec::new() };
        for row in one_by_one.iter().chain(&rows) {
            if !self.deliver(channel, row).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A channel that is off keeps what it has to say, but not for ever.
    async fn expire(&self, rows: &[NotificationRow], now_ms: i64) -> Result<(), CommitError> {
        let old = rows.iter().filter(|row| now_ms - row.created_ms > MAX_RETRY_AGE_MS);
        let why = Some("channel disabled for two days");
        self.commit(
            old.map(|row| Outbox::finish(row.id, NotificationState::Suppressed, why, now_ms)).collect(),
        )
        .await
    }

    /// Several messages as one; whether it went on.
    async fn send_digest(&self, channel: &Channel, rows: &[NotificationRow]) -> Result<bool, CommitError> {
        let now_ms = self.now_ms();
        let (mut wanted, mut messages) = (Vec::new(), Vec::new());
        for row in rows {
            match self.revalidate(channel, row).await? {
                Ok(Some(message)) => {
                    wanted.push(row);
                    messages.push(message);
                }
                Ok(None) => {
                    let unread = SendError::Permanent("notification is unreadable".to_owned());
                    self.record_outcome(channel, row, DeliveryOutcome::Failed(unread)).await?;
                }
                Err(why) => {
                    self.record_outcome(channel, row, DeliveryOutcome::Suppressed(why)).await?;
                }
            }
        }
        let Some(first) = messages.first() else { return Ok(true) };
        // Told twice, it is known by its first.
        let digest = Notification {
            id: first.id,
            ..notification_builder::build_digest(&messages, &self.deps.base_url, now_ms)
        };
        let outcome = match messages.len() {
            1 => self.try_send(channel, first).await,
            _ => self.try_send(channel, &digest).await,
        };
        let mut goes_on = true;
        for row in wanted {
            goes_on = self.record_outcome(channel, row, outcome.clone()).await?;
            // The first of them waits for all.
            if !goes_on {
                break;
            }
        }
        Ok(goes_on)
    }

    async fn deliver(&self, channel: &Channel, row: &NotificationRow) -> Result<bool, CommitError> {
        let outcome = match self.revalidate(channel, row).await? {
            Err(why) => DeliveryOutcome::Suppressed(why),
            Ok(None) => {
                DeliveryOutcome::Failed(SendError::Permanent("notification is unreadable".to_owned()))
            }
            Ok(Some(message)) => self.try_send(channel, &message).await,
        };
        self.record_outcome(channel, row, outcome).await
    }

    /// The message as it should be said now, or why nobody needs it any more.
    async fn revalidate(
        &self,
        channel: &Channel,
        row: &NotificationRow,
    ) -> Result<Result<Option<Notification>, &'static str>, StoreError> {
        let state = self.snapshot();
        let read;
        let live = match state.incidents.incident(row.incident) {
            Some(live) => Some(&**live),
            // Over for long, or so new that only the books know it.
            None => {
                read = self.get(row.incident).await?;
                read.as_ref()
            }
        };
        let message: Option<Notification> = serde_json::from_str(&row.body).ok();
        let notice = NotificationReason::parse(&row.reason).unwrap_or(NotificationReason::Updated);
        let now_ms = self.now_ms();
        let over = live.is_none_or(|live| live.incident.phase == IncidentPhase::Resolved);
        let taken_on = live.is_some_and(|live| live.incident.is_acknowledged(now_ms));
        let hushed = live.is_some_and(|live| {
            live.firing().next().is_some() && live.firing().all(|alert| alert.body.silenced)
        });
        let escalates = channel.escalate_after.ms() > 0;
        let fresh = |notice| {
            let now = live.map(|live| {
                notification_builder::build_notification(live, notice, &self.deps.base_url, now_ms)
            });
            message.clone().map(|old| Notification { id: old.id, ..now.unwrap_or(old) })
        };
        Ok(match notice {
            NotificationReason::Test => Ok(message),
            NotificationReason::Resolved
                if !Outbox::was_notified(self.store(), channel.id, row.incident).await? =>
            {
                Err("channel was never notified of this incident")
            }
            NotificationReason::Resolved => Ok(message),
            // What it says is said again when the silence ends.
            _ if hushed => Err("silenced"),
            NotificationReason::Reminder | NotificationReason::Updated if over => Err("incident resolved"),
            NotificationReason::Reminder if taken_on => Err("incident acknowledged"),
            _ if escalates && over => Err("incident resolved"),
            _ if escalates && taken_on => Err("incident acknowledged"),
            // What was written long before it is said is said as it is now.
            NotificationReason::Updated | NotificationReason::Reminder => {
                self.commit(vec![Outbox::mark_sending(row.id)]).await.map_err(|error| match error {
                    CommitError::Store(error) => error,
                    CommitError::Conflict => StoreError::Unavailable(error.to_string()),
                })?;
                // What joined until this moment is on the board; what joins from now on is another row.
                let live = self.snapshot().incidents.incident(row.incident).cloned();
                let now = live.map(|live| {
                    notification_builder::build_notification(&live, notice, &self.deps.base_url, now_ms)
                });
                Ok(message.map(|old| Notification { id: old.id, ..now.unwrap_or(old) }))
            }
            NotificationReason::Opened | NotificationReason::Reopened if escalates => Ok(fresh(notice)),
            NotificationReason::Opened | NotificationReason::Reopened => Ok(message),
        })
    }

    /// Says it, on a thread that may wait.
    async fn try_send(&self, channel: &Channel, message: &Notification) -> DeliveryOutcome {
        match self.send(channel, message).await {
            Ok(()) => DeliveryOutcome::Sent,
            Err(error) => DeliveryOutcome::Failed(error),
        }
    }

    /// Says a message by a channel now.
    ///
    /// # Errors
    /// Nobody there, or they don't want it.
    pub async fn send(&self, channel: &Channel, message: &Notification) -> Result<(), SendError> {
        let open = self.decrypt(channel);
        // With its key again, it goes out by itself.
        let channel = open
            .map_err(|why| SendError::Retry { reason: format!("its settings: {why}"), retry_after: None })?;
        let (notifier, message) = (self.deps.notifier.clone(), message.clone());
        let said = tokio::task::spawn_blocking(move || {
            let own = |template: &str, usual: String| match template {
                "" => usual,
                // A template that is wrong must not keep anybody in the dark.
                template => notifier.render(template, &message).unwrap_or(usual),
            };
            let title = own(&channel.template.title, render::render_title(&message));
            let text = own(&channel.template.text, render::render_text(&message));
            // In one line.
            let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
            notifier.send(
                &channel.kind,
                &channel.settings,
                &RenderedNotification { notification: &message, title, text },
            )
        });
        let ended =
            |error: tokio::task::JoinError| SendError::Retry { reason: error.to_string(), retry_after: None };
        said.await.unwrap_or_else(|error| Err(ended(error)))
    }

    /// Writes down what became of a message; whether the next one may go.
    async fn record_outcome(
        &self,
        channel: &Channel,
        row: &NotificationRow,
        outcome: DeliveryOutcome,
    ) -> Result<bool, CommitError> {
        let now_ms = self.now_ms();
        let event = |kind: IncidentEventKind, text: String| {
            incident_service::timeline_event(row.incident, now_ms, kind, text).insert()
        };
        let what = &row.reason;
        let (changes, goes_on) = match outcome {
            DeliveryOutcome::Sent => {
                self.metrics.sent.inc();
                let told = event(
                    IncidentEventKind::Notified,
                    format!("{} ({}) notified: {what}", channel.name, channel.kind),
                );
                let mut changes = vec![Outbox::finish(row.id, NotificationState::Sent, None, now_ms), told];
                changes.extend(self.schedule_reminder(channel, row, now_ms));
                (changes, true)
            }
            DeliveryOutcome::Suppressed(why) => {
                (vec![Outbox::finish(row.id, NotificationState::Suppressed, Some(why), now_ms)], true)
            }
            DeliveryOutcome::Failed(SendError::Retry { reason: why, retry_after: after })
                if now_ms - row.created_ms < MAX_RETRY_AGE_MS =>
            {
                self.metrics.notification_retries.inc();
                let tries = u32::try_from(row.attempts).unwrap_or(20).min(20);
                let mut wait_ms = INITIAL_BACKOFF_MS.saturating_mul(1 << tries).min(MAX_BACKOFF_MS);
                if let Some(after) = after {
                    wait_ms = wait_ms.max(i64::try_from(after.as_millis()).unwrap_or(wait_ms).min(3_600_000));
                }
                tracing::info!(
                    channel = channel.name,
                    why,
                    wait_ms,
                    "notification delivery failed; retrying"
                );
                let mut changes = vec![Outbox::retry_at(row.id, now_ms + wait_ms, &why)];
                if row.attempts == 0 {
                    changes.push(event(
                        IncidentEventKind::NotificationRetrying,
                        format!("{} ({}) delivery failed, retrying: {why}", channel.name, channel.kind),
                    ));
                }
                (changes, false)
            }
            DeliveryOutcome::Failed(error) => {
                self.metrics.dead.inc();
                let why = error.to_string();
                tracing::warn!(channel = channel.name, why, "notification failed permanently");
                let dead = event(
                    IncidentEventKind::NotificationFailed,
                    format!("{} ({}) delivery failed permanently: {why}", channel.name, channel.kind),
                );
                (vec![Outbox::finish(row.id, NotificationState::Failed, Some(&why), now_ms), dead], true)
            }
        };
        self.commit(changes).await?;
        Ok(goes_on)
    }

    /// The next reminder, where the channel wants any.
    fn schedule_reminder(
        &self,
        channel: &Channel,
        row: &NotificationRow,
        now_ms: i64,
    ) -> Option<SqlStatement> {
        let goes_on = !matches!(
            NotificationReason::parse(&row.reason),
            Some(NotificationReason::Resolved | NotificationReason::Test) | None
        );
        (channel.repeat_interval.ms() > 0 && goes_on).then(|| {
            let due_ms = now_ms + channel.repeat_interval.ms();
            let reminder = NotificationRow {
                reason: NotificationReason::Reminder.name().to_owned(),
                created_ms: now_ms,
                due_ms,
                retry_at_ms: due_ms,
                body: with_new_id(&row.body),
                ..row.clone()
            };
            reminder.enqueue(Some(&format!("{} {} reminder", channel.id, row.incident)))
        })
    }

    async fn commit(&self, changes: Vec<SqlStatement>) -> Result<(), CommitError> {
        self.deps.store.commit(changes.into_iter().map(Write::Sql).collect()).await
    }
}

/// The same message as another one.
fn with_new_id(body: &str) -> String {
    match serde_json::from_str::<Notification>(body) {
        Ok(message) => super::definitions::to_json(&Notification {
            id: Uuid::now_v7(),
            reason: NotificationReason::Reminder,
            ..message
        }),
        Err(_) => body.to_owned(),
    }
}
