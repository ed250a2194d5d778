//! Rows that other hubs accepted. They are durable in the heads of those hubs, and here in memory until those hubs
//! seal them, so that each hub reads the newest rows of every host.

use super::History;
use super::head::MirroredRow;
use perfwatch_model::{HostId, Snapshot};
use perfwatch_store::{SequenceRanges, StoreError};
use perfwatch_tsdb::EncodedRow;
use std::collections::HashMap;

impl History {
    /// Adds a snapshot that another hub accepted. Returns its row in memory; `None` for a snapshot that this hub has
    /// already.
    pub fn mirror(&self, host: HostId, snapshot: &Snapshot) -> Option<EncodedRow> {
        self.head(host).mirror(snapshot)
    }

    /// Removes the rows of other hubs that are in blocks.
    ///
    /// # Errors
    /// Returns the error of the store if the sealed sequence numbers cannot be read.
    pub async fn remove_sealed_mirrored(&self) -> Result<(), StoreError> {
        let heads: Vec<_> = self.heads().into_iter().filter(|(_, head)| head.has_mirrored_rows()).collect();
        if heads.is_empty() {
            return Ok(());
        }
        let mut ranges: HashMap<HostId, Vec<SequenceRanges>> = HashMap::new();
        for range in self.backend.sequence_ranges(None).await? {
            ranges.entry(range.host).or_default().push(range);
        }
        for (host, head) in heads {
            head.remove_sealed_mirrored(ranges.get(&host).map(Vec::as_slice).unwrap_or_default());
        }
        Ok(())
    }

    /// Unsealed rows of other hubs within a range: those that are in no block.
    pub(crate) async fn unsealed_mirrored(
        &self,
        host: HostId,
        range: (i64, i64),
    ) -> Result<Vec<MirroredRow>, StoreError> {
        let mut rows = self.head(host).mirrored_rows(range);
        if !rows.is_empty() {
            let ranges = self.backend.sequence_ranges(Some(host)).await?;
            rows.retain(|mirrored| !mirrored.is_sealed(&ranges));
        }
        Ok(rows)
    }

    /// Returns whether rows of other hubs are in no block.
    pub(crate) async fn are_unsealed(&self, host: HostId, rows: &[MirroredRow]) -> Result<bool, StoreError> {
        if rows.is_empty() {
            return Ok(true);
        }
        let ranges = self.backend.sequence_ranges(Some(host)).await?;
        Ok(!rows.iter().any(|mirrored| mirrored.is_sealed(&ranges)))
    }
}
