//! Sizes of the tiers, which are summed up seldom: an index of all blocks is read.

use perfwatch_store::BlockInfo;
use std::time::Duration;

/// Time after which the blocks are summed up again. New blocks do not count until then, deleted ones do at once.
const MAX_AGE: Duration = Duration::from_secs(30);

/// Sizes of the tiers, as far as they are known.
#[derive(Default)]
pub(super) struct TierSizes {
    pub(super) bytes: [u64; 3],
    /// Time of the last sum, monotonic clock; `None` before the first.
    pub(super) measured_at: Option<Duration>,
}

impl TierSizes {
    /// Sizes in bytes, unless they are to be measured again.
    pub(super) fn unexpired(&self, now: Duration) -> Option<[u64; 3]> {
        self.measured_at.filter(|at| now.saturating_sub(*at) < MAX_AGE).map(|_| self.bytes)
    }

    /// Measures again at the next use: others may have deleted blocks.
    pub(super) fn forget(&mut self) {
        self.measured_at = None;
    }

    /// Subtracts blocks that were deleted.
    pub(super) fn subtract(&mut self, blocks: &[BlockInfo]) {
        for block in blocks {
            if let Some(bytes) = self.bytes.get_mut(usize::try_from(block.tier.id()).unwrap_or(usize::MAX)) {
                *bytes = bytes.saturating_sub(block.bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::HostId;
    use perfwatch_store::BlockId;
    use perfwatch_tsdb::Tier;

    #[test]
    fn sizes_are_known_for_half_a_minute_and_without_deleted_blocks() {
        let block = |tier: Tier, bytes: u64| BlockInfo {
            id: BlockId(1),
            tier,
            host: HostId::of_name("web", 0),
            first_ms: 0,
            last_ms: 0,
            bytes,
        };
        let mut sizes = TierSizes::default();
        assert_eq!(sizes.unexpired(Duration::ZERO), None, "never measured");
        sizes = TierSizes { bytes: [100, 50, 10], measured_at: Some(Duration::from_secs(5)) };
        sizes.subtract(&[block(Tier::Raw, 30), block(Tier::Hour, 11), block(Tier::Raw, 1)]);
        assert_eq!(sizes.unexpired(Duration::from_secs(34)), Some([69, 50, 0]));
        assert_eq!(sizes.unexpired(Duration::from_secs(35)), None);
        sizes.forget();
        assert_eq!(sizes.unexpired(Duration::from_secs(5)), None);
    }
}
