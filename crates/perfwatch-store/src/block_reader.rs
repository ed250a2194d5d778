//! Reads the requested parts of a block. Both engines fetch bytes only; directory and parts are decoded here.

use crate::error::StoreError;
use crate::read_bounds::{self, CellBudget};
use crate::store::BlockContent;
use perfwatch_model::Shape;
use perfwatch_tsdb::{
    BUCKET_STATS_LEN, BlockHeader, BlockPart, BucketColumn, Buckets, ColumnProjection, FormatError,
    Projection, Projector, RowKind, Table,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Maximum number of parts that are read individually. Of a block with more parts, all bytes are read at
/// once.
const MAX_PART_READS: usize = 40;

/// Plan of the reads of a block.
pub(crate) struct BlockFetch {
    header: BlockHeader,
    projection: ColumnProjection,
    processes: bool,
    annotations: bool,
    sequences: bool,
    /// Requested parts with their byte ranges.
    parts: Vec<(BlockPart, Range<usize>)>,
}

impl BlockFetch {
    /// Parses the directory and determines the parts that the projection needs.
    pub(crate) fn new(
        header: &[u8],
        shape: Option<&Arc<Shape>>,
        projection: &Projection,
        projector: &mut Projector<'_>,
    ) -> Result<Self, FormatError> {
        let header = BlockHeader::parse(header)?;
        let shape = shape.ok_or(FormatError::Invalid("unknown shape"))?;
        if shape.id() != header.shape() || shape.columns().len() != header.columns() {
            return Err(FormatError::Invalid("column count does not match the shape"));
        }
        let columns = projector.project(shape).clone();
        let is_raw = header.row_kind() == RowKind::Raw;
        let sequences = is_raw && projection.sequences;
        let processes = is_raw && projection.processes;
        let annotations = is_raw && projection.annotations;
        let mut needed = vec![BlockPart::Time];
        if is_raw {
            needed.push(BlockPart::Interval);
            needed.extend(columns.indices.iter().map(|&column| BlockPart::Column(column)));
        } else {
            let stats =
                |&column: &usize| (0..BUCKET_STATS_LEN).map(move |stat| BlockPart::Stat(column, stat));
            needed.extend(columns.indices.iter().flat_map(stats));
        }
        if sequences {
            needed.extend([BlockPart::Boot, BlockPart::Boots, BlockPart::Seq]);
        }
        if processes {
            needed.push(BlockPart::Processes);
        }
        if annotations {
            needed.push(BlockPart::Annotations);
        }
        let mut parts = Vec::with_capacity(needed.len());
        for part in needed {
            parts.extend(header.byte_range(part)?.map(|range| (part, range)));
        }
        Ok(Self { header, projection: columns, processes, annotations, sequences, parts })
    }

    fn reads_whole_block(&self) -> bool {
        self.parts.len() > MAX_PART_READS
    }

    /// Byte ranges to read. A range that ends at [`usize::MAX`] is the whole block.
    pub(crate) fn reads(&self) -> Vec<Range<usize>> {
        if self.reads_whole_block() {
            return std::iter::once(0..usize::MAX).collect();
        }
        self.parts.iter().map(|(_, range)| range.clone()).collect()
    }

    /// Bytes of the requested parts, from the bytes of [`BlockFetch::reads`] in that order.
    fn split<'b>(&self, reads: &[&'b [u8]]) -> Result<Vec<&'b [u8]>, FormatError> {
        if !self.reads_whole_block() {
            let complete = reads.len() == self.parts.len()
                && self.parts.iter().zip(reads).all(|((_, range), bytes)| range.len() == bytes.len());
            return if complete { Ok(reads.to_vec()) } else { Err(FormatError::Truncated) };
        }
        let block = reads.first().copied().unwrap_or_default();
        let part = |range: &Range<usize>| block.get(range.clone()).ok_or(FormatError::Truncated);
        self.parts.iter().map(|(_, range)| part(range)).collect()
    }

    /// Positions of the rows within a time range. Only the times are decoded.
    pub(crate) fn rows_between(
        &self,
        reads: &[&[u8]],
        (from_ms, to_ms): (i64, i64),
    ) -> Result<Range<usize>, FormatError> {
        let bytes = self.split(reads)?;
        let time = self.parts.iter().position(|(part, _)| *part == BlockPart::Time);
        let bytes = time.and_then(|index| bytes.get(index).copied()).unwrap_or_default();
        let times = self.header.decode_column(BlockPart::Time, bytes)?;
        Ok(times.partition_point(|&at| at < from_ms)..times.partition_point(|&at| at < to_ms))
    }

    /// Number of rows in the block.
    pub(crate) fn rows(&self) -> usize {
        self.header.rows()
    }

    /// Number of values per row that [`BlockFetch::decode`] decodes.
    pub(crate) fn cells_per_row(&self) -> usize {
        let is_raw = self.header.row_kind() == RowKind::Raw;
        read_bounds::cells_per_row(self.projection.indices.len(), is_raw, self.processes)
    }

    /// Decodes rows from the bytes of [`BlockFetch::reads`], in that order.
    pub(crate) fn decode(&self, reads: &[&[u8]], rows: Range<usize>) -> Result<BlockContent, FormatError> {
        let bytes = self.split(reads)?;
        let fetched: HashMap<BlockPart, &[u8]> =
            self.parts.iter().map(|(part, _)| *part).zip(bytes).collect();
        let bytes_of = |part: BlockPart| fetched.get(&part).copied().unwrap_or_default();
        let column = |part: BlockPart| {
            let values = self.header.decode_column(part, bytes_of(part))?;
            Ok(select_rows(values, &rows))
        };
        let shape = self.projection.shape.clone();
        let indices = self.projection.indices.iter();
        if self.header.row_kind() == RowKind::Buckets {
            let bucket_column = |index: usize| {
                let stats: Vec<Vec<i64>> = (0..BUCKET_STATS_LEN)
                    .map(|stat| column(BlockPart::Stat(index, stat)))
                    .collect::<Result<_, _>>()?;
                BucketColumn::decode(&stats)
            };
            let columns = indices.map(|&index| bucket_column(index)).collect::<Result<_, _>>()?;
            return Ok(BlockContent::Buckets(Buckets { shape, start_ms: column(BlockPart::Time)?, columns }));
        }
        let mut table = Table::empty(shape);
        table.at_ms = column(BlockPart::Time)?;
        table.interval_ms = column(BlockPart::Interval)?;
        table.columns = indices.map(|&index| column(BlockPart::Column(index))).collect::<Result<_, _>>()?;
        if self.sequences {
            let boots = self.header.decode_boots(bytes_of(BlockPart::Boot), bytes_of(BlockPart::Boots))?;
            table.boots = select_rows(boots, &rows);
            table.seqs = column(BlockPart::Seq)?.iter().map(|seq| seq.cast_unsigned()).collect();
        }
        if self.processes {
            let processes = self.header.decode_processes(bytes_of(BlockPart::Processes))?;
            table.processes = select_rows(processes, &rows);
        }
        if self.annotations {
            let (errors, facts) = self.header.decode_annotations(bytes_of(BlockPart::Annotations))?;
            table.errors = select_rows(errors, &rows);
            let facts = facts.into_iter().filter(|(row, _)| rows.contains(row));
            table.facts = facts.map(|(row, facts)| (row - rows.start, facts)).collect();
        }
        Ok(BlockContent::Raw(table))
    }
}

/// Items of some rows; none if the block has no items.
fn select_rows<T: Clone>(items: Vec<T>, rows: &Range<usize>) -> Vec<T> {
    let is_complete = rows.start == 0 && rows.end >= items.len();
    if is_complete { items } else { items.get(rows.clone()).unwrap_or_default().to_vec() }
}

/// Decodes the rows of a block within the bounds of a read; rows outside of the range only if the read does
/// not trim.
pub(crate) fn decode_within(
    fetch: &BlockFetch,
    reads: &[&[u8]],
    range: (i64, i64),
    budget: &mut CellBudget,
) -> Result<Result<BlockContent, FormatError>, StoreError> {
    let rows = if budget.trims() { fetch.rows_between(reads, range) } else { Ok(0..fetch.rows()) };
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(error)),
    };
    budget.consume(rows.len(), rows.len().saturating_mul(fetch.cells_per_row()))?;
    Ok(fetch.decode(reads, rows))
}
