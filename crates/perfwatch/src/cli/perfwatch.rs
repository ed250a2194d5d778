//! `perfwatch` and its commands.

use super::{AgentFlags, Common, Overrides, Roots, finish, over, run_agent};
use crate::{look, run};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows every Linux server you run, to the second, and remembers what it saw.
///
/// Without a command: hub, dashboard and an agent for this machine, at http://127.0.0.1:8000.
#[derive(Debug, Parser)]
#[command(name = "perfwatch", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    all: AllFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The hub and its dashboard alone
    Hub(HubFlags),
    /// The agent alone: sends this machine's metrics to a hub
    Agent(AgentFlags),
    /// One look at this machine, in the terminal
    Once(OnceFlags),
    /// Everything the collectors read, as text: for bug reports and fixtures
    Capture(CaptureFlags),
}

#[derive(Debug, Default, Args)]
struct AllFlags {
    /// Where the hub listens [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Time between two snapshots: 500ms, 2s [default: 2s]
    #[arg(long, value_name = "TIME")]
    interval: Option<String>,
}

#[derive(Debug, Args)]
struct HubFlags {
    /// Where the hub listens [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

#[derive(Debug, Args)]
struct OnceFlags {
    /// The snapshot as JSON, as /ingest/metrics takes it
    #[arg(long)]
    json: bool,
    /// Time over which rates are taken
    #[arg(long, value_name = "TIME")]
    interval: Option<String>,
    #[command(flatten)]
    roots: Roots,
}

#[derive(Debug, Args)]
struct CaptureFlags {
    /// Where to write it; the terminal if none
    file: Option<PathBuf>,
    #[command(flatten)]
    roots: Roots,
}

/// `perfwatch`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    finish(dispatch(cli))
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let mut flags = Overrides::new();
    match cli.command {
        None => {
            over(&mut flags, "hub.listen", cli.all.listen);
            over(&mut flags, "agent.interval", cli.all.interval);
            run::all(&cli.common.load(flags)?)
        }
        Some(Command::Hub(hub)) => {
            over(&mut flags, "hub.listen", hub.listen);
            run::hub(&cli.common.load(flags)?)
        }
        Some(Command::Agent(agent)) => run_agent(cli.common, agent),
        Some(Command::Once(once)) => {
            let json = once.json;
            over(&mut flags, "agent.interval", once.interval.or_else(|| Some("1s".to_owned())));
            once.roots.overrides(&mut flags);
            look::once(&cli.common.load(flags)?, json)
        }
        Some(Command::Capture(capture)) => {
            let file = capture.file;
            capture.roots.overrides(&mut flags);
            look::capture(&cli.common.load(flags)?, file.as_deref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
