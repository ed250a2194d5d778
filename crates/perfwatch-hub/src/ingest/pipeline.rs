//! The one way in, whoever sends: limits, durable append, ack, publish.

use super::check::check;
use super::shapes::Shapes;
use crate::alerting::Alerting;
use crate::fleet::{Fleet, FleetError};
use crate::history::History;
use crate::live::{Accepted, Live};
use crate::self_metrics::SelfMetrics;
use perfwatch_model::wire::{IngestAnswer, RejectedSnapshot};
use perfwatch_model::{Catalog, Clock, HostFacts, HostRef, Shape, ShapeId, Snapshot, Texts, limits};
use perfwatch_store::StoreError;
use std::sync::Arc;
use std::time::Duration;

/// What one sender submits at once.
pub(crate) struct Submission {
    pub(crate) host: HostRef,
    /// In the sender's order, with their places in its batch.
    pub(crate) snapshots: Vec<(usize, Snapshot)>,
    pub(crate) facts: Option<Arc<HostFacts>>,
    /// How far the sender's clock is ahead, where it tells.
    pub(crate) skew_ms: Option<i64>,
}

/// Why nothing of a submission was taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("this hub's own clock is not set: it shows a time before 2020")]
    NoClock,
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What it leads through.
pub(crate) struct Parts {
    pub(crate) history: Arc<History>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) live: Arc<Live>,
    pub(crate) alerting: Arc<Alerting>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<SelfMetrics>,
    /// How often agents should send.
    pub(crate) interval: Option<Duration>,
}

/// The way in.
pub(crate) struct Pipeline {
    parts: Parts,
    shapes: Shapes,
    texts: Texts,
}

impl Pipeline {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts, shapes: Shapes::default(), texts: Texts::default() }
    }

    /// A shape that was sent before.
    pub(crate) fn shape(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.shapes.get(id)
    }

    /// The one copy of this shape.
    pub(crate) fn intern(&self, shape: Shape) -> Arc<Shape> {
        self.shapes.intern(Arc::new(shape))
    }

    /// The one copy of a text.
    pub(crate) fn text(&self, text: &str) -> Arc<str> {
        self.texts.get(text)
    }

    /// Lets go of what is not used any more.
    pub(crate) fn prune(&self) {
        self.shapes.prune();
        self.texts.prune();
    }

    /// Takes in what can be true and was not there yet. When this returns, the accepted ones
    /// are as durable as the store makes them, and published.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<IngestAnswer, SubmitError> {
        let now_ms = self.parts.clock.wall_ms();
        if now_ms < limits::EARLIEST_MS {
            // Judging by such a clock would throw away good data.
            return Err(SubmitError::NoClock);
        }
        // A sender whose clock is far ahead, and whose snapshots are by as much: set right by the hub's.
        let ahead_ms = submission.skew_ms.filter(|&skew| skew > limits::FUTURE_MS);
        let mut answer = IngestAnswer {
            interval_ms: self.parts.interval.and_then(|interval| u32::try_from(interval.as_millis()).ok()),
            ..IngestAnswer::default()
        };
        let mut good = Vec::with_capacity(submission.snapshots.len());
        for (index, mut snapshot) in submission.snapshots {
            if let Some(ahead_ms) = ahead_ms.filter(|_| snapshot.at_ms > now_ms + limits::FUTURE_MS) {
                snapshot.at_ms -= ahead_ms;
            }
            match check(&snapshot, &self.parts.catalog, now_ms) {
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
        self.parts.metrics.rejected(answer.rejected.len());
        if good.is_empty() {
            return Ok(answer);
        }
        let facts = good.iter().rev().find_map(|snapshot| snapshot.facts.clone()).or(submission.facts);
        let id = self.parts.fleet.resolve(&submission.host, facts, now_ms).await?;
        // Until this is let go, the next rows of this host wait: readers see them in order.
        let taken = self.parts.history.append(id, good.clone()).await?;
        let name: Arc<str> = self.parts.fleet.name(id).into();
        for (snapshot, new) in good.into_iter().zip(&taken.new) {
            match new {
                false => answer.duplicates += 1,
                true => {
                    answer.accepted += 1;
                    self.parts.metrics.accepted(snapshot.samples());
                    self.parts.fleet.heard(
                        id,
                        snapshot.at_ms,
                        snapshot.interval_ms,
                        now_ms,
                        submission.skew_ms,
                    );
                    self.parts.live.publish(
                        Arc::new(Accepted::new(
                            id,
                            name.clone(),
                            snapshot.clone(),
                            self.parts.clock.monotonic(),
                        )),
                        now_ms,
                    );
                    // After it can be seen: who looks at an alert finds its second.
                    self.parts.alerting.observe(id, &snapshot, submission.skew_ms);
                }
            }
        }
        self.parts.metrics.duplicates(answer.duplicates);
        answer.wants_facts = !self.parts.fleet.has_facts(id);
        Ok(answer)
    }
}
