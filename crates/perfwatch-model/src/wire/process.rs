//! Message of a process row.

use crate::limits;
use crate::printable::{is_hidden, printable_within};
use crate::snapshot::ProcessRow;
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

/// Protobuf message of a [`ProcessRow`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct ProcessMessage {
    #[prost(uint32, tag = "1")]
    pid: u32,
    // Texts are decoded as bytes: most of them are interned already and need no allocation.
    #[prost(bytes = "bytes", tag = "2")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    user: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    command: Bytes,
    #[prost(uint32, tag = "5")]
    state: u32,
    #[prost(uint32, tag = "6")]
    cpu_tenths: u32,
    #[prost(uint64, tag = "7")]
    memory_bytes: u64,
    #[prost(uint32, tag = "8")]
    threads: u32,
    #[prost(uint32, optional, tag = "9")]
    open_files: Option<u32>,
    #[prost(uint64, optional, tag = "10")]
    read_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "11")]
    write_bytes: Option<u64>,
    #[prost(int64, tag = "12")]
    started_ms: i64,
    #[prost(uint32, optional, tag = "13")]
    parent_pid: Option<u32>,
}

/// Reason why a text is refused.
pub(super) fn text_too_long() -> String {
    format!("text longer than {} bytes", limits::MAX_TEXT_BYTES)
}

impl ProcessMessage {
    pub(super) fn new(row: &ProcessRow) -> Self {
        Self {
            pid: row.pid,
            name: Bytes::copy_from_slice(row.name.as_bytes()),
            user: Bytes::copy_from_slice(row.user.as_bytes()),
            command: Bytes::copy_from_slice(row.command.as_bytes()),
            state: u32::from(row.state),
            cpu_tenths: row.cpu_tenths,
            memory_bytes: row.memory_bytes,
            threads: row.threads,
            open_files: row.open_files,
            read_bytes: row.read_bytes,
            write_bytes: row.write_bytes,
            started_ms: row.started_ms,
            parent_pid: row.parent_pid,
        }
    }

    /// Decodes the row; its texts are those of the same process in `previous`, if they are equal. An error is the reason
    /// why a text is invalid.
    pub(super) fn decode_row(
        &self,
        previous: &[ProcessRow],
        intern: &dyn Fn(&str) -> Arc<str>,
    ) -> Result<ProcessRow, String> {
        let is_same = |row: &&ProcessRow| row.pid == self.pid && row.started_ms == self.started_ms;
        let known = previous.iter().find(is_same);
        let text = |bytes: &Bytes, known: Option<&Arc<str>>| {
            if let Some(known) = known.filter(|known| known.as_bytes() == &bytes[..]) {
                return Ok(known.clone());
            }
            match std::str::from_utf8(bytes) {
                Ok(text) if text.len() <= limits::MAX_TEXT_BYTES => {
                    Ok(intern(&printable_within(text, limits::MAX_TEXT_BYTES)))
                }
                Ok(_) => Err(text_too_long()),
                Err(_) => Err("process text is not UTF-8".to_owned()),
            }
        };
        Ok(ProcessRow {
            pid: self.pid,
            name: text(&self.name, known.map(|row| &row.name))?,
            user: text(&self.user, known.map(|row| &row.user))?,
            command: text(&self.command, known.map(|row| &row.command))?,
            state: char::from_u32(self.state).filter(|c| !is_hidden(*c)).unwrap_or('?'),
            cpu_tenths: self.cpu_tenths,
            memory_bytes: self.memory_bytes,
            threads: self.threads,
            open_files: self.open_files,
            read_bytes: self.read_bytes,
            write_bytes: self.write_bytes,
            started_ms: self.started_ms,
            parent_pid: self.parent_pid,
        })
    }
}
