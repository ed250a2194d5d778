//! `perfwatch once`: prints one snapshot of this machine.

mod screen;

use crate::config::Settings;
use crate::stdout::write_stdout;
use anyhow::Context as _;
use perfwatch_agent::{collect_once, host_name};
use perfwatch_collect::{CollectorSet, Source};
use perfwatch_model::{Clock, HostId, HostRef, SystemClock, json};
use std::sync::Arc;

/// Collects twice, because rates need two readings, and prints the snapshot.
pub(crate) fn once(settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    settings.agent_config().map_err(anyhow::Error::msg)?.validate()?;
    let source: Arc<dyn Source> = Arc::new(settings.local_source());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let set = CollectorSet::new(&settings.agent.collectors.disabled, settings.collector_options());
    let name = host_name(settings.agent.name.as_deref(), &*source, &settings.host_paths().rootfs);
    let snapshot = collect_once(source, &set, settings.agent.interval.0, &clock).context("collectors")?;
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
