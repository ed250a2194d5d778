//! Sends spooled snapshots with backoff: reads the oldest, sends them, deletes them when the hub
//! acknowledges, otherwise waits with jitter. Runs on a separate thread and never delays the ticker.

use crate::agent_state::AgentState;
use crate::body_limit::BodyLimit;
use crate::config::{AgentConfig, MAX_INTERVAL};
use crate::credential::AgentCredential;
use crate::error::AgentConfigError;
use crate::failure_log::FailureLog;
use crate::hub_client::{EnrollError, HubClient};
use crate::push_outcome::{PushOutcome, classify, is_rejected_for_form};
use crate::spool::{self, Spool, SpoolBatch, SpoolEntry};
use bytes::Bytes;
use perfwatch_model::wire::{self, Batch, IngestResponse};
use perfwatch_model::{Clock, HostId, limits};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Sends spooled snapshots until the agent stops, then makes one last attempt.
pub(crate) struct Pusher {
    pub(crate) shared: Arc<AgentState>,
    pub(crate) clock: Arc<dyn Clock>,
    hub: HubClient,
    credential: AgentCredential,
    host: HostId,
    name: String,
    max_backoff: Duration,
    failures: FailureLog,
    /// Number of consecutive responses `unknown_agent`.
    unknown_agent_responses: u32,
    send_shapes: bool,
    send_facts: bool,
    /// Maximum number of snapshots in the next request. Halved after a failure, doubled after a success.
    batch_size: usize,
    body_limit: BodyLimit,
    /// Monotonic time of the last sync of the spool.
    last_sync: Duration,
    /// True while syncing the spool fails and the failure was logged.
    sync_error_logged: bool,
}

/// Maximum size of the snapshots in one request, before compression.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Consecutive responses `unknown_agent` after which the agent enrolls again. Another hub of the same
/// installation may not know a new agent yet, so the first response is not enough.
const MAX_UNKNOWN_AGENT_RESPONSES: u32 = 4;
/// Pause after the first failure; doubled with each further failure.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);
/// Interval of syncing the spool to disk while the hub is unreachable.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum wait for a new snapshot before the stop flag is checked again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of reductions of a snapshot; one column remains long before.
const MAX_SHRINK_LEVEL: u32 = 20;
/// Pause after the spool could not be read.
const SPOOL_RETRY_DELAY: Duration = Duration::from_secs(1);

impl Pusher {
    pub(crate) fn new(
        shared: Arc<AgentState>,
        clock: Arc<dyn Clock>,
        config: &AgentConfig,
        host: HostId,
        name: String,
    ) -> Result<Self, AgentConfigError> {
        Ok(Self {
            shared,
            clock,
            hub: HubClient::new(&config.hub, config.ca.as_deref())?,
            credential: AgentCredential::load(&config.state, config.token.clone()),
            host,
            name,
            max_backoff: config.max_backoff,
            failures: FailureLog::default(),
            unknown_agent_responses: 0,
            send_shapes: false,
            send_facts: false,
            batch_size: limits::MAX_BATCH_SNAPSHOTS,
            body_limit: BodyLimit::default(),
            last_sync: Duration::ZERO,
            sync_error_logged: false,
        })
    }

    /// Exchanges an enrollment token for an agent secret. The current secret stays valid until then.
    fn enroll(&mut self, token: &str) -> Result<(), EnrollError> {
        let secret = self.hub.enroll(token, self.host, &self.name, self.credential.stored_secret())?;
        self.credential.enrolled(secret);
        self.unknown_agent_responses = 0;
        tracing::info!(hub.url = self.hub.label(), host.id = %self.host, "agent enrolled");
        Ok(())
    }

    /// Body of the pusher thread; calls `on_revoked` at its end if the hub revoked the agent.
    pub(crate) fn run(mut self, on_revoked: impl FnOnce()) {
        self.push();
        if self.shared.is_revoked() {
            on_revoked();
        }
    }

    fn push(&mut self) {
        loop {
            let stopping = self.shared.is_stopping();
            let pending = self.shared.lock().pending_batch(self.batch_size);
            let Some(pending) = pending else {
                if stopping {
                    return;
                }
                let guard = self.shared.lock();
                let idle = |spool: &mut Spool| spool.pending() == 0 && !self.shared.is_stopping();
                let _ = self.shared.wake.wait_timeout_while(guard, IDLE_TIMEOUT, idle);
                continue;
            };
            let batch = spool::read_batch(pending, self.batch_size, MAX_BATCH_BYTES);
            if batch.entries.is_empty() {
                if batch.makes_progress() {
                    // Only corrupt records were left.
                    self.shared.lock().ack(&batch);
                } else if stopping {
                    return;
                } else {
                    self.shared.sleep(SPOOL_RETRY_DELAY);
                }
                continue;
            }
            let pause = self.send_and_ack(&batch);
            if self.shared.is_revoked() {
                return;
            }
            if stopping && pause.is_some() {
                let unsent = self.shared.lock().pending();
                tracing::warn!(
                    snapshots = unsent,
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

    /// Sends a batch once. Returns the pause before the next attempt if it failed.
    fn send_and_ack(&mut self, batch: &SpoolBatch) -> Option<Duration> {
        match self.send(batch) {
            PushOutcome::Acked(response) => {
                for rejected in
                    response.rejected.iter().filter(|rejected| is_rejected_for_form(&rejected.code))
                {
                    if let Some(entry) = batch.entries.get(rejected.index) {
                        self.send_reduced(batch, entry, &rejected.message);
                    }
                }
                self.on_ack(batch, &response);
                None
            }
            // Requested again right after they were sent: another request would loop.
            PushOutcome::ShapesRequested if self.send_shapes => {
                self.on_failure("hub rejected the shapes it requested", None)
            }
            PushOutcome::ShapesRequested => {
                self.send_shapes = true;
                None
            }
            PushOutcome::Rejected(reason) if batch.entries.len() == 1 => {
                self.send_reduced(batch, &batch.entries[0], &reason);
                self.batch_size = limits::MAX_BATCH_SNAPSHOTS;
                self.shared.lock().ack(batch);
                None
            }
            // One invalid snapshot rejects a whole batch: halving the batch finds it.
            PushOutcome::Rejected(_) => {
                self.batch_size = batch.entries.len().div_ceil(2);
                None
            }
            PushOutcome::TooLarge(reason, bytes) => self.on_too_large(batch, &reason, bytes),
            PushOutcome::Interrupted(reason) => {
                // A slow or unstable connection may transfer a smaller batch.
                self.batch_size = batch.entries.len().div_ceil(2);
                self.on_failure(&reason, None)
            }
            PushOutcome::Retry(reason, retry_after) => self.on_failure(&reason, retry_after),
            PushOutcome::Unauthorized(..) if self.credential.reload_token() => None,
            PushOutcome::Unauthorized(reason, retry_after) => self.on_failure(&reason, retry_after),
            PushOutcome::UnknownAgent(reason) => self.on_unknown_agent(&reason),
            PushOutcome::Revoked => self.on_revoked(),
        }
    }

    /// Records an acknowledgment and deletes the snapshots from the spool.
    fn on_ack(&mut self, batch: &SpoolBatch, response: &IngestResponse) {
        let attempts = self.failures.reset();
        if attempts > 0 {
            tracing::info!(hub.url = self.hub.label(), attempts, "connection to the hub restored");
        }
        self.unknown_agent_responses = 0;
        self.batch_size = (self.batch_size.max(batch.entries.len()) * 2).min(limits::MAX_BATCH_SNAPSHOTS);
        self.send_shapes = false;
        self.send_facts = response.facts_requested;
        self.apply_response(response);
        self.shared.lock().ack(batch);
    }

    /// Handles a secret that the hub does not know: enrolls again after several such responses.
    fn on_unknown_agent(&mut self, reason: &str) -> Option<Duration> {
        self.unknown_agent_responses += 1;
        if self.credential.reload_token() {
            return None;
        }
        let is_certain = self.unknown_agent_responses >= MAX_UNKNOWN_AGENT_RESPONSES;
        match self.credential.enrollment_token().filter(|_| is_certain).map(str::to_owned) {
            Some(token) => match self.enroll(&token) {
                Ok(()) => None,
                Err(error) => self.on_failure(&format!("{reason}; {error}"), None),
            },
            None => self.on_failure(reason, None),
        }
    }

    /// Handles a revocation: enrolls with a token that was not used before, otherwise stops.
    fn on_revoked(&mut self) -> Option<Duration> {
        self.credential.reload_token();
        if let Some(token) = self.credential.new_enrollment_token().map(str::to_owned) {
            match self.enroll(&token) {
                Ok(()) => return None,
                Err(EnrollError::Retry(error)) => return self.on_failure(&error, None),
                Err(error @ EnrollError::Rejected(_)) => {
                    tracing::error!(
                        hub.url = self.hub.label(), error = %error,
                        "agent revoked by the hub, and its new token is not accepted; stopping"
                    );
                }
            }
        } else {
            tracing::error!(hub.url = self.hub.label(), "agent revoked by the hub; stopping");
        }
        self.shared.revoked.store(true, Ordering::Release);
        self.shared.wake.notify_all();
        Some(Duration::ZERO)
    }

    /// Counts a failed attempt; returns the pause before the next attempt.
    fn on_failure(&mut self, error: &str, retry_after: Option<Duration>) -> Option<Duration> {
        let url = self.hub.label();
        let is_first = self.failures.attempts == 0;
        let is_new = self.failures.record(error, self.clock.monotonic());
        let attempts = self.failures.attempts;
        if is_first {
            tracing::warn!(hub.url = url, error, "hub unreachable; spooling snapshots");
        } else if is_new {
            tracing::warn!(hub.url = url, error, attempts, "hub is unreachable for another reason");
        } else {
            tracing::debug!(hub.url = url, error, attempts, "hub is still unreachable");
        }
        let max_pause = INITIAL_BACKOFF.saturating_mul(1 << attempts.min(16)).min(self.max_backoff);
        // Half of the pause is random, so that many agents do not reconnect at the same moment.
        let pause = max_pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        Some(retry_after.map_or(pause, |delay| delay.min(MAX_INTERVAL).max(pause)))
    }

    /// Logs rejected snapshots and applies the interval and the collectors that the hub requests. A hub can ask
    /// for fewer snapshots and collectors, never for more than the agent's own configuration allows.
    fn apply_response(&self, response: &IngestResponse) {
        for rejected in response.rejected.iter().take(3) {
            tracing::warn!(code = rejected.code, reason = rejected.message, "hub rejected a snapshot");
        }
        let min_ms = self.shared.min_interval_ms;
        let max_ms = u64::try_from(MAX_INTERVAL.as_millis()).unwrap_or(u64::MAX).max(min_ms);
        let interval_ms = response.interval_ms.map_or(min_ms, |ms| u64::from(ms).clamp(min_ms, max_ms));
        if self.shared.interval_ms.swap(interval_ms, Ordering::AcqRel) != interval_ms {
            tracing::info!(interval_ms, "collection interval changed by the hub");
        }
        if self.shared.replace_collector_requests(&response.collectors) {
            tracing::info!(requests = ?response.collectors, "collectors changed by the hub");
        }
    }

    fn send(&mut self, batch: &SpoolBatch) -> PushOutcome {
        if self.credential.secret().is_none()
            && let Some(token) = self.credential.enrollment_token().map(str::to_owned)
        {
            match self.enroll(&token) {
                Ok(()) => {}
                Err(EnrollError::Retry(error)) => return PushOutcome::Retry(error, None),
                Err(error) => return PushOutcome::Unauthorized(error.to_string(), None),
            }
        }
        let shapes = if self.send_shapes { batch.shapes() } else { Vec::new() };
        let snapshots = batch.entries.iter().map(|entry| entry.bytes.clone()).collect();
        self.post(shapes, snapshots, self.send_shapes || self.send_facts)
    }

    /// Sends what a hub may accept of a permanently rejected snapshot, once; the rest is dropped. The hub
    /// shows the reason on the host page.
    fn send_reduced(&mut self, batch: &SpoolBatch, entry: &SpoolEntry, reason: &str) {
        let is_shape_of_entry = |shape: &Bytes| wire::shape_id(shape.clone()).ok() == Some(entry.shape);
        let shape = batch.shapes().into_iter().find(is_shape_of_entry);
        let reduced = shape.and_then(|shape| wire::reduce_snapshot(entry.bytes.clone(), shape, reason).ok());
        let outcome = reduced.map(|snapshot| {
            let snapshots = vec![wire::encode_snapshot(&snapshot)];
            self.post(vec![wire::encode_shape(&snapshot.shape)], snapshots, false)
        });
        let is_accepted =
            matches!(outcome, Some(PushOutcome::Acked(response)) if response.rejected.is_empty());
        let action = if is_accepted { "sent the valid part" } else { "dropping it" };
        tracing::warn!(seq = entry.seq, reason, "hub rejected a snapshot permanently; {action}");
    }

    /// Halves a batch that is too large; sends less of a single snapshot. Returns the pause before the next
    /// attempt if nothing can be sent.
    fn on_too_large(&mut self, batch: &SpoolBatch, reason: &str, bytes: usize) -> Option<Duration> {
        if self.body_limit.learn(bytes, reason, self.clock.monotonic()) {
            tracing::warn!(
                hub.url = self.hub.label(),
                error = reason,
                body_bytes = bytes,
                snapshots = batch.entries.len(),
                "request exceeds the body limit of the hub or of a proxy; sending smaller requests"
            );
        }
        match &batch.entries[..] {
            [entry] => self.send_shrunk(batch, entry, reason, bytes),
            entries => {
                self.batch_size = entries.len().div_ceil(2);
                None
            }
        }
    }

    /// Sends as much of a single snapshot as fits into a request.
    fn send_shrunk(
        &mut self,
        batch: &SpoolBatch,
        entry: &SpoolEntry,
        reason: &str,
        bytes: usize,
    ) -> Option<Duration> {
        let is_shape_of_entry = |shape: &Bytes| wire::shape_id(shape.clone()).ok() == Some(entry.shape);
        let shape = batch.shapes().into_iter().find(is_shape_of_entry);
        if self.send_shapes || self.send_facts {
            let shapes = if self.send_shapes { batch.shapes() } else { Vec::new() };
            if let Some(pause) = self.handle_part(self.post(shapes, vec![entry.bytes.clone()], false), batch)
            {
                return pause;
            }
        }
        for level in self.body_limit.level.max(1)..=MAX_SHRINK_LEVEL {
            let shrunk =
                shape.clone().map(|shape| wire::shrink_snapshot(entry.bytes.clone(), shape, level, reason));
            let Some(Ok(Some(snapshot))) = shrunk else { break };
            let shapes = vec![wire::encode_shape(&snapshot.shape)];
            let outcome = self.post(shapes, vec![wire::encode_snapshot(&snapshot)], false);
            let is_accepted = matches!(outcome, PushOutcome::Acked(_));
            if let Some(pause) = self.handle_part(outcome, batch) {
                if is_accepted && self.body_limit.level != level {
                    self.body_limit.level = level;
                    tracing::warn!(
                        error = reason,
                        body_bytes = bytes,
                        columns = snapshot.values.len(),
                        "a single snapshot exceeds the body limit; sending it without processes and \
                         with fewer columns"
                    );
                }
                return pause;
            }
        }
        self.body_limit.level = 0;
        // Nothing that could be left out remains. The snapshots wait until the limit is raised.
        self.on_failure(&format!("{reason}; the body limit is too small for any snapshot"), None)
    }

    /// Handles the response to a part of a snapshot; `None` if a smaller part must be sent, otherwise the
    /// pause.
    fn handle_part(&mut self, outcome: PushOutcome, batch: &SpoolBatch) -> Option<Option<Duration>> {
        match outcome {
            PushOutcome::Acked(response) => {
                self.on_ack(batch, &response);
                // The next snapshot is probably as large.
                self.batch_size = 1;
                Some(None)
            }
            PushOutcome::TooLarge(..) | PushOutcome::Rejected(_) | PushOutcome::ShapesRequested => None,
            PushOutcome::Interrupted(reason) => Some(self.on_failure(&reason, None)),
            PushOutcome::Retry(reason, delay) | PushOutcome::Unauthorized(reason, delay) => {
                Some(self.on_failure(&reason, delay))
            }
            PushOutcome::UnknownAgent(reason) => Some(self.on_unknown_agent(&reason)),
            PushOutcome::Revoked => Some(self.on_revoked()),
        }
    }

    fn post(&self, shapes: Vec<Bytes>, snapshots: Vec<Bytes>, with_facts: bool) -> PushOutcome {
        let is_single = snapshots.len() == 1;
        let facts = self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let message = Batch {
            host_id: Bytes::copy_from_slice(&self.host.to_bytes()),
            host_name: self.name.clone(),
            shapes,
            snapshots,
            sent_at_ms: self.clock.wall_ms(),
            facts: facts.filter(|_| with_facts),
        };
        let body = match zstd::bulk::compress(&wire::encode_batch(&message), 1) {
            Ok(body) => body,
            Err(error) => return PushOutcome::Rejected(format!("failed to compress: {error}")),
        };
        let headers = [("Content-Type", wire::CONTENT_TYPE), ("Content-Encoding", "zstd")];
        // A single snapshot is always sent: the limit may have been raised.
        if !is_single && let Some(reason) = self.body_limit.exceeded_by(body.len(), self.clock.monotonic()) {
            return PushOutcome::TooLarge(reason, body.len());
        }
        match self.hub.post("/ingest/metrics", &headers, self.credential.secret(), &body) {
            Ok(response) => classify(&response, body.len()),
            Err(error) => PushOutcome::Interrupted(error),
        }
    }

    /// Syncs the spool to disk. While the hub is unreachable, the spool has the only copy of the snapshots,
    /// and a power loss should cost few of them.
    fn sync(&mut self) {
        let now = self.clock.monotonic();
        if now.saturating_sub(self.last_sync) < SYNC_INTERVAL {
            return;
        }
        self.last_sync = now;
        let handle = self.shared.lock().sync_handle();
        match handle.map(|file| file.sync_data()) {
            Some(Err(error)) if !self.sync_error_logged => {
                self.sync_error_logged = true;
                tracing::warn!(error = %error, "failed to sync the spool");
            }
            Some(Ok(())) => self.sync_error_logged = false,
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "pusher_tests.rs"]
mod tests;
