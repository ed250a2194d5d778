//! Messages on their way out: each channel in its own order, one at a time; what can't go out
//! now waits longer each time, what never can is put aside and shown. At least once: a hub that
//! dies between telling and writing so down tells again, under the same id.

use super::{Alerting, messages, record};
use perfwatch_alert::channel::Channel;
use perfwatch_alert::deliver::{self, Letter, Message, SendError};
use perfwatch_alert::incident::{Notice, Phase};
use perfwatch_alert::rule::Severity;
use perfwatch_alert::words;
use perfwatch_store::alerts::{Outbox, OutboxRow};
use perfwatch_store::{Change, CommitError, StoreError, Write};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Channels that are spoken to at one time.
const AT_ONCE: usize = 8;
/// Looked at together, of one channel.
const ROWS: i64 = 200;
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

/// A channel that is being spoken to; free again whatever happens.
struct Busy(Arc<Mutex<HashSet<Uuid>>>, Uuid);

impl Busy {
    /// None where somebody speaks to it already.
    fn with(all: &Arc<Mutex<HashSet<Uuid>>>, channel: Uuid) -> Option<Self> {
        let free = all.lock().unwrap_or_else(PoisonError::into_inner).insert(channel);
        free.then(|| Self(all.clone(), channel))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// What becomes of a message.
#[derive(Clone)]
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
            let channels = match self.due_channels().await {
                Ok(channels) => channels,
                Err(error) => {
                    tracing::debug!(%error, "messages");
                    continue;
                }
            };
            for channel in channels {
                let Some(busy) = Busy::with(&busy, channel) else { continue };
                let (alerting, slots) = (self.clone(), slots.clone());
                tokio::spawn(async move {
                    let _busy = busy;
                    let _slot = slots.acquire_owned().await;
                    if let Err(error) = alerting.tell_channel(channel).await {
                        tracing::debug!(?error, "messages");
                    }
                });
            }
        }
    }

    /// Channels that something is due for, where it is this hub that says it; what they are to say is
    /// then known here too, whichever hub wrote it.
    async fn due_channels(&self) -> Result<Vec<Uuid>, StoreError> {
        let channels = Outbox::channels(self.store(), self.now_ms()).await?;
        // A lease is a write: only where there is something to say.
        if channels.is_empty() || !self.store().lease("notify", LEASE_MS).await? {
            return Ok(Vec::new());
        }
        self.look_at_others().await?;
        Ok(channels)
    }

    /// What is due for one channel, in its order, as far as it gets.
    async fn tell_channel(&self, id: Uuid) -> Result<(), CommitError> {
        let state = self.now();
        let now_ms = self.now_ms();
        let Some(channel) = state.asked.channel(id) else {
            return self.commit(vec![Outbox::forget(id, now_ms)]).await;
        };
        // What is kept for the morning stays where it is, and does not stop what may go now.
        let all = [Severity::Info, Severity::Warning, Severity::Critical];
        let loud: Vec<&str> = all
            .into_iter()
            .filter(|severity| channel.quiet_until(*severity, now_ms).is_none())
            .map(Severity::name)
            .collect();
        let Some(last) = loud.last() else { return Ok(()) };
        let severities = [0, 1, 2].map(|at| *loud.get(at).unwrap_or(last));
        let rows = Outbox::due(self.store(), id, severities, now_ms, ROWS).await?;
        if rows.first().is_some_and(|first| first.next_ms > now_ms) {
            return Ok(());
        }
        if !channel.enabled {
            return self.drop_old(&rows, now_ms).await;
        }
        let severity = |row: &OutboxRow| Severity::of(&row.severity).unwrap_or_default();
        let machine = deliver::kind(&*self.rooms.notifier, &channel.kind).is_some_and(|kind| kind.machine);
        let (waited, rows): (Vec<_>, Vec<_>) = match (machine, rows.len() > MANY) {
            (true, _) => (Vec::new(), rows),
            (false, true) => (rows, Vec::new()),
            (false, false) => {
                rows.into_iter().partition(|row| channel.quiet_until(severity(row), row.created_ms).is_some())
            }
        };
        if waited.len() > 1 && !self.tell_digest(channel, &waited).await? {
            return Ok(());
        }
        let one_by_one = if waited.len() == 1 { waited } else { Vec::new() };
        for row in one_by_one.iter().chain(&rows) {
            if !self.tell_one(channel, row).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A channel that is off keeps what it has to say, but not for ever.
    async fn drop_old(&self, rows: &[OutboxRow], now_ms: i64) -> Result<(), CommitError> {
        let old = rows.iter().filter(|row| now_ms - row.created_ms > GIVE_UP_MS);
        let why = Some("the channel was off for two days");
        self.commit(old.map(|row| Outbox::done(row.id, "skipped", why, now_ms)).collect()).await
    }

    /// Several messages as one; whether it went on.
    async fn tell_digest(&self, channel: &Channel, rows: &[OutboxRow]) -> Result<bool, CommitError> {
        let now_ms = self.now_ms();
        let (mut wanted, mut messages) = (Vec::new(), Vec::new());
        for row in rows {
            match self.still_wanted(channel, row).await? {
                Ok(Some(message)) => {
                    wanted.push(row);
                    messages.push(message);
                }
                Ok(None) => {
                    let unread = SendError::Permanent("the message can't be read".to_owned());
                    self.settle(channel, row, Outcome::Failed(unread)).await?;
                }
                Err(why) => {
                    self.settle(channel, row, Outcome::Skipped(why)).await?;
                }
            }
        }
        let Some(first) = messages.first() else { return Ok(true) };
        // Told twice, it is known by its first.
        let digest = Message { id: first.id, ..messages::digest(&messages, &self.rooms.url, now_ms) };
        let outcome = match messages.len() {
            1 => self.send(channel, first).await,
            _ => self.send(channel, &digest).await,
        };
        let mut goes_on = true;
        for row in wanted {
            goes_on = self.settle(channel, row, outcome.clone()).await?;
            // The first of them waits for all.
            if !goes_on {
                break;
            }
        }
        Ok(goes_on)
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
        let read;
        let live = match state.board.incident(row.incident) {
            Some(live) => Some(&**live),
            // Over for long, or so new that only the books know it.
            None => {
                read = self.find(row.incident).await?;
                read.as_ref()
            }
        };
        let message: Option<Message> = serde_json::from_str(&row.body).ok();
        let notice = Notice::of(&row.notice).unwrap_or(Notice::Changed);
        let now_ms = self.now_ms();
        let over = live.is_none_or(|live| live.incident.phase == Phase::Closed);
        let taken_on = live.is_some_and(|live| live.incident.acknowledged(now_ms));
        let hushed = live.is_some_and(|live| {
            live.firing().next().is_some() && live.firing().all(|alert| alert.body.silenced)
        });
        let escalates = channel.after.ms() > 0;
        let fresh = |notice| {
            let now = live.map(|live| messages::of(live, notice, &self.rooms.url, now_ms));
            message.clone().map(|old| Message { id: old.id, ..now.unwrap_or(old) })
        };
        Ok(match notice {
            Notice::Test => Ok(message),
            Notice::Resolved if !Outbox::told(self.store(), channel.id, row.incident).await? => {
                Err("this channel was never told that it began")
            }
            Notice::Resolved => Ok(message),
            // What it says is said again when the silence ends.
            _ if hushed => Err("a silence holds"),
            Notice::Reminder | Notice::Changed if over => Err("it is over"),
            Notice::Reminder if taken_on => Err("somebody took it on"),
            _ if escalates && over => Err("it is over"),
            _ if escalates && taken_on => Err("somebody took it on"),
            // What was written long before it is said is said as it is now.
            Notice::Changed | Notice::Reminder => {
                self.commit(vec![Outbox::claim(row.id)]).await.map_err(|error| match error {
                    CommitError::Store(error) => error,
                    CommitError::Conflict => StoreError::Unavailable(error.to_string()),
                })?;
                // What joined until this moment is on the board; what joins from now on is another row.
                let live = self.now().board.incident(row.incident).cloned();
                let now = live.map(|live| messages::of(&live, notice, &self.rooms.url, now_ms));
                Ok(message.map(|old| Message { id: old.id, ..now.unwrap_or(old) }))
            }
            Notice::Opened | Notice::Reopened if escalates => Ok(fresh(notice)),
            Notice::Opened | Notice::Reopened => Ok(message),
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
        let open = self.opened(channel);
        // With its key again, it goes out by itself.
        let channel =
            open.map_err(|why| SendError::Retry { why: format!("its settings: {why}"), after: None })?;
        let (notifier, message) = (self.rooms.notifier.clone(), message.clone());
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
