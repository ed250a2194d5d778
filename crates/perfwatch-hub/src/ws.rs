//! One WebSocket connection: a state machine owned by one task.
//!
//! Connecting → Authenticated → Live → Draining → Closed. All that the hub holds for a client
//! is this task: its receiver on the bus is bounded, what it sends is bounded by the socket's
//! buffers and a deadline, and a client that is silent through two pings is dropped.

use crate::app::App;
use crate::error::ApiError;
use crate::http::extract::Caller;
use crate::self_metrics::{ConnectionGauge, ConnectionState};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot as Everyone;
use perfwatch_live::PublishedSnapshot;
use perfwatch_live::message::{self, ClientMessage, SubscribeRequest};
use perfwatch_live::selection::Selection;
use perfwatch_live::viewers::ViewerGuard;
use perfwatch_model::{HostId, ShapeId, limits};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// Several hosts share a message: waiting this long for the others costs less than a frame each.
const COALESCE_DELAY: Duration = Duration::from_millis(200);

/// Close code for who may not any more: of those left to applications (RFC 6455, 7.4.2).
const CLOSE_UNAUTHORIZED: u16 = 4401;

/// Live metrics over WebSocket
///
/// Sends full snapshots of all visible hosts until the first `subscribe`; see ClientMessage and LiveMessage.
/// Authenticate with the session cookie, the `Authorization` header, or `?token=` with a signed token.
#[utoipa::path(
    get, path = "/api/ws/metrics", tag = "live",
    params(("token" = Option<String>, Query, description = "Signed token")),
    responses((status = 101, description = "WebSocket"), (status = 426)),
)]
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|error| {
        // 400 for what is no handshake, 426 for a connection that can't be one.
        ApiError::new(error.status(), "upgrade_required", error.body_text())
    })?;
    if app.metrics.live_clients() >= limits::MAX_WEBSOCKET_CLIENTS {
        return Err(ApiError::unavailable(
            "too_many_clients",
            "the limit of WebSocket clients is reached",
            30,
        ));
    }
    if app.stop.is_cancelled() {
        return Err(ApiError::unavailable("shutting_down", "the hub is stopping", 5));
    }
    let state = ConnectionGauge::new(app.metrics.clone());
    let upgrade = upgrade
        // 128 KiB by default, for each of thousands of clients that say next to nothing.
        .read_buffer_size(4 << 10)
        .write_buffer_size(8 << 10)
        // Above the largest whole snapshot there can be.
        .max_write_buffer_size(4 << 20)
        .max_message_size(limits::MAX_CLIENT_MESSAGE_BYTES)
        .max_frame_size(limits::MAX_CLIENT_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(move |socket| {
        let tasks = app.tasks.clone();
        tasks.track_future(Connection::run(app, identity, socket, state))
    }))
}

/// Why a connection ends; the label of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseReason {
    /// The client left.
    ClientClosed,
    /// The client is gone without a word.
    PingTimeout,
    /// The client does not read what it is sent.
    SendTimeout,
    /// The client broke the protocol.
    Error,
    /// Whose account, session or token it was may not any more.
    Revoked,
    /// The hub leaves.
    Shutdown,
}

impl CloseReason {
    fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::PingTimeout => "ping_timeout",
            Self::SendTimeout => "send_timeout",
            Self::Error => "protocol_error",
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
    sent_shapes: HashMap<HostId, ShapeId>,
    /// Latest of each host that waits for the next message.
    pending: Vec<Arc<PublishedSnapshot>>,
    flush_at: Option<Instant>,
    /// Says so while it lasts, where it is of one host.
    _viewer: Option<ViewerGuard>,
}

impl Subscription {
    fn includes(&self, host: HostId) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.contains(&host))
    }

    fn is_single_host(&self) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| hosts.len() == 1)
    }
}

struct Connection {
    app: Arc<App>,
    identity: Identity,
    /// By which it is decided what they see.
    auth_snapshot: Arc<Everyone>,
    /// Told when who may do what has changed.
    changes: watch::Receiver<i64>,
    /// Told when alerts changed, where the client wants to know.
    alerts: Option<watch::Receiver<u64>>,
    socket: WebSocket,
    broadcast_rx: broadcast::Receiver<Arc<PublishedSnapshot>>,
    subscriptions: HashMap<u32, Subscription>,
    /// Whole snapshots of all hosts, until the first subscription.
    full_snapshots: bool,
    last_received: Instant,
    state: ConnectionGauge,
}

impl Connection {
    async fn run(app: Arc<App>, identity: Identity, socket: WebSocket, mut state: ConnectionGauge) {
        state.set(ConnectionState::Authenticated);
        let bus = app.live_feed.subscribe();
        let subscriptions = HashMap::new();
        let (changes, everyone) = (app.directory.subscribe(), app.directory.snapshot());
        let mut connection = Self {
            app,
            identity,
            auth_snapshot: everyone,
            changes,
            alerts: None,
            socket,
            broadcast_rx: bus,
            subscriptions,
            full_snapshots: true,
            last_received: Instant::now(),
            state,
        };
        connection.state.set(ConnectionState::Live);
        let end = match connection.run_live().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        connection.state.set(ConnectionState::Draining);
        connection.close(end).await;
        connection.state.close(end.label());
        tracing::debug!(end = end.label(), "WebSocket client disconnected");
    }

    async fn run_live(&mut self) -> Result<std::convert::Infallible, CloseReason> {
        let stop = self.app.stop.clone();
        let ping_every = self.app.config.ping_interval;
        let mut ping = tokio::time::interval_at(Instant::now() + ping_every, ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.subscriptions.values().filter_map(|s| s.flush_at).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(CloseReason::Shutdown),
                Ok(()) = self.changes.changed() => self.refresh_access()?,
                () = incidents_changed(&mut self.alerts) => self.send_incident_counts().await?,
                said = self.socket.recv() => self.on_message(said).await?,
                item = self.broadcast_rx.recv() => match item {
                    Ok(accepted) => self.send_snapshot(accepted).await?,
                    Err(RecvError::Lagged(missed)) => self.catch_up(missed).await?,
                    Err(RecvError::Closed) => return Err(CloseReason::Shutdown),
                },
                () = sleep_until(due) => self.flush_due().await?,
                _ = ping.tick() => {
                    if self.last_received.elapsed() > ping_every.mul_f64(2.5) {
                        return Err(CloseReason::PingTimeout);
                    }
                    // Sessions and tokens also end by themselves.
                    self.refresh_access()?;
                    self.send(Message::Ping(bytes::Bytes::new())).await?;
                }
            }
        }
    }

    /// Whether they still may, and what they see from now on.
    fn refresh_access(&mut self) -> Result<(), CloseReason> {
        self.identity = self.identity.refresh(&self.app.directory).ok_or(CloseReason::Revoked)?;
        self.auth_snapshot = self.app.directory.snapshot();
        let (identity, everyone) = (&self.identity, &self.auth_snapshot);
        for subscription in self.subscriptions.values_mut() {
            subscription.pending.retain(|waiting| identity.can_view(everyone, waiting.host));
        }
        Ok(())
    }

    async fn on_message(&mut self, said: Option<Result<Message, axum::Error>>) -> Result<(), CloseReason> {
        self.last_received = Instant::now();
        match said {
            None | Some(Ok(Message::Close(_))) => Err(CloseReason::ClientClosed),
            Some(Err(error)) => {
                // A client that vanished and one that sent 10 MB end the same way here.
                tracing::debug!(%error, "WebSocket protocol error");
                Err(if error.to_string().contains("too long") {
                    CloseReason::Error
                } else {
                    CloseReason::ClientClosed
                })
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => {
                self.send_error("text_frame_required", "messages must be JSON text frames").await
            }
            Some(Ok(Message::Text(text))) => match serde_json::from_str::<ClientMessage>(&text) {
                Err(error) => self.send_error("invalid_message", &error.to_string()).await,
                Ok(said) => self.handle_command(said).await,
            },
        }
    }

    async fn handle_command(&mut self, said: ClientMessage) -> Result<(), CloseReason> {
        match said {
            ClientMessage { subscribe: Some(wish), unsubscribe: None, ping: None, incident_counts: None } => {
                self.subscribe(wish).await
            }
            ClientMessage {
                subscribe: None,
                unsubscribe: None,
                ping: Some(number),
                incident_counts: None,
            } => self.send_text(message::pong(number).into()).await,
            ClientMessage { subscribe: None, unsubscribe: Some(id), ping: None, incident_counts: None } => {
                self.subscriptions.remove(&id);
                Ok(())
            }
            ClientMessage {
                subscribe: None,
                unsubscribe: None,
                ping: None,
                incident_counts: Some(wanted),
            } => {
                self.full_snapshots = false;
                self.alerts = wanted.then(|| self.app.alerting.subscribe());
                if wanted { self.send_incident_counts().await } else { Ok(()) }
            }
            _ => {
                self.send_error("invalid_message", "expected subscribe, unsubscribe, incident_counts or ping")
                    .await
            }
        }
    }

    /// How many incidents are open.
    async fn send_incident_counts(&mut self) -> Result<(), CloseReason> {
        let Some(revision) = self.alerts.as_mut().map(|alerts| *alerts.borrow_and_update()) else {
            return Ok(());
        };
        let counts = perfwatch_alerting::open_incident_counts(
            &self.app.alerting.snapshot().incidents,
            &self.identity,
            &self.auth_snapshot,
        );
        self.send_text(message::incident_counts(revision, counts).into()).await
    }

    async fn send_error(&mut self, code: &str, why: &str) -> Result<(), CloseReason> {
        self.send_text(message::error(code, why).into()).await
    }

    async fn subscribe(&mut self, wish: SubscribeRequest) -> Result<(), CloseReason> {
        if wish.hosts.len() > limits::MAX_SELECTORS || wish.metrics.len() > limits::MAX_SELECTORS {
            return self.send_error("limit_reached", "too many hosts or metrics in one subscription").await;
        }
        if self.subscriptions.len() >= limits::MAX_SUBSCRIPTIONS && !self.subscriptions.contains_key(&wish.id)
        {
            return self.send_error("limit_reached", "too many subscriptions on one connection").await;
        }
        let mut hosts = HashSet::new();
        for name in &wish.hosts {
            match self
                .app
                .hosts
                .find(name)
                .filter(|host| self.identity.can_view(&self.auth_snapshot, host.record.id))
            {
                Some(host) => {
                    hosts.insert(host.record.id);
                }
                None => {
                    return self.send_error("unknown_host", &format!("there is no host {name:?}")).await;
                }
            }
        }
        self.full_snapshots = false;
        let selection = self.app.live_feed.selections().get(wish.metrics, wish.processes);
        let hosts = (!wish.hosts.is_empty()).then_some(hosts);
        let only = hosts.as_ref().filter(|hosts| hosts.len() == 1).and_then(|hosts| hosts.iter().next());
        let _watcher = only.map(|host| self.app.live_feed.viewers().add(*host));
        let (told, waiting) = (HashMap::new(), Vec::new());
        let mut new = Subscription {
            selection,
            hosts,
            sent_shapes: told,
            pending: waiting,
            flush_at: None,
            _viewer: _watcher,
        };
        if wish.backfill_s > 0 {
            let entries = self.backfill(&mut new, wish.backfill_s, &wish.since);
            for text in message::backfill(wish.id, &entries) {
                self.send_text(text.into()).await?;
            }
        }
        self.subscriptions.insert(wish.id, new);
        Ok(())
    }

    /// What the window holds for a new subscription. What is on the bus already comes twice;
    /// clients know a tick by its time.
    fn backfill(&self, new: &mut Subscription, backfill_s: u32, since: &HashMap<HostId, i64>) -> Vec<String> {
        let now_ms = self.app.clock.wall_ms();
        let from = now_ms - i64::from(backfill_s) * 1000;
        let all: Vec<HostId> = match &new.hosts {
            Some(hosts) => hosts.iter().copied().collect(),
            None => self.app.hosts.list().iter().map(|host| host.record.id).collect(),
        };
        let mut entries = Vec::new();
        for host in all.into_iter().filter(|host| self.identity.can_view(&self.auth_snapshot, *host)) {
            let from = since.get(&host).map_or(from, |&seen| seen.saturating_add(1).max(from));
            let mut past = self.app.live_feed.recent(host, now_ms);
            past.retain(|accepted| accepted.snapshot.at_ms >= from);
            if let Some(last) = past.last() {
                new.sent_shapes.insert(host, last.snapshot.shape.id());
                entries.extend(message::backfill_entries(&past, &new.selection));
            }
        }
        entries
    }

    async fn send_snapshot(&mut self, accepted: Arc<PublishedSnapshot>) -> Result<(), CloseReason> {
        if !self.identity.can_view(&self.auth_snapshot, accepted.host) {
            return Ok(());
        }
        if self.full_snapshots {
            // The encoding is UTF-8 by construction: checking it costs less than copying it.
            let text = Utf8Bytes::try_from(accepted.full_json().clone());
            self.send_text(text.map_err(|_| CloseReason::Error)?).await?;
            self.app
                .metrics
                .record_publish_delay(self.app.clock.monotonic().saturating_sub(accepted.accepted_at));
            return Ok(());
        }
        let mut now_due = false;
        for subscription in self.subscriptions.values_mut().filter(|s| s.includes(accepted.host)) {
            if subscription.is_single_host() {
                subscription.flush_at = Some(Instant::now());
                now_due = true;
            } else {
                // Of each host the newest is enough, unless it is a late one of the past.
                let same = |w: &Arc<PublishedSnapshot>| {
                    w.host == accepted.host && w.snapshot.at_ms <= accepted.snapshot.at_ms
                };
                subscription.pending.retain(|waiting| !same(waiting));
                subscription.flush_at.get_or_insert_with(|| Instant::now() + COALESCE_DELAY);
            }
            subscription.pending.push(accepted.clone());
        }
        if now_due { self.flush_due().await } else { Ok(()) }
    }

    /// Sends what waits in the subscriptions whose time has come.
    async fn flush_due(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        let mut messages: Vec<Utf8Bytes> = Vec::new();
        let mut oldest = None;
        for (&id, subscription) in
            self.subscriptions.iter_mut().filter(|(_, s)| s.flush_at.is_some_and(|due| due <= now))
        {
            subscription.flush_at = None;
            let waiting = std::mem::take(&mut subscription.pending);
            for accepted in &waiting {
                let shape = accepted.snapshot.shape.id();
                if subscription.sent_shapes.insert(accepted.host, shape) != Some(shape) {
                    messages.push(message::columns(id, accepted, &subscription.selection).into());
                }
                oldest = oldest.into_iter().chain([accepted.accepted_at]).min();
            }
            let entries: Vec<Arc<str>> =
                waiting.iter().map(|accepted| accepted.selection_json(&subscription.selection)).collect();
            for bite in message::chunk_by_size(&entries, |entry| entry.len()) {
                messages.push(message::tick(id, bite.iter().map(|entry| &**entry)).into());
            }
        }
        for text in messages {
            self.send_text(text).await?;
        }
        if let Some(oldest) = oldest {
            self.app.metrics.record_publish_delay(self.app.clock.monotonic().saturating_sub(oldest));
        }
        Ok(())
    }

    /// The bus went on without this client: it gets the newest state and is told what it
    /// missed, instead of a growing backlog.
    async fn catch_up(&mut self, missed: u64) -> Result<(), CloseReason> {
        // What stands on the bus already is skipped too: the newest state holds more.
        let missed = missed + self.broadcast_rx.len() as u64;
        self.app.metrics.record_dropped(missed);
        self.broadcast_rx = self.broadcast_rx.resubscribe();
        self.send_text(message::lagged(missed).into()).await?;
        for accepted in self.app.live_feed.latest_per_host() {
            self.send_snapshot(accepted).await?;
        }
        Ok(())
    }

    async fn send_text(&mut self, text: Utf8Bytes) -> Result<(), CloseReason> {
        self.app.metrics.record_message(text.len());
        self.send(Message::Text(text)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), CloseReason> {
        match tokio::time::timeout(self.app.config.send_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(CloseReason::ClientClosed),
            Err(_) => Err(CloseReason::SendTimeout),
        }
    }

    async fn close(&mut self, end: CloseReason) {
        let (code, reason) = match end {
            CloseReason::ClientClosed => return,
            CloseReason::SendTimeout => (close_code::POLICY, "client too slow"),
            CloseReason::PingTimeout => (close_code::POLICY, "ping_timeout"),
            CloseReason::Error => (close_code::POLICY, "protocol error"),
            CloseReason::Revoked => (CLOSE_UNAUTHORIZED, "access revoked"),
            CloseReason::Shutdown => (close_code::AWAY, "the hub is stopping"),
        };
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // Whoever does not take this either is simply cut off.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.socket.send(close)).await;
    }
}

/// When alerts change; never for who does not want to know.
async fn incidents_changed(alerts: &mut Option<watch::Receiver<u64>>) {
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
