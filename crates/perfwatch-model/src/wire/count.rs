//! Counts the entries of a message before it is decoded. An empty entry takes two bytes of a message and a
//! hundred bytes of memory, so that a limit after decoding is too late.

use bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, decode_key, skip_field};

/// Number of fields with a tag at the top level of a message. A malformed rest is not counted: decoding
/// reports it.
pub(super) fn count_fields(message: &Bytes, counted: u32) -> usize {
    let mut remaining = message.as_ref();
    let mut count = 0;
    while remaining.has_remaining() {
        let Ok((tag, wire_type)) = decode_key(&mut remaining) else { break };
        count += usize::from(tag == counted);
        if skip_field(wire_type, tag, &mut remaining, DecodeContext::default()).is_err() {
            break;
        }
    }
    count
}
