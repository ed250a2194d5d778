//! `perfwatch` and its commands.

use super::{AgentFlags, Common, Overrides, Program, RootFlags, finish, push_override, run_agent};
use crate::config::{Duration, Settings};
use crate::simulate::Simulation;
use crate::user::{self, UserCommand};
use crate::{admin, look, run};
use anyhow::Context as _;
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
    run: AllFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The hub and its dashboard alone
    Hub(HubFlags),
    /// The agent alone: sends this machine's metrics to a hub
    Agent(AgentFlags),
    /// Who may log in
    User(UserFlags),
    /// One look at this machine, in the terminal
    Once(OnceFlags),
    /// A copy of all history in one file, also while a hub runs
    Backup(FileFlags),
    /// Puts a backup in the place of the history that is there, which is kept beside it
    Restore(FileFlags),
    /// History of one host as text
    Export(ExportFlags),
    /// A new key for the secrets that the hub seals
    RotateKey,
    /// The script that is run on hosts without an agent, to read or to install as their only command
    Probe,
    /// Sends what a made-up fleet would: to look at, and to measure with
    Simulate(SimulateFlags),
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
    /// Where history is kept: sqlite:FOLDER or postgres://… [default: SQLite in the data folder]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Where several hubs share what each of them saw last: redis://host:6379, or file:PATH
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

#[derive(Debug, Args)]
struct UserFlags {
    #[command(subcommand)]
    command: UserCommand,
    /// Where the hub keeps it: sqlite:FOLDER or postgres://… [default: SQLite in the data folder]
    #[arg(long, global = true, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, Args)]
struct FileFlags {
    /// The backup
    file: PathBuf,
    /// Where history is kept: sqlite:FOLDER or postgres://… [default: SQLite in the data folder]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, Args)]
struct ExportFlags {
    /// Name or id
    host: String,
    /// A time: 2026-11-21T10:00:00Z, milliseconds since 1970, or a span before now as -2h
    #[arg(long, default_value = "-1h", allow_hyphen_values = true, value_name = "TIME")]
    from: String,
    /// Up to here
    #[arg(long, default_value = "now", allow_hyphen_values = true, value_name = "TIME")]
    to: String,
    /// Metrics, groups or instances: cpu.usage,memory.*,network.rx_bytes{eth0} [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    metrics: Vec<String>,
    /// raw (every tick), 1m or 1h
    #[arg(long, default_value = "raw")]
    tier: String,
    /// csv or jsonl
    #[arg(long, default_value = "csv")]
    format: String,
    /// Where history is kept: sqlite:FOLDER or postgres://… [default: SQLite in the data folder]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, Args)]
struct SimulateFlags {
    /// How many
    #[arg(long, default_value_t = 10)]
    hosts: usize,
    /// Time between two snapshots of a host
    #[arg(long, default_value = "2s", value_name = "TIME")]
    interval: String,
    /// First, this much of the past: 6h, 7d
    #[arg(long, default_value = "0s", value_name = "TIME")]
    past: String,
    /// The same seed gives the same fleet
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The hub
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    hub: String,
    /// A token with the scope ingest; better by the environment [env: PERFWATCH_AGENT_TOKEN]
    #[arg(long)]
    token: Option<String>,
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
    roots: RootFlags,
}

#[derive(Debug, Args)]
struct CaptureFlags {
    /// Where to write it; the terminal if none
    file: Option<PathBuf>,
    #[command(flatten)]
    roots: RootFlags,
}

impl ExportFlags {
    fn request(self) -> perfwatch_hub::ExportRequest {
        perfwatch_hub::ExportRequest {
            host: self.host,
            tier: self.tier,
            format: self.format,
            metrics: self.metrics,
            from: self.from,
            to: self.to,
        }
    }
}

impl SimulateFlags {
    fn simulation(self, settings: &Settings) -> anyhow::Result<Simulation> {
        let time = |name, text: &str| {
            let time: Option<Duration> = text.parse().ok();
            Ok::<_, anyhow::Error>(time.with_context(|| format!("{name}: a time such as 500ms, 2s or 7d"))?.0)
        };
        Ok(Simulation {
            hub: self.hub,
            token: settings.agent_config().map_err(anyhow::Error::msg)?.token,
            hosts: self.hosts,
            interval: time("--interval", &self.interval)?,
            seed: self.seed,
            past: time("--past", &self.past)?,
        })
    }
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
            push_override(&mut flags, "hub.listen", cli.run.listen);
            push_override(&mut flags, "agent.interval", cli.run.interval);
            run::all(&cli.common.load(flags)?)
        }
        Some(Command::Hub(hub)) => {
            push_override(&mut flags, "hub.listen", hub.listen);
            push_override(&mut flags, "hub.store", hub.store);
            push_override(&mut flags, "hub.redis", hub.redis);
            run::hub(&cli.common.load(flags)?)
        }
        Some(Command::User(user)) => {
            push_override(&mut flags, "hub.store", user.store);
            user::user(&cli.common.load(flags)?, user.command)
        }
        Some(Command::Backup(file)) => {
            push_override(&mut flags, "hub.store", file.store);
            admin::backup(&cli.common.load(flags)?, &file.file)
        }
        Some(Command::Restore(file)) => {
            push_override(&mut flags, "hub.store", file.store);
            admin::restore(&cli.common.load(flags)?, &file.file)
        }
        Some(Command::Export(export)) => {
            push_override(&mut flags, "hub.store", export.store.clone());
            admin::export(&cli.common.load(flags)?, &export.request())
        }
        Some(Command::Simulate(fleet)) => {
            push_override(&mut flags, "agent.token", fleet.token.clone());
            let settings = cli.common.load(flags)?;
            admin::simulate(&fleet.simulation(&settings)?)
        }
        Some(Command::Agent(agent)) => run_agent(cli.common, agent, Program::Full),
        Some(Command::Once(once)) => {
            let json = once.json;
            push_override(&mut flags, "agent.interval", once.interval.or_else(|| Some("1s".to_owned())));
            once.roots.overrides(&mut flags);
            look::once(&cli.common.load(flags)?, json)
        }
        Some(Command::RotateKey) => crate::encryption_keys::rotate_key(&cli.common.load(flags)?),
        Some(Command::Probe) => look::write_stdout(perfwatch_ssh::PROBE.as_bytes()),
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
    fn cli_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
