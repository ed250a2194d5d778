//! Texts of received messages without hidden characters.

use super::{WireError, decode_shape, encode_shape};
use crate::printable::{is_hidden, printable_within};
use crate::snapshot::HostFacts;
use crate::{Column, Shape, ShapeId, limits};
use bytes::Bytes;

/// Decodes the columns of a shape from a sender, without hidden characters. Also returns the id that the
/// sender's snapshots name, which is that of the columns as sent.
///
/// # Errors
/// Returns the errors of [`decode_shape`], also for columns that differ only in hidden characters.
pub fn decode_sent_shape(bytes: Bytes) -> Result<(ShapeId, Shape), WireError> {
    let sent = decode_shape(bytes)?;
    let is_clean =
        |column: &Column| !column.instance.contains(is_hidden) && !column.dimension.contains(is_hidden);
    if sent.columns().iter().all(is_clean) {
        return Ok((sent.id(), sent));
    }
    let columns = sent.columns().iter().map(|column| Column {
        dimension: printable_within(&column.dimension, limits::MAX_METRIC_NAME_BYTES).into_owned().into(),
        instance: printable_within(&column.instance, limits::MAX_INSTANCE_BYTES).into(),
        ..column.clone()
    });
    // The longer texts must be within the limits, too.
    Ok((sent.id(), decode_shape(encode_shape(&Shape::new(columns.collect())))?))
}

/// Truncates each text of received facts to [`limits::MAX_TEXT_BYTES`], without hidden characters.
pub(crate) fn clean_facts(facts: HostFacts) -> HostFacts {
    let clean = |text: String| printable_within(&text, limits::MAX_TEXT_BYTES).into_owned();
    HostFacts {
        os: clean(facts.os),
        kernel: clean(facts.kernel),
        arch: clean(facts.arch),
        cpu_model: clean(facts.cpu_model),
        agent_version: clean(facts.agent_version),
        ..facts
    }
}
