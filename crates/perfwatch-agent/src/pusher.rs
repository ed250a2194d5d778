//! The way out: takes the oldest snapshots, sends them, deletes them on ack, backs off with
//! jitter otherwise. Runs on a thread of its own and never holds up the ticker.

use crate::config::{AgentConfig, AgentConfigError, MAX_INTERVAL, MIN_INTERVAL};
use crate::hub_client::{ENROLLMENT_TOKEN_PREFIX, HubClient, HubResponse, load_secret, save_secret};
use crate::spool::{self, Spool, SpoolBatch};
use bytes::Bytes;
use perfwatch_model::wire::{self, Batch, FactsMessage, IngestResponse};
use perfwatch_model::{Clock, HostId, limits};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What ticker and pusher share.
pub(crate) struct AgentState {
    pub(crate) spool: Mutex<Spool>,
    pub(crate) facts: Mutex<Option<FactsMessage>>,
    /// Rung when there is something to send, or when it is time to leave.
    pub(crate) wake: Condvar,
    pub(crate) stop: AtomicBool,
    /// The hub does not want this agent any more.
    pub(crate) revoked: AtomicBool,
    /// Milliseconds; changed by the hub's answers.
    pub(crate) interval_ms: AtomicU64,
}

impl AgentState {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.revoked()
    }

    pub(crate) fn revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Sleeps, but not through a stop.
    fn sleep(&self, time: Duration) {
        let guard = self.lock();
        let _ = self.wake.wait_timeout_while(guard, time, |_| !self.is_stopping());
    }
}

/// Sends until it is told to stop, then once more.
pub(crate) struct Pusher {
    pub(crate) shared: Arc<AgentState>,
    pub(crate) clock: Arc<dyn Clock>,
    hub: HubClient,
    state: PathBuf,
    /// As it was configured.
    token: Option<String>,
    /// Our own, once we have one.
    agent_secret: Option<String>,
    host: HostId,
    name: String,
    backoff_max: Duration,
    failures: u32,
    /// How often in a row the hub did not know our secret.
    unknown_agent_responses: u32,
    send_shapes: bool,
    send_facts: bool,
    batch_size: usize,
    last_sync: Duration,
}

/// Bytes of snapshots in one request, before compression.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// So often the hub must say that it does not know us before the token is used again.
const MAX_UNKNOWN_AGENT_RESPONSES: u32 = 4;
/// First pause after a failure.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);
/// While the hub is away, the spool is synced to disk this often.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

enum PushOutcome {
    Acked(IngestResponse),
    ShapesRequested,
    /// This batch will never be taken.
    Rejected(String),
    Retry(String, Option<Duration>),
    /// The hub does not know our secret: it is another hub, or forgot us.
    UnknownAgent(String),
    /// The hub does not want us any more.
    Revoked,
}

impl Pusher {
    pub(crate) fn new(
        shared: Arc<AgentState>,
        clock: Arc<dyn Clock>,
        config: &AgentConfig,
        host: HostId,
        name: String,
    ) -> Result<Self, AgentConfigError> {
        let token = config.token.clone();
        let enrols = token.as_ref().is_some_and(|token| token.starts_with(ENROLLMENT_TOKEN_PREFIX));
        // What was configured as a secret is one; else the one that an enrolment gave.
        let secret = if enrols || token.is_none() { load_secret(&config.state) } else { token.clone() };
        Ok(Self {
            shared,
            clock,
            hub: HubClient::new(&config.hub, config.ca.as_deref())?,
            state: config.state.clone(),
            token: token.filter(|_| enrols),
            agent_secret: secret,
            host,
            name,
            backoff_max: config.max_backoff,
            failures: 0,
            unknown_agent_responses: 0,
            send_shapes: false,
            send_facts: false,
            batch_size: limits::MAX_BATCH_SNAPSHOTS,
            last_sync: Duration::ZERO,
        })
    }

    /// Trades the token for a secret, where there is a token; the secret it has stays until then.
    fn enroll(&mut self) -> Result<(), String> {
        let Some(token) = self.token.as_ref() else { return Ok(()) };
        let secret = self.hub.enroll(token, self.host, &self.name).map_err(|error| error.to_string())?;
        if let Err(error) = save_secret(&self.state, &secret) {
            tracing::warn!(%error, "failed to save the agent secret; the agent must enroll again after a restart");
        }
        self.agent_secret = Some(secret);
        self.unknown_agent_responses = 0;
        tracing::info!(hub = self.hub.base(), "agent enrolled");
        Ok(())
    }

    /// The thread's loop.
    pub(crate) fn run(mut self, revoked: impl FnOnce()) {
        self.push();
        if self.shared.revoked() {
            revoked();
        }
    }

    fn push(&mut self) {
        loop {
            let stopping = self.shared.is_stopping();
            let source = self.shared.lock().pending_batch(self.batch_size);
            let Some(source) = source else {
                if stopping {
                    return;
                }
                let guard = self.shared.lock();
                let idle = |spool: &mut Spool| spool.pending() == 0 && !self.shared.is_stopping();
                let _ = self.shared.wake.wait_timeout_while(guard, Duration::from_secs(60), idle);
                continue;
            };
            let take = spool::read_batch(source, self.batch_size, MAX_BATCH_BYTES);
            if take.entries.is_empty() {
                if take.makes_progress() {
                    // Only damage was left there.
                    self.shared.lock().ack(&take);
                } else if stopping {
                    return;
                } else {
                    self.shared.sleep(Duration::from_secs(1));
                }
                continue;
            }
            let pause = self.send_and_ack(&take);
            if self.shared.revoked() {
                return;
            }
            if stopping && pause.is_some() {
                let left = self.shared.lock().pending();
                tracing::warn!(
                    snapshots = left,
                    "stopping with unsent snapshots; they are sent after the next start"
                );
                return;
            }
            if let Some(mut pause) = pause {
                while !pause.is_zero() && !self.shared.is_stopping() {
                    self.sync();
                    let slice = pause.min(SYNC_INTERVAL);
                    self.shared.sleep(slice);
                    pause -= slice;
                }
            }
        }
    }

    /// Sends once; how long to wait before the next try, if it failed.
    fn send_and_ack(&mut self, take: &SpoolBatch) -> Option<Duration> {
        match self.send(take) {
            PushOutcome::Acked(answer) => {
                if self.failures > 0 {
                    tracing::info!(tries = self.failures, "connection to the hub restored");
                }
                self.failures = 0;
                self.unknown_agent_responses = 0;
                self.batch_size = limits::MAX_BATCH_SNAPSHOTS;
                self.send_shapes = false;
                self.send_facts = answer.facts_requested;
                self.apply_response(&answer);
                self.shared.lock().ack(take);
                None
            }
            // Asked again right after they were sent: then something else is wrong.
            PushOutcome::ShapesRequested if self.send_shapes => {
                self.on_failure("hub rejected the shapes it requested", None)
            }
            PushOutcome::ShapesRequested => {
                self.send_shapes = true;
                None
            }
            PushOutcome::Rejected(why) if take.entries.len() == 1 => {
                tracing::warn!(
                    seq = take.entries[0].seq,
                    why,
                    "hub rejected a snapshot permanently; dropping it"
                );
                self.batch_size = limits::MAX_BATCH_SNAPSHOTS;
                self.shared.lock().ack(take);
                None
            }
            // One bad snapshot may spoil a batch: find it by halves.
            PushOutcome::Rejected(_) => {
                self.batch_size = take.entries.len().div_ceil(2);
                None
            }
            PushOutcome::Retry(why, wait) => self.on_failure(&why, wait),
            PushOutcome::UnknownAgent(why) => {
                self.unknown_agent_responses += 1;
                // Another hub of the same site may not have heard of it yet: not at the first word.
                if self.unknown_agent_responses >= MAX_UNKNOWN_AGENT_RESPONSES
                    && let Err(error) = self.enroll()
                {
                    tracing::debug!(error, "enrolling again");
                }
                self.on_failure(&why, None)
            }
            PushOutcome::Revoked => {
                tracing::error!(hub = self.hub.base(), "agent revoked by the hub; stopping");
                self.shared.revoked.store(true, Ordering::Release);
                self.shared.wake.notify_all();
                Some(Duration::ZERO)
            }
        }
    }

    fn on_failure(&mut self, why: &str, wait: Option<Duration>) -> Option<Duration> {
        if self.failures == 0 {
            tracing::warn!(hub = self.hub.base(), why, "hub unreachable; spooling snapshots");
        } else {
            tracing::debug!(hub = self.hub.base(), why, tries = self.failures, "hub still unreachable");
        }
        self.failures = self.failures.saturating_add(1);
        let longest = INITIAL_BACKOFF.saturating_mul(1 << self.failures.min(16)).min(self.backoff_max);
        // Half fixed, half chance: a thousand agents don't come back at one moment.
        let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        Some(wait.map_or(pause, |wait| wait.min(MAX_INTERVAL).max(pause)))
    }

    fn apply_response(&self, answer: &IngestResponse) {
        for rejected in answer.rejected.iter().take(3) {
            tracing::warn!(code = rejected.code, why = rejected.message, "hub rejected a snapshot");
        }
        if let Some(wanted) = answer.interval_ms {
            let wanted = Duration::from_millis(u64::from(wanted)).clamp(MIN_INTERVAL, MAX_INTERVAL);
            let wanted_ms = u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX);
            if self.shared.interval_ms.swap(wanted_ms, Ordering::AcqRel) != wanted_ms {
                tracing::info!(interval_ms = wanted_ms, "collection interval changed by the hub");
            }
        }
    }

    fn send(&mut self, take: &SpoolBatch) -> PushOutcome {
        if self.agent_secret.is_none()
            && let Err(why) = self.enroll()
        {
            return PushOutcome::Retry(why, None);
        }
        let shapes = if self.send_shapes { take.shapes() } else { Vec::new() };
        let facts = self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let batch = Batch {
            host_id: Bytes::copy_from_slice(&self.host.to_bytes()),
            host_name: self.name.clone(),
            shapes,
            snapshots: take.entries.iter().map(|entry| entry.bytes.clone()).collect(),
            sent_at_ms: self.clock.wall_ms(),
            facts: facts.filter(|_| self.send_shapes || self.send_facts),
        };
        let body = match zstd::bulk::compress(&wire::encode_batch(&batch), 1) {
            Ok(body) => body,
            Err(error) => return PushOutcome::Rejected(format!("can't compress: {error}")),
        };
        let headers = [("Content-Type", wire::CONTENT_TYPE), ("Content-Encoding", "zstd")];
        match self.hub.post("/ingest/metrics", &headers, self.agent_secret.as_deref(), &body) {
            Ok(answer) => classify(&answer),
            Err(why) => PushOutcome::Retry(why, None),
        }
    }

    /// While the hub is away the spool is all there is: power loss should cost little of it.
    fn sync(&mut self) {
        let now = self.clock.monotonic();
        if now.saturating_sub(self.last_sync) < SYNC_INTERVAL {
            return;
        }
        self.last_sync = now;
        let handle = self.shared.lock().sync_handle();
        if let Some(Err(error)) = handle.map(|file| file.sync_data()) {
            tracing::debug!(%error, "failed to sync the spool");
        }
    }
}

fn classify(answer: &HubResponse) -> PushOutcome {
    let (status, wait, code) = (answer.status, answer.retry_after, answer.error("code"));
    let why = || format!("HTTP {status} {}", answer.error("message")).trim_end().to_owned();
    match status {
        200..=299 => match serde_json::from_str::<IngestResponse>(&answer.body) {
            Ok(answer) => PushOutcome::Acked(answer),
            // Something between us that says 200 to anything must not cost data.
            Err(_) => PushOutcome::Retry(format!("HTTP {status}, but not from a PerfWatch hub"), wait),
        },
        409 if code == wire::ERROR_UNKNOWN_SHAPE => PushOutcome::ShapesRequested,
        401 if code == "authentication_required" => {
            PushOutcome::Retry("authentication required: start with --token TOKEN".to_owned(), wait)
        }
        401 if code == "unknown_agent" => PushOutcome::UnknownAgent(why()),
        403 if code == "agent_revoked" => PushOutcome::Revoked,
        400 | 413 | 422 if !code.is_empty() => PushOutcome::Rejected(why()),
        _ => PushOutcome::Retry(why(), wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hub_rejections_drop_snapshots() {
        let refused = r#"{"error":{"code":"malformed","message":"x"}}"#;
        for (status, text, kind) in [
            (200, r#"{"accepted":1,"duplicates":0,"rejected":[]}"#, "acked"),
            (200, "<html>login here</html>", "later"),
            (200, "null", "later"),
            (204, "", "later"),
            (409, r#"{"error":{"code":"unknown_shape"}}"#, "shapes"),
            (409, "{}", "later"),
            (400, refused, "refused"),
            (413, "<html>nginx</html>", "later"),
            (413, refused, "refused"),
            (401, refused, "later"),
            (401, r#"{"error":{"code":"unknown_agent"}}"#, "unknown"),
            (401, "<html>log in</html>", "later"),
            (403, r#"{"error":{"code":"agent_revoked"}}"#, "revoked"),
            (403, "<html>no</html>", "later"),
            (404, refused, "later"),
            (429, refused, "later"),
            (503, refused, "later"),
        ] {
            let found = match classify(&HubResponse { status, body: text.to_owned(), retry_after: None }) {
                PushOutcome::Acked(_) => "acked",
                PushOutcome::ShapesRequested => "shapes",
                PushOutcome::Rejected(_) => "refused",
                PushOutcome::Retry(..) => "later",
                PushOutcome::UnknownAgent(_) => "unknown",
                PushOutcome::Revoked => "revoked",
            };
            assert_eq!(found, kind, "{status} {text}");
        }
    }
}
