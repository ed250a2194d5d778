//! Logs: text for people or JSON for machines, on standard error.

use crate::config::{LogFormat, LogSettings};
use anyhow::Context as _;
use std::io::IsTerminal as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Starts logging, once a process.
pub(crate) fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let levels: Targets = settings.level.parse().with_context(|| {
        format!("log.level: {:?} is not a level, nor a list such as info,perfwatch_hub=debug", settings.level)
    })?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(levels)).try_init().context("logging")
}
