//! Sizes of the values of a template. Each value has a maximum, and so has their sum.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum size of a value, nested values included.
pub(crate) const MAX_VALUE_BYTES: usize = 256 << 10;
/// Maximum size of all values that a rendering creates or inserts.
const MAX_TOTAL_BYTES: usize = 16 << 20;
/// Maximum depth of nested lists and maps.
const MAX_VALUE_DEPTH: usize = 16;
/// Size of a value beside its text.
const VALUE_BYTES: usize = 16;

/// Error of an exceeded limit.
pub(crate) fn too_complex(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Bytes that a rendering may still create or insert.
#[derive(Clone)]
pub(crate) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_TOTAL_BYTES)))
    }

    fn charge(&self, bytes: usize) -> Result<(), Error> {
        let remaining = self.0.load(Ordering::Relaxed);
        let after = remaining.checked_sub(bytes);
        let after = after.ok_or_else(|| too_complex("the template creates too much text".to_owned()))?;
        self.0.store(after, Ordering::Relaxed);
        Ok(())
    }

    /// Counts a value, and returns it if it is not too large.
    pub(crate) fn count(&self, value: Value) -> Result<Value, Error> {
        let mut available = MAX_VALUE_BYTES;
        measure(&value, MAX_VALUE_DEPTH, &mut available)?;
        self.charge(MAX_VALUE_BYTES - available)?;
        Ok(value)
    }
}

/// Subtracts the size of a value, nested values included.
fn measure(value: &Value, depth: usize, available: &mut usize) -> Result<(), Error> {
    let text_bytes = value.as_str().map_or(0, str::len);
    let rest = available.checked_sub(text_bytes + VALUE_BYTES);
    *available = rest.ok_or_else(|| too_complex(format!("a value exceeds {MAX_VALUE_BYTES} bytes")))?;
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(());
    }
    let depth = depth.checked_sub(1).ok_or_else(|| too_complex("a value is nested too deep".to_owned()))?;
    for item in value.try_iter()? {
        measure(&item, depth, available)?;
        if is_map {
            measure(&value.get_item(&item)?, depth, available)?;
        }
    }
    Ok(())
}
