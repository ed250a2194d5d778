//! The way out: takes the oldest snapshots, sends them, deletes them on ack, backs off with
//! jitter otherwise. Runs on a thread of its own and never holds up the ticker.

use crate::config::{AgentConfig, ConfigProblem, LONGEST, SHORTEST};
use crate::hub::{ENROLMENT, HubAnswer, HubClient, keep_secret, kept_secret};
use crate::spool::{self, Spool, Take};
use bytes::Bytes;
use perfwatch_model::wire::{self, Batch, FactsMessage, IngestAnswer};
use perfwatch_model::{Clock, HostId, limits};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What ticker and pusher share.
pub(crate) struct Shared {
    pub(crate) spool: Mutex<Spool>,
    pub(crate) facts: Mutex<Option<FactsMessage>>,
    /// Rung when there is something to send, or when it is time to leave.
    pub(crate) bell: Condvar,
    pub(crate) stop: AtomicBool,
    /// The hub does not want this agent any more.
    pub(crate) revoked: AtomicBool,
    /// Milliseconds; changed by the hub's answers.
    pub(crate) interval_ms: AtomicU64,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.revoked()
    }

    pub(crate) fn revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Sleeps, but not through a stop.
    fn pause(&self, time: Duration) {
        let guard = self.lock();
        let _ = self.bell.wait_timeout_while(guard, time, |_| !self.stopping());
    }
}

/// Sends until it is told to stop, then once more.
pub(crate) struct Pusher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    hub: HubClient,
    state: PathBuf,
    /// As it was configured.
    token: Option<String>,
    /// Our own, once we have one.
    secret: Option<String>,
    host: HostId,
    name: String,
    backoff_max: Duration,
    failures: u32,
    /// How often in a row the hub did not know our secret.
    unknown: u32,
    send_shapes: bool,
    send_facts: bool,
    most: usize,
    synced: Duration,
}

/// Bytes of snapshots in one request, before compression.
const BATCH_BYTES: usize = 1 << 20;
/// So often the hub must say that it does not know us before the token is used again.
const UNKNOWN_MOST: u32 = 4;
/// First pause after a failure.
const BACKOFF: Duration = Duration::from_millis(250);
/// While the hub is away, the spool is synced to disk this often.
const SYNC_EVERY: Duration = Duration::from_secs(5);

enum Outcome {
    Acked(IngestAnswer),
    WantsShapes,
    /// This batch will never be taken.
    Refused(String),
    Later(String, Option<Duration>),
    /// The hub does not know our secret: it is another hub, or forgot us.
    Unknown(String),
    /// The hub does not want us any more.
    Revoked,
}

impl Pusher {
    pub(crate) fn new(
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        config: &AgentConfig,
        host: HostId,
        name: String,
    ) -> Result<Self, ConfigProblem> {
        let token = config.token.clone();
        let enrols = token.as_ref().is_some_and(|token| token.starts_with(ENROLMENT));
        // What was configured as a secret is one; else the one that an enrolment gave.
        let secret = if enrols || token.is_none() { kept_secret(&config.state) } else { token.clone() };
        Ok(Self {
            shared,
            clock,
            hub: HubClient::new(&config.hub, config.ca.as_deref())?,
            state: config.state.clone(),
            token: token.filter(|_| enrols),
            secret,
            host,
            name,
            backoff_max: config.backoff_max,
            failures: 0,
            unknown: 0,
            send_shapes: false,
            send_facts: false,
            most: limits::BATCH_SNAPSHOTS,
            synced: Duration::ZERO,
        })
    }

    /// Trades the token for a secret, where there is a token; the secret it has stays until then.
    fn enrol(&mut self) -> Result<(), String> {
        let Some(token) = self.token.as_ref() else { return Ok(()) };
        let secret = self.hub.enrol(token, self.host, &self.name).map_err(|error| error.to_string())?;
        if let Err(error) = keep_secret(&self.state, &secret) {
            tracing::warn!(%error, "can't keep this agent's secret: it must be let in anew after a restart");
        }
        self.secret = Some(secret);
        self.unknown = 0;
        tracing::info!(hub = self.hub.base(), "the hub let this agent in");
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
            let stopping = self.shared.stopping();
            let source = self.shared.lock().source(self.most);
            let Some(source) = source else {
                if stopping {
                    return;
                }
                let guard = self.shared.lock();
                let idle = |spool: &mut Spool| spool.pending() == 0 && !self.shared.stopping();
                let _ = self.shared.bell.wait_timeout_while(guard, Duration::from_secs(60), idle);
                continue;
            };
            let take = spool::take(source, self.most, BATCH_BYTES);
            if take.entries.is_empty() {
                if take.moves() {
                    // Only damage was left there.
                    self.shared.lock().ack(&take);
                } else if stopping {
                    return;
                } else {
                    self.shared.pause(Duration::from_secs(1));
                }
                continue;
            }
            let pause = self.send_and_note(&take);
            if self.shared.revoked() {
                return;
            }
            if stopping && pause.is_some() {
                let left = self.shared.lock().pending();
                tracing::warn!(
                    snapshots = left,
                    "leaving with snapshots unsent; they are sent after the next start"
                );
                return;
            }
            if let Some(mut pause) = pause {
                while !pause.is_zero() && !self.shared.stopping() {
                    self.sync();
                    let slice = pause.min(SYNC_EVERY);
                    self.shared.pause(slice);
                    pause -= slice;
                }
            }
        }
    }

    /// Sends once; how long to wait before the next try, if it failed.
    fn send_and_note(&mut self, take: &Take) -> Option<Duration> {
        match self.send(take) {
            Outcome::Acked(answer) => {
                if self.failures > 0 {
                    tracing::info!(tries = self.failures, "the hub is back");
                }
                self.failures = 0;
                self.unknown = 0;
                self.most = limits::BATCH_SNAPSHOTS;
                self.send_shapes = false;
                self.send_facts = answer.wants_facts;
                self.note(&answer);
                self.shared.lock().ack(take);
                None
            }
            // Asked again right after they were sent: then something else is wrong.
            Outcome::WantsShapes if self.send_shapes => {
                self.failed("the hub does not take the shapes it asked for", None)
            }
            Outcome::WantsShapes => {
                self.send_shapes = true;
                None
            }
            Outcome::Refused(why) if take.entries.len() == 1 => {
                tracing::warn!(
                    seq = take.entries[0].seq,
                    why,
                    "the hub refuses a snapshot for good: dropped"
                );
                self.most = limits::BATCH_SNAPSHOTS;
                self.shared.lock().ack(take);
                None
            }
            // One bad snapshot may spoil a batch: find it by halves.
            Outcome::Refused(_) => {
                self.most = take.entries.len().div_ceil(2);
                None
            }
            Outcome::Later(why, wait) => self.failed(&why, wait),
            Outcome::Unknown(why) => {
                self.unknown += 1;
                // Another hub of the same site may not have heard of it yet: not at the first word.
                if self.unknown >= UNKNOWN_MOST
                    && let Err(error) = self.enrol()
                {
                    tracing::debug!(error, "enrolling anew");
                }
                self.failed(&why, None)
            }
            Outcome::Revoked => {
                tracing::error!(hub = self.hub.base(), "the hub revoked this agent: it stops");
                self.shared.revoked.store(true, Ordering::Release);
                self.shared.bell.notify_all();
                Some(Duration::ZERO)
            }
        }
    }

    fn failed(&mut self, why: &str, wait: Option<Duration>) -> Option<Duration> {
        if self.failures == 0 {
            tracing::warn!(hub = self.hub.base(), why, "can't reach the hub; snapshots wait in the spool");
        } else {
            tracing::debug!(hub = self.hub.base(), why, tries = self.failures, "still can't reach the hub");
        }
        self.failures = self.failures.saturating_add(1);
        let longest = BACKOFF.saturating_mul(1 << self.failures.min(16)).min(self.backoff_max);
        // Half fixed, half chance: a thousand agents don't come back at one moment.
        let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        Some(wait.map_or(pause, |wait| wait.min(LONGEST).max(pause)))
    }

    fn note(&self, answer: &IngestAnswer) {
        for rejected in answer.rejected.iter().take(3) {
            tracing::warn!(code = rejected.code, why = rejected.message, "the hub refused a snapshot");
        }
        if let Some(wanted) = answer.interval_ms {
            let wanted = Duration::from_millis(u64::from(wanted)).clamp(SHORTEST, LONGEST);
            let wanted_ms = u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX);
            if self.shared.interval_ms.swap(wanted_ms, Ordering::AcqRel) != wanted_ms {
                tracing::info!(interval_ms = wanted_ms, "the hub changed the interval");
            }
        }
    }

    fn send(&mut self, take: &Take) -> Outcome {
        if self.secret.is_none()
            && let Err(why) = self.enrol()
        {
            return Outcome::Later(why, None);
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
            Err(error) => return Outcome::Refused(format!("can't compress: {error}")),
        };
        let headers = [("Content-Type", wire::CONTENT_TYPE), ("Content-Encoding", "zstd")];
        match self.hub.post("/ingest/metrics", &headers, self.secret.as_deref(), &body) {
            Ok(answer) => classify(&answer),
            Err(why) => Outcome::Later(why, None),
        }
    }

    /// While the hub is away the spool is all there is: power loss should cost little of it.
    fn sync(&mut self) {
        let now = self.clock.monotonic();
        if now.saturating_sub(self.synced) < SYNC_EVERY {
            return;
        }
        self.synced = now;
        let handle = self.shared.lock().sync_handle();
        if let Some(Err(error)) = handle.map(|file| file.sync_data()) {
            tracing::debug!(%error, "can't sync the spool");
        }
    }
}

fn classify(answer: &HubAnswer) -> Outcome {
    let (status, wait, code) = (answer.status, answer.wait, answer.error("code"));
    let why = || format!("HTTP {status} {}", answer.error("message")).trim_end().to_owned();
    match status {
        200..=299 => match serde_json::from_str::<IngestAnswer>(&answer.text) {
            Ok(answer) => Outcome::Acked(answer),
            // Something between us that says 200 to anything must not cost data.
            Err(_) => Outcome::Later(format!("HTTP {status}, but not from a PerfWatch hub"), wait),
        },
        409 if code == wire::UNKNOWN_SHAPE => Outcome::WantsShapes,
        401 if code == "login_needed" => {
            Outcome::Later("the hub wants to know who sends: start with --token TOKEN".to_owned(), wait)
        }
        401 if code == "unknown_agent" => Outcome::Unknown(why()),
        403 if code == "agent_revoked" => Outcome::Revoked,
        400 | 413 | 422 if !code.is_empty() => Outcome::Refused(why()),
        _ => Outcome::Later(why(), wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hubs_own_refusal_costs_a_snapshot() {
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
            let found = match classify(&HubAnswer { status, text: text.to_owned(), wait: None }) {
                Outcome::Acked(_) => "acked",
                Outcome::WantsShapes => "shapes",
                Outcome::Refused(_) => "refused",
                Outcome::Later(..) => "later",
                Outcome::Unknown(_) => "unknown",
                Outcome::Revoked => "revoked",
            };
            assert_eq!(found, kind, "{status} {text}");
        }
    }
}
