//! Section with the processes of each row of a host.
//!
//! A row has its time and its processes. Texts and processes are numbered in the order of their first use;
//! the first use of a number contains the text or the properties that do not change.

use crate::CapsuleError;
use crate::bytes::{ByteReader, write_text};
use crate::container::{Section, SectionWriter};
use crate::limits::{MAX_PROCESS_ROWS, MAX_PROCESSES, MAX_ROWS, MAX_TEXT_BYTES};
use perfwatch_model::ProcessRow;
use perfwatch_tsdb::{write_varint, write_zigzag};
use std::collections::HashMap;
use std::sync::Arc;

/// Maximum of integers, which are exact in a double.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Properties of a process that do not change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ProcessKey {
    pid: u32,
    parent_pid: Option<u32>,
    started_ms: i64,
    name: Arc<str>,
    user: Arc<str>,
    command: Arc<str>,
}

/// Writer of the section.
pub(crate) struct ProcessWriter {
    section: SectionWriter,
    processes: HashMap<ProcessKey, usize>,
    texts: HashMap<Arc<str>, usize>,
    previous_ms: i64,
    /// Number of processes of all rows.
    pub(crate) rows: usize,
}

/// Optional integer: 0 for none, otherwise one more.
fn write_optional(out: &mut Vec<u8>, value: Option<u64>) {
    write_varint(out, value.map_or(0, |value| value.min(MAX_INTEGER) + 1));
}

impl ProcessWriter {
    pub(crate) fn new() -> Self {
        let (processes, texts) = (HashMap::new(), HashMap::new());
        Self { section: SectionWriter::new(), processes, texts, previous_ms: 0, rows: 0 }
    }

    /// Appends the processes of a row.
    ///
    /// # Errors
    /// Returns [`CapsuleError::TooLarge`] above a limit.
    pub(crate) fn add(&mut self, at_ms: i64, rows: &[ProcessRow]) -> Result<(), CapsuleError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.rows += rows.len();
        if self.rows > MAX_PROCESS_ROWS {
            return Err(CapsuleError::TooLarge("processes"));
        }
        let mut out = Vec::new();
        write_zigzag(&mut out, at_ms.wrapping_sub(self.previous_ms));
        self.previous_ms = at_ms;
        write_varint(&mut out, rows.len() as u64);
        for row in rows {
            self.write_process(&mut out, row)?;
            write_varint(&mut out, u64::from(u32::from(row.state)));
            write_varint(&mut out, u64::from(row.cpu_tenths));
            write_varint(&mut out, row.memory_bytes.min(MAX_INTEGER));
            write_varint(&mut out, u64::from(row.threads));
            write_optional(&mut out, row.open_files.map(u64::from));
            write_optional(&mut out, row.read_bytes);
            write_optional(&mut out, row.write_bytes);
        }
        self.section.write(&out)
    }

    fn write_process(&mut self, out: &mut Vec<u8>, row: &ProcessRow) -> Result<(), CapsuleError> {
        let (name, user, command) = (row.name.clone(), row.user.clone(), row.command.clone());
        let ProcessRow { pid, parent_pid, started_ms, .. } = *row;
        let key = ProcessKey { pid, parent_pid, started_ms, name, user, command };
        if let Some(index) = self.processes.get(&key) {
            write_varint(out, *index as u64);
            return Ok(());
        }
        let index = self.processes.len();
        if index >= MAX_PROCESSES {
            return Err(CapsuleError::TooLarge("processes"));
        }
        write_varint(out, index as u64);
        write_varint(out, u64::from(pid));
        write_optional(out, parent_pid.map(u64::from));
        write_zigzag(out, started_ms);
        for text in [&key.name, &key.user, &key.command] {
            self.write_text(out, text);
        }
        self.processes.insert(key, index);
        Ok(())
    }

    fn write_text(&mut self, out: &mut Vec<u8>, text: &Arc<str>) {
        if let Some(index) = self.texts.get(text) {
            write_varint(out, *index as u64);
            return;
        }
        write_varint(out, self.texts.len() as u64);
        let end = text.floor_char_boundary(MAX_TEXT_BYTES);
        write_text(out, &text[..end]);
        self.texts.insert(text.clone(), self.texts.len());
    }

    pub(crate) fn finish(self) -> Result<Section, CapsuleError> {
        self.section.finish()
    }
}

/// Process of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSample {
    /// Time of the row, Unix milliseconds.
    pub at_ms: i64,
    /// Process with its values.
    pub process: ProcessRow,
}

/// Processes of all rows of a host, in the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessTable {
    /// Processes of all rows, one after the other.
    pub samples: Vec<ProcessSample>,
}

/// Decodes the section of a host with `rows` processes in all rows.
///
/// # Errors
/// Returns the reason for which the section is invalid.
pub fn decode_processes(content: &[u8], rows: usize) -> Result<ProcessTable, CapsuleError> {
    let mut reader = ByteReader::new(content);
    let mut table = ProcessTable::default();
    let (mut processes, mut texts) = (Vec::new(), Vec::new());
    let (mut at_ms, mut times) = (0_i64, 0);
    while !reader.is_empty() {
        let step_ms = reader.zigzag()?;
        times += 1;
        if times > MAX_ROWS || (times > 1 && step_ms < 0) {
            return Err(CapsuleError::Invalid("order of rows"));
        }
        at_ms = at_ms.wrapping_add(step_ms);
        for _ in 0..reader.count(rows - table.samples.len())? {
            let process = read_process(&mut reader, &mut processes, &mut texts)?;
            table.samples.push(ProcessSample { at_ms, process });
        }
    }
    if table.samples.len() == rows { Ok(table) } else { Err(CapsuleError::Truncated) }
}

fn read_process(
    reader: &mut ByteReader<'_>,
    processes: &mut Vec<ProcessRow>,
    texts: &mut Vec<Arc<str>>,
) -> Result<ProcessRow, CapsuleError> {
    let index = reader.count(processes.len().min(MAX_PROCESSES - 1))?;
    if index == processes.len() {
        let pid = reader.int32()?;
        let parent_pid = optional32(reader)?;
        let started_ms = reader.zigzag()?;
        let mut text = || read_text(reader, texts);
        let (name, user, command) = (text()?, text()?, text()?);
        let process =
            ProcessRow { pid, parent_pid, started_ms, name, user, command, ..ProcessRow::default() };
        processes.push(process);
    }
    Ok(ProcessRow {
        state: char::from_u32(reader.int32()?).ok_or(CapsuleError::Invalid("state of a process"))?,
        cpu_tenths: reader.int32()?,
        memory_bytes: integer(reader.varint()?)?,
        threads: reader.int32()?,
        open_files: optional32(reader)?,
        read_bytes: optional(reader)?,
        write_bytes: optional(reader)?,
        ..processes[index].clone()
    })
}

fn integer(value: u64) -> Result<u64, CapsuleError> {
    if value > MAX_INTEGER { Err(CapsuleError::Invalid("integer above 53 bits")) } else { Ok(value) }
}

fn optional(reader: &mut ByteReader<'_>) -> Result<Option<u64>, CapsuleError> {
    reader.varint()?.checked_sub(1).map(integer).transpose()
}

fn optional32(reader: &mut ByteReader<'_>) -> Result<Option<u32>, CapsuleError> {
    let value = optional(reader)?.map(u32::try_from).transpose();
    value.map_err(|_| CapsuleError::Invalid("integer above 32 bits"))
}

fn read_text(reader: &mut ByteReader<'_>, texts: &mut Vec<Arc<str>>) -> Result<Arc<str>, CapsuleError> {
    let index = reader.count(texts.len())?;
    if index == texts.len() {
        texts.push(reader.text(MAX_TEXT_BYTES)?.into());
    }
    Ok(texts[index].clone())
}
