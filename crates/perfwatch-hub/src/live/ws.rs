//! One WebSocket connection: a state machine owned by one task.
//!
//! Connecting → Authenticated → Live → Draining → Closed. All that the hub holds for a client
//! is this task: its receiver on the bus is bounded, what it sends is bounded by the socket's
//! buffers and a deadline, and a client that is silent through two pings is dropped.

use super::message::{self, ClientMessage, Subscribe};
use super::selection::Selection;
use super::watching::Watcher;
use super::{Accepted, Live};
use crate::app::App;
use crate::auth::Identity;
use crate::auth::people::State as Everyone;
use crate::error::ApiError;
use crate::self_metrics::{ConnectionState, LiveGauge};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use perfwatch_model::{HostId, ShapeId, limits};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// Several hosts share a message: waiting this long for the others costs less than a frame each.
const GATHER: Duration = Duration::from_millis(200);

/// Close code for who may not any more: of those left to applications (RFC 6455, 7.4.2).
const NOT_ALLOWED: u16 = 4401;

/// Live snapshots over a WebSocket
///
/// Whole snapshots of all hosts one may see, until a first `subscribe`; see ClientMessage and
/// LiveMessage. Browsers send their cookie, others `Authorization`, or `?token=` with what
/// `POST /api/v1/auth/token` gave.
#[utoipa::path(get, path = "/api/ws/metrics", tag = "live",
    params(("token" = Option<String>, Query, description = "A signed token")),
    responses((status = 101, description = "Goes on as a WebSocket"), (status = 426)))]
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    identity: Identity,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|error| {
        // 400 for what is no handshake, 426 for a connection that can't be one.
        ApiError::new(error.status(), "no_websocket", error.body_text())
    })?;
    if app.metrics.live_clients() >= limits::LIVE_CLIENTS {
        return Err(ApiError::unavailable(
            "too_many_clients",
            "this hub has all the live clients it takes",
            30,
        ));
    }
    if app.stop.is_cancelled() {
        return Err(ApiError::unavailable("leaving", "the hub is stopping", 5));
    }
    let state = LiveGauge::new(app.metrics.clone());
    let upgrade = upgrade
        // 128 KiB by default, for each of thousands of clients that say next to nothing.
        .read_buffer_size(4 << 10)
        .write_buffer_size(8 << 10)
        // Above the largest whole snapshot there can be.
        .max_write_buffer_size(4 << 20)
        .max_message_size(limits::LIVE_MESSAGE_BYTES)
        .max_frame_size(limits::LIVE_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(move |socket| {
        let tasks = app.tasks.clone();
        tasks.track_future(Connection::run(app, identity, socket, state))
    }))
}

/// Why a connection ends; the label of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client left.
    Left,
    /// The client is gone without a word.
    Silent,
    /// The client does not read what it is sent.
    Slow,
    /// The client broke the protocol.
    Error,
    /// Whose account, session or token it was may not any more.
    Revoked,
    /// The hub leaves.
    Shutdown,
}

impl End {
    fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Error => "error",
            Self::Revoked => "revoked",
            Self::Shutdown => "shutdown",
        }
    }
}

struct Subscription {
    selection: Arc<Selection>,
    /// None for all hosts.
    hosts: Option<HashSet<HostId>>,
    /// The shape of each host that the client was told.
    told: HashMap<HostId, ShapeId>,
    /// Latest of each host that waits for the next message.
    waiting: Vec<Arc<Accepted>>,
    due: Option<Instant>,
    /// Says so while it lasts, where it is of one host.
    _watcher: Option<Watcher>,
}

impl Subscription {
    fn wants(&self, host: HostId) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.contains(&host))
    }

    fn single(&self) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| hosts.len() == 1)
    }
}

struct Connection {
    app: Arc<App>,
    identity: Identity,
    /// By which it is decided what they see.
    everyone: Arc<Everyone>,
    /// Told when who may do what has changed.
    changes: watch::Receiver<i64>,
    /// Told when alerts changed, where the client wants to know.
    alerts: Option<watch::Receiver<u64>>,
    socket: WebSocket,
    bus: broadcast::Receiver<Arc<Accepted>>,
    subscriptions: HashMap<u32, Subscription>,
    /// Whole snapshots of all hosts, until the first subscription.
    whole: bool,
    heard: Instant,
    state: LiveGauge,
}

impl Connection {
    async fn run(app: Arc<App>, identity: Identity, socket: WebSocket, mut state: LiveGauge) {
        state.set(ConnectionState::Authenticated);
        let bus = app.live.bus.subscribe();
        let subscriptions = HashMap::new();
        let (changes, everyone) = (app.people.changes(), app.people.now());
        let mut connection = Self {
            app,
            identity,
            everyone,
            changes,
            alerts: None,
            socket,
            bus,
            subscriptions,
            whole: true,
            heard: Instant::now(),
            state,
        };
        connection.state.set(ConnectionState::Live);
        let end = match connection.live().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        connection.state.set(ConnectionState::Draining);
        connection.say_goodbye(end).await;
        connection.state.close(end.label());
        tracing::debug!(end = end.label(), "live client gone");
    }

    async fn live(&mut self) -> Result<std::convert::Infallible, End> {
        let stop = self.app.stop.clone();
        let ping_every = self.app.config.ping_every;
        let mut ping = tokio::time::interval_at(Instant::now() + ping_every, ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.subscriptions.values().filter_map(|s| s.due).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Shutdown),
                Ok(()) = self.changes.changed() => self.look_again()?,
                () = changed(&mut self.alerts) => self.tell_alerts().await?,
                said = self.socket.recv() => self.hear(said).await?,
                item = self.bus.recv() => match item {
                    Ok(accepted) => self.show(accepted).await?,
                    Err(RecvError::Lagged(missed)) => self.catch_up(missed).await?,
                    Err(RecvError::Closed) => return Err(End::Shutdown),
                },
                () = sleep_until(due) => self.flush_due().await?,
                _ = ping.tick() => {
                    if self.heard.elapsed() > ping_every.mul_f64(2.5) {
                        return Err(End::Silent);
                    }
                    // Sessions and tokens also end by themselves.
                    self.look_again()?;
                    self.send(Message::Ping(bytes::Bytes::new())).await?;
                }
            }
        }
    }

    /// Whether they still may, and what they see from now on.
    fn look_again(&mut self) -> Result<(), End> {
        self.identity = self.identity.again(&self.app.people).ok_or(End::Revoked)?;
        self.everyone = self.app.people.now();
        let (identity, everyone) = (&self.identity, &self.everyone);
        for subscription in self.subscriptions.values_mut() {
            subscription.waiting.retain(|waiting| identity.sees(everyone, waiting.host));
        }
        Ok(())
    }

    async fn hear(&mut self, said: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard = Instant::now();
        match said {
            None | Some(Ok(Message::Close(_))) => Err(End::Left),
            Some(Err(error)) => {
                // A client that vanished and one that sent 10 MB end the same way here.
                tracing::debug!(%error, "live client");
                Err(if error.to_string().contains("too long") { End::Error } else { End::Left })
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => self.complain("not_text", "messages are JSON text").await,
            Some(Ok(Message::Text(text))) => match serde_json::from_str::<ClientMessage>(&text) {
                Err(error) => self.complain("bad_message", &error.to_string()).await,
                Ok(said) => self.understand(said).await,
            },
        }
    }

    async fn understand(&mut self, said: ClientMessage) -> Result<(), End> {
        match said {
            ClientMessage { subscribe: Some(wish), unsubscribe: None, ping: None, alerts: None } => {
                self.subscribe(wish).await
            }
            ClientMessage { subscribe: None, unsubscribe: None, ping: Some(number), alerts: None } => {
                self.send_text(message::pong(number).into()).await
            }
            ClientMessage { subscribe: None, unsubscribe: Some(id), ping: None, alerts: None } => {
                self.subscriptions.remove(&id);
                Ok(())
            }
            ClientMessage { subscribe: None, unsubscribe: None, ping: None, alerts: Some(wanted) } => {
                self.whole = false;
                self.alerts = wanted.then(|| self.app.alerting.changes());
                if wanted { self.tell_alerts().await } else { Ok(()) }
            }
            _ => self.complain("bad_message", "say one of subscribe, unsubscribe, alerts and ping").await,
        }
    }

    /// How many incidents are open.
    async fn tell_alerts(&mut self) -> Result<(), End> {
        let Some(revision) = self.alerts.as_mut().map(|alerts| *alerts.borrow_and_update()) else {
            return Ok(());
        };
        let counts = crate::api::alerts::counts(&self.app.alerting.now(), &self.identity, &self.everyone);
        self.send_text(message::alerts(revision, counts).into()).await
    }

    async fn complain(&mut self, code: &str, why: &str) -> Result<(), End> {
        self.send_text(message::error(code, why).into()).await
    }

    async fn subscribe(&mut self, wish: Subscribe) -> Result<(), End> {
        if wish.hosts.len() > limits::LIVE_SELECTORS || wish.metrics.len() > limits::LIVE_SELECTORS {
            return self.complain("too_many", "too many hosts or metrics in one subscription").await;
        }
        if self.subscriptions.len() >= limits::LIVE_SUBSCRIPTIONS
            && !self.subscriptions.contains_key(&wish.id)
        {
            return self.complain("too_many", "too many subscriptions on one connection").await;
        }
        let mut hosts = HashSet::new();
        for name in &wish.hosts {
            match self.app.fleet.find(name).filter(|host| self.identity.sees(&self.everyone, host.record.id))
            {
                Some(host) => {
                    hosts.insert(host.record.id);
                }
                None => {
                    return self.complain("unknown_host", &format!("there is no host {name:?}")).await;
                }
            }
        }
        self.whole = false;
        let selection = self.app.live.selections.get(wish.metrics, wish.processes);
        let hosts = (!wish.hosts.is_empty()).then_some(hosts);
        let only = hosts.as_ref().filter(|hosts| hosts.len() == 1).and_then(|hosts| hosts.iter().next());
        let _watcher = only.map(|host| self.app.live.watching.begin(*host));
        let (told, waiting) = (HashMap::new(), Vec::new());
        let mut new = Subscription { selection, hosts, told, waiting, due: None, _watcher };
        if wish.backfill_s > 0 {
            let entries = self.past(&mut new, wish.backfill_s, &wish.since);
            for text in message::backfill(wish.id, &entries) {
                self.send_text(text.into()).await?;
            }
        }
        self.subscriptions.insert(wish.id, new);
        Ok(())
    }

    /// What the window holds for a new subscription. What is on the bus already comes twice;
    /// clients know a tick by its time.
    fn past(&self, new: &mut Subscription, backfill_s: u32, since: &HashMap<HostId, i64>) -> Vec<String> {
        let now_ms = self.app.clock.wall_ms();
        let from = now_ms - i64::from(backfill_s) * 1000;
        let all: Vec<HostId> = match &new.hosts {
            Some(hosts) => hosts.iter().copied().collect(),
            None => self.app.fleet.all().iter().map(|host| host.record.id).collect(),
        };
        let mut entries = Vec::new();
        for host in all.into_iter().filter(|host| self.identity.sees(&self.everyone, *host)) {
            let from = since.get(&host).map_or(from, |&seen| seen.saturating_add(1).max(from));
            let mut past = self.app.live.recent(host, now_ms);
            past.retain(|accepted| accepted.snapshot.at_ms >= from);
            if let Some(last) = past.last() {
                new.told.insert(host, last.snapshot.shape.id());
                entries.extend(message::backfill_entries(&past, &new.selection));
            }
        }
        entries
    }

    async fn show(&mut self, accepted: Arc<Accepted>) -> Result<(), End> {
        if !self.identity.sees(&self.everyone, accepted.host) {
            return Ok(());
        }
        if self.whole {
            let text = accepted.shared_json().clone();
            self.send_text(text).await?;
            self.app.metrics.live_delay(self.app.clock.monotonic().saturating_sub(accepted.accepted));
            return Ok(());
        }
        let mut now_due = false;
        for subscription in self.subscriptions.values_mut().filter(|s| s.wants(accepted.host)) {
            if subscription.single() {
                subscription.due = Some(Instant::now());
                now_due = true;
            } else {
                // Of each host the newest is enough, unless it is a late one of the past.
                let same = |w: &Arc<Accepted>| {
                    w.host == accepted.host && w.snapshot.at_ms <= accepted.snapshot.at_ms
                };
                subscription.waiting.retain(|waiting| !same(waiting));
                subscription.due.get_or_insert_with(|| Instant::now() + GATHER);
            }
            subscription.waiting.push(accepted.clone());
        }
        if now_due { self.flush_due().await } else { Ok(()) }
    }

    /// Sends what waits in the subscriptions whose time has come.
    async fn flush_due(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let mut messages: Vec<Utf8Bytes> = Vec::new();
        let mut oldest = None;
        for (&id, subscription) in
            self.subscriptions.iter_mut().filter(|(_, s)| s.due.is_some_and(|due| due <= now))
        {
            subscription.due = None;
            let waiting = std::mem::take(&mut subscription.waiting);
            for accepted in &waiting {
                let shape = accepted.snapshot.shape.id();
                if subscription.told.insert(accepted.host, shape) != Some(shape) {
                    messages.push(message::columns(id, accepted, &subscription.selection).into());
                }
                oldest = oldest.into_iter().chain([accepted.accepted]).min();
            }
            let entries: Vec<Utf8Bytes> =
                waiting.iter().map(|accepted| accepted.part(&subscription.selection)).collect();
            for bite in message::in_bites(&entries, |entry| entry.as_str().len()) {
                messages.push(message::tick(id, bite.iter().map(Utf8Bytes::as_str)).into());
            }
        }
        for text in messages {
            self.send_text(text).await?;
        }
        if let Some(oldest) = oldest {
            self.app.metrics.live_delay(self.app.clock.monotonic().saturating_sub(oldest));
        }
        Ok(())
    }

    /// The bus went on without this client: it gets the newest state and is told what it
    /// missed, instead of a growing backlog.
    async fn catch_up(&mut self, missed: u64) -> Result<(), End> {
        // What stands on the bus already is skipped too: the newest state holds more.
        let missed = missed + self.bus.len() as u64;
        self.app.metrics.live_lagged(missed);
        self.bus = self.bus.resubscribe();
        self.send_text(message::lagged(missed).into()).await?;
        for accepted in self.app.live.window.newest() {
            self.show(accepted).await?;
        }
        Ok(())
    }

    async fn send_text(&mut self, text: Utf8Bytes) -> Result<(), End> {
        self.app.metrics.live_sent(text.len());
        self.send(Message::Text(text)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(self.app.config.send_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Slow),
        }
    }

    async fn say_goodbye(&mut self, end: End) {
        let (code, reason) = match end {
            End::Left => return,
            End::Slow => (close_code::POLICY, "too slow"),
            End::Silent => (close_code::POLICY, "silent"),
            End::Error => (close_code::POLICY, "protocol error"),
            End::Revoked => (NOT_ALLOWED, "log in again"),
            End::Shutdown => (close_code::AWAY, "the hub is stopping"),
        };
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // Whoever does not take this either is simply cut off.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.socket.send(close)).await;
    }
}

/// When alerts change; never for who does not want to know.
async fn changed(alerts: &mut Option<watch::Receiver<u64>>) {
    let told = match alerts {
        Some(alerts) => alerts.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Live {
    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.bus.receiver_count()
    }
}
