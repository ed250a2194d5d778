//! The command line: parse, load the configuration, call.

use crate::config::{self, Settings};
use crate::{look, run, telemetry};
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

/// Sends this machine's metrics to a PerfWatch hub.
#[derive(Debug, Parser)]
#[command(name = "perfwatch-agent", version, max_term_width = 100)]
struct AgentCli {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    flags: AgentFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The hub and its dashboard alone
    #[cfg(feature = "hub")]
    Hub(HubFlags),
    /// The agent alone: sends this machine's metrics to a hub
    Agent(AgentFlags),
    /// One look at this machine, in the terminal
    Once(OnceFlags),
    /// Everything the collectors read, as text: for bug reports and fixtures
    Capture(CaptureFlags),
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

#[derive(Debug, Default, Args)]
struct AllFlags {
    /// Where the hub listens [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Time between two snapshots: 500ms, 2s [default: 2s]
    #[arg(long, value_name = "TIME")]
    interval: Option<String>,
}

#[cfg(feature = "hub")]
#[derive(Debug, Args)]
struct HubFlags {
    /// Where the hub listens [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

#[derive(Debug, Args)]
struct AgentFlags {
    /// The hub [default: http://127.0.0.1:8000]
    #[arg(long, value_name = "URL")]
    hub: Option<String>,
    /// What people call this host [default: its host name]
    #[arg(long)]
    name: Option<String>,
    /// Time between two snapshots: 500ms, 2s [default: 2s]
    #[arg(long, value_name = "TIME")]
    interval: Option<String>,
    #[command(flatten)]
    roots: Roots,
}

#[derive(Debug, Args)]
struct Roots {
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

type Overrides = Vec<(&'static str, String)>;

fn over(list: &mut Overrides, key: &'static str, value: Option<String>) {
    list.extend(value.map(|value| (key, value)));
}

impl Roots {
    fn overrides(self, list: &mut Overrides) {
        over(list, "agent.procfs", self.procfs);
        over(list, "agent.sysfs", self.sysfs);
        over(list, "agent.rootfs", self.rootfs);
    }
}

impl Common {
    fn load(self, mut overrides: Overrides) -> anyhow::Result<Settings> {
        over(&mut overrides, "data", self.data);
        over(&mut overrides, "log.level", self.log_level);
        over(&mut overrides, "log.format", self.log_format);
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let settings = config::load(self.config.as_deref(), &environment, &overrides)?;
        telemetry::start(&settings.log)?;
        Ok(settings)
    }
}

/// `perfwatch`.
#[cfg(feature = "hub")]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    finish(dispatch(cli))
}

#[cfg(feature = "hub")]
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

/// `perfwatch-agent`.
pub fn agent_main() -> ExitCode {
    let cli = AgentCli::parse();
    finish(run_agent(cli.common, cli.flags))
}

fn run_agent(common: Common, agent: AgentFlags) -> anyhow::Result<()> {
    let mut flags = Overrides::new();
    over(&mut flags, "agent.hub", agent.hub);
    over(&mut flags, "agent.name", agent.name);
    over(&mut flags, "agent.interval", agent.interval);
    agent.roots.overrides(&mut flags);
    run::agent(&common.load(flags)?)
}

#[expect(clippy::print_stderr, reason = "the one place that tells a user why nothing runs")]
fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perfwatch: {error:#}");
            ExitCode::FAILURE
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
        AgentCli::command().debug_assert();
    }
}
