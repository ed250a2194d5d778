//! Standard output of the commands.

use anyhow::Context as _;
use std::io::Write as _;

/// Writes all bytes; a closed pipe (`perfwatch once | head`) is not an error.
///
/// # Errors
/// Fails if standard output cannot be written, for example because a disk is full.
pub(crate) fn write_stdout(text: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}
