//! Non-numeric block parts: top processes, collector errors, host facts. The identity of a process
//! is stored once; its changing values are encoded as columns.

use crate::bytes::{ByteReader, FormatError, Result, write_bytes, write_varint, write_zigzag};
use crate::column::{self, CompressionLevel, run_length};
use crate::process_values::{PROCESS_ROW_LEN, process_values, with_values};
use crate::table::MAX_ROWS;
use perfwatch_model::wire;
use perfwatch_model::{CollectorError, HostFacts, MISSING, ProcessRow, compression, limits};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Maximum number of process rows of a block: [`limits::MAX_PROCESSES`] in a few thousand rows.
const MAX_ENTRIES: usize = 1 << 20;
/// Maximum uncompressed size of the names and command lines of a block.
const MAX_NAMES_BYTES: usize = 64 << 20;
const ZSTD_LEVEL: i32 = 6;

/// Distinct items in the order of their first occurrence, each with the rows that contain it.
struct Deduplicated<K, V> {
    items: Vec<(K, Vec<(usize, V)>)>,
}

impl<K: Hash + Eq + Clone, V> Deduplicated<K, V> {
    fn from_rows(rows: impl Iterator<Item = (usize, K, V)>) -> Self {
        // The keys are texts of each row: foldhash takes less time than the SipHash of the standard library.
        let mut index: HashMap<K, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut items: Vec<(K, Vec<(usize, V)>)> = Vec::new();
        for (row, key, value) in rows {
            let item = *index.entry(key.clone()).or_insert_with(|| {
                items.push((key, Vec::new()));
                items.len() - 1
            });
            // Duplicates within a row are stored once.
            if items[item].1.last().is_none_or(|(last, _)| *last != row) {
                items[item].1.push((row, value));
            }
        }
        Self { items }
    }
}

/// Appends the presence runs of an item over all rows.
fn write_item_presence<V>(out: &mut Vec<u8>, rows: usize, item: &[(usize, V)]) {
    let mut present = item.iter().map(|(row, _)| *row).peekable();
    run_length::write_presence(out, (0..rows).map(|row| present.next_if_eq(&row).is_some()));
}

/// Parts of a process that do not change during its lifetime.
#[derive(Hash, PartialEq, Eq, Clone)]
struct ProcessIdentity<'a> {
    pid: u32,
    started_ms: i64,
    name: &'a str,
    user: &'a str,
    command: &'a str,
}

/// Encodes the processes of all rows.
pub(crate) fn write_processes(processes: &[Vec<ProcessRow>], level: CompressionLevel) -> Vec<u8> {
    let entries = processes.iter().enumerate().flat_map(|(row, list)| {
        list.iter().map(move |process| {
            let identity = ProcessIdentity {
                pid: process.pid,
                started_ms: process.started_ms,
                name: &process.name,
                user: &process.user,
                command: &process.command,
            };
            (row, identity, process)
        })
    });
    let deduplicated = Deduplicated::from_rows(entries);
    let mut out = Vec::new();
    if deduplicated.items.is_empty() {
        return out;
    }
    let mut names = Vec::new();
    for (identity, rows) in &deduplicated.items {
        write_varint(&mut names, u64::from(identity.pid));
        write_zigzag(&mut names, identity.started_ms);
        for text in [identity.name, identity.user, identity.command] {
            write_bytes(&mut names, text.as_bytes());
        }
        write_item_presence(&mut names, processes.len(), rows);
    }
    write_varint(&mut out, deduplicated.items.len() as u64);
    write_compressed(&mut out, &names);
    for field in 0..PROCESS_ROW_LEN {
        let values: Vec<i64> = deduplicated
            .items
            .iter()
            .flat_map(|(_, rows)| rows.iter().map(|(_, row)| process_values(row)[field]))
            .collect();
        column::write_column(&mut out, &values, level);
    }
    let parents: Vec<i64> = deduplicated
        .items
        .iter()
        .flat_map(|(_, rows)| rows.iter().map(|(_, row)| row.parent_pid.map_or(MISSING, i64::from)))
        .collect();
    // Readers of earlier versions ignore what follows the columns that they know.
    if parents.iter().any(|&parent| parent != MISSING) {
        column::write_column(&mut out, &parents, level);
    }
    out
}

fn write_compressed(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    // Compressing into memory cannot fail.
    write_bytes(out, &zstd::bulk::compress(bytes, ZSTD_LEVEL).unwrap_or_default());
}

fn read_compressed(reader: &mut ByteReader<'_>, max_bytes: usize) -> Result<Vec<u8>> {
    let length = reader.read_len(max_bytes)?;
    let bytes = compression::decompress(reader.bytes()?, length)
        .map_err(|_| FormatError::Invalid("section does not decompress"))?;
    if bytes.len() == length {
        Ok(bytes)
    } else {
        Err(FormatError::Invalid("section has an unexpected length"))
    }
}

/// Decodes the processes of each row, as written by [`write_processes`]; largest CPU usage first.
///
/// # Errors
/// Returns a [`FormatError`] if the bytes do not decode or exceed a limit.
pub(crate) fn read_processes(bytes: &[u8], rows: usize) -> Result<Vec<Vec<ProcessRow>>> {
    let mut processes = vec![Vec::new(); rows];
    if bytes.is_empty() {
        return Ok(processes);
    }
    let mut reader = ByteReader(bytes);
    let process_count = reader.read_len(MAX_ENTRIES)?;
    let names = read_compressed(&mut reader, MAX_NAMES_BYTES)?;
    let mut names = ByteReader(&names);
    let mut identities = Vec::new();
    let mut entries = 0usize;
    for _ in 0..process_count {
        let pid =
            u32::try_from(names.uint()?).map_err(|_| FormatError::Invalid("process id out of range"))?;
        let started_ms = names.int()?;
        let (name, user, command) = (names.text()?, names.text()?, names.text()?);
        let ranges = run_length::read_presence(&mut names, rows)?;
        entries += ranges.iter().map(|(from, to)| to - from).sum::<usize>();
        if entries > MAX_ENTRIES {
            return Err(FormatError::Invalid("too many process rows"));
        }
        let [name, user, command] = [name, user, command].map(Arc::<str>::from);
        let identity = ProcessRow { pid, started_ms, name, user, command, ..ProcessRow::default() };
        identities.push((identity, ranges));
    }
    let columns: Vec<Vec<i64>> =
        (0..PROCESS_ROW_LEN).map(|_| column::read_column(&mut reader, entries)).collect::<Result<_>>()?;
    // Sections of earlier versions end here, and so do those of agents that do not report parents.
    let parents = match reader.0.is_empty() {
        true => vec![MISSING; entries],
        false => column::read_column(&mut reader, entries)?,
    };
    let mut entry = 0;
    for (identity, ranges) in &identities {
        for row in ranges.iter().flat_map(|&(from, to)| from..to) {
            let parent_pid = u32::try_from(parents[entry]).ok();
            let identity = ProcessRow { parent_pid, ..identity.clone() };
            processes[row].push(with_values(identity, std::array::from_fn(|field| columns[field][entry])));
            entry += 1;
        }
    }
    for row in &mut processes {
        row.sort_by_key(|process| (std::cmp::Reverse(process.cpu_tenths), process.pid));
    }
    Ok(processes)
}

/// Encodes collector errors (each distinct text once, with its rows) and host facts.
pub(crate) fn write_annotations(
    errors: &[Vec<CollectorError>],
    facts: &[(usize, Arc<HostFacts>)],
) -> Vec<u8> {
    let entries = errors.iter().enumerate().flat_map(|(row, list)| {
        list.iter().map(move |error| (row, (&*error.collector, &*error.message), ()))
    });
    let deduplicated = Deduplicated::from_rows(entries);
    if deduplicated.items.is_empty() && facts.is_empty() {
        return Vec::new();
    }
    let mut uncompressed = Vec::new();
    write_varint(&mut uncompressed, deduplicated.items.len() as u64);
    for ((collector, message), rows) in &deduplicated.items {
        write_bytes(&mut uncompressed, collector.as_bytes());
        write_bytes(&mut uncompressed, message.as_bytes());
        write_item_presence(&mut uncompressed, errors.len(), rows);
    }
    write_varint(&mut uncompressed, facts.len() as u64);
    for (row, facts) in facts {
        write_varint(&mut uncompressed, *row as u64);
        write_bytes(&mut uncompressed, &wire::encode_facts(facts));
    }
    let mut out = Vec::new();
    write_compressed(&mut out, &uncompressed);
    out
}

/// Collector errors of each row, and host facts with the row at which they changed.
pub(crate) type Annotations = (Vec<Vec<CollectorError>>, Vec<(usize, Arc<HostFacts>)>);

/// Decodes the errors of each row and the facts, as written by [`write_annotations`].
///
/// # Errors
/// Returns a [`FormatError`] if the bytes do not decode or exceed a limit.
pub(crate) fn read_annotations(bytes: &[u8], rows: usize) -> Result<Annotations> {
    let (mut errors, mut facts) = (vec![Vec::new(); rows], Vec::new());
    if bytes.is_empty() {
        return Ok((errors, facts));
    }
    let uncompressed = read_compressed(&mut ByteReader(bytes), MAX_NAMES_BYTES)?;
    let mut reader = ByteReader(&uncompressed);
    for _ in 0..reader.read_len(MAX_ENTRIES)? {
        let (collector, message) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        for row in run_length::read_presence(&mut reader, rows)?.into_iter().flat_map(|(from, to)| from..to) {
            if errors[row].len() < limits::MAX_COLLECTOR_ERRORS {
                errors[row].push(CollectorError { collector: collector.clone(), message: message.clone() });
            }
        }
    }
    for _ in 0..reader.read_len(MAX_ROWS)? {
        let row = reader.read_len(rows.saturating_sub(1))?;
        let decoded = wire::decode_facts(reader.bytes()?)
            .map_err(|_| FormatError::Invalid("host facts do not decode"))?;
        facts.push((row, Arc::new(decoded)));
    }
    Ok((errors, facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: u32, parent_pid: Option<u32>) -> ProcessRow {
        ProcessRow { pid, parent_pid, state: 'S', ..ProcessRow::default() }
    }

    #[test]
    fn parents_are_an_optional_last_column() {
        // Process 2 gets another parent; the parent of process 3 is unknown.
        let rows = [vec![row(2, Some(1)), row(3, None)], vec![row(2, Some(7)), row(4, Some(2))]];
        let unknown = |list: Vec<ProcessRow>| -> Vec<ProcessRow> {
            list.iter().map(|process| row(process.pid, None)).collect()
        };
        let without = rows.clone().map(unknown);
        let level = CompressionLevel::Best;
        let (bytes, earlier) = (write_processes(&rows, level), write_processes(&without, level));
        assert_eq!(read_processes(&bytes, 2).unwrap(), rows);
        // Without parents, the section is that of earlier versions; with them, it starts with it.
        assert_eq!(read_processes(&earlier, 2).unwrap(), without);
        assert!(bytes.starts_with(&earlier) && bytes.len() > earlier.len());
        assert!(read_processes(&bytes[..bytes.len() - 1], 2).is_err());
    }
}
