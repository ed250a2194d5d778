//! Section with the series of a host: tables of rows, in the order of time.
//!
//! A table has the number of rows and of columns, the times and intervals of its rows as differences, and the
//! columns: index of the series, a byte of flags, presence bits if values are missing, and the values.

use crate::CapsuleError;
use crate::bytes::ByteReader;
use crate::container::{Section, SectionWriter};
use crate::document::SeriesName;
use crate::limits::{MAX_ROWS, MAX_SERIES};
use perfwatch_model::{MISSING, Shape};
use perfwatch_tsdb::{write_varint, write_zigzag};
use std::collections::HashMap;

/// Flags of a column.
#[derive(Clone, Copy)]
enum ColumnFlag {
    /// Presence bits precede the values.
    Missing = 1,
    /// Values are stored as they are, because differences of larger integers are not exact in a browser.
    Plain = 2,
}

impl ColumnFlag {
    fn is_set(self, flags: u8) -> bool {
        flags & self as u8 != 0
    }
}

/// Maximum magnitude of values that are stored as differences: sums stay exact in a double.
const MAX_EXACT: u64 = 1 << 51;

/// Rows of a part of the window.
pub(crate) struct Rows<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) at_ms: &'a [i64],
    pub(crate) interval_ms: &'a [i64],
    pub(crate) columns: &'a [Vec<i64>],
}

/// Writer of the section.
pub(crate) struct SeriesWriter {
    section: SectionWriter,
    indices: HashMap<SeriesName, usize>,
    names: Vec<SeriesName>,
    rows: usize,
    newest_ms: i64,
}

impl SeriesWriter {
    pub(crate) fn new() -> Self {
        Self {
            section: SectionWriter::new(),
            indices: HashMap::new(),
            names: Vec::new(),
            rows: 0,
            newest_ms: i64::MIN,
        }
    }

    /// Number of rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Rows × series so far.
    pub(crate) fn values(&self) -> usize {
        self.rows.saturating_mul(self.names.len())
    }

    fn series(&mut self, name: SeriesName) -> Result<usize, CapsuleError> {
        if let Some(index) = self.indices.get(&name) {
            return Ok(*index);
        }
        if self.names.len() >= MAX_SERIES {
            return Err(CapsuleError::TooLarge("series"));
        }
        self.names.push(name.clone());
        self.indices.insert(name, self.names.len() - 1);
        Ok(self.names.len() - 1)
    }

    /// Appends a table of rows. Rows that are earlier than those before are left out: several tiers overlap where
    /// rows arrived late.
    ///
    /// # Errors
    /// Returns [`CapsuleError::TooLarge`] above a limit.
    pub(crate) fn add(&mut self, rows: &Rows<'_>) -> Result<(), CapsuleError> {
        let skipped = rows.at_ms.partition_point(|at_ms| *at_ms < self.newest_ms);
        let (at_ms, interval_ms) = (&rows.at_ms[skipped..], &rows.interval_ms[skipped..]);
        let Some(newest_ms) = at_ms.last() else { return Ok(()) };
        self.newest_ms = *newest_ms;
        self.rows += at_ms.len();
        if self.rows > MAX_ROWS {
            return Err(CapsuleError::TooLarge("rows"));
        }
        let mut out = Vec::new();
        write_varint(&mut out, at_ms.len() as u64);
        write_varint(&mut out, rows.columns.len() as u64);
        for column in [at_ms, interval_ms] {
            write_differences(&mut out, column.iter().copied());
        }
        for (column, values) in rows.shape.columns().iter().zip(rows.columns) {
            let name = (column.metric.to_string(), column.instance.to_string(), column.decimals);
            let index = self.series(name)?;
            write_varint(&mut out, index as u64);
            write_values(&mut out, values.get(skipped..).unwrap_or_default(), at_ms.len());
        }
        self.section.write(&out)
    }

    /// Ends the section; also returns the names of the series.
    pub(crate) fn finish(self) -> Result<(Section, Vec<SeriesName>), CapsuleError> {
        Ok((self.section.finish()?, self.names))
    }
}

fn write_differences(out: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
    let mut previous = 0_i64;
    for value in values {
        write_zigzag(out, value.wrapping_sub(previous));
        previous = value;
    }
}

/// Writes the values of a column with `rows` rows; absent values are missing.
fn write_values(out: &mut Vec<u8>, values: &[i64], rows: usize) {
    let value = |row: usize| values.get(row).copied().filter(|value| *value != MISSING);
    let present = || (0..rows).filter_map(value);
    let has_missing = present().count() < rows;
    let is_plain = present().any(|value| value.unsigned_abs() > MAX_EXACT);
    let flag = |is_set: bool, flag: ColumnFlag| if is_set { flag as u8 } else { 0 };
    out.push(flag(has_missing, ColumnFlag::Missing) | flag(is_plain, ColumnFlag::Plain));
    if has_missing {
        let mut bits = vec![0_u8; rows.div_ceil(8)];
        for row in (0..rows).filter(|row| value(*row).is_some()) {
            bits[row / 8] |= 1 << (row % 8);
        }
        out.extend_from_slice(&bits);
    }
    if is_plain {
        present().for_each(|value| write_zigzag(out, value));
    } else {
        write_differences(out, present());
    }
}

/// Decoded series of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSeries {
    /// Time of each row, Unix milliseconds.
    pub at_ms: Vec<i64>,
    /// Time span of each row in milliseconds.
    pub interval_ms: Vec<i64>,
    /// Scaled integers of each series, or [`MISSING`]; empty for a series without rows.
    pub columns: Vec<Vec<i64>>,
}

fn read_differences(reader: &mut ByteReader<'_>, count: usize) -> Result<Vec<i64>, CapsuleError> {
    let (mut values, mut previous) = (Vec::new(), 0_i64);
    for _ in 0..count {
        previous = previous.wrapping_add(reader.zigzag()?);
        values.push(previous);
    }
    Ok(values)
}

/// Decodes the section of a host with `rows` rows and `series` series.
///
/// # Errors
/// Returns the reason for which the section is invalid.
pub fn decode_series(content: &[u8], rows: usize, series: usize) -> Result<HostSeries, CapsuleError> {
    let mut reader = ByteReader::new(content);
    let mut decoded = HostSeries { columns: vec![Vec::new(); series], ..HostSeries::default() };
    while !reader.is_empty() {
        let start = decoded.at_ms.len();
        let count = reader.count(rows - start)?;
        let columns = reader.count(series)?;
        decoded.at_ms.extend(read_differences(&mut reader, count)?);
        if !decoded.at_ms[start.saturating_sub(1)..].is_sorted() {
            return Err(CapsuleError::Invalid("order of rows"));
        }
        decoded.interval_ms.extend(read_differences(&mut reader, count)?);
        for _ in 0..columns {
            let index = reader.count(series.saturating_sub(1))?;
            let values = read_values(&mut reader, count)?;
            let column = &mut decoded.columns[index];
            if column.len() > start {
                return Err(CapsuleError::Invalid("series occurs twice"));
            }
            column.resize(start, MISSING);
            column.extend(values);
        }
    }
    if decoded.at_ms.len() != rows {
        return Err(CapsuleError::Truncated);
    }
    for column in decoded.columns.iter_mut().filter(|column| !column.is_empty()) {
        column.resize(rows, MISSING);
    }
    Ok(decoded)
}

fn read_values(reader: &mut ByteReader<'_>, rows: usize) -> Result<Vec<i64>, CapsuleError> {
    let flags = reader.byte()?;
    if flags & !(ColumnFlag::Missing as u8 | ColumnFlag::Plain as u8) != 0 {
        return Err(CapsuleError::Invalid("flags of a column"));
    }
    let has_missing = ColumnFlag::Missing.is_set(flags);
    let bits = if has_missing { Some(reader.bytes(rows.div_ceil(8))?) } else { None };
    let is_plain = ColumnFlag::Plain.is_set(flags);
    let is_present = |row: usize| bits.is_none_or(|bits| bits[row / 8] & (1 << (row % 8)) != 0);
    let (mut values, mut previous) = (Vec::new(), 0_i64);
    for row in 0..rows {
        if !is_present(row) {
            values.push(MISSING);
            continue;
        }
        let value = reader.zigzag()?;
        previous = if is_plain { value } else { previous.wrapping_add(value) };
        values.push(previous);
    }
    Ok(values)
}
