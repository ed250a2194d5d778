//! Standard output of the commands.

use anyhow::Context as _;
use std::io::Write as _;

/// Writes all bytes; a closed pipe (`perfwatch once | head`) is not an error.
pub(crate) fn write_stdout(text: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}
