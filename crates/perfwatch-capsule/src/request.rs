//! Request for a capsule.

use crate::document::Masks;
use crate::limits::{MAX_HOSTS, MAX_WINDOW_MS};
use perfwatch_alerting::OpenIncident;
use perfwatch_http::{ApiError, params};
use serde::Deserialize;
use uuid::Uuid;

/// Maximum length of a title in bytes.
const MAX_TITLE_BYTES: usize = 200;
/// Maximum length of a note in bytes.
const MAX_NOTE_BYTES: usize = 4_000;
/// Time before an incident that its capsule contains.
const BEFORE_INCIDENT_MS: i64 = 15 * 60_000;
/// Time after an incident that its capsule contains.
const AFTER_INCIDENT_MS: i64 = 5 * 60_000;
/// Maximum age of the end of the window that a clock of a host may be ahead.
const MAX_LEAD_MS: i64 = 60_000;

/// Content of a capsule: hosts, or an incident with its hosts, and a window.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CapsuleRequest {
    /// Title; default: title of the incident, or names of the hosts.
    pub title: Option<String>,
    /// Note for the reader.
    pub note: Option<String>,
    /// Ids or names of at most 50 hosts; default: the hosts of the incident.
    pub hosts: Vec<String>,
    /// Incident that the capsule is about.
    pub incident: Option<Uuid>,
    /// Start of the window; default: 15 minutes before the incident, or one hour before `to`.
    pub from: Option<String>,
    /// End of the window, at most a day after its start; default: 5 minutes after the incident, or now.
    pub to: Option<String>,
    /// Names that are replaced.
    pub mask: Masks,
}

impl CapsuleRequest {
    /// Checks the texts and the number of hosts.
    ///
    /// # Errors
    /// Returns `invalid_capsule` with the reason.
    pub(crate) fn validate(&self) -> Result<(), ApiError> {
        let invalid = |message: String| Err(ApiError::unprocessable("invalid_capsule", message));
        if self.hosts.is_empty() && self.incident.is_none() {
            return invalid("hosts: at least one host or an incident is required".to_owned());
        }
        if self.hosts.len() > MAX_HOSTS {
            return invalid(format!("hosts: at most {MAX_HOSTS} hosts"));
        }
        for (name, text, max_bytes) in
            [("title", &self.title, MAX_TITLE_BYTES), ("note", &self.note, MAX_NOTE_BYTES)]
        {
            if text.as_ref().is_some_and(|text| text.len() > max_bytes) {
                return invalid(format!("{name}: at most {max_bytes} bytes"));
            }
        }
        Ok(())
    }

    /// Window of the capsule.
    ///
    /// # Errors
    /// Returns `invalid_time` or `invalid_range` with the reason.
    pub(crate) fn window(
        &self,
        incident: Option<&OpenIncident>,
        now_ms: i64,
    ) -> Result<(i64, i64), ApiError> {
        let default = incident.map(|open| incident_window(open, now_ms));
        let (from, to) = default.map(|(from, to)| (from.to_string(), to.to_string())).unzip();
        let range = params::range(
            self.from.as_deref().or(from.as_deref()),
            self.to.as_deref().or(to.as_deref()),
            now_ms,
        )?;
        let range = (range.0, range.1.min(now_ms + MAX_LEAD_MS));
        if range.0 >= range.1 || range.1 - range.0 > MAX_WINDOW_MS {
            let message = "the window of a capsule is limited to 24 hours and must not be in the future";
            return Err(ApiError::bad_request("invalid_range", message));
        }
        Ok(range)
    }
}

/// Window around an incident; of a long incident its first day.
fn incident_window(open: &OpenIncident, now_ms: i64) -> (i64, i64) {
    let opened_ms = open.alerts.iter().map(|alert| alert.fired_ms).min().unwrap_or(open.incident.opened_ms);
    let from_ms = opened_ms - BEFORE_INCIDENT_MS;
    let is_firing = open.alerts.iter().any(|alert| alert.resolved_ms.is_none());
    let resolved_ms = open.alerts.iter().filter_map(|alert| alert.resolved_ms).max();
    let end_ms = resolved_ms.filter(|_| !is_firing).map_or(now_ms, |end_ms| end_ms + AFTER_INCIDENT_MS);
    (from_ms, end_ms.min(now_ms).max(from_ms + 1).min(from_ms + MAX_WINDOW_MS))
}
