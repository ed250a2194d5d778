//! Counts the entries of a message before it is decoded. An empty entry takes two bytes of a message and a
//! hundred bytes of memory, so that a limit after decoding is too late.

use bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, decode_key, skip_field};

/// Size of a decoded value of a snapshot, which takes a byte of the message at least.
const VALUE_BYTES: usize = 8;
/// Size of a decoded column beside its texts.
const COLUMN_BYTES: usize = 176;
/// Size of a decoded process row with its shared texts, beside their bytes.
const PROCESS_BYTES: usize = 400;
/// Size of a decoded collector error beside its texts.
const ERROR_BYTES: usize = 96;

/// Calls a function with the tag and the bytes, with their key, of each field at the top level of a message. A malformed
/// rest is left out: decoding reports it.
fn for_each_field(message: &Bytes, each: &mut dyn FnMut(u32, &[u8])) {
    let mut remaining = message.as_ref();
    while remaining.has_remaining() {
        let field = remaining;
        let Ok((tag, wire_type)) = decode_key(&mut remaining) else { break };
        let skipped = skip_field(wire_type, tag, &mut remaining, DecodeContext::default());
        each(tag, &field[..field.len() - remaining.len()]);
        if skipped.is_err() {
            break;
        }
    }
}

/// Number of fields with a tag at the top level of a message.
pub(super) fn count_fields(message: &Bytes, counted: u32) -> usize {
    let mut count = 0;
    for_each_field(message, &mut |tag, _| count += usize::from(tag == counted));
    count
}

/// Entries of an encoded snapshot.
#[derive(Default)]
pub(super) struct SnapshotCounts {
    /// Maximum number of values: the bytes that end a number.
    pub(super) values: usize,
    pub(super) processes: usize,
    pub(super) errors: usize,
}

impl SnapshotCounts {
    pub(super) fn new(snapshot: &Bytes) -> Self {
        let mut counts = Self::default();
        for_each_field(snapshot, &mut |tag, field| match tag {
            6 => counts.values += field.iter().filter(|byte| **byte < 0x80).count(),
            7 => counts.processes += 1,
            9 => counts.errors += 1,
            _ => {}
        });
        counts
    }
}

/// Size of encoded shapes and snapshots in memory after they are decoded, in bytes.
pub(super) fn decoded_bytes(shapes: &[Bytes], snapshots: &[Bytes]) -> usize {
    let mut sum = 0;
    for shape in shapes {
        sum += shape.len();
        for_each_field(shape, &mut |_, _| sum += COLUMN_BYTES);
    }
    for snapshot in snapshots {
        sum += snapshot.len();
        for_each_field(snapshot, &mut |tag, field| {
            sum += match tag {
                6 => VALUE_BYTES * field.len(),
                7 => PROCESS_BYTES,
                9 => ERROR_BYTES,
                _ => 0,
            };
        });
    }
    sum
}
