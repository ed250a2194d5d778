//! Logging to standard error, as text or JSON.

use crate::config::{LogFormat, LogSettings};
use anyhow::Context as _;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

/// Level filter of the installed subscriber.
static FILTER: OnceLock<Handle<Targets, Registry>> = OnceLock::new();

/// Parses the levels of a setting.
fn parse_levels(settings: &LogSettings) -> anyhow::Result<Targets> {
    // `Targets` parses a word that is not a level as a module name, which would disable all other
    // modules.
    let is_level = |text: &str| text.trim().parse::<tracing::Level>().is_ok() || text.trim() == "off";
    let is_directive =
        |text: &str| text.rsplit_once('=').map_or(is_level(text), |(_, level)| is_level(level));
    let levels: Option<Targets> =
        settings.level.split(',').all(is_directive).then(|| settings.level.parse().ok()).flatten();
    levels.with_context(|| {
        format!(
            "log.level: invalid level {:?}; expected a level or a list such as info,perfwatch_hub=debug",
            settings.level
        )
    })
}

/// Validates the settings without applying them.
///
/// # Errors
/// Fails if the level is invalid.
pub(crate) fn validate(settings: &LogSettings) -> anyhow::Result<()> {
    parse_levels(settings).map(|_| ())
}

/// Applies the level of changed settings.
///
/// # Errors
/// Fails if the level is invalid.
pub(crate) fn set_level(settings: &LogSettings) -> anyhow::Result<()> {
    let levels = parse_levels(settings)?;
    FILTER.get().map_or(Ok(()), |filter| filter.reload(levels)).context("logging")
}

/// Installs the subscriber; may be called once per process.
pub(crate) fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let (levels, handle) = reload::Layer::new(parse_levels(settings)?);
    let layer = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let layer = match settings.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(levels)).try_init().context("logging")?;
    let _ = FILTER.set(handle);
    Ok(())
}
