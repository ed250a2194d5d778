//! WebSocket connections, each a state machine owned by one task: Connecting → Authenticated → Live →
//! Draining → Closed.
//!
//! A connection uses bounded memory: its queue of snapshots is bounded, unsent messages are limited by the
//! socket's buffers and a send timeout, and clients that do not answer pings are disconnected.

mod subscribe;

use crate::app::App;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use perfwatch_alerting::{VisibleIncidents, visible_incidents};
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_auth::{Actor, Identity};
use perfwatch_http::{ApiError, Audited};
use perfwatch_live::client_share::{ClientShare, LiveResource, Reservation};
use perfwatch_live::message::{self, ClientMessage};
use perfwatch_live::{Lagged, LiveReceiver, PublishedSnapshot, Subscription};
use perfwatch_metrics::{ConnectionGauge, ConnectionState, LiveClient};
use perfwatch_model::{limit_table, limits};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// Time in which a new client may subscribe before it receives full snapshots: a page that is on the way to do so would
/// receive megabytes of a large fleet.
const SUBSCRIBE_DELAY: Duration = Duration::from_millis(500);
/// Close code after the loss of access, from the range for applications (RFC 6455, 7.4.2).
const CLOSE_UNAUTHORIZED: u16 = 4401;

/// Live metrics over WebSocket
///
/// Sends full snapshots of all visible hosts from half a second on, until the first `subscribe`; see ClientMessage and LiveMessage.
/// Authenticate with the session cookie, the `Authorization` header, or `?token=` with a signed token.
#[utoipa::path(
    get, path = "/api/ws/metrics", tag = "live",
    params(("token" = Option<String>, Query, description = "Signed token")),
    responses((status = 101, description = "WebSocket"), (status = 426)),
)]
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|error| {
        // 400 for an invalid handshake, 426 for a connection that cannot be upgraded.
        ApiError::new(error.status(), "upgrade_required", error.body_text())
    })?;
    if app.metrics.websocket_clients() >= limits::MAX_WEBSOCKET_CLIENTS {
        limit_table::WEBSOCKET_CLIENTS.refuse();
        return Err(ApiError::unavailable(
            "too_many_clients",
            "the limit of WebSocket clients is reached",
            30,
        ));
    }
    let Actor { identity, client_addr, .. } = actor;
    let share = app.live_feed.client_shares().get(identity.share_key());
    let Some(socket_slot) = share.reserve(LiveResource::Sockets, 1) else {
        let message = format!("at most {} WebSockets per account", limits::MAX_WEBSOCKETS_PER_ACCOUNT);
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_clients", message));
    };
    if app.stop.is_cancelled() {
        return Err(ApiError::unavailable("shutting_down", "hub is shutting down", 5));
    }
    let (actor, address) = (identity.actor_name(), client_addr.address.to_string());
    let client = LiveClient { actor, address, since_ms: app.clock.wall_ms() };
    let state = ConnectionGauge::new(app.metrics.clone(), client);
    let upgrade = upgrade
        // The default of 128 KiB is too much for thousands of clients that send little.
        .read_buffer_size(4 << 10)
        .write_buffer_size(8 << 10)
        // Above the size of the largest full snapshot.
        .max_write_buffer_size(4 << 20)
        .max_message_size(limits::MAX_CLIENT_MESSAGE_BYTES)
        .max_frame_size(limits::MAX_CLIENT_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(move |socket| {
        let tasks = app.tasks.clone();
        tasks.track_future(Connection::run(app, identity, socket, (state, share, socket_slot)))
    }))
}

/// Reason for the end of a connection; label of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseReason {
    /// The client closed the connection.
    ClientClosed,
    /// The client did not answer pings.
    PingTimeout,
    /// The client did not receive a message in time.
    SendTimeout,
    /// Clients of the account have too many unsent messages.
    TooManyUnsent,
    /// The client violated the protocol.
    ProtocolError,
    /// Account, session or token lost access.
    Revoked,
    /// The hub shuts down.
    Shutdown,
}

impl CloseReason {
    fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::PingTimeout => "ping_timeout",
            Self::SendTimeout => "send_timeout",
            Self::TooManyUnsent => "too_many_unsent",
            Self::ProtocolError => "protocol_error",
            Self::Revoked => "revoked",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Full snapshots of all hosts, which a client receives until its first subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FullSnapshots {
    /// They are queued until this time.
    From(Instant),
    Sent,
    /// Only subscriptions are sent.
    Off,
}

impl FullSnapshots {
    fn start_at(self) -> Option<Instant> {
        if let Self::From(start) = self { Some(start) } else { None }
    }
}

/// State of a connection.
struct Connection {
    app: Arc<App>,
    identity: Identity,
    /// Accounts and tags that determine the visible hosts.
    auth_snapshot: Arc<AuthSnapshot>,
    /// Notifies about changes of accounts, tokens and tags.
    access_changes: watch::Receiver<i64>,
    /// Notifies about changes of incidents, if the client subscribed to their counts.
    incident_changes: Option<watch::Receiver<u64>>,
    sent_incidents: Option<VisibleIncidents>,
    socket: WebSocket,
    snapshots: LiveReceiver,
    subscriptions: HashMap<u32, Subscription>,
    full_snapshots: FullSnapshots,
    last_received: Instant,
    state: ConnectionGauge,
    /// Share of the account.
    share: Arc<ClientShare>,
    _socket_slot: Reservation,
}

impl Connection {
    async fn run(
        app: Arc<App>,
        identity: Identity,
        socket: WebSocket,
        (mut state, share, socket_slot): (ConnectionGauge, Arc<ClientShare>, Reservation),
    ) {
        state.set(ConnectionState::Authenticated);
        let snapshots = app.live_feed.subscribe();
        let subscriptions = HashMap::new();
        let (access_changes, auth_snapshot) = (app.directory.subscribe(), app.directory.snapshot());
        let mut connection = Self {
            app,
            identity,
            auth_snapshot,
            access_changes,
            incident_changes: None,
            sent_incidents: None,
            socket,
            snapshots,
            subscriptions,
            full_snapshots: FullSnapshots::From(Instant::now() + SUBSCRIBE_DELAY),
            last_received: Instant::now(),
            state,
            share,
            _socket_slot: socket_slot,
        };
        connection.state.set(ConnectionState::Live);
        let reason = match connection.run_live().await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        connection.state.set(ConnectionState::Draining);
        connection.close(reason).await;
        connection.state.close(reason.label());
        tracing::debug!(reason = reason.label(), "closed a WebSocket connection");
    }

    async fn run_live(&mut self) -> Result<std::convert::Infallible, CloseReason> {
        let stop = self.app.stop.clone();
        // Once, because all connections register in the same list.
        let mut stopped = std::pin::pin!(stop.cancelled());
        let ping_interval = self.app.config.ping_interval;
        let mut ping = tokio::time::interval_at(Instant::now() + ping_interval, ping_interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let flush_at = self.subscriptions.values().filter_map(Subscription::flush_at).min();
            // Snapshots of the next message stay in the queue until it is due: they wake the task once.
            let is_combining = flush_at.is_some() && self.combines_hosts();
            let start_at = self.full_snapshots.start_at();
            let is_waiting = is_combining || start_at.is_some();
            tokio::select! {
                biased;
                () = stopped.as_mut() => return Err(CloseReason::Shutdown),
                Ok(()) = self.access_changes.changed() => self.refresh_access()?,
                () = incidents_changed(&mut self.incident_changes) => self.send_incident_counts(false).await?,
                message = self.socket.recv() => self.on_message(message).await?,
                received = self.snapshots.recv(), if !is_waiting => match received {
                    Ok(published) => self.send_snapshot(published).await?,
                    Err(Lagged(dropped)) => self.skip_backlog(dropped).await?,
                },
                () = sleep_until(flush_at) => self.send_combined().await?,
                () = sleep_until(start_at) => self.full_snapshots = FullSnapshots::Sent,
                _ = ping.tick() => {
                    if self.last_received.elapsed() > ping_interval.mul_f64(2.5) {
                        return Err(CloseReason::PingTimeout);
                    }
                    // Sessions and tokens may have expired.
                    self.refresh_access()?;
                    self.send(Message::Ping(bytes::Bytes::new())).await?;
                }
            }
        }
    }

    /// Reloads identity and visible hosts.
    ///
    /// # Errors
    /// Returns `Revoked` if the caller lost access.
    fn refresh_access(&mut self) -> Result<(), CloseReason> {
        self.identity = self.identity.refresh(&self.app.directory).ok_or(CloseReason::Revoked)?;
        self.auth_snapshot = self.app.directory.snapshot();
        let (identity, auth_snapshot) = (&self.identity, &self.auth_snapshot);
        for subscription in self.subscriptions.values_mut() {
            subscription.retain_hosts(|host| identity.can_view(auth_snapshot, host));
        }
        Ok(())
    }

    async fn on_message(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), CloseReason> {
        self.last_received = Instant::now();
        // The end of a connection is not work of a message; it releases resources at once.
        if matches!(&message, Some(Ok(message)) if !matches!(message, Message::Close(_))) {
            pause(self.message_delay(0)).await;
        }
        match message {
            None | Some(Ok(Message::Close(_))) => Err(CloseReason::ClientClosed),
            Some(Err(error)) => {
                tracing::debug!(error = %error, "failed to read from a WebSocket");
                // The library has one error for a lost connection and for a message above the limit.
                let is_too_long = error.to_string().contains("too long");
                Err(if is_too_long { CloseReason::ProtocolError } else { CloseReason::ClientClosed })
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => {
                self.send_error("text_frame_required", "messages must be JSON text frames").await
            }
            Some(Ok(Message::Text(text))) => match serde_json::from_str::<ClientMessage>(&text) {
                Err(error) => self.send_error("invalid_message", &error.to_string()).await,
                Ok(command) => self.handle_command(command).await,
            },
        }
    }

    /// Time until a message is handled: later if the account sends more than its share.
    fn message_delay(&self, backfilled_hosts: usize) -> Duration {
        self.share.pace_message(backfilled_hosts, self.app.clock.monotonic())
    }

    async fn handle_command(&mut self, command: ClientMessage) -> Result<(), CloseReason> {
        match command {
            ClientMessage {
                subscribe: Some(request),
                unsubscribe: None,
                ping: None,
                incident_counts: None,
            } => self.subscribe(request).await,
            ClientMessage {
                subscribe: None,
                unsubscribe: None,
                ping: Some(number),
                incident_counts: None,
            } => self.send_text(message::pong(number).into()).await,
            ClientMessage { subscribe: None, unsubscribe: Some(id), ping: None, incident_counts: None } => {
                self.subscriptions.remove(&id);
                self.receive_hosts(None);
                Ok(())
            }
            ClientMessage {
                subscribe: None,
                unsubscribe: None,
                ping: None,
                incident_counts: Some(enabled),
            } => {
                self.full_snapshots = FullSnapshots::Off;
                self.receive_hosts(None);
                self.incident_changes = enabled.then(|| self.app.alerting.subscribe());
                if enabled { self.send_incident_counts(true).await } else { Ok(()) }
            }
            _ => {
                self.send_error("invalid_message", "expected subscribe, unsubscribe, incident_counts or ping")
                    .await
            }
        }
    }

    /// Sends the numbers of open incidents by severity.
    async fn send_incident_counts(&mut self, is_requested: bool) -> Result<(), CloseReason> {
        let changes = self.incident_changes.as_mut();
        let Some(revision) = changes.map(|changes| *changes.borrow_and_update()) else {
            return Ok(());
        };
        let snapshot = self.app.alerting.snapshot();
        let visible = visible_incidents(&snapshot.incidents, revision, &self.identity, &self.auth_snapshot);
        // Changes of hidden incidents are not sent.
        if !is_requested && self.sent_incidents == Some(visible) {
            return Ok(());
        }
        self.sent_incidents = Some(visible);
        self.send_text(message::incident_counts(visible.revision, visible.counts).into()).await
    }

    async fn send_error(&mut self, code: &str, message: &str) -> Result<(), CloseReason> {
        self.send_text(message::error(code, message).into()).await
    }

    /// Returns whether every message combines snapshots of several hosts.
    fn combines_hosts(&self) -> bool {
        self.full_snapshots == FullSnapshots::Off
            && !self.subscriptions.values().any(Subscription::has_single_host)
    }

    async fn send_snapshot(&mut self, published: Arc<PublishedSnapshot>) -> Result<(), CloseReason> {
        if !self.identity.can_view(&self.auth_snapshot, published.host) {
            return Ok(());
        }
        if self.full_snapshots != FullSnapshots::Off {
            // JSON is UTF-8; the conversion checks the bytes instead of copying them.
            let text = Utf8Bytes::try_from(published.full_json().clone());
            self.send_text(text.map_err(|_| CloseReason::ProtocolError)?).await?;
            self.app
                .metrics
                .record_publish_delay(self.app.clock.monotonic().saturating_sub(published.accepted_at));
            return Ok(());
        }
        if self.add_to_subscriptions(&published) { self.flush_due().await } else { Ok(()) }
    }

    /// Adds a snapshot to the next messages of the subscriptions. Returns whether one is due.
    fn add_to_subscriptions(&mut self, published: &Arc<PublishedSnapshot>) -> bool {
        let mut is_due = false;
        for subscription in self.subscriptions.values_mut().filter(|s| s.includes(published.host)) {
            is_due |= subscription.push(published);
        }
        is_due
    }

    /// Sends the messages that combine snapshots of several hosts.
    async fn send_combined(&mut self) -> Result<(), CloseReason> {
        while let Some(received) = self.snapshots.try_recv() {
            match received {
                Ok(published) if self.identity.can_view(&self.auth_snapshot, published.host) => {
                    self.add_to_subscriptions(&published);
                }
                Ok(_) => {}
                Err(Lagged(dropped)) => return self.skip_backlog(dropped).await,
            }
        }
        self.flush_due().await
    }

    /// Sends the pending snapshots of the subscriptions that are due.
    async fn flush_due(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        let (mut messages, mut oldest) = (Vec::new(), None::<Duration>);
        for (&id, subscription) in &mut self.subscriptions {
            if let Some((texts, accepted_at)) = subscription.take_due(id, now) {
                messages.extend(texts);
                oldest = oldest.into_iter().chain(accepted_at).min();
            }
        }
        for text in messages {
            self.send_text(text.into()).await?;
        }
        if let Some(oldest) = oldest {
            self.app.metrics.record_publish_delay(self.app.clock.monotonic().saturating_sub(oldest));
        }
        Ok(())
    }

    /// Skips the backlog of a slow client: sends the number of dropped snapshots (`lagged`) and the newest
    /// state. A client that does not even read that is closed after the send timeout.
    async fn skip_backlog(&mut self, dropped: u64) -> Result<(), CloseReason> {
        // Snapshots in the queue are skipped, too: the newest state replaces them.
        let dropped = dropped + self.snapshots.clear();
        self.state.record_dropped(dropped);
        // The number includes snapshots of all hosts.
        let visible = self.identity.host_tags.is_empty().then_some(dropped);
        self.send_text(message::lagged(visible).into()).await?;
        for published in self.app.live_feed.latest_per_host() {
            self.send_snapshot(published).await?;
        }
        Ok(())
    }

    async fn send_text(&mut self, text: Utf8Bytes) -> Result<(), CloseReason> {
        self.state.record_message(text.len());
        let unsent = self.share.reserve(LiveResource::Unsent, text.len());
        let _unsent = unsent.ok_or(CloseReason::TooManyUnsent)?;
        self.send(Message::Text(text)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), CloseReason> {
        match tokio::time::timeout(self.app.config.send_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(CloseReason::ClientClosed),
            Err(_) => Err(CloseReason::SendTimeout),
        }
    }

    async fn close(&mut self, reason: CloseReason) {
        let (code, text) = match reason {
            CloseReason::ClientClosed => return,
            CloseReason::SendTimeout => (close_code::POLICY, "client too slow"),
            CloseReason::TooManyUnsent => (close_code::AGAIN, "limit_reached: your clients are too slow"),
            CloseReason::PingTimeout => (close_code::POLICY, "ping timeout"),
            CloseReason::ProtocolError => (close_code::POLICY, "protocol error"),
            CloseReason::Revoked => (CLOSE_UNAUTHORIZED, "access revoked"),
            CloseReason::Shutdown => (close_code::AWAY, "hub is shutting down"),
        };
        let close = Message::Close(Some(CloseFrame { code, reason: text.into() }));
        // A client that does not receive this is disconnected without a close frame.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.socket.send(close)).await;
    }
}

/// Waits for a time. Other tasks of the thread run in any case.
async fn pause(delay: Duration) {
    if delay.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(delay).await;
    }
}

/// Waits for a change of incidents; forever if the client did not subscribe.
async fn incidents_changed(changes: &mut Option<watch::Receiver<u64>>) {
    let has_changed = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !has_changed {
        std::future::pending::<()>().await;
    }
}

/// Waits until `deadline`; forever without a deadline.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
