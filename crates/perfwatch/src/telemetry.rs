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
    // A bare word that is no level would be taken for a module's name, and silence all others.
    let is_level = |word: &str| word.trim().parse::<tracing::Level>().is_ok() || word.trim() == "off";
    let is_directive =
        |word: &str| word.rsplit_once('=').map_or(is_level(word), |(_, level)| is_level(level));
    let levels: Option<Targets> =
        settings.level.split(',').all(is_directive).then(|| settings.level.parse().ok()).flatten();
    let levels = levels.with_context(|| {
        format!("log.level: {:?} is not a level, nor a list such as info,perfwatch_hub=debug", settings.level)
    })?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(levels)).try_init().context("logging")
}
