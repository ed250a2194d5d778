//! From the directory of a block to the parts that a reader wants, and from those to rows: the
//! same for both databases, which only fetch bytes.

use crate::store::Content;
use perfwatch_model::Shape;
use perfwatch_series::{
    BucketColumn, Buckets, FIGURES, FormatError, Head, Part, Picked, Picker, Rows, Table, Wanted,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// What to fetch of one block.
pub(crate) struct Fetch {
    head: Head,
    picked: Picked,
    processes: bool,
    notes: bool,
    ticks: bool,
    /// Where each part stands.
    pub(crate) parts: Vec<(Part, Range<usize>)>,
}

impl Fetch {
    /// Reads the directory and works out what is wanted.
    pub(crate) fn new(
        head: &[u8],
        shape: Option<&Arc<Shape>>,
        wanted: &Wanted,
        picker: &mut Picker<'_>,
    ) -> Result<Self, FormatError> {
        let head = Head::parse(head)?;
        let shape = shape.ok_or(FormatError::Invalid("nobody knows what its columns are"))?;
        if shape.id() != head.shape() || shape.columns().len() != head.columns() {
            return Err(FormatError::Invalid("its columns are not those of its shape"));
        }
        let picked = picker.pick(shape).clone();
        let of_ticks = head.kind() == Rows::Ticks;
        let (ticks, processes, notes) =
            (of_ticks && wanted.ticks, of_ticks && wanted.processes, of_ticks && wanted.notes);
        let mut asked = vec![Part::Time];
        if of_ticks {
            asked.push(Part::Interval);
            asked.extend(picked.places.iter().map(|&at| Part::Column(at)));
        } else {
            asked.extend(picked.places.iter().flat_map(|&at| (0..FIGURES).map(move |f| Part::Figure(at, f))));
        }
        if ticks {
            asked.extend([Part::Boot, Part::Boots, Part::Seq]);
        }
        if processes {
            asked.push(Part::Processes);
        }
        if notes {
            asked.push(Part::Notes);
        }
        let mut parts = Vec::with_capacity(asked.len());
        for part in asked {
            parts.extend(head.range(part)?.map(|range| (part, range)));
        }
        Ok(Self { head, picked, processes, notes, ticks, parts })
    }

    /// The rows, from the parts' bytes in the order of [`Fetch::parts`].
    pub(crate) fn content(&self, bytes: &[&[u8]]) -> Result<Content, FormatError> {
        let fetched: HashMap<Part, &[u8]> =
            self.parts.iter().map(|(part, _)| *part).zip(bytes.iter().copied()).collect();
        let part = |part: Part| fetched.get(&part).copied().unwrap_or_default();
        let column = |which: Part| self.head.column(which, part(which));
        let shape = self.picked.shape.clone();
        if self.head.kind() == Rows::Buckets {
            let figures = |at: usize| {
                let figures: Vec<Vec<i64>> =
                    (0..FIGURES).map(|figure| column(Part::Figure(at, figure))).collect::<Result<_, _>>()?;
                BucketColumn::decoded(&figures)
            };
            let columns = self.picked.places.iter().map(|&at| figures(at)).collect::<Result<_, _>>()?;
            return Ok(Content::Buckets(Buckets { shape, start_ms: column(Part::Time)?, columns }));
        }
        let mut table = Table::empty(shape);
        table.at_ms = column(Part::Time)?;
        table.interval_ms = column(Part::Interval)?;
        table.columns =
            self.picked.places.iter().map(|&at| column(Part::Column(at))).collect::<Result<_, _>>()?;
        if self.ticks {
            table.boots = self.head.boots(part(Part::Boot), part(Part::Boots))?;
            table.seqs = column(Part::Seq)?.iter().map(|seq| seq.cast_unsigned()).collect();
        }
        if self.processes {
            table.processes = self.head.processes(part(Part::Processes))?;
        }
        if self.notes {
            (table.errors, table.facts) = self.head.notes(part(Part::Notes))?;
        }
        Ok(Content::Ticks(table))
    }
}
