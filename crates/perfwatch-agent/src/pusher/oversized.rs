//! Requests above the body limit of the hub or of a proxy before it: smaller batches, then smaller snapshots.

use super::{PushOutcome, Pusher};
use crate::spool::{SpoolBatch, SpoolEntry};
use perfwatch_model::wire;
use std::time::Duration;

/// Time after which a larger body is tried again: the limit may have been raised.
const RETRY_LARGER_INTERVAL: Duration = Duration::from_secs(3_600);
/// Maximum number of reductions of a snapshot; one column remains long before.
const MAX_SHRINK_LEVEL: u32 = 20;

/// Body limit, learned from rejected requests.
#[derive(Default)]
pub(super) struct BodyLimit {
    /// Size of the smallest rejected body, the reason, and the monotonic time of the rejection.
    rejected: Option<(usize, String, Duration)>,
    /// Reduction that was accepted for the last snapshot that was too large by itself.
    level: u32,
}

impl BodyLimit {
    /// Reason of the earlier rejection if a body of this size would be rejected again.
    pub(super) fn exceeded_by(&self, bytes: usize, now: Duration) -> Option<String> {
        let (limit, reason, at) = self.rejected.as_ref()?;
        let is_current = now.saturating_sub(*at) < RETRY_LARGER_INTERVAL;
        (bytes >= *limit && is_current).then(|| reason.clone())
    }

    /// Records a rejected body. Returns true if no limit was known.
    fn learn(&mut self, bytes: usize, reason: &str, now: Duration) -> bool {
        let known = self.rejected.as_ref().filter(|(.., at)| now.saturating_sub(*at) < RETRY_LARGER_INTERVAL);
        let is_new = known.is_none();
        let smallest = known.map_or(bytes, |(limit, ..)| bytes.min(*limit));
        let learned_at = known.map_or(now, |(.., at)| *at);
        self.rejected = Some((smallest, reason.to_owned(), learned_at));
        is_new
    }
}

impl Pusher {
    /// Halves a batch that is too large; sends less of a single snapshot. Returns the pause before the next
    /// attempt if nothing can be sent.
    pub(super) fn on_too_large(
        &mut self,
        batch: &SpoolBatch,
        reason: &str,
        bytes: usize,
    ) -> Option<Duration> {
        if self.body_limit.learn(bytes, reason, self.clock.monotonic()) {
            tracing::warn!(
                hub.url = self.hub.base(),
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
        let is_shape_of_entry =
            |shape: &bytes::Bytes| wire::shape_id(shape.clone()).ok() == Some(entry.shape);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_limit_is_the_smallest_rejected_size_for_an_hour() {
        let at = Duration::from_secs;
        let mut limit = BodyLimit::default();
        assert_eq!(limit.exceeded_by(usize::MAX, at(0)), None);
        assert!(limit.learn(20_000, "HTTP 413", at(0)));
        assert!(!limit.learn(10_000, "HTTP 413", at(1)));
        assert!(!limit.learn(15_000, "HTTP 413", at(2)));
        assert_eq!(limit.exceeded_by(9_999, at(3)), None);
        assert_eq!(limit.exceeded_by(10_000, at(3)).as_deref(), Some("HTTP 413"));
        assert_eq!(limit.exceeded_by(10_000, at(3_600)), None);
        assert!(limit.learn(40_000, "HTTP 413", at(3_600)));
        assert_eq!(limit.exceeded_by(20_000, at(3_601)), None);
    }
}
