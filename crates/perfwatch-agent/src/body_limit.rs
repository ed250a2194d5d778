//! Body limit of the hub or of a proxy before it, learned from rejected requests.

use std::time::Duration;

/// Time after which a larger body is tried again: the limit may have been raised.
const RETRY_LARGER_INTERVAL: Duration = Duration::from_secs(3_600);
/// Body limit, learned from rejected requests.
#[derive(Default)]
pub(crate) struct BodyLimit {
    /// Size of the smallest rejected body, the reason, and the monotonic time of the rejection.
    rejected: Option<(usize, String, Duration)>,
    /// Reduction that was accepted for the last snapshot that was too large alone.
    pub(crate) level: u32,
}

impl BodyLimit {
    /// Reason of the earlier rejection if a body of this size would be rejected again.
    pub(crate) fn exceeded_by(&self, bytes: usize, now: Duration) -> Option<String> {
        let (limit, reason, at) = self.rejected.as_ref()?;
        let is_current = now.saturating_sub(*at) < RETRY_LARGER_INTERVAL;
        (bytes >= *limit && is_current).then(|| reason.clone())
    }

    /// Records a rejected body. Returns true if no limit was known.
    pub(crate) fn learn(&mut self, bytes: usize, reason: &str, now: Duration) -> bool {
        let known = self.rejected.as_ref().filter(|(.., at)| now.saturating_sub(*at) < RETRY_LARGER_INTERVAL);
        let is_new = known.is_none();
        let smallest = known.map_or(bytes, |(limit, ..)| bytes.min(*limit));
        let learned_at = known.map_or(now, |(.., at)| *at);
        self.rejected = Some((smallest, reason.to_owned(), learned_at));
        is_new
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
