//! Writes of a commit, and the metadata of history that they change.

use perfwatch_model::{BootId, HostId, RangeSet, Shape};
use perfwatch_tsdb::{Block, Tier};
use std::sync::Arc;

/// Number of a block, unique within its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub i64);

/// Metadata of a block. Host, first time and id are its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInfo {
    /// Number of the block.
    pub id: BlockId,
    /// Tier the block belongs to.
    pub tier: Tier,
    /// Host whose rows the block contains.
    pub host: HostId,
    /// Time of the first row, or start of the first bucket; Unix milliseconds.
    pub first_ms: i64,
    /// Time of the last row, or start of the last bucket; Unix milliseconds.
    pub last_ms: i64,
    /// Encoded size in bytes.
    pub bytes: u64,
}

/// A window that received rows after its last roll-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtyWindow {
    /// Tier that received the rows.
    pub tier: Tier,
    /// Host of the rows.
    pub host: HostId,
    /// Start of the window ([`Tier::window_ms`]), Unix milliseconds.
    pub window_ms: i64,
    /// Changes with every mark, so that clearing an old mark does not clear a newer mark.
    pub stamp: i64,
}

/// Highest arrival of a host in a hub's head that is already sealed into a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealWatermark {
    /// Host of the sealed rows.
    pub host: HostId,
    /// Arrival number; rows of this commit and of earlier commits are sealed.
    pub arrival: i64,
}

/// Sequence numbers of a boot of a host that were accepted and sealed.
#[derive(Debug, Clone)]
pub struct SequenceRanges {
    /// Host that sent the snapshots.
    pub host: HostId,
    /// Boot the sequence numbers belong to.
    pub boot: BootId,
    /// Sequence numbers that were accepted.
    pub seqs: RangeSet,
    /// Time of the newest snapshot, Unix milliseconds.
    pub newest_ms: i64,
}

/// Per tier, the time before which rows have been deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionWatermarks {
    /// Unix milliseconds by [`Tier::id`]: raw, minute, hour.
    pub ms: [i64; 3],
}

impl RetentionWatermarks {
    /// The later of two watermarks, per tier.
    pub fn max(self, other: Self) -> Self {
        Self { ms: std::array::from_fn(|tier| self.ms[tier].max(other.ms[tier])) }
    }

    /// Watermark of a tier, Unix milliseconds.
    pub fn tier_ms(&self, tier: Tier) -> i64 {
        let [raw, minute, hour] = self.ms;
        match tier {
            Tier::Raw => raw,
            Tier::Minute => minute,
            Tier::Hour => hour,
        }
    }
}

/// Change of history in a commit. Some fail with a [`crate::CommitError::Conflict`].
#[derive(Debug, Clone)]
pub enum Write {
    /// Updates the time of the host's newest snapshot and its collection interval, both in milliseconds.
    HostSeen(HostId, i64, u32),
    /// Adds a block, and its shape if it is new.
    PutBlock(Tier, HostId, Arc<Shape>, Block),
    /// Deletes a block; a conflict if it was deleted already.
    DropBlock(BlockInfo),
    /// Marks head rows as sealed; a conflict if they are marked already, because the
    /// response to the first commit was lost.
    AdvanceSeal(SealWatermark),
    /// Merges accepted sequence numbers into the stored ranges.
    RecordSequences(SequenceRanges),
    /// Marks the window that begins at this time as dirty.
    MarkDirty(Tier, HostId, i64),
    /// Clears the mark of a window that was rolled up; a conflict if the window received
    /// more rows since, or was rolled up by another hub.
    ClearDirty(DirtyWindow),
    /// A conflict unless the retention watermarks have these values.
    ExpectWatermarks(RetentionWatermarks),
    /// Advances a retention watermark; a conflict while a window that begins before it has
    /// rows that are not rolled up.
    AdvanceWatermark(Tier, i64),
    /// Advances the retention watermark of a host that is above its share of the disk budget; a conflict
    /// while a window of the host that begins before it has rows that are not rolled up.
    AdvanceHostWatermark(Tier, HostId, i64),
}
