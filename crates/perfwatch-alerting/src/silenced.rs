//! Silences seen from the alerts: what a silence holds back, and until when an alert is silenced.

use crate::active_incidents::Alert;
use crate::state::AlertingSnapshot;
use crate::visibility::can_view;
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_rules::silence::Silence;

/// End of a silence that is in effect; `None` if it has no end.
fn active_until(silence: &Silence, now_ms: i64) -> Option<i64> {
    let window_ms = silence.weekly.as_ref().and_then(|weekly| weekly.active_until(now_ms));
    [silence.ends_ms, window_ms].into_iter().flatten().min()
}

impl AlertingSnapshot {
    /// Number of firing alerts that a silence holds back and an identity may view.
    pub fn held_back(
        &self,
        silence: &Silence,
        identity: &Identity,
        auth_snapshot: &AuthSnapshot,
        now_ms: i64,
    ) -> usize {
        if !silence.is_active(now_ms) {
            return 0;
        }
        let is_held_back = |alert: &Alert| {
            silence.matcher.matches(alert.match_target(auth_snapshot))
                && can_view(identity, auth_snapshot, alert)
        };
        let firing = self.incidents.iter().flat_map(|open| open.firing());
        firing.filter(|alert| is_held_back(alert)).count()
    }

    /// Latest end of the silences that hold back an alert; `None` if it is not silenced, or without an end.
    pub fn silenced_until_ms(&self, alert: &Alert, auth_snapshot: &AuthSnapshot, now_ms: i64) -> Option<i64> {
        let target = alert.match_target(auth_snapshot);
        let silences = self.definitions.silences.iter().filter(|silence| silence.applies_to(target, now_ms));
        let ends: Option<Vec<i64>> = silences.map(|silence| active_until(silence, now_ms)).collect();
        ends?.into_iter().max()
    }
}
