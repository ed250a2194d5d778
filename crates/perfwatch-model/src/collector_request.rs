//! Requests of a hub about the collectors of an agent. An agent applies them only as far as they reduce the work
//! that its own configuration allows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Request to run a collector less often, or not at all. Agents ignore fields of newer hubs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct CollectorRequest {
    /// The collector does not run.
    pub disabled: bool,
    /// Minimum time between two runs, milliseconds; `None` leaves it to the agent.
    pub interval_ms: Option<u32>,
}

/// Requests by collector name; collectors without a request run as configured at the agent.
pub type CollectorRequests = BTreeMap<String, CollectorRequest>;

impl CollectorRequest {
    /// Minimum time between two runs of a collector with this configured interval: never less than configured,
    /// and never more than `max`, unless that is configured.
    pub fn interval(&self, configured: Duration, max: Duration) -> Duration {
        let requested = Duration::from_millis(self.interval_ms.unwrap_or(0).into());
        requested.min(max).max(configured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_intervals_only_extend_the_configured_interval() {
        let max = Duration::from_secs(3_600);
        for (configured_s, requested_ms, expected_s) in [
            (5, None, 5),
            (5, Some(0), 5),
            (5, Some(1_000), 5),
            (5, Some(60_000), 60),
            (0, Some(u32::MAX), 3_600),
            (7_200, Some(60_000), 7_200),
        ] {
            let request = CollectorRequest { disabled: false, interval_ms: requested_ms };
            let interval = request.interval(Duration::from_secs(configured_s), max);
            assert_eq!(interval, Duration::from_secs(expected_s), "{configured_s} s, {requested_ms:?} ms");
        }
    }
}
