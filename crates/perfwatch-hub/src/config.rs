//! What a hub must be told; the binary reads it from files, environment and flags.

use crate::history::HistoryConfig;
use std::net::SocketAddr;
use std::time::Duration;

/// The hub's settings.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How often agents should send; none leaves it to them.
    pub interval: Option<Duration>,
    /// How long history is kept, and in how much space.
    pub history: HistoryConfig,
    /// Between two pings of a WebSocket client. One that is silent for two and a half of
    /// them is gone.
    pub ping_every: Duration,
    /// How long a WebSocket client may take to read one message.
    pub send_timeout: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            interval: None,
            history: HistoryConfig::default(),
            ping_every: Duration::from_secs(10),
            send_timeout: Duration::from_secs(10),
        }
    }
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct HubProblem {
    /// Under the hub's own section.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
}

impl HubConfig {
    /// Whether a hub can run with this.
    ///
    /// # Errors
    /// The first setting that can't be.
    pub fn check(&self) -> Result<(), HubProblem> {
        if !self.listen.ip().is_loopback() {
            let message = format!(
                "{} is not a loopback address; until the hub has user accounts it only listens on this machine (127.0.0.1 or [::1])",
                self.listen
            );
            return Err(HubProblem { key: "listen", message });
        }
        let history = &self.history;
        if history.raw < Duration::from_secs(3_600)
            || history.minutes < history.raw
            || history.hours < history.minutes
        {
            let message =
                "each tier is kept as long as the finer one at least, and ticks for an hour".to_owned();
            return Err(HubProblem { key: "history", message });
        }
        if history.budget_bytes < HistoryConfig::LEAST_BUDGET {
            let message = format!("at least {} MB", HistoryConfig::LEAST_BUDGET >> 20);
            return Err(HubProblem { key: "history.disk_budget", message });
        }
        if let Some(interval) = self.interval
            && !(Duration::from_millis(250)..=Duration::from_secs(3600)).contains(&interval)
        {
            return Err(HubProblem {
                key: "interval",
                message: format!("{interval:?} is not between 250 ms and 1 h"),
            });
        }
        Ok(())
    }
}
