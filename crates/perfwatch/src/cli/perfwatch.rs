//! Command line of `perfwatch` and its commands.

use super::agent::{self, AgentFlags};
use super::capsule::CapsuleFlags;
use super::exit::finish;
use super::flags::{CommonFlags, Overrides, RootFlags, push_override};
use super::manual::{CompletionFlags, DescribedProgram, ManFlags, print_completions, write_pages};
use super::top::TopFlags;
use crate::commands;
use crate::commands::health::{HubCheck, check_hub};
use crate::commands::user::{UserCommand, manage_users};
use crate::config::{Duration, Settings};
use crate::doctor::{DoctorFlags, check_hub_installation};
use crate::encryption_keys;
use crate::program::Program;
use crate::simulate::Simulation;
use crate::stdout::write_stdout;
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use perfwatch_history::export::ExportRequest;
use std::path::PathBuf;
use std::process::ExitCode;

/// Monitors Linux servers at one-second resolution and keeps their history.
///
/// Without a command: hub, dashboard and an agent for this machine, at http://127.0.0.1:8000.
#[derive(Debug, Parser)]
#[command(name = "perfwatch", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    run: RunFlags,
}

/// Commands and flags of the program.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Command line of a program.
fn described(program: DescribedProgram) -> clap::Command {
    match program {
        DescribedProgram::Perfwatch => command(),
        DescribedProgram::PerfwatchAgent => agent::command(),
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the hub and its dashboard
    Hub(HubFlags),
    /// Run the agent of this machine
    Agent(AgentFlags),
    /// Check a running hub; exit code 0 if it is healthy
    Health(HubCheck),
    /// Check configuration, data, keys, port, store, clock, agents and disk, with remedies
    Doctor(HubDoctorFlags),
    /// Manage users and their API tokens
    User(UserFlags),
    /// Print one snapshot of this machine
    Once(OnceFlags),
    /// Watch this machine or a host of a hub in the terminal, live and in the past
    Top(TopFlags),
    /// Back up the database to one file (works while a hub runs)
    Backup(BackupFlags),
    /// Restore a backup; the existing data is renamed, not deleted
    Restore(BackupFlags),
    /// Export the history of a host
    Export(ExportFlags),
    /// Make an incident capsule: a window of hosts in one file
    Capsule(CapsuleFlags),
    /// Rotate the encryption key
    RotateKey,
    /// Print the completion script of a shell
    Completions(CompletionFlags),
    /// Write manual pages to a directory
    Man(ManFlags),
    /// Print the probe script of agentless collection
    Probe,
    /// Simulate a fleet of hosts for demos and load tests
    Simulate(SimulateFlags),
    /// Record everything the collectors read, for bug reports and fixtures
    Capture(CaptureFlags),
}

#[derive(Debug, Default, Args)]
struct RunFlags {
    /// Listen address of the hub [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Collection interval: 500ms, 2s [default: 2s]
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
}

#[derive(Debug, Args)]
struct HubFlags {
    /// Listen address of the hub [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Database: sqlite:DIRECTORY or postgres://… [default: SQLite in the data directory]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Streaming replica of the database for reads of history: postgres://…, or file:PATH
    #[arg(long, value_name = "URL")]
    store_replica: Option<String>,
    /// Redis shared by several hubs: redis://host:6379, or file:PATH
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

#[derive(Debug, Args)]
struct HubDoctorFlags {
    #[command(flatten)]
    doctor: DoctorFlags,
    /// Listen address of the hub [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Database: sqlite:DIRECTORY or postgres://… [default: SQLite in the data directory]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, Args)]
struct UserFlags {
    #[command(subcommand)]
    command: UserCommand,
    /// Database: sqlite:DIRECTORY or postgres://… [default: SQLite in the data directory]
    #[arg(long, global = true, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, Args)]
struct BackupFlags {
    /// Path of the backup file
    file: PathBuf,
    /// Database: sqlite:DIRECTORY or postgres://… [default: SQLite in the data directory]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, Args)]
struct ExportFlags {
    /// Name or id of the host
    host: String,
    /// Start: 2026-11-21T10:00:00Z, milliseconds since 1970, or relative to now: -2h
    #[arg(long, default_value = "-1h", allow_hyphen_values = true, value_name = "TIME")]
    from: String,
    /// End, in the same formats
    #[arg(long, default_value = "now", allow_hyphen_values = true, value_name = "TIME")]
    to: String,
    /// Metrics, groups or instances: cpu.usage,memory.*,network.rx_bytes{eth0} [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    metrics: Vec<String>,
    /// raw (every tick), 1m or 1h
    #[arg(long, default_value = "raw")]
    tier: String,
    /// Output format: csv or jsonl
    #[arg(long, default_value = "csv")]
    format: String,
    /// Database: sqlite:DIRECTORY or postgres://… [default: SQLite in the data directory]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, Args)]
struct SimulateFlags {
    /// Number of simulated hosts
    #[arg(long, default_value_t = 10)]
    hosts: usize,
    /// Collection interval of each host
    #[arg(long, default_value = "2s", value_name = "DURATION")]
    interval: String,
    /// History to generate first: 6h, 7d
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    backfill: String,
    /// Seed of the random values; equal seeds create equal fleets
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// URL of the hub that receives the snapshots
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    hub: String,
    /// Token with the scope ingest; better from the environment [env: PERFWATCH_AGENT_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

#[derive(Debug, Args)]
struct OnceFlags {
    /// Print the snapshot as JSON, in the format of /ingest/metrics
    #[arg(long)]
    json: bool,
    /// Interval over which rates are computed [default: 1s]
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    #[command(flatten)]
    roots: RootFlags,
}

#[derive(Debug, Args)]
struct CaptureFlags {
    /// Output file [default: standard output]
    file: Option<PathBuf>,
    #[command(flatten)]
    roots: RootFlags,
}

impl ExportFlags {
    fn into_request(self) -> ExportRequest {
        ExportRequest {
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
    fn into_simulation(self, settings: &Settings) -> anyhow::Result<Simulation> {
        let duration = |flag, text: &str| {
            let duration: Option<Duration> = text.parse().ok();
            let duration =
                duration.with_context(|| format!("{flag}: expected a duration such as 500ms, 2s or 7d"));
            Ok::<_, anyhow::Error>(duration?.0)
        };
        Ok(Simulation {
            hub: self.hub,
            token: settings.agent_config().map_err(anyhow::Error::msg)?.token.map(|token| token.text),
            hosts: self.hosts,
            interval: duration("--interval", &self.interval)?,
            seed: self.seed,
            backfill: duration("--backfill", &self.backfill)?,
        })
    }
}

/// Entry point of `perfwatch`.
pub fn main() -> ExitCode {
    finish(Cli::parse().run())
}

impl Cli {
    fn run(self) -> anyhow::Result<()> {
        let mut overrides = Overrides::new();
        match self.command {
            None => {
                push_override(&mut overrides, "hub.listen", self.run.listen);
                push_override(&mut overrides, "agent.interval", self.run.interval);
                commands::run_all(&self.common.load(overrides)?)
            }
            Some(Command::Hub(hub)) => {
                push_override(&mut overrides, "hub.listen", hub.listen);
                push_override(&mut overrides, "hub.store", hub.store);
                push_override(&mut overrides, "hub.store_replica", hub.store_replica);
                push_override(&mut overrides, "hub.redis", hub.redis);
                commands::run_hub(&self.common.load(overrides)?)
            }
            Some(Command::Agent(flags)) => agent::dispatch(self.common, flags, Program::Full),
            Some(Command::Health(check)) => check_hub(&self.common.load(overrides)?, &check),
            Some(Command::Doctor(flags)) => {
                push_override(&mut overrides, "hub.listen", flags.listen);
                push_override(&mut overrides, "hub.store", flags.store);
                check_hub_installation(self.common.inspect(overrides), flags.doctor)
            }
            Some(Command::User(user)) => {
                push_override(&mut overrides, "hub.store", user.store);
                manage_users(&self.common.load(overrides)?, user.command)
            }
            Some(Command::Backup(backup)) => {
                push_override(&mut overrides, "hub.store", backup.store);
                commands::backup(&self.common.load(overrides)?, &backup.file)
            }
            Some(Command::Restore(backup)) => {
                push_override(&mut overrides, "hub.store", backup.store);
                commands::restore(&self.common.load(overrides)?, &backup.file)
            }
            Some(Command::Export(export)) => {
                push_override(&mut overrides, "hub.store", export.store.clone());
                commands::export(&self.common.load(overrides)?, &export.into_request())
            }
            Some(Command::Simulate(fleet)) => {
                push_override(&mut overrides, "agent.token", fleet.token.clone());
                let settings = self.common.load(overrides)?;
                commands::simulate(&fleet.into_simulation(&settings)?)
            }
            Some(Command::Once(once)) => {
                let interval = once.interval.or_else(|| Some("1s".to_owned()));
                push_override(&mut overrides, "agent.interval", interval);
                once.roots.push_overrides(&mut overrides);
                commands::once(&self.common.load(overrides)?, once.json)
            }
            Some(Command::Top(top)) => top.run(self.common),
            Some(Command::Capsule(capsule)) => capsule.run(),
            Some(Command::RotateKey) => encryption_keys::rotate_key(&self.common.load(overrides)?),
            Some(Command::Completions(flags)) => print_completions(flags.shell, described(flags.program)),
            Some(Command::Man(flags)) => write_pages(&flags.directory, described(flags.program)),
            Some(Command::Probe) => write_stdout(perfwatch_ssh::PROBE.as_bytes()),
            Some(Command::Capture(capture)) => {
                capture.roots.push_overrides(&mut overrides);
                commands::capture(&self.common.load(overrides)?, capture.file.as_deref())
            }
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

    #[test]
    fn pages_cover_every_command() {
        let cases = [
            (
                DescribedProgram::Perfwatch,
                ["perfwatch.1", "perfwatch-doctor.1", "perfwatch-user-add.1"],
                "listen",
            ),
            (
                DescribedProgram::PerfwatchAgent,
                ["perfwatch-agent.1", "perfwatch-agent-install.1", "perfwatch-agent-doctor.1"],
                "hub",
            ),
        ];
        for (program, pages, flag) in cases {
            let folder = tempfile::tempdir().unwrap();
            write_pages(folder.path(), described(program)).unwrap();
            let read = |page: &&str| std::fs::read_to_string(folder.path().join(page)).unwrap();
            assert!(pages.iter().map(read).all(|page| page.contains(".SH NAME")));
            assert!(read(&pages[0]).contains(&format!("\\-\\-{flag}")), "{}", read(&pages[0]));
        }
        let error = write_pages("/nowhere".as_ref(), command()).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere"));
    }
}
