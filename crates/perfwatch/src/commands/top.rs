//! `perfwatch top`: terminal view of this machine or of a host of a hub.

mod hub_source;
mod local_source;

use crate::config::Settings;
use anyhow::Context as _;
use hub_source::HubSource;
pub(crate) use hub_source::HubTarget;
use jiff::tz::TimeZone;
use local_source::LocalSource;
use perfwatch_agent::host_name;
use perfwatch_collect::{CollectorOptions, Source};
use perfwatch_model::{Clock, SystemClock};
use perfwatch_terminal::{
    HostSource, Options, ProcessOrder, Theme, View, print_once, run_plain, run_screen, time_input,
};
use std::sync::Arc;
use std::time::Duration;

/// Interval of the screen for this machine.
const SCREEN_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of reports in plain mode: a screen reader needs time to read them.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// Time over which the first rates are computed.
const FIRST_SAMPLE_DELAY: Duration = Duration::from_secs(1);
/// Bounds of the interval at which a hub is polled. Hosts without agent are collected often while they are polled.
const MIN_HUB_INTERVAL: Duration = Duration::from_secs(1);
const MAX_HUB_INTERVAL: Duration = Duration::from_secs(5);
/// Minimum number of top processes by CPU for this machine; a hub stores fewer.
const MIN_TOP_PROCESSES: usize = 30;

/// Options of the command.
pub(crate) struct TopRequest {
    /// `None` for this machine.
    pub(crate) hub: Option<HubTarget>,
    pub(crate) interval: Option<Duration>,
    /// Time to display first.
    pub(crate) at: Option<String>,
    pub(crate) order: ProcessOrder,
    pub(crate) filter: String,
    pub(crate) is_plain: bool,
    pub(crate) is_once: bool,
    pub(crate) theme: Theme,
}

/// Source with the properties of its host.
struct OpenSource {
    source: Box<dyn HostSource>,
    host: String,
    interval: Duration,
    clock: Arc<dyn Clock>,
}

/// Runs the view until the user quits.
pub(crate) fn top(settings: &Settings, request: TopRequest) -> anyhow::Result<()> {
    let interval = request.interval.or(request.is_plain.then_some(PLAIN_INTERVAL));
    let open = match request.hub {
        Some(hub) => open_hub(&hub, interval)?,
        None => open_local(settings, interval.unwrap_or(SCREEN_INTERVAL))?,
    };
    let (zone, now_ms) = (TimeZone::system(), open.clock.wall_ms());
    let start_ms = match &request.at {
        None => None,
        Some(text) => Some(
            time_input::parse(text, now_ms, &zone)
                .with_context(|| format!("--at: invalid time {text:?}; expected {}", time_input::EXPECTED))?,
        ),
    };
    let view = View::new(&open.host, now_ms, zone).with_processes(request.order, &request.filter);
    let options = Options { view, interval: open.interval, theme: request.theme, start_ms };
    let mut out = std::io::stdout().lock();
    match (request.is_once, request.is_plain) {
        (true, is_plain) => print_once(open.source, options, is_plain, &mut out)?,
        (false, true) => run_plain(open.source, options, open.clock, &mut out)?,
        (false, false) => {
            drop(out);
            run_screen(open.source, options, open.clock).context("terminal")?;
        }
    }
    Ok(())
}

fn open_local(settings: &Settings, interval: Duration) -> anyhow::Result<OpenSource> {
    settings.agent_config().map_err(anyhow::Error::msg)?.validate()?;
    let source: Arc<dyn Source> = Arc::new(settings.local_source());
    let host = host_name(settings.agent.name.as_deref(), &*source, &settings.agent.rootfs);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options = settings.collector_options();
    let top_processes = options.top_processes.max(MIN_TOP_PROCESSES);
    let options = CollectorOptions { top_processes, ..options };
    let disabled = &settings.agent.collectors.disabled;
    let first_delay = FIRST_SAMPLE_DELAY.min(interval);
    let source = LocalSource::start(source, disabled, options, first_delay, &clock).context("collectors")?;
    Ok(OpenSource { source: Box::new(source), host, interval, clock })
}

fn open_hub(hub: &HubTarget, interval: Option<Duration>) -> anyhow::Result<OpenSource> {
    let clock = SystemClock::new();
    let (source, clock) = HubSource::connect(hub, clock)?;
    let host_interval = source.interval().clamp(MIN_HUB_INTERVAL, MAX_HUB_INTERVAL);
    let host = source.host_name().to_owned();
    let interval = interval.unwrap_or(host_interval);
    Ok(OpenSource { source: Box::new(source), host, interval, clock: Arc::new(clock) })
}
