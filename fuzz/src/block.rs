//! Stored blocks: header, directory, columns and sections.

use crate::ingest::sample_snapshots;
use crate::{MemoryBound, Target};
use perfwatch_tsdb::block::{self, BlockHeader, BlockPart, RowKind};
use perfwatch_tsdb::{BUCKET_STATS_LEN, BucketColumn, BucketStats, Buckets, CompressionLevel, Table, query};
use std::sync::Arc;

/// Columns that are decoded of one block.
const MAX_DECODED_COLUMNS: usize = 64;

pub(crate) const BLOCK: Target = Target {
    name: "block",
    run: decode_block,
    seeds,
    dictionary: &["PWB\x1a"],
    max_len: 32 << 10,
    // The limits of a section: 64 MiB of names and 1,048,576 process rows of some 32 bytes.
    memory: MemoryBound { fixed_bytes: 128 << 20, per_byte: 64 },
};

/// Bytes of the length of the header in front of an input. Stores keep it beside the block.
const PREFIX_BYTES: usize = 2;

fn seeds() -> Vec<Vec<u8>> {
    let snapshots: Vec<_> = sample_snapshots().into_iter().map(Arc::new).collect();
    let mut blocks = Vec::new();
    for table in Table::from_snapshots(&snapshots) {
        blocks.push(block::encode(&table, CompressionLevel::Fast));
        blocks.push(block::encode_buckets(&Buckets::from_table(&table, 60_000, 0), CompressionLevel::Best));
    }
    let with_prefix = |block: &block::Block| {
        let header_len = u16::try_from(block.header_len).unwrap_or(u16::MAX);
        [&header_len.to_le_bytes(), block.bytes.as_slice()].concat()
    };
    blocks.iter().map(with_prefix).collect()
}

/// Replaces the checksum at the end of a part: mutations change what it protects.
fn with_checksum(part: &[u8]) -> Vec<u8> {
    let mut part = part.to_vec();
    if let Some(end) = part.len().checked_sub(4) {
        let checksum = crc32fast::hash(&part[..end]);
        part[end..].copy_from_slice(&checksum.to_le_bytes());
    }
    part
}

fn decode_block(data: &[u8]) -> bool {
    let Some((length, bytes)) = data.split_first_chunk::<PREFIX_BYTES>() else { return false };
    let header_len = usize::from(u16::from_le_bytes(*length)).min(bytes.len());
    let Ok(header) = BlockHeader::parse(&with_checksum(&bytes[..header_len])) else { return false };
    let part_bytes = |part: BlockPart| {
        let range = header.byte_range(part).ok().flatten().unwrap_or_default();
        with_checksum(bytes.get(range).unwrap_or_default())
    };
    let column = |part: BlockPart| {
        let values = header.decode_column(part, &part_bytes(part));
        assert!(values.as_ref().map_or(true, |values| values.len() == header.rows()));
        values
    };
    let columns = header.columns().min(MAX_DECODED_COLUMNS);
    let is_accepted = column(BlockPart::Time).is_ok();
    if header.row_kind() == RowKind::Raw {
        for part in [BlockPart::Interval, BlockPart::Boot, BlockPart::Seq] {
            let _ = column(part);
        }
        let boots = header.decode_boots(&part_bytes(BlockPart::Boot), &part_bytes(BlockPart::Boots));
        assert!(boots.map_or(true, |boots| boots.len() == header.rows()));
        if let Ok(processes) = header.decode_processes(&part_bytes(BlockPart::Processes)) {
            assert_eq!(processes.len(), header.rows());
        }
        if let Ok((errors, facts)) = header.decode_annotations(&part_bytes(BlockPart::Annotations)) {
            assert_eq!(errors.len(), header.rows());
            assert!(facts.iter().all(|(row, _)| *row < header.rows()));
        }
        for index in 0..columns {
            let _ = column(BlockPart::Column(index));
        }
    } else {
        for index in 0..columns.div_ceil(BUCKET_STATS_LEN) {
            let stats: Result<Vec<_>, _> =
                (0..BUCKET_STATS_LEN).map(|stat| column(BlockPart::Stat(index, stat))).collect();
            if let Ok(stats) = stats
                && let Ok(decoded) = BucketColumn::decode(&stats)
            {
                check_buckets(&decoded);
            }
        }
    }
    is_accepted
}

/// Merging and averaging accept whatever a block contains.
fn check_buckets(column: &BucketColumn) {
    let merged = column.0.iter().fold(BucketStats::EMPTY, |merged, stats| merged.merge(*stats));
    let _ = query::average(&merged, 2);
    let _ = column
        .0
        .iter()
        .map(|stats| query::average(stats, 0))
        .fold(0.0, |sum, value| sum + value.unwrap_or(0.0));
}
