//! The parts of a block that are no numbers: the processes of each row, collectors' errors,
//! facts. A process is named once and then is rows of numbers, coded as columns are.

use crate::bytes::{ByteReader, FormatError, Result, write_bytes, write_varint, write_zigzag};
use crate::column::{self, CompressionLevel, run_length};
use crate::table::MAX_ROWS;
use perfwatch_model::wire;
use perfwatch_model::{CollectorError, HostFacts, MISSING, ProcessRow, limits};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Process rows of a block: [`limits::PROCESSES`] in each of a few thousand rows.
const MAX_ENTRIES: usize = 1 << 20;
/// Names and command lines of a block, unpacked.
const MAX_NAMES_BYTES: usize = 64 << 20;
const ZSTD_LEVEL: i32 = 6;

/// What stands in which rows, named once: things in the order in which they first came, with
/// their rows.
struct Deduplicated<K, V> {
    items: Vec<(K, Vec<(usize, V)>)>,
}

impl<K: Hash + Eq + Clone, V> Deduplicated<K, V> {
    fn from_rows(rows: impl Iterator<Item = (usize, K, V)>) -> Self {
        let mut index: HashMap<K, usize> = HashMap::new();
        let mut items: Vec<(K, Vec<(usize, V)>)> = Vec::new();
        for (row, key, value) in rows {
            let at = *index.entry(key.clone()).or_insert_with(|| {
                items.push((key, Vec::new()));
                items.len() - 1
            });
            // One that stands twice in a row is one.
            if items[at].1.last().is_none_or(|(last, _)| *last != row) {
                items[at].1.push((row, value));
            }
        }
        Self { items }
    }
}

fn put_rows<V>(out: &mut Vec<u8>, rows: usize, thing: &[(usize, V)]) {
    let mut there = thing.iter().map(|(row, _)| *row).peekable();
    run_length::put_presence(out, (0..rows).map(|row| there.next_if_eq(&row).is_some()));
}

/// The parts of a process that stay.
#[derive(Hash, PartialEq, Eq, Clone)]
struct ProcessIdentity<'a> {
    pid: u32,
    started_ms: i64,
    name: &'a str,
    user: &'a str,
    command: &'a str,
}

/// What changes about a process, each a column over all entries.
const PROCESS_COLUMNS: usize = 7;

fn fields(row: &ProcessRow) -> [i64; PROCESS_COLUMNS] {
    let wide = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let maybe = |value: Option<u64>| value.map_or(MISSING, wide);
    [
        i64::from(row.cpu_tenths),
        wide(row.memory_bytes),
        i64::from(row.threads),
        maybe(row.open_files.map(u64::from)),
        maybe(row.read_bytes),
        maybe(row.write_bytes),
        i64::from(u32::from(row.state)),
    ]
}

/// Codes the processes of all rows.
pub(crate) fn write_processes(processes: &[Vec<ProcessRow>], effort: CompressionLevel) -> Vec<u8> {
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
    let grouped = Deduplicated::from_rows(entries);
    let mut out = Vec::new();
    if grouped.items.is_empty() {
        return out;
    }
    let mut names = Vec::new();
    for (identity, rows) in &grouped.items {
        write_varint(&mut names, u64::from(identity.pid));
        write_zigzag(&mut names, identity.started_ms);
        for text in [identity.name, identity.user, identity.command] {
            write_bytes(&mut names, text.as_bytes());
        }
        put_rows(&mut names, processes.len(), rows);
    }
    write_varint(&mut out, grouped.items.len() as u64);
    write_compressed(&mut out, &names);
    for field in 0..PROCESS_COLUMNS {
        let values: Vec<i64> = grouped
            .items
            .iter()
            .flat_map(|(_, rows)| rows.iter().map(|(_, row)| fields(row)[field]))
            .collect();
        column::write_column(&mut out, &values, effort);
    }
    out
}

fn write_compressed(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    // Compressing into memory has no way to fail.
    write_bytes(out, &zstd::bulk::compress(bytes, ZSTD_LEVEL).unwrap_or_default());
}

fn read_compressed(reader: &mut ByteReader<'_>, most: usize) -> Result<Vec<u8>> {
    let length = reader.read_len(most)?;
    let bytes = zstd::bulk::decompress(reader.bytes()?, length)
        .map_err(|_| FormatError::Invalid("names do not decompress"))?;
    if bytes.len() == length { Ok(bytes) } else { Err(FormatError::Invalid("names have another length")) }
}

/// Reads what [`put_processes`] wrote, for `rows` rows.
///
/// # Errors
/// Anything that it does not write.
pub(crate) fn read_processes(bytes: &[u8], rows: usize) -> Result<Vec<Vec<ProcessRow>>> {
    let mut all = vec![Vec::new(); rows];
    if bytes.is_empty() {
        return Ok(all);
    }
    let mut reader = ByteReader(bytes);
    let things = reader.read_len(MAX_ENTRIES)?;
    let names = read_compressed(&mut reader, MAX_NAMES_BYTES)?;
    let mut names = ByteReader(&names);
    let mut identities = Vec::new();
    let mut entries = 0usize;
    for _ in 0..things {
        let pid =
            u32::try_from(names.uint()?).map_err(|_| FormatError::Invalid("a process id is too large"))?;
        let started_ms = names.int()?;
        let (name, user, command) = (names.text()?, names.text()?, names.text()?);
        let stretches = run_length::read_presence(&mut names, rows)?;
        entries += stretches.iter().map(|(from, to)| to - from).sum::<usize>();
        if entries > MAX_ENTRIES {
            return Err(FormatError::Invalid("too many process rows"));
        }
        let texts = [name, user, command].map(Arc::<str>::from);
        identities.push((pid, started_ms, texts, stretches));
    }
    let columns: Vec<Vec<i64>> =
        (0..PROCESS_COLUMNS).map(|_| column::read_column(&mut reader, entries)).collect::<Result<_>>()?;
    let mut entry = 0;
    for (pid, started_ms, [name, user, command], stretches) in &identities {
        for row in stretches.iter().flat_map(|&(from, to)| from..to) {
            let (name, user, command) = (name.clone(), user.clone(), command.clone());
            let identity = ProcessRow {
                pid: *pid,
                started_ms: *started_ms,
                name,
                user,
                command,
                ..ProcessRow::default()
            };
            all[row].push(process_row(identity, &columns, entry));
            entry += 1;
        }
    }
    for row in &mut all {
        row.sort_by_key(|process| (std::cmp::Reverse(process.cpu_tenths), process.pid));
    }
    Ok(all)
}

fn process_row(identity: ProcessRow, columns: &[Vec<i64>], entry: usize) -> ProcessRow {
    let value = |field: usize| columns[field][entry];
    let small = |field: usize| u32::try_from(value(field)).unwrap_or_default();
    let maybe = |field: usize| u64::try_from(value(field)).ok();
    ProcessRow {
        state: char::from_u32(small(6)).unwrap_or('?'),
        cpu_tenths: small(0),
        memory_bytes: maybe(1).unwrap_or_default(),
        threads: small(2),
        open_files: maybe(3).and_then(|handles| u32::try_from(handles).ok()),
        read_bytes: maybe(4),
        write_bytes: maybe(5),
        ..identity
    }
}

/// Codes errors, each text once with its rows, and facts at their rows.
pub(crate) fn write_annotations(
    errors: &[Vec<CollectorError>],
    facts: &[(usize, Arc<HostFacts>)],
) -> Vec<u8> {
    let told = errors.iter().enumerate().flat_map(|(row, list)| list.iter().map(move |error| (row, error)));
    let grouped =
        Deduplicated::from_rows(told.map(|(row, error)| (row, (&*error.collector, &*error.message), ())));
    if grouped.items.is_empty() && facts.is_empty() {
        return Vec::new();
    }
    let mut plain = Vec::new();
    write_varint(&mut plain, grouped.items.len() as u64);
    for ((collector, message), rows) in &grouped.items {
        write_bytes(&mut plain, collector.as_bytes());
        write_bytes(&mut plain, message.as_bytes());
        put_rows(&mut plain, errors.len(), rows);
    }
    write_varint(&mut plain, facts.len() as u64);
    for (row, facts) in facts {
        write_varint(&mut plain, *row as u64);
        write_bytes(&mut plain, &wire::encode_facts(facts));
    }
    let mut out = Vec::new();
    write_compressed(&mut out, &plain);
    out
}

pub(crate) type Annotations = (Vec<Vec<CollectorError>>, Vec<(usize, Arc<HostFacts>)>);

/// Reads what [`put_notes`] wrote, for `rows` rows.
///
/// # Errors
/// Anything that it does not write.
pub(crate) fn read_annotations(bytes: &[u8], rows: usize) -> Result<Annotations> {
    let (mut errors, mut facts) = (vec![Vec::new(); rows], Vec::new());
    if bytes.is_empty() {
        return Ok((errors, facts));
    }
    let plain = read_compressed(&mut ByteReader(bytes), MAX_NAMES_BYTES)?;
    let mut reader = ByteReader(&plain);
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
        let decoded =
            wire::decode_facts(reader.bytes()?).map_err(|_| FormatError::Invalid("facts do not decode"))?;
        facts.push((row, Arc::new(decoded)));
    }
    Ok((errors, facts))
}
