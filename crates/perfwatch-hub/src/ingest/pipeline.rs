//! Ingestion pipeline of all sources: validation, durable append, acknowledgment, publication.

use perfwatch_agentless::sink::{CollectedSnapshot, SinkError, SnapshotSink};
use perfwatch_alerting::Alerting;
use perfwatch_auth::identity::Principal;
use perfwatch_auth::{AuthDirectory, Identity};
use perfwatch_history::{AppendError, History, ShareExceeded};
use perfwatch_live::host_names::{HostRename, NameRight};
use perfwatch_live::host_registry::{HostRegistry, HostRegistryError};
use perfwatch_live::sender_clock::SenderClock;
use perfwatch_live::shape_registry::ShapeRegistry;
use perfwatch_live::{LiveFeed, PublishedSnapshot};
use perfwatch_metrics::SelfMetrics;
use perfwatch_model::validation::validate_snapshot;
use perfwatch_model::wire::{IngestResponse, RejectedSnapshot};
use perfwatch_model::{
    Catalog, Clock, HostFacts, HostId, HostRef, Shape, ShapeId, Snapshot, StringInterner, limits,
};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::{BoxFuture, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Snapshots of one host from one sender.
pub(crate) struct Submission {
    pub(crate) host: HostRef,
    /// Right of the sender to the names of other hosts.
    pub(crate) name_right: NameRight,
    /// Sender, as the audit log names it.
    pub(crate) sender: String,
    /// Snapshots in the order of the sender, with their index in its batch.
    pub(crate) snapshots: Vec<(usize, Snapshot)>,
    /// Shapes that the sender sent with them, by the ids that its snapshots name.
    pub(crate) shapes: HashMap<ShapeId, Arc<Shape>>,
    pub(crate) facts: Option<Arc<HostFacts>>,
    /// Clock that the times of the snapshots are from.
    pub(crate) clock: SnapshotClock,
}

impl Submission {
    /// Snapshots of an authorized sender.
    pub(crate) fn new(
        sender: &Identity,
        host: HostRef,
        snapshots: Vec<(usize, Snapshot)>,
        facts: Option<Arc<HostFacts>>,
        clock: SnapshotClock,
    ) -> Self {
        let sends_for_any = matches!(sender.principal, Principal::Token { .. } | Principal::Account { .. });
        let name_right = match sends_for_any && sender.host_tags.is_empty() {
            true => NameRight::AnyHost,
            false => NameRight::OwnHost,
        };
        let (sender, shapes) = (sender.actor_name(), HashMap::new());
        Self { host, name_right, sender, snapshots, shapes, facts, clock }
    }
}

/// Clock that the times of snapshots are from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SnapshotClock {
    /// Clock of the hub; the offset of the host's clock is measured separately.
    Hub {
        /// Clock of the host minus clock of the hub, milliseconds.
        host_skew_ms: i64,
    },
    /// Clock of the sender.
    Sender {
        /// Clock of the sender minus clock of the hub, milliseconds, if the sender stated its time.
        skew_ms: Option<i64>,
    },
}

/// Error that rejects a whole submission.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("the hub's clock is not set (before 2020)")]
    ClockNotSet,
    #[error(transparent)]
    HostRegistry(#[from] HostRegistryError),
    #[error(transparent)]
    Share(ShareExceeded),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AppendError> for SubmitError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Share(exceeded) => Self::Share(exceeded),
            AppendError::Store(error) => Self::Store(error),
        }
    }
}

/// Services that the pipeline uses.
pub(crate) struct PipelineDeps {
    pub(crate) history: Arc<History>,
    pub(crate) hosts: Arc<HostRegistry>,
    /// Records renames in the audit log.
    pub(crate) directory: Arc<AuthDirectory>,
    pub(crate) live_feed: Arc<LiveFeed>,
    pub(crate) alerting: Arc<Alerting>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<SelfMetrics>,
    /// Collection interval requested from agents, if configured.
    pub(crate) interval: Option<Duration>,
}

/// Ingestion pipeline with the shared copies of shapes and texts.
pub(crate) struct Pipeline {
    deps: PipelineDeps,
    shapes: ShapeRegistry,
    texts: StringInterner,
}

impl Pipeline {
    pub(crate) fn new(deps: PipelineDeps) -> Self {
        Self { deps, shapes: ShapeRegistry::default(), texts: StringInterner::default() }
    }

    /// Shape that was sent before and is still in use.
    pub(crate) fn shape(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.shapes.get(id)
    }

    /// Shared copy of a text.
    pub(crate) fn intern_text(&self, text: &str) -> Arc<str> {
        self.texts.intern(text)
    }

    /// Drops shapes and texts that are no longer in use.
    pub(crate) fn prune(&self) {
        self.shapes.prune();
        self.texts.prune();
    }

    /// Corrects the times of a submission to the clock of the hub, and validates its snapshots. Returns the
    /// valid ones, and the clock of a host that is not known yet.
    fn correct_and_validate(
        &self,
        submission: &mut Submission,
        now_ms: i64,
        rejected: &mut Vec<RejectedSnapshot>,
    ) -> (Vec<Snapshot>, Option<SenderClock>) {
        let mut snapshots = std::mem::take(&mut submission.snapshots);
        let mut new_clock = None;
        if let SnapshotClock::Sender { skew_ms } = submission.clock {
            let mut times: Vec<&mut i64> =
                snapshots.iter_mut().map(|(_, snapshot)| &mut snapshot.at_ms).collect();
            new_clock = self.deps.hosts.correct_clock(&submission.host, &mut times, skew_ms, now_ms);
        }
        let mut valid = Vec::with_capacity(snapshots.len());
        for (index, mut snapshot) in snapshots {
            match validate_snapshot(&snapshot, &self.deps.catalog, now_ms) {
                Ok(()) => {
                    snapshot.shape = self.shapes.get(snapshot.shape.id()).unwrap_or(snapshot.shape);
                    valid.push(snapshot);
                }
                Err(reason) => rejected.push(RejectedSnapshot {
                    index,
                    code: reason.code.to_owned(),
                    message: reason.message,
                }),
            }
        }
        (valid, new_clock)
    }

    async fn record_rename(&self, id: HostId, rename: &HostRename, sender: String) {
        let name = |name: &str| Some(serde_json::json!({ "name": name }).to_string());
        let entry = AuditEntry {
            actor: sender,
            action: "host.rename".to_owned(),
            object: format!("host {id}"),
            before: name(&rename.before),
            after: name(&rename.after),
            ..AuditEntry::default()
        };
        self.deps.directory.record_audit(entry).await;
    }

    /// Validates, stores and publishes the snapshots; duplicates are ignored. Accepted snapshots are durable
    /// and published when this returns.
    ///
    /// # Errors
    /// Returns an error if the hub's clock is not set, the host is not accepted, or the store is unavailable.
    pub(crate) async fn submit(&self, mut submission: Submission) -> Result<IngestResponse, SubmitError> {
        let now_ms = self.deps.clock.wall_ms();
        if now_ms < limits::MIN_TIMESTAMP_MS {
            // Valid snapshots would be rejected as in the future.
            return Err(SubmitError::ClockNotSet);
        }
        let mut response = IngestResponse {
            interval_ms: self.deps.interval.and_then(|interval| u32::try_from(interval.as_millis()).ok()),
            ..IngestResponse::default()
        };
        let (mut valid, new_clock) =
            self.correct_and_validate(&mut submission, now_ms, &mut response.rejected);
        self.deps.metrics.rejected(response.rejected.len());
        if valid.is_empty() {
            return Ok(response);
        }
        let facts = valid.iter().rev().find_map(|snapshot| snapshot.facts.clone()).or(submission.facts);
        let right = submission.name_right;
        let (id, rename) = self.deps.hosts.resolve_named(&submission.host, facts, right, now_ms).await?;
        if let Some(rename) = rename {
            self.record_rename(id, &rename, submission.sender).await;
        }
        match (submission.clock, new_clock) {
            (SnapshotClock::Hub { host_skew_ms }, _) => self.deps.hosts.record_clock_skew(id, host_skew_ms),
            (SnapshotClock::Sender { .. }, Some(clock)) => self.deps.hosts.set_clock(id, clock),
            _ => {}
        }
        let skew_ms = self.deps.hosts.clock_skew_ms(id);
        let learned_ms = self.deps.hosts.interval_ms(id);
        // The interval that a sender declares; scripts declare none, and get the learned one.
        let declared_ms: Vec<u32> = valid.iter().map(|snapshot| snapshot.interval_ms).collect();
        for snapshot in valid.iter_mut().filter(|snapshot| snapshot.interval_ms == 0) {
            snapshot.interval_ms = learned_ms;
        }
        let valid: Vec<Arc<Snapshot>> = valid.into_iter().map(Arc::new).collect();
        // Blocks further appends of the host until dropped, so that snapshots are published in order.
        let appended = self.deps.history.append(id, valid.clone()).await?;
        let name: Arc<str> = self.deps.hosts.name(id).into();
        for ((snapshot, declared_ms), is_new) in valid.into_iter().zip(declared_ms).zip(&appended.is_new) {
            match is_new {
                false => response.duplicates += 1,
                true => {
                    response.accepted += 1;
                    // Not before: shapes of refused snapshots must not take the place of others.
                    self.shapes.add(&snapshot.shape);
                    self.deps.hosts.record_boot(id, snapshot.boot, snapshot.at_ms, now_ms);
                    self.deps.metrics.accepted(snapshot.sample_count());
                    self.deps.hosts.record_snapshot(id, snapshot.at_ms, declared_ms, now_ms);
                    self.deps.live_feed.publish(
                        Arc::new(PublishedSnapshot::new(
                            id,
                            name.clone(),
                            snapshot.clone(),
                            self.deps.clock.monotonic(),
                        )),
                        now_ms,
                    );
                    // After publication: the snapshot of a new alert is visible in the recent window.
                    self.deps.alerting.evaluate_snapshot(id, &snapshot, skew_ms);
                }
            }
        }
        for (id, shape) in submission.shapes {
            self.shapes.add_sent_id(id, shape.id());
        }
        self.deps.metrics.duplicates(response.duplicates);
        response.facts_requested = !self.deps.hosts.has_facts(id);
        Ok(response)
    }
}

impl SnapshotSink for Pipeline {
    fn submit(&self, collected: CollectedSnapshot) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            let submission = Submission {
                host: collected.host,
                name_right: NameRight::OwnHost,
                sender: "SSH collection".to_owned(),
                snapshots: vec![(0, collected.snapshot)],
                shapes: HashMap::new(),
                facts: None,
                clock: SnapshotClock::Hub { host_skew_ms: collected.clock_skew_ms },
            };
            let response = Self::submit(self, submission).await;
            let response = response.map_err(|error| SinkError::Unavailable(error.to_string()))?;
            match response.rejected.into_iter().next() {
                Some(rejected) => Err(SinkError::Rejected(rejected.message)),
                None => Ok(()),
            }
        })
    }
}
