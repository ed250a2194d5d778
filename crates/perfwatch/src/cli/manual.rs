//! `perfwatch completions` and `perfwatch man`: shell completions and manual pages of both programs, from the
//! definitions of their command lines.

use crate::stdout::write_stdout;
use anyhow::Context as _;
use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// Program that is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DescribedProgram {
    Perfwatch,
    PerfwatchAgent,
}

#[derive(Debug, Args)]
pub(super) struct CompletionFlags {
    /// Shell of the script
    pub(super) shell: Shell,
    /// Program whose command line is completed
    #[arg(long, value_enum, default_value = "perfwatch")]
    pub(super) program: DescribedProgram,
}

#[derive(Debug, Args)]
pub(super) struct ManFlags {
    /// Existing directory of the pages
    pub(super) directory: PathBuf,
    /// Program whose commands are described
    #[arg(long, value_enum, default_value = "perfwatch")]
    pub(super) program: DescribedProgram,
}

/// Prints the completion script of a shell for a command line.
pub(super) fn print_completions(shell: Shell, mut command: Command) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    write_stdout(&script)
}

/// Writes a page per command, such as `perfwatch.1` and `perfwatch-user-add.1`.
pub(super) fn write_pages(directory: &Path, command: Command) -> anyhow::Result<()> {
    clap_mangen::generate_to(command, directory).with_context(|| directory.display().to_string())
}
