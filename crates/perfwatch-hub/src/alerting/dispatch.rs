//! Messages on their way out: each channel in its own order, one at a time; what can't go out
//! now waits longer each time, what never can is put aside and shown. At least once: a hub that
//! dies between telling and writing so down tells again, under the same id.

use super::{Alerting, messages, record};
use perfwatch_alert::channel::Channel;
use perfwatch_alert::deliver::{Letter, Message, SendError};
use perfwatch_alert::incident::{Notice, Phase};
use perfwatch_alert::rule::Severity;
use perfwatch_alert::words;
use perfwatch_store::alerts::{Outbox, OutboxRow};
use perfwatch_store::{Change, CommitError, StoreError, Write};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Channels that are spoken to at one time.
const AT_ONCE: usize = 8;
/// Looked at together.
const ROWS: i64 = 500;
/// How soon what is due by time alone is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LEASE_MS: i64 = 15_000;
/// First wait after a failure, doubled each time.
const FIRST_WAIT_MS: i64 = 5_000;
const LONGEST_WAIT_MS: i64 = 600_000;
/// What could not be said for so long is not said any more.
const GIVE_UP_MS: i64 = 2 * 86_400_000;
/// More than this is told in one message.
const MANY: usize = 15;

/// What becomes of a message.
enum Outcome {
    Sent,
    /// Nobody needs it any more.
    Skipped(&'static str),
    Failed(SendError),
}

impl Alerting {
    /// Until the hub stops.
    pub(super) async fn dispatch(self: Arc<Self>, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let busy: Arc<Mutex<HashSet<Uuid>>> = Arc::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.due.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if !matches!(self.rooms.store.lease("notify", LEASE_MS).await, Ok(true)) {
                continue;
            }
            let due = match Outbox::due(&*self.rooms.store, self.now_ms(), ROWS).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::debug!(%error, "messages");
                    continue;
                }
            };
            let mut by_channel: BTreeMap<Uuid, Vec<OutboxRow>> = BTreeMap::new();
            due.into_iter().for_each(|row| by_channel.entry(row.channel).or_default().push(row));
            for (channel, rows) in by_channel {
                let free = busy.lock().unwrap_or_else(PoisonError::into_inner).insert(channel);
                if !free {
                    continue;
                }
                let (alerting, slots, busy) = (self.clone(), slots.clone(), busy.clone());
                tokio::spawn(async move {
                    let _slot = slots.acquire_owned().await;
                    if let Err(error) = alerting.tell_channel(channel, rows).await {
                        tracing::debug!(?error, "messages");
                    }
                    busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
                });
            }
        }
    }

    /// What is due for one channel, in its order, as far as it gets.
    pub(super) async fn tell_channel(&self, id: Uuid, rows: Vec<OutboxRow>) -> Result<(), CommitError> {
        let state = self.now();
        let Some(channel) = state.asked.channel(id).filter(|channel| channel.enabled) else {
            return self.commit(vec![Outbox::forget(id, self.now_ms())]).await;
        };
        let now_ms = self.now_ms();
        let severity = |row: &OutboxRow| Severity::of(&row.severity).unwrap_or_default();
        // What is kept for the morning stays where it is, and does not stop what may go now.
        let (quiet, rows): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| channel.quiet_until(severity(row), now_ms).is_some());
        drop(quiet);
        if rows.first().is_some_and(|first| first.next_ms > now_ms) {
            return Ok(());
        }
        let (waited, rows): (Vec<_>, Vec<_>) = match rows.len() > MANY {
            true => (rows, Vec::new()),
            false => {
                rows.into_iter().partition(|row| channel.quiet_until(severity(row), row.created_ms).is_some())
            }
        };
        if waited.len() > 1 {
            if !self.tell_digest(channel, &waited).await? {
                return Ok(());
            }
        } else {
            for row in &waited {
                if !self.tell_one(channel, row).await? {
                    return Ok(());
                }
            }
        }
        for row in &rows {
            if !self.tell_one(channel, row).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Several messages as one; whether it went on.
    async fn tell_digest(&self, channel: &Channel, rows: &[OutboxRow]) -> Result<bool, CommitError> {
        let now_ms = self.now_ms();
        let read = |row: &OutboxRow| serde_json::from_str::<Message>(&row.body).ok();
        let all: Vec<Message> = rows.iter().filter_map(read).collect();
        let mut message = messages::digest(&all, &self.rooms.url, now_ms);
        // Told twice, it is known by its first.
        message.id = all.first().map_or(message.id, |first| first.id);
        match self.send(channel, &message).await {
            Outcome::Sent => {
                self.counts.sent.inc();
                let done = rows.iter().map(|row| Outbox::done(row.id, "sent", None, now_ms)).collect();
                self.commit(done).await?;
                Ok(true)
            }
            outcome => self.settle(channel, &rows[0], outcome).await,
        }
    }

    async fn tell_one(&self, channel: &Channel, row: &OutboxRow) -> Result<bool, CommitError> {
        let outcome = match self.still_wanted(channel, row).await? {
            Err(why) => Outcome::Skipped(why),
            Ok(None) => Outcome::Failed(SendError::Permanent("the message can't be read".to_owned())),
            Ok(Some(message)) => self.send(channel, &message).await,
        };
        self.settle(channel, row, outcome).await
    }

    /// The message as it should be said now, or why nobody needs it any more.
    async fn still_wanted(
        &self,
        channel: &Channel,
        row: &OutboxRow,
    ) -> Result<Result<Option<Message>, &'static str>, StoreError> {
        let state = self.now();
        let live = state.board.incident(row.incident);
        let message: Option<Message> = serde_json::from_str(&row.body).ok();
        let notice = Notice::of(&row.notice).unwrap_or(Notice::Changed);
        let now_ms = self.now_ms();
        let over = live.is_none_or(|live| live.incident.phase == Phase::Closed);
        let taken_on = live.is_some_and(|live| live.incident.acknowledged(now_ms));
        let waits = channel.after.ms() > 0;
        Ok(match notice {
            Notice::Resolved if !Outbox::told(&*self.rooms.store, channel.id, row.incident).await? => {
                Err("this channel was never told that it began")
            }
            Notice::Reminder | Notice::Changed if over => Err("it is over"),
            Notice::Reminder if taken_on => Err("somebody took it on"),
            Notice::Opened | Notice::Changed | Notice::Reopened if waits && over => Err("it is over"),
            Notice::Opened | Notice::Changed | Notice::Reopened if waits && taken_on => {
                Err("somebody took it on")
            }
            // What was written long before it is said is said as it is now.
            Notice::Opened | Notice::Reminder if waits || notice == Notice::Reminder => {
                let fresh = live.map(|live| messages::of(live, notice, &self.rooms.url, now_ms));
                Ok(message.map(|old| Message { id: old.id, ..fresh.unwrap_or(old) }))
            }
            _ => Ok(message),
        })
    }

    /// Says it, on a thread that may wait.
    async fn send(&self, channel: &Channel, message: &Message) -> Outcome {
        match self.say(channel, message).await {
            Ok(()) => Outcome::Sent,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Says a message by a channel now.
    ///
    /// # Errors
    /// Nobody there, or they don't want it.
    pub(crate) async fn say(&self, channel: &Channel, message: &Message) -> Result<(), SendError> {
        let (notifier, channel, message) = (self.rooms.notifier.clone(), channel.clone(), message.clone());
        let said = tokio::task::spawn_blocking(move || {
            let own = |template: &str, usual: String| match template {
                "" => usual,
                // A template that is wrong must not keep anybody in the dark.
                template => notifier.render(template, &message).unwrap_or(usual),
            };
            let title = own(&channel.template.title, words::title(&message));
            let text = own(&channel.template.text, words::text(&message));
            // In one line.
            let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
            notifier.send(&channel.kind, &channel.settings, &Letter { message: &message, title, text })
        });
        let ended = |error: tokio::task::JoinError| SendError::Retry { why: error.to_string(), after: None };
        said.await.unwrap_or_else(|error| Err(ended(error)))
    }

    /// Writes down what became of a message; whether the next one may go.
    async fn settle(
        &self,
        channel: &Channel,
        row: &OutboxRow,
        outcome: Outcome,
    ) -> Result<bool, CommitError> {
        let now_ms = self.now_ms();
        let event = |kind: &str, text: String| record::event(row.incident, now_ms, kind, text).add();
        let what = &row.notice;
        let (changes, goes_on) = match outcome {
            Outcome::Sent => {
                self.counts.sent.inc();
                let told = event("told", format!("{} ({}) was told: {what}", channel.name, channel.kind));
                let mut changes = vec![Outbox::done(row.id, "sent", None, now_ms), told];
                changes.extend(self.remind(channel, row, now_ms));
                (changes, true)
            }
            Outcome::Skipped(why) => (vec![Outbox::done(row.id, "skipped", Some(why), now_ms)], true),
            Outcome::Failed(SendError::Retry { why, after }) if now_ms - row.created_ms < GIVE_UP_MS => {
                self.counts.failed.inc();
                let tries = u32::try_from(row.tries).unwrap_or(20).min(20);
                let mut wait_ms = FIRST_WAIT_MS.saturating_mul(1 << tries).min(LONGEST_WAIT_MS);
                if let Some(after) = after {
                    wait_ms = wait_ms.max(i64::try_from(after.as_millis()).unwrap_or(wait_ms).min(3_600_000));
                }
                tracing::info!(channel = channel.name, why, wait_ms, "a message did not go out; it waits");
                let mut changes = vec![Outbox::again(row.id, now_ms + wait_ms, &why)];
                if row.tries == 0 {
                    changes.push(event(
                        "waits",
                        format!("{} ({}) was not reached: {why}", channel.name, channel.kind),
                    ));
                }
                (changes, false)
            }
            Outcome::Failed(error) => {
                self.counts.dead.inc();
                let why = error.to_string();
                tracing::warn!(channel = channel.name, why, "a message is given up");
                let dead =
                    event("undelivered", format!("{} ({}) refused: {why}", channel.name, channel.kind));
                (vec![Outbox::done(row.id, "dead", Some(&why), now_ms), dead], true)
            }
        };
        self.commit(changes).await?;
        Ok(goes_on)
    }

    /// The next reminder, where the channel wants any.
    fn remind(&self, channel: &Channel, row: &OutboxRow, now_ms: i64) -> Option<Change> {
        let goes_on = !matches!(Notice::of(&row.notice), Some(Notice::Resolved | Notice::Test) | None);
        (channel.repeat.ms() > 0 && goes_on).then(|| {
            let due_ms = now_ms + channel.repeat.ms();
            let reminder = OutboxRow {
                notice: Notice::Reminder.name().to_owned(),
                created_ms: now_ms,
                due_ms,
                next_ms: due_ms,
                body: fresh_id(&row.body),
                ..row.clone()
            };
            reminder.add(Some(&format!("{} {} reminder", channel.id, row.incident)))
        })
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), CommitError> {
        self.rooms.store.commit(changes.into_iter().map(Write::Sql).collect()).await
    }
}

/// The same message as another one.
fn fresh_id(body: &str) -> String {
    match serde_json::from_str::<Message>(body) {
        Ok(message) => {
            super::asked::body(&Message { id: Uuid::now_v7(), notice: Notice::Reminder, ..message })
        }
        Err(_) => body.to_owned(),
    }
}
