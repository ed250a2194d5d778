//! Short looks at this machine: `once` for people and scripts, `capture` for bug reports.

mod screen;

use crate::config::Settings;
use anyhow::Context as _;
use perfwatch_agent::{TimeoutSource, collect_once};
use perfwatch_collect::{
    CollectorCache, CollectorOptions, CollectorSet, LocalRoot, RecordingSource, Source, read_all,
};
use perfwatch_model::{Clock, HostId, HostRef, SystemClock, json};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

fn source(settings: &Settings) -> TimeoutSource {
    let agent = &settings.agent_config;
    TimeoutSource::new(LocalRoot::new(&agent.procfs, &agent.sysfs, &agent.rootfs))
}

pub(crate) fn write_stdout(text: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text) {
        // `perfwatch once | head` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

/// Two readings, one snapshot.
pub(crate) fn once(settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    settings.agent_config().map_err(anyhow::Error::msg)?.validate()?;
    let source: Arc<dyn Source> = Arc::new(source(settings));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let set = CollectorSet::new(&settings.agent_config.collectors.disabled, settings.collector_options());
    let mut name = Vec::new();
    let _ = source.read("/proc/sys/kernel/hostname", &mut name);
    let name = settings
        .agent_config
        .name
        .clone()
        .unwrap_or_else(|| String::from_utf8_lossy(&name).trim().to_owned());
    let snapshot =
        collect_once(source, &set, settings.agent_config.interval.0, &clock).context("collectors")?;
    let host = HostRef { id: None, name };
    let mut text = String::new();
    if as_json {
        json::write_snapshot(&mut text, HostId::generate(), &host, &snapshot);
        text.push('\n');
    } else {
        text = screen::render_screen(&host.name, &snapshot);
    }
    write_stdout(text.as_bytes())
}

/// All that the collectors ask for, recorded while they read.
pub(crate) fn capture(settings: &Settings, file: Option<&Path>) -> anyhow::Result<()> {
    let source = source(settings);
    let clock = SystemClock::new();
    let recorder = RecordingSource::new(&source);
    // Every process in detail, so that whoever reads the capture may pick any.
    let options = CollectorOptions { top_processes: usize::MAX, ..settings.collector_options() };
    let set = CollectorSet::new(&settings.agent_config.collectors.disabled, options);
    let reading = read_all(&recorder, &set, &mut CollectorCache::default(), &clock);
    let monotonic_ms = i64::try_from(reading.monotonic.as_millis()).unwrap_or(i64::MAX);
    let text = recorder.finish(reading.wall_ms, monotonic_ms).to_text();
    match file {
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string()),
        None => write_stdout(&text),
    }
}
