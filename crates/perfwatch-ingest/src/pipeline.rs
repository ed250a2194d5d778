//! Ingestion pipeline of all sources: validation, durable append, acknowledgment, publication.

use bytes::Bytes;
use perfwatch_agentless::sink::{CollectedSnapshot, SinkError, SnapshotSink};
use perfwatch_alerting::Alerting;
use perfwatch_auth::identity::Principal;
use perfwatch_auth::{AuthDirectory, Identity};
use perfwatch_history::{AppendError, AppendOutcome, History, NewRow, ShareExceeded};
use perfwatch_live::host_names::{HostRename, NameRight};
use perfwatch_live::host_registry::{HostRegistry, HostRegistryError, HostSender};
use perfwatch_live::sender_clock::SenderClock;
use perfwatch_live::shape_registry::ShapeRegistry;
use perfwatch_live::{LiveFeed, PublishedSnapshot};
use perfwatch_metrics::SelfMetrics;
use perfwatch_model::validation::validate_snapshot;
use perfwatch_model::wire::{IngestResponse, RejectedSnapshot};
use perfwatch_model::{
    Catalog, Clock, HostFacts, HostId, HostRef, Shape, ShapeId, Snapshot, StringInterner, limit_table, limits,
};
use perfwatch_settings::Settings;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::{BoxFuture, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Snapshot of a batch.
pub struct ReceivedSnapshot {
    /// Index in the batch.
    pub index: usize,
    /// Snapshot in decoded form.
    pub snapshot: Snapshot,
    /// Its encoding in wire format, if the sender gave it.
    pub encoded: Option<Bytes>,
}

/// Snapshots of one host from one sender.
pub struct Submission {
    /// Host of the snapshots.
    pub host: HostRef,
    /// What the sender may do with the host.
    pub rights: HostSender,
    /// Sender, as the audit log names it.
    pub sender: String,
    /// Snapshots in the order of the sender.
    pub snapshots: Vec<ReceivedSnapshot>,
    /// Shapes that the sender sent with them, by the ids that its snapshots name.
    pub shapes: HashMap<ShapeId, Arc<Shape>>,
    /// Facts of the host, if the sender gave them apart from its snapshots.
    pub facts: Option<Arc<HostFacts>>,
    /// Clock that the times of the snapshots are from.
    pub clock: SnapshotClock,
}

impl Submission {
    /// Snapshots of an authorized sender.
    pub fn new(
        sender: &Identity,
        host: HostRef,
        snapshots: Vec<ReceivedSnapshot>,
        facts: Option<Arc<HostFacts>>,
        clock: SnapshotClock,
    ) -> Self {
        let sends_for_any = matches!(sender.principal, Principal::Token { .. } | Principal::Account { .. });
        let name_right = match sends_for_any && sender.host_tags.is_empty() {
            true => NameRight::AnyHost,
            false => NameRight::OwnHost,
        };
        let creates_as = sends_for_any.then(|| sender.creator_key().into());
        let rights = HostSender { name_right, creates_as };
        let (sender, shapes) = (sender.actor_name(), HashMap::new());
        Self { host, rights, sender, snapshots, shapes, facts, clock }
    }
}

impl Submission {
    /// Returns whether its processing takes too long for a thread that serves other requests.
    pub fn is_large(&self) -> bool {
        let values = |ReceivedSnapshot { snapshot, .. }: &ReceivedSnapshot| {
            snapshot.values.len() + snapshot.processes.len() * 4
        };
        self.snapshots.iter().map(values).sum::<usize>() > MAX_SERVED_VALUES
    }
}

/// Clock that the times of snapshots are from.
#[derive(Debug, Clone, Copy)]
pub enum SnapshotClock {
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

/// Number of values above which the processing of a submission occupies a thread for more than about a
/// millisecond.
const MAX_SERVED_VALUES: usize = 20_000;

/// Error that rejects a whole submission.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The clock of the hub cannot be right.
    #[error("the hub's clock is not set (before 2020)")]
    ClockNotSet,
    /// The host was not accepted.
    #[error(transparent)]
    HostRegistry(#[from] HostRegistryError),
    /// The host is above a share.
    #[error(transparent)]
    Share(ShareExceeded),
    /// The store is unavailable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of the hub.
    #[error("internal error; see the hub log")]
    Panicked,
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
pub struct PipelineDeps {
    /// Stored history, which accepted snapshots are appended to.
    pub history: Arc<History>,
    /// Known hosts.
    pub hosts: Arc<HostRegistry>,
    /// Records renames in the audit log.
    pub directory: Arc<AuthDirectory>,
    /// Publishes accepted snapshots.
    pub live_feed: Arc<LiveFeed>,
    /// Evaluates accepted snapshots.
    pub alerting: Arc<Alerting>,
    /// Definitions of all metrics.
    pub catalog: Arc<Catalog>,
    /// Source of wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Counts accepted, rejected and duplicate snapshots.
    pub metrics: Arc<SelfMetrics>,
    /// Collection interval and collectors requested from agents.
    pub settings: Settings,
}

/// Ingestion pipeline with the shared copies of shapes and texts.
pub struct Pipeline {
    deps: PipelineDeps,
    shapes: ShapeRegistry,
    texts: StringInterner,
    /// Permits for the processing of large submissions.
    large: Arc<Semaphore>,
}

impl Pipeline {
    /// Pipeline without known shapes.
    pub fn new(deps: PipelineDeps) -> Self {
        let large = Arc::new(Semaphore::new(limits::MAX_LARGE_SUBMISSIONS));
        Self { deps, shapes: ShapeRegistry::default(), texts: StringInterner::default(), large }
    }

    /// Shape that was sent before and is still in use.
    pub fn shape(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.shapes.get(id)
    }

    /// Adds a shape that a snapshot of another hub has.
    pub(crate) fn add_shape(&self, shape: &Arc<Shape>) {
        self.shapes.add(shape);
    }

    /// Services that the pipeline uses.
    pub(crate) fn deps(&self) -> &PipelineDeps {
        &self.deps
    }

    /// Shared copy of a text.
    pub fn intern_text(&self, text: &str) -> Arc<str> {
        self.texts.intern(text)
    }

    /// Drops shapes and texts that are no longer in use.
    pub fn prune(&self) {
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
    ) -> (Vec<ReceivedSnapshot>, Option<SenderClock>) {
        let mut snapshots = std::mem::take(&mut submission.snapshots);
        let mut new_clock = None;
        if let SnapshotClock::Sender { skew_ms } = submission.clock {
            let sent_ms: Vec<i64> = snapshots.iter().map(|received| received.snapshot.at_ms).collect();
            let mut times: Vec<&mut i64> =
                snapshots.iter_mut().map(|received| &mut received.snapshot.at_ms).collect();
            new_clock = self.deps.hosts.correct_clock(&submission.host, &mut times, skew_ms, now_ms);
            for (received, sent_ms) in snapshots.iter_mut().zip(sent_ms) {
                received.encoded.take_if(|_| received.snapshot.at_ms != sent_ms);
            }
        }
        let mut valid = Vec::with_capacity(snapshots.len());
        for mut received in snapshots {
            match validate_snapshot(&received.snapshot, &self.deps.catalog, now_ms) {
                Ok(()) => {
                    if let Some(shape) = self.shapes.get(received.snapshot.shape.id()) {
                        received.snapshot.shape = shape;
                    }
                    valid.push(received);
                }
                Err(reason) => rejected.push(RejectedSnapshot {
                    index: received.index,
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

    /// Runs [`Pipeline::submit`] in a separate task: a caller that is cancelled must not interrupt it between
    /// storing and publishing. `held` is kept as long as the snapshots. Large submissions are processed off the
    /// serving threads, a few at a time.
    ///
    /// # Errors
    /// Returns the errors of [`Pipeline::submit`].
    pub async fn submit_detached(
        self: &Arc<Self>,
        submission: Submission,
        held: impl Send + 'static,
    ) -> Result<IngestResponse, SubmitError> {
        let is_large = submission.is_large();
        // Before the task starts: a submission that waits holds no thread. The semaphore is never closed.
        let turn = if is_large { Some(self.large_turn().await) } else { None };
        let pipeline = self.clone();
        // Boxed once: the start of a task moves its future several times.
        let task = Box::pin(async move {
            let result = pipeline.submit(submission).await;
            drop((held, turn));
            result
        });
        let task = if is_large {
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || runtime.block_on(task))
        } else {
            let polls = self.deps.metrics.polls.clone();
            tokio::spawn(async move { polls.measured(task).await })
        };
        task.await.unwrap_or_else(|error| {
            tracing::error!(error = %error, "ingest task panicked; please report this");
            Err(SubmitError::Panicked)
        })
    }

    async fn large_turn(&self) -> Option<OwnedSemaphorePermit> {
        if self.large.available_permits() == 0 {
            limit_table::LARGE_SUBMISSIONS.refuse();
        }
        self.large.clone().acquire_owned().await.ok()
    }

    /// Validates, stores and publishes the snapshots; duplicates are ignored. Accepted snapshots are durable
    /// and published when this returns.
    ///
    /// # Errors
    /// Returns an error if the hub's clock is not set, the host is not accepted, or the store is unavailable.
    pub async fn submit(&self, mut submission: Submission) -> Result<IngestResponse, SubmitError> {
        let now_ms = self.deps.clock.wall_ms();
        if now_ms < limits::MIN_TIMESTAMP_MS {
            // Valid snapshots would be rejected as in the future.
            return Err(SubmitError::ClockNotSet);
        }
        let (interval_ms, collectors) = self.deps.settings.collection_requests(submission.host.id);
        let mut response = IngestResponse { interval_ms, collectors, ..IngestResponse::default() };
        let (mut valid, new_clock) =
            self.correct_and_validate(&mut submission, now_ms, &mut response.rejected);
        self.deps.metrics.rejected(response.rejected.len());
        if valid.is_empty() {
            return Ok(response);
        }
        let facts =
            valid.iter().rev().find_map(|received| received.snapshot.facts.clone()).or(submission.facts);
        let rights = submission.rights;
        let (id, rename) = self.deps.hosts.resolve_named(&submission.host, facts, rights, now_ms).await?;
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
        let declared_ms: Vec<u32> = valid.iter().map(|received| received.snapshot.interval_ms).collect();
        for received in valid.iter_mut().filter(|received| received.snapshot.interval_ms == 0) {
            (received.snapshot.interval_ms, received.encoded) = (learned_ms, None);
        }
        let row = |received: ReceivedSnapshot| NewRow {
            snapshot: Arc::new(received.snapshot),
            encoded: received.encoded,
        };
        let rows: Vec<NewRow> = valid.into_iter().map(row).collect();
        let valid: Vec<Arc<Snapshot>> = rows.iter().map(|row| row.snapshot.clone()).collect();
        // Blocks further appends of the host until dropped, so that snapshots are published in order.
        let appended = self.deps.history.append(id, rows).await?;
        let name: Arc<str> = self.deps.hosts.name(id).into();
        let principal = self.deps.hosts.share_principal(id, now_ms);
        let AppendOutcome { rows, append_lock } = appended;
        for ((snapshot, declared_ms), row) in valid.into_iter().zip(declared_ms).zip(rows) {
            match row {
                None => response.duplicates += 1,
                Some(row) => {
                    response.accepted += 1;
                    // Not before: shapes of refused snapshots must not take the place of others.
                    self.shapes.add(&snapshot.shape);
                    self.deps.hosts.record_boot(id, snapshot.boot, snapshot.at_ms, now_ms);
                    self.deps.metrics.accepted(snapshot.sample_count());
                    self.deps.hosts.record_snapshot(id, snapshot.at_ms, declared_ms, now_ms);
                    let accepted_at = self.deps.clock.monotonic();
                    let published =
                        PublishedSnapshot::new(id, name.clone(), snapshot.clone(), accepted_at).with_row(row);
                    self.deps.live_feed.publish(published, principal.clone(), now_ms);
                    // After publication: the snapshot of a new alert is visible in the recent window.
                    self.deps.alerting.evaluate_snapshot(id, &snapshot, skew_ms);
                    self.deps.metrics.record_evaluated();
                }
            }
        }
        drop(append_lock);
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
                rights: HostSender { name_right: NameRight::OwnHost, creates_as: None },
                sender: "SSH collection".to_owned(),
                snapshots: vec![ReceivedSnapshot { index: 0, snapshot: collected.snapshot, encoded: None }],
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
