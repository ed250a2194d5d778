//! What the hub tells people of by itself. The walk: [`Alerting::observe`] takes each accepted
//! snapshot to its host's watch ([`watches`]); what fires or ends is explained ([`explain`]),
//! joins an incident on the [`board`] and is written down with its messages in one commit
//! ([`record`]); [`dispatch`] brings the messages out. [`asked`] holds what people ask for,
//! [`sealed`] keeps what lets one into a channel to itself, [`tasks`] does what time alone changes,
//! [`backtest`] says what a rule would have done.

mod asked;
pub(crate) mod backtest;
mod board;
mod dispatch;
mod explain;
mod messages;
mod record;
mod sealed;
mod tasks;
#[cfg(test)]
mod tests;
mod watches;

pub(crate) use asked::{Asked, MOST_CHANNELS, MOST_RULES, MOST_SILENCES, body};
pub(crate) use board::{Alert, Board, LiveIncident};

use crate::auth::People;
use crate::fleet::Fleet;
use crate::history::History;
use crate::live::Live;
use crate::vault::Vault;
use perfwatch_alert::deliver::{Message, Notifier};
use perfwatch_alert::incident::Notice;
use perfwatch_alert::track::Told;
use perfwatch_model::{Catalog, Clock, HostId};
use perfwatch_store::alerts::{EventRow, IncidentRow, Outbox};
use perfwatch_store::people::AuditEntry;
use perfwatch_store::settings::Counted;
use perfwatch_store::{Change, CommitError, Store, StoreError, Write};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, watch};
use uuid::Uuid;
use watches::Watches;

/// What became of alerts at one host, on its way to be written down.
pub(crate) struct Heard {
    host: HostId,
    told: Told,
}

/// Told things that wait to be written down: of more, hosts are looked at anew later.
const WAITING: usize = 50_000;

/// The room's doors to the rest of the hub.
pub(crate) struct Rooms {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) people: Arc<People>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) live: Arc<Live>,
    pub(crate) history: Arc<History>,
    pub(crate) notifier: Arc<dyn Notifier>,
    pub(crate) vault: Arc<Vault>,
    /// The hub's own address, for links; `public_url` where it is set.
    pub(crate) url: String,
}

/// Counted for the hub's own metrics.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) fired: Counter,
    pub(crate) resolved: Counter,
    pub(crate) sent: Counter,
    pub(crate) failed: Counter,
    pub(crate) dead: Counter,
}

impl Counts {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("alerts_fired", "Alerts that began to fire", self.fired.clone());
        r.register("alerts_resolved", "Alerts that ended", self.resolved.clone());
        r.register("messages_sent", "Messages that channels took", self.sent.clone());
        r.register("messages_failed", "Tries that failed; they are made again", self.failed.clone());
        r.register("messages_dead", "Messages that were given up", self.dead.clone());
    }
}

/// What everyone reads, as of one moment.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) asked: Asked,
    pub(crate) board: Board,
}

/// Alerts.
pub(crate) struct Alerting {
    rooms: Rooms,
    counts: Counts,
    state: RwLock<Arc<State>>,
    watches: Watches,
    told: mpsc::Sender<Heard>,
    to_record: Mutex<Option<mpsc::Receiver<Heard>>>,
    /// How often [`Counted::Alerts`] was changed when the state was read; held while it changes.
    turn: Mutex<i64>,
    /// There is a message to bring out.
    due: Notify,
    /// Rises whenever the state changes.
    changes: watch::Sender<u64>,
    /// When it began to listen, by the hub's clock: what was not heard since is not silent yet.
    started_ms: i64,
    /// Until when it could take nothing in.
    deaf_until_ms: AtomicI64,
    /// Bounds how many back-tests run at one time.
    backtests: Semaphore,
}

/// What stands for the hub where hosts stand.
fn hub_id() -> HostId {
    HostId(Uuid::nil())
}

/// A change of the state, with all that is written in its commit.
#[derive(Default)]
pub(crate) struct Planned {
    pub(crate) asked: Option<Asked>,
    pub(crate) board: Option<Board>,
    pub(crate) changes: Vec<Change>,
}

impl Alerting {
    /// Reads what the store has; a new store gets the built-in rules.
    pub(crate) async fn open(rooms: Rooms, counts: Counts) -> Result<Arc<Self>, StoreError> {
        let begin = asked::begin(&*rooms.store).await?;
        match rooms.store.commit(begin).await {
            // Another hub begins at the same moment.
            Ok(()) | Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
        let (told, to_record) = mpsc::channel(WAITING);
        let started_ms = rooms.clock.wall_ms();
        let alerting = Self {
            rooms,
            counts,
            state: RwLock::default(),
            watches: Watches::default(),
            told,
            to_record: Mutex::new(Some(to_record)),
            turn: Mutex::new(0),
            due: Notify::new(),
            changes: watch::Sender::new(0),
            started_ms,
            deaf_until_ms: AtomicI64::new(0),
            backtests: Semaphore::new(backtest::AT_ONCE),
        };
        let mut since = alerting.turn.lock().await;
        alerting.reload(&mut since).await?;
        drop(since);
        alerting.reseal().await?;
        Ok(Arc::new(alerting))
    }

    /// As of now.
    pub(crate) fn now(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told whenever something changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Who brings messages out.
    pub(crate) fn notifier(&self) -> &Arc<dyn Notifier> {
        &self.rooms.notifier
    }

    /// Where things are kept.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.rooms.store
    }

    /// The hub's clock.
    pub(crate) fn now_ms(&self) -> i64 {
        self.rooms.clock.wall_ms()
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        self.changes.send_modify(|revision| *revision += 1);
    }

    /// Reads all anew: another hub changed something.
    async fn reload(&self, since: &mut i64) -> Result<(), StoreError> {
        let store = &*self.rooms.store;
        // First, so that what changes meanwhile is read again.
        let count = Counted::Alerts.count(store).await?;
        let asked = Asked::read(store).await?;
        let board = Board::read(store, self.now_ms()).await?;
        *since = count;
        let before = self.now();
        let other_rules = !Asked::same_rules(&asked, &before.asked);
        let touched = board.differs(&before.board);
        self.set(State { asked, board });
        if other_rules {
            self.watches.look_again();
        }
        touched.into_iter().for_each(|host| self.watches.cool(host));
        Ok(())
    }

    /// Changes the state by a plan that is made of it as it is, once more where another hub was
    /// faster. What the plan answers is given back.
    ///
    /// # Errors
    /// What the plan refuses; a store that does not answer.
    pub(crate) async fn change<T, E: From<CommitError>>(
        &self,
        entry: Option<AuditEntry>,
        mut plan: impl FnMut(&State, i64) -> Result<(Planned, T), E>,
    ) -> Result<T, E> {
        let store = |error: StoreError| E::from(CommitError::Store(error));
        let mut since = self.turn.lock().await;
        for _ in 0..5 {
            let state = self.now();
            let now_ms = self.now_ms();
            let (mut planned, answer) = plan(&state, now_ms)?;
            if planned.changes.is_empty() {
                return Ok(answer);
            }
            let at = |entry: &AuditEntry| AuditEntry { at_ms: now_ms, ..entry.clone() }.add();
            planned.changes.extend(entry.as_ref().map(at));
            planned.changes.push(Counted::Alerts.changed(*since));
            let writes = planned.changes.into_iter().map(Write::Sql).collect();
            match self.rooms.store.commit(writes).await {
                Ok(()) => {
                    *since += 1;
                    let asked = planned.asked.unwrap_or_else(|| state.asked.clone());
                    let board = planned.board.unwrap_or_else(|| state.board.clone());
                    let other_rules = !Asked::same_rules(&asked, &state.asked);
                    self.set(State { asked, board });
                    if other_rules {
                        self.watches.look_again();
                    }
                    self.due.notify_one();
                    return Ok(answer);
                }
                Err(CommitError::Conflict) => self.reload(&mut since).await.map_err(store)?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }

    /// Changes one incident of the board, says so in its timeline, and tells people where it must.
    ///
    /// # Errors
    /// What the change refuses; a store that does not answer.
    pub(crate) async fn change_incident<E: From<CommitError>>(
        &self,
        id: Uuid,
        entry: Option<AuditEntry>,
        change: impl Fn(&mut LiveIncident, i64) -> Result<(EventRow, Option<Notice>), E>,
    ) -> Result<bool, E> {
        let plan = |state: &State, now_ms: i64| {
            let Some(incident) = state.board.incident(id) else { return Ok((Planned::default(), false)) };
            let mut incident = (**incident).clone();
            let (event, notice) = change(&mut incident, now_ms)?;
            let mut board = state.board.clone();
            let mut changes = vec![incident.row().save(), event.add()];
            if let Some(notice) = notice {
                changes.extend(self.tell_channels(state, &incident, (notice, 0), now_ms));
            }
            board.put(incident);
            Ok((Planned { board: Some(board), changes, ..Planned::default() }, true))
        };
        self.change(entry, plan).await
    }

    /// Adds to an incident's timeline.
    pub(crate) async fn note(&self, event: EventRow) -> Result<(), CommitError> {
        let plan = |_: &State, _: i64| {
            Ok::<_, CommitError>((Planned { changes: vec![event.add()], ..Planned::default() }, ()))
        };
        self.change(None, plan).await
    }

    /// A message that was given up is on its way again; a conflict where it is not.
    pub(crate) async fn revive(&self, id: i64, entry: AuditEntry) -> Result<(), CommitError> {
        let now_ms = self.now_ms();
        let entry = AuditEntry { at_ms: now_ms, ..entry };
        self.rooms.store.commit(vec![Outbox::revive(id, now_ms).into(), entry.add().into()]).await?;
        self.due.notify_one();
        Ok(())
    }

    /// A message of the hub's own, that tries whether a channel is heard.
    pub(crate) fn test_message(&self) -> Message {
        messages::test(&self.rooms.url, self.now_ms())
    }

    /// An incident as the channels would hear of it now.
    pub(crate) fn example(&self) -> Message {
        let state = self.now();
        let newest = state.board.incidents().max_by_key(|live| live.incident.opened_ms);
        newest.map_or_else(
            || messages::example(&self.rooms.url, self.now_ms()),
            |live| messages::of(live, Notice::Opened, &self.rooms.url, self.now_ms()),
        )
    }

    /// An incident of the books.
    pub(crate) async fn find(&self, id: Uuid) -> Result<Option<LiveIncident>, StoreError> {
        match IncidentRow::one(self.store(), id).await? {
            Some(row) => self.whole(&row).await.map(Some),
            None => Ok(None),
        }
    }

    /// An incident of the books with its alerts.
    pub(crate) async fn whole(&self, row: &IncidentRow) -> Result<LiveIncident, StoreError> {
        board::read_one(self.store(), row).await
    }
}
