//! From the directory of a block to the parts that a reader wants, and from those to rows: the
//! same for both databases, which only fetch bytes.

use crate::store::BlockContent;
use perfwatch_model::Shape;
use perfwatch_tsdb::{
    BlockHeader, BlockPart, BucketColumn, Buckets, ColumnProjection, FormatError, Projection, Projector,
    RowKind, BUCKET_STATS_LEN, Table,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// What to fetch of one block.
pub(crate) struct BlockFetch {
    header: BlockHeader,
    projection: ColumnProjection,
    processes: bool,
    annotations: bool,
    sequences: bool,
    /// Where each part stands.
    pub(crate) parts: Vec<(BlockPart, Range<usize>)>,
}

impl BlockFetch {
    /// Reads the directory and works out what is wanted.
    pub(crate) fn new(
        head: &[u8],
        shape: Option<&Arc<Shape>>,
        wanted: &Projection,
        picker: &mut Projector<'_>,
    ) -> Result<Self, FormatError> {
        let head = BlockHeader::parse(head)?;
        let shape = shape.ok_or(FormatError::Invalid("unknown shape"))?;
        if shape.id() != head.shape() || shape.columns().len() != head.columns() {
            return Err(FormatError::Invalid("column count does not match the shape"));
        }
        let picked = picker.project(shape).clone();
        let of_ticks = head.row_kind() == RowKind::Raw;
        let (ticks, processes, notes) =
            (of_ticks && wanted.sequences, of_ticks && wanted.processes, of_ticks && wanted.annotations);
        let mut asked = vec![BlockPart::Time];
        if of_ticks {
            asked.push(BlockPart::Interval);
            asked.extend(picked.indices.iter().map(|&at| BlockPart::Column(at)));
        } else {
            asked.extend(
                picked.indices.iter().flat_map(|&at| (0..BUCKET_STATS_LEN).map(move |f| BlockPart::Stat(at, f))),
            );
        }
        if ticks {
            asked.extend([BlockPart::Boot, BlockPart::Boots, BlockPart::Seq]);
        }
        if processes {
            asked.push(BlockPart::Processes);
        }
        if notes {
            asked.push(BlockPart::Annotations);
        }
        let mut parts = Vec::with_capacity(asked.len());
        for part in asked {
            parts.extend(head.byte_range(part)?.map(|range| (part, range)));
        }
        Ok(Self { header: head, projection: picked, processes, annotations: notes, sequences: ticks, parts })
    }

    /// The rows, from the parts' bytes in the order of [`Fetch::parts`].
    pub(crate) fn decode(&self, bytes: &[&[u8]]) -> Result<BlockContent, FormatError> {
        let fetched: HashMap<BlockPart, &[u8]> =
            self.parts.iter().map(|(part, _)| *part).zip(bytes.iter().copied()).collect();
        let part = |part: BlockPart| fetched.get(&part).copied().unwrap_or_default();
        let column = |which: BlockPart| self.header.decode_column(which, part(which));
        let shape = self.projection.shape.clone();
        if self.header.row_kind() == RowKind::Buckets {
            let figures = |at: usize| {
                let figures: Vec<Vec<i64>> = (0..BUCKET_STATS_LEN)
                    .map(|figure| column(BlockPart::Stat(at, figure)))
                    .collect::<Result<_, _>>()?;
                BucketColumn::decode(&figures)
            };
            let columns = self.projection.indices.iter().map(|&at| figures(at)).collect::<Result<_, _>>()?;
            return Ok(BlockContent::Buckets(Buckets { shape, start_ms: column(BlockPart::Time)?, columns }));
        }
        let mut table = Table::empty(shape);
        table.at_ms = column(BlockPart::Time)?;
        table.interval_ms = column(BlockPart::Interval)?;
        table.columns = self
            .projection
            .indices
            .iter()
            .map(|&at| column(BlockPart::Column(at)))
            .collect::<Result<_, _>>()?;
        if self.sequences {
            table.boots = self.header.decode_boots(part(BlockPart::Boot), part(BlockPart::Boots))?;
            table.seqs = column(BlockPart::Seq)?.iter().map(|seq| seq.cast_unsigned()).collect();
        }
        if self.processes {
            table.processes = self.header.decode_processes(part(BlockPart::Processes))?;
        }
        if self.annotations {
            (table.errors, table.facts) = self.header.decode_annotations(part(BlockPart::Annotations))?;
        }
        Ok(BlockContent::Raw(table))
    }
}
