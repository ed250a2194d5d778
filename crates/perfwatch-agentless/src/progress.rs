//! Progress of running collections: the stage of each job for the queue, and the steps of a connection
//! test as they are completed.

use perfwatch_model::remote_collector::{CollectionObserver, CollectionStage, CollectionStep};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Stages of the jobs that run on this hub, by server.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningStages(Arc<Mutex<HashMap<Uuid, CollectionStage>>>);

impl RunningStages {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, CollectionStage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Current stage of the job of a server.
    pub(crate) fn get(&self, server: Uuid) -> Option<CollectionStage> {
        self.lock().get(&server).copied()
    }

    /// Observer of the job of a server. The stage is removed when the observer is dropped.
    pub(crate) fn observe(&self, server: Uuid) -> StageObserver {
        StageObserver { server, stages: self.clone() }
    }
}

/// Keeps the stage of one job.
#[derive(Debug)]
pub(crate) struct StageObserver {
    server: Uuid,
    stages: RunningStages,
}

impl CollectionObserver for StageObserver {
    fn stage_started(&self, stage: CollectionStage) {
        self.stages.lock().insert(self.server, stage);
    }

    fn step_completed(&self, _: &CollectionStep) {}
}

impl Drop for StageObserver {
    fn drop(&mut self) {
        self.stages.lock().remove(&self.server);
    }
}

/// Progress of a connection test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectionEvent {
    /// A stage began.
    Stage(CollectionStage),
    /// A step was completed.
    Step(CollectionStep),
}

/// Sends the progress of a connection test. The number of events of a test is limited by that of its jump
/// hosts.
#[derive(Debug)]
pub struct EventSender {
    events: mpsc::UnboundedSender<CollectionEvent>,
    /// Text in place of the details of the steps, which contain addresses of jump hosts.
    hidden_detail: Option<&'static str>,
}

impl EventSender {
    /// Creates a sender with its receiver. `hidden_detail` replaces the details of the steps.
    pub fn new(hidden_detail: Option<&'static str>) -> (Arc<Self>, mpsc::UnboundedReceiver<CollectionEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { events, hidden_detail }), receiver)
    }
}

impl CollectionObserver for EventSender {
    // A receiver that is gone has closed the page.
    fn stage_started(&self, stage: CollectionStage) {
        let _ = self.events.send(CollectionEvent::Stage(stage));
    }

    fn step_completed(&self, step: &CollectionStep) {
        let mut step = step.clone();
        if let Some(text) = self.hidden_detail {
            text.clone_into(&mut step.detail);
        }
        let _ = self.events.send(CollectionEvent::Step(step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_ends_with_its_job() {
        let stages = RunningStages::default();
        let (server, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let observer = stages.observe(server);
        assert_eq!(stages.get(server), None);
        observer.stage_started(CollectionStage::Connect);
        observer.stage_started(CollectionStage::Read);
        assert_eq!((stages.get(server), stages.get(other)), (Some(CollectionStage::Read), None));
        drop(observer);
        assert_eq!(stages.get(server), None);
    }

    #[test]
    fn events_are_sent_in_order() {
        let (sender, mut receiver) = EventSender::new(None);
        let step = CollectionStep {
            stage: CollectionStage::Resolve,
            duration_ms: 4,
            detail: "192.0.2.1".to_owned(),
        };
        sender.stage_started(CollectionStage::Resolve);
        sender.step_completed(&step);
        drop(sender);
        assert_eq!(receiver.blocking_recv(), Some(CollectionEvent::Stage(CollectionStage::Resolve)));
        let event = receiver.blocking_recv().unwrap();
        let json = r#"{"step":{"stage":"resolve","duration_ms":4,"detail":"192.0.2.1"}}"#;
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
        assert_eq!(receiver.blocking_recv(), None);
    }

    #[test]
    fn details_of_hidden_paths_are_replaced() {
        let (sender, mut receiver) = EventSender::new(Some("hidden"));
        let step = CollectionStep {
            stage: CollectionStage::Connect,
            duration_ms: 4,
            detail: "192.0.2.1".to_owned(),
        };
        sender.step_completed(&step);
        let hidden = CollectionStep { detail: "hidden".to_owned(), ..step };
        assert_eq!(receiver.blocking_recv(), Some(CollectionEvent::Step(hidden)));
    }
}
