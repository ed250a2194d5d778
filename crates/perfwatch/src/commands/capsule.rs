//! `perfwatch capsule`: makes a capsule with a hub, or checks a file.

use super::hub_api::{HubAddress, HubApi};
use crate::stdout::write_stdout;
use anyhow::Context as _;
use perfwatch_capsule::limits::MAX_FILE_BYTES;
use perfwatch_capsule::{Capsule, CapsuleDocument};
use perfwatch_model::printable::printable;
use perfwatch_model::{Clock as _, SystemClock};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

/// Arguments of a capsule that a hub makes.
pub(crate) struct CapsuleTarget {
    pub(crate) address: HubAddress,
    /// Body of the request.
    pub(crate) request: Value,
    pub(crate) output: Option<PathBuf>,
}

/// Use of the command.
pub(crate) enum CapsuleCommand {
    Create(CapsuleTarget),
    Check(PathBuf),
}

/// Runs the command and prints a summary of the capsule.
pub(crate) fn run_capsule(command: CapsuleCommand) -> anyhow::Result<()> {
    match command {
        CapsuleCommand::Create(target) => create(target),
        CapsuleCommand::Check(path) => {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
            // A larger file is refused by its size.
            file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
            let capsule = Capsule::parse(&bytes).map_err(anyhow::Error::from);
            let summary = capsule.and_then(|capsule| summary(&capsule, bytes.len()));
            let summary = summary.with_context(|| path.display().to_string())?;
            write_stdout(format!("{}: {summary}\n", path.display()).as_bytes())
        }
    }
}

fn create(target: CapsuleTarget) -> anyhow::Result<()> {
    let hub = HubApi::new(&target.address)?;
    let clock = SystemClock::new();
    let started = clock.monotonic();
    let bytes = hub.create_capsule(&target.request)?;
    let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
    let capsule = Capsule::parse(&bytes).context("response of the hub")?;
    let summary = summary(&capsule, bytes.len()).context("response of the hub")?;
    let path = target.output.unwrap_or_else(|| capsule.document().file_name().into());
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| file.write_all(&bytes)).with_context(|| path.display().to_string())?;
    write_stdout(format!("{}: {summary}, created in {seconds:.1} s\n", path.display()).as_bytes())
}

/// Verifies a capsule and describes its content on a line.
fn summary(capsule: &Capsule<'_>, size_bytes: usize) -> anyhow::Result<String> {
    capsule.verify()?;
    let CapsuleDocument { title, hosts, incidents, from_ms, to_ms, masked, .. } = capsule.document();
    let rows: usize = hosts.iter().map(|host| host.rows).sum();
    let series: usize = hosts.iter().map(|host| host.series.len()).sum();
    let processes: usize = hosts.iter().map(|host| host.process_rows).sum();
    let mut text = format!(
        "{}; {} hosts, {:.1} min, {} incidents, {series} series, {rows} rows, {processes} processes, {:.2} MB",
        printable(title),
        hosts.len(),
        (to_ms - from_ms) as f64 / 60_000.0,
        incidents.len(),
        size_bytes as f64 / 1e6,
    );
    let names = [("commands", masked.commands), ("users", masked.users), ("hosts", masked.hosts)];
    let names: Vec<&str> = names.into_iter().filter(|(_, masked)| *masked).map(|(name, _)| name).collect();
    if !names.is_empty() {
        let _ = write!(text, ", masked: {}", names.join(", "));
    }
    Ok(text)
}
