//! Compression into memory by zstd, with contexts that are used again: a context takes 100 kB and more, and its creation
//! longer than the compression of a few snapshots.

use std::io;
use std::sync::{Mutex, PoisonError};
use zstd::bulk::{Compressor, Decompressor};

/// Maximum number of unused contexts of a kind.
const MAX_UNUSED: usize = 4;
/// Fastest level: about a microsecond per snapshot of a usual host.
const ZSTD_LEVEL: i32 = 1;

static COMPRESSORS: Mutex<Vec<Compressor<'static>>> = Mutex::new(Vec::new());
static DECOMPRESSORS: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());

/// Calls `work` with an unused or a new context.
fn with_context<C, R>(
    unused: &Mutex<Vec<C>>,
    create: impl FnOnce() -> io::Result<C>,
    work: impl FnOnce(&mut C) -> io::Result<R>,
) -> io::Result<R> {
    let lock = || unused.lock().unwrap_or_else(PoisonError::into_inner);
    let context = lock().pop();
    let mut context = context.map_or_else(create, Ok)?;
    let result = work(&mut context);
    let mut unused = lock();
    if unused.len() < MAX_UNUSED {
        unused.push(context);
    }
    result
}

/// Compresses bytes at the fastest level.
///
/// # Errors
/// Returns an error without memory for a context.
pub fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    with_context(&COMPRESSORS, || Compressor::new(ZSTD_LEVEL), |compressor| compressor.compress(bytes))
}

/// Decompresses bytes. Allocates the size that they state, or `max_bytes` if they state none.
///
/// # Errors
/// Returns an error if the bytes are damaged or longer than `max_bytes`.
pub fn decompress(bytes: &[u8], max_bytes: usize) -> io::Result<Vec<u8>> {
    with_context(&DECOMPRESSORS, Decompressor::new, |decompressor| decompressor.decompress(bytes, max_bytes))
}

/// Size of decompressed bytes as each of their frames states it; `None` if one states none.
pub fn stated_size(bytes: &[u8]) -> Option<usize> {
    Decompressor::upper_bound(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_work_after_an_error() {
        let compressed = compress(&[7; 10_000]).unwrap();
        assert_eq!(stated_size(&compressed), Some(10_000));
        for _ in 0..2 * MAX_UNUSED {
            assert!(decompress(&compressed, 9_999).is_err(), "longer than its maximum");
            assert!(decompress(&compressed[1..], 10_000).is_err(), "damaged");
            assert_eq!(decompress(&compressed, 10_000).unwrap(), [7; 10_000]);
        }
        assert!(DECOMPRESSORS.lock().unwrap().len() <= MAX_UNUSED);
        let streamed = zstd::stream::encode_all(&[7; 10_000][..], 1).unwrap();
        assert_eq!(stated_size(&streamed), None);
    }
}
