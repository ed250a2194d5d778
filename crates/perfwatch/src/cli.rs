//! The command line: parse, load the configuration, call.

#[cfg(feature = "hub")]
mod perfwatch;

#[cfg(feature = "hub")]
pub use perfwatch::main;

use crate::config::{self, Settings};
use crate::install::{self, InstallFlags};
use crate::{run, telemetry};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Sends this machine's metrics to a PerfWatch hub.
#[derive(Debug, Parser)]
#[command(name = "perfwatch-agent", version, max_term_width = 100)]
struct AgentCli {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    flags: AgentFlags,
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration file: .yaml, .json or .toml [env: PERFWATCH_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for all that is kept [env: PERFWATCH_DATA]
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<String>,
    /// error, warn, info, debug or trace; also per module: info,perfwatch_hub=debug [env: PERFWATCH_LOG_LEVEL]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [env: PERFWATCH_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Debug, Args)]
struct AgentFlags {
    #[command(subcommand)]
    command: Option<AgentCommand>,
    /// The hub [default: http://127.0.0.1:8000]
    #[arg(long, global = true, value_name = "URL")]
    hub: Option<String>,
    /// What lets it in, from the hub's page "Agents"; better in a file: file:/etc/perfwatch/token
    #[arg(long, global = true)]
    token: Option<String>,
    /// File with the authorities that may have signed the hub's certificate
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<String>,
    /// What people call this host [default: its host name]
    #[arg(long, global = true)]
    name: Option<String>,
    /// Time between two snapshots: 500ms, 2s [default: 2s]
    #[arg(long, global = true, value_name = "TIME")]
    interval: Option<String>,
    #[command(flatten)]
    roots: RootFlags,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Makes it a service of this machine, with a user of its own that may do next to nothing
    Install(InstallFlags),
}

/// Which of the two programs runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `perfwatch`, whose agent is a command.
    #[cfg(feature = "hub")]
    Full,
    /// `perfwatch-agent`.
    Agent,
}

#[derive(Debug, Args)]
struct RootFlags {
    /// Where the watched host's /proc is mounted
    #[arg(long, value_name = "FOLDER")]
    procfs: Option<String>,
    /// Where the watched host's /sys is mounted
    #[arg(long, value_name = "FOLDER")]
    sysfs: Option<String>,
    /// Where the watched host's / is mounted
    #[arg(long, value_name = "FOLDER")]
    rootfs: Option<String>,
}

type Overrides = Vec<(&'static str, String)>;

fn push_override(list: &mut Overrides, key: &'static str, value: Option<String>) {
    list.extend(value.map(|value| (key, value)));
}

impl RootFlags {
    fn overrides(self, list: &mut Overrides) {
        push_override(list, "agent.procfs", self.procfs);
        push_override(list, "agent.sysfs", self.sysfs);
        push_override(list, "agent.rootfs", self.rootfs);
    }
}

impl Common {
    fn load(self, mut overrides: Overrides) -> anyhow::Result<Settings> {
        push_override(&mut overrides, "data", self.data);
        push_override(&mut overrides, "log.level", self.log_level);
        push_override(&mut overrides, "log.format", self.log_format);
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let settings = config::load(self.config.as_deref(), &environment, &overrides)?;
        telemetry::start(&settings.log)?;
        Ok(settings)
    }
}

/// `perfwatch-agent`.
pub fn agent_main() -> ExitCode {
    let cli = AgentCli::parse();
    finish(run_agent(cli.common, cli.flags, Program::Agent))
}

fn run_agent(common: Common, agent: AgentFlags, program: Program) -> anyhow::Result<()> {
    let mut flags = Overrides::new();
    push_override(&mut flags, "agent.hub", agent.hub);
    push_override(&mut flags, "agent.token", agent.token);
    push_override(&mut flags, "agent.ca", agent.ca);
    push_override(&mut flags, "agent.name", agent.name);
    push_override(&mut flags, "agent.interval", agent.interval);
    agent.roots.overrides(&mut flags);
    let settings = common.load(flags)?;
    match agent.command {
        None => run::agent(&settings),
        Some(AgentCommand::Install(flags)) => install::install(&settings, &flags, program),
    }
}

#[expect(clippy::print_stderr, reason = "the one place that tells a user why nothing runs")]
fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perfwatch: {error:#}");
            // EX_CONFIG of sysexits(3): the service's unit does not start it again.
            if error.is::<run::Revoked>() { ExitCode::from(78) } else { ExitCode::FAILURE }
        }
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
