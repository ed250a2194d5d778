//! Exit code and error output of a command.

use crate::commands::Revoked;
use perfwatch_agent::AgentError;
use std::io::Write as _;
use std::process::ExitCode;

/// Exit code of an agent that needs a new token: `EX_CONFIG` of sysexits(3). The systemd unit does not restart it.
const EXIT_REVOKED: u8 = 78;

/// Converts the result of a command to an exit code and prints its error.
pub(super) fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Unlike `eprintln!`, not a panic if standard error cannot be written.
            let _ = writeln!(std::io::stderr(), "perfwatch: {error:#}");
            let is_foreign_state = matches!(error.downcast_ref(), Some(AgentError::ForeignState { .. }));
            if error.is::<Revoked>() || is_foreign_state {
                ExitCode::from(EXIT_REVOKED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
