//! The one way in, whoever sends: limits, durable append, ack, publish.

use super::shape_registry::ShapeRegistry;
use super::validate::validate_snapshot;
use crate::self_metrics::SelfMetrics;
use perfwatch_agentless::sink::{CollectedSnapshot, SinkError, SnapshotSink};
use perfwatch_alerting::Alerting;
use perfwatch_history::History;
use perfwatch_live::host_registry::{HostRegistry, HostRegistryError};
use perfwatch_live::{LiveFeed, PublishedSnapshot};
use perfwatch_model::wire::{IngestResponse, RejectedSnapshot};
use perfwatch_model::{Catalog, Clock, HostFacts, HostRef, Shape, ShapeId, Snapshot, StringInterner, limits};
use perfwatch_store::{BoxFuture, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// What one sender submits at once.
pub(crate) struct Submission {
    pub(crate) host: HostRef,
    /// In the sender's order, with their places in its batch.
    pub(crate) snapshots: Vec<(usize, Snapshot)>,
    pub(crate) facts: Option<Arc<HostFacts>>,
    /// How far the sender's clock is ahead, where it tells.
    pub(crate) clock_skew_ms: Option<i64>,
}

/// Why nothing of a submission was taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("the hub's clock is not set (before 2020)")]
    ClockNotSet,
    #[error(transparent)]
    HostRegistry(#[from] HostRegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What it leads through.
pub(crate) struct PipelineDeps {
    pub(crate) history: Arc<History>,
    pub(crate) fleet: Arc<HostRegistry>,
    pub(crate) live: Arc<LiveFeed>,
    pub(crate) alerting: Arc<Alerting>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<SelfMetrics>,
    /// How often agents should send.
    pub(crate) interval: Option<Duration>,
}

/// The way in.
pub(crate) struct Pipeline {
    deps: PipelineDeps,
    shapes: ShapeRegistry,
    texts: StringInterner,
}

impl Pipeline {
    pub(crate) fn new(deps: PipelineDeps) -> Self {
        Self { deps, shapes: ShapeRegistry::default(), texts: StringInterner::default() }
    }

    /// A shape that was sent before.
    pub(crate) fn shape(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.shapes.get(id)
    }

    /// The one copy of this shape.
    pub(crate) fn intern_shape(&self, shape: Shape) -> Arc<Shape> {
        self.shapes.intern(Arc::new(shape))
    }

    /// The one copy of a text.
    pub(crate) fn intern_text(&self, text: &str) -> Arc<str> {
        self.texts.intern(text)
    }

    /// Lets go of what is not used any more.
    pub(crate) fn prune(&self) {
        self.shapes.prune();
        self.texts.prune();
    }

    /// Takes in what can be true and was not there yet. When this returns, the accepted ones
    /// are as durable as the store makes them, and published.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<IngestResponse, SubmitError> {
        let now_ms = self.deps.clock.wall_ms();
        if now_ms < limits::MIN_TIMESTAMP_MS {
            // Judging by such a clock would throw away good data.
            return Err(SubmitError::ClockNotSet);
        }
        // A sender whose clock is far ahead, and whose snapshots are by as much: set right by the hub's.
        let ahead_ms = submission.clock_skew_ms.filter(|&skew| skew > limits::MAX_CLOCK_LEAD_MS);
        let mut answer = IngestResponse {
            interval_ms: self.deps.interval.and_then(|interval| u32::try_from(interval.as_millis()).ok()),
            ..IngestResponse::default()
        };
        let mut good = Vec::with_capacity(submission.snapshots.len());
        for (index, mut snapshot) in submission.snapshots {
            if let Some(ahead_ms) = ahead_ms.filter(|_| snapshot.at_ms > now_ms + limits::MAX_CLOCK_LEAD_MS) {
                snapshot.at_ms -= ahead_ms;
            }
            match validate_snapshot(&snapshot, &self.deps.catalog, now_ms) {
                Ok(()) => {
                    snapshot.shape = self.shapes.intern(snapshot.shape);
                    good.push(Arc::new(snapshot));
                }
                Err(refusal) => answer.rejected.push(RejectedSnapshot {
                    index,
                    code: refusal.code.to_owned(),
                    message: refusal.message,
                }),
            }
        }
        self.deps.metrics.rejected(answer.rejected.len());
        if good.is_empty() {
            return Ok(answer);
        }
        let facts = good.iter().rev().find_map(|snapshot| snapshot.facts.clone()).or(submission.facts);
        let id = self.deps.fleet.resolve(&submission.host, facts, now_ms).await?;
        // Until this is let go, the next rows of this host wait: readers see them in order.
        let taken = self.deps.history.append(id, good.clone()).await?;
        let name: Arc<str> = self.deps.fleet.name(id).into();
        for (snapshot, new) in good.into_iter().zip(&taken.is_new) {
            match new {
                false => answer.duplicates += 1,
                true => {
                    answer.accepted += 1;
                    self.deps.metrics.accepted(snapshot.sample_count());
                    self.deps.fleet.record_snapshot(
                        id,
                        snapshot.at_ms,
                        snapshot.interval_ms,
                        now_ms,
                        submission.clock_skew_ms,
                    );
                    self.deps.live.publish(
                        Arc::new(PublishedSnapshot::new(
                            id,
                            name.clone(),
                            snapshot.clone(),
                            self.deps.clock.monotonic(),
                        )),
                        now_ms,
                    );
                    // After it can be seen: who looks at an alert finds its second.
                    self.deps.alerting.observe(id, &snapshot, submission.clock_skew_ms);
                }
            }
        }
        self.deps.metrics.duplicates(answer.duplicates);
        answer.facts_requested = !self.deps.fleet.has_facts(id);
        Ok(answer)
    }
}

impl SnapshotSink for Pipeline {
    fn submit(&self, collected: CollectedSnapshot) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            let submission = Submission {
                host: collected.host,
                snapshots: vec![(0, collected.snapshot)],
                facts: None,
                clock_skew_ms: Some(collected.clock_skew_ms),
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
