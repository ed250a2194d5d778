//! Command line of the agent: `perfwatch-agent` and `perfwatch agent`.

use super::exit::finish;
use super::flags::{CommonFlags, Overrides, RootFlags, push_override};
use crate::commands::health::check_agent;
use crate::commands::install::{InstallFlags, install};
use crate::commands::run_agent;
use crate::doctor::{DoctorFlags, check_agent_installation};
use crate::program::Program;
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

/// Sends this machine's metrics to a PerfWatch hub.
#[derive(Debug, Parser)]
#[command(name = "perfwatch-agent", version, max_term_width = 100)]
struct AgentCli {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    flags: AgentFlags,
}

/// Commands and flags of the program.
#[cfg(feature = "hub")]
pub(crate) fn command() -> clap::Command {
    <AgentCli as clap::CommandFactory>::command()
}

#[derive(Debug, Args)]
pub(super) struct AgentFlags {
    #[command(subcommand)]
    command: Option<AgentCommand>,
    /// URL of the hub [default: http://127.0.0.1:8000]
    #[arg(long, global = true, value_name = "URL")]
    hub: Option<String>,
    /// Enrollment token from the Agents page; visible to other users unless in a file: file:PATH
    #[arg(long, global = true)]
    token: Option<String>,
    /// CA certificates (PEM) that may sign the hub's certificate
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<String>,
    /// Host name shown in PerfWatch [default: the system host name]
    #[arg(long, global = true)]
    name: Option<String>,
    /// Collection interval: 500ms, 2s [default: 2s]
    #[arg(long, global = true, value_name = "DURATION")]
    interval: Option<String>,
    #[command(flatten)]
    roots: RootFlags,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Install the agent as a systemd service with its own unprivileged user
    Install(InstallFlags),
    /// Check the agent of this data directory; exit code 0 if it collects
    Health,
    /// Check configuration, data, credential, hub, clock and collectors, with remedies
    Doctor(DoctorFlags),
}

/// Entry point of `perfwatch-agent`.
pub fn agent_main() -> ExitCode {
    let cli = AgentCli::parse();
    finish(dispatch(cli.common, cli.flags, Program::Agent))
}

/// Runs or installs the agent.
pub(super) fn dispatch(common: CommonFlags, agent: AgentFlags, program: Program) -> anyhow::Result<()> {
    let mut overrides = Overrides::new();
    push_override(&mut overrides, "agent.hub", agent.hub);
    push_override(&mut overrides, "agent.token", agent.token);
    push_override(&mut overrides, "agent.ca", agent.ca);
    push_override(&mut overrides, "agent.name", agent.name);
    push_override(&mut overrides, "agent.interval", agent.interval);
    agent.roots.push_overrides(&mut overrides);
    match agent.command {
        None => run_agent(&common.load(overrides)?),
        Some(AgentCommand::Health) => check_agent(&common.load(overrides)?),
        Some(AgentCommand::Doctor(flags)) => check_agent_installation(common.inspect(overrides), flags),
        Some(AgentCommand::Install(flags)) => install(&common.load(overrides)?, &flags, program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn agent_cli_definition_is_valid() {
        AgentCli::command().debug_assert();
    }
}
