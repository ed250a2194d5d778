//! Flags of `perfwatch top`.

use super::flags::{CommonFlags, Overrides, RootFlags};
use crate::commands::hub_api::HubAddress;
use crate::commands::top::{HubTarget, TopRequest, top};
use anyhow::Context as _;
use clap::Args;
use perfwatch_model::HumanDuration;
use perfwatch_terminal::{ProcessOrder, Theme};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct TopFlags {
    /// Name or id of a host of the hub; optional if the hub has a single host
    #[arg(requires = "hub")]
    host: Option<String>,
    /// URL of a hub [default: this machine, without a hub]
    #[arg(long, value_name = "URL")]
    hub: Option<String>,
    /// API token of the hub; visible to other users unless in a file: file:PATH [env: PERFWATCH_API_TOKEN]
    #[arg(long, requires = "hub")]
    token: Option<String>,
    /// CA certificates (PEM) that may sign the hub's certificate
    #[arg(long, requires = "hub", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Time between two snapshots [default: 1s, with a hub that of the host, with --plain 10s]
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    /// Time to display first: -1h, 14:30, "yesterday 14:30" [default: live]
    #[arg(long, requires = "hub", allow_hyphen_values = true, value_name = "TIME")]
    at: Option<String>,
    /// Order of the processes: cpu, memory, io, name or pid
    #[arg(long, default_value = "cpu", value_name = "COLUMN")]
    sort: String,
    /// Display only processes whose name, command line or user contains the text
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    filter: String,
    /// Write lines of text instead of a screen, for screen readers and pipes
    #[arg(long)]
    plain: bool,
    /// Write a single screen, or with --plain a single report, and exit
    #[arg(long)]
    once: bool,
    /// Use no colors, as with the environment variable NO_COLOR
    #[arg(long)]
    no_color: bool,
    #[command(flatten)]
    roots: RootFlags,
}

/// Interval of `--interval`, between 250 ms and 1 h.
fn parse_interval(text: &str) -> anyhow::Result<Duration> {
    let is_valid = |interval: &Duration| (250..=3_600_000).contains(&interval.as_millis());
    let ms = HumanDuration::parse(text).map(HumanDuration::ms);
    let interval = ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    interval
        .filter(is_valid)
        .with_context(|| format!("--interval: invalid duration {text:?}; expected 250ms to 1h, such as 2s"))
}

impl TopFlags {
    pub(super) fn run(self, common: CommonFlags) -> anyhow::Result<()> {
        let interval = self.interval.as_deref().map(parse_interval).transpose()?;
        let order = ProcessOrder::parse(&self.sort).with_context(|| {
            let names = ProcessOrder::ALL.map(ProcessOrder::label).join(", ");
            format!("--sort: unknown column {:?}; expected {names}", self.sort)
        })?;
        let mut theme = Theme::from_environment(|name| std::env::var(name).ok());
        theme.has_color &= !self.no_color;
        let mut overrides = Overrides::new();
        self.roots.push_overrides(&mut overrides);
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let is_screen = !self.plain && !self.once && !is_dumb;
        if is_screen && !std::io::stdout().is_terminal() {
            anyhow::bail!("standard output is not a terminal; use --plain or --once");
        }
        // Log lines would be written over the screen.
        let common =
            if is_screen && std::io::stderr().is_terminal() { common.without_logs() } else { common };
        let address = self.hub.map(|url| HubAddress { url, token: self.token, ca: self.ca });
        let hub = address.map(|address| HubTarget { address, host: self.host });
        let request = TopRequest {
            hub,
            interval,
            at: self.at,
            order,
            filter: self.filter,
            is_plain: self.plain || is_dumb,
            is_once: self.once,
            theme,
        };
        top(&common.load(overrides)?, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_bounded() {
        for (text, expected) in [("250ms", Some(250)), ("2s", Some(2_000)), ("1h", Some(3_600_000))] {
            assert_eq!(parse_interval(text).ok(), expected.map(Duration::from_millis), "{text}");
        }
        for text in ["0", "249ms", "2h", "fast", "-1s", ""] {
            assert!(parse_interval(text).unwrap_err().to_string().contains("expected 250ms to 1h"), "{text}");
        }
    }
}
