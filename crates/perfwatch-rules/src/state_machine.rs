//! Alert state machine: Inactive → Pending → Firing → Inactive.
//!
//! An unknown evaluation and an observation older than the last one change nothing. A value between
//! threshold and clear threshold keeps the phase.

use serde::{Deserialize, Serialize};

/// Result of evaluating a condition on an observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evaluation {
    /// Condition of the rule holds.
    Breach,
    /// Value is between threshold and clear threshold.
    Hysteresis,
    /// Condition of the rule does not hold.
    Clear,
    /// Value is missing or not a number.
    Unknown,
}

/// Phase of an alert's life cycle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum AlertPhase {
    /// Condition does not hold, or was never evaluated.
    #[default]
    Inactive,
    /// Condition holds, but not for the hold time yet.
    Pending {
        /// Start of the breach, in milliseconds since 1970.
        since_ms: i64,
    },
    /// Condition has held for the hold time.
    Firing {
        /// Start of the breach, in milliseconds since 1970.
        since_ms: i64,
        /// Time of the transition to firing, in milliseconds since 1970.
        fired_ms: i64,
    },
}

/// State of an alert, persisted between observations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertState {
    /// Current phase and its times.
    pub phase: AlertPhase,
    /// Time of the last observation with a known value, in milliseconds since 1970.
    pub last_observed_ms: i64,
}

/// Change of an alert's phase that is recorded and notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Alert started to fire.
    Fired,
    /// Alert stopped firing: the condition cleared.
    Resolved,
}

/// Hold time of a condition, and the gap that interrupts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldPolicy {
    /// Time for which the condition must hold, in milliseconds.
    pub for_ms: i64,
    /// Maximum time between two observations, in milliseconds. A longer gap restarts the hold time.
    pub max_gap_ms: i64,
}

/// Advances the state by an observation. Observations at or before the last one change nothing, so
/// backfilled data does not notify.
pub fn advance(
    state: AlertState,
    evaluation: Evaluation,
    at_ms: i64,
    policy: HoldPolicy,
) -> (AlertState, Option<Transition>) {
    if at_ms <= state.last_observed_ms {
        return (state, None);
    }
    let is_after_gap = at_ms - state.last_observed_ms > policy.max_gap_ms;
    let next = |phase| AlertState { phase, last_observed_ms: at_ms };
    let breach_since = |since_ms: i64| {
        if at_ms - since_ms >= policy.for_ms {
            (next(AlertPhase::Firing { since_ms, fired_ms: at_ms }), Some(Transition::Fired))
        } else {
            (next(AlertPhase::Pending { since_ms }), None)
        }
    };
    match (state.phase, evaluation) {
        // The condition may have cleared during a gap.
        (AlertPhase::Pending { .. }, Evaluation::Breach) if is_after_gap => breach_since(at_ms),
        (AlertPhase::Pending { .. }, Evaluation::Hysteresis) if is_after_gap => {
            (next(AlertPhase::Inactive), None)
        }
        (AlertPhase::Inactive, Evaluation::Breach) => breach_since(at_ms),
        (AlertPhase::Pending { since_ms }, Evaluation::Breach) => breach_since(since_ms),
        (AlertPhase::Pending { .. }, Evaluation::Clear) => (next(AlertPhase::Inactive), None),
        (AlertPhase::Firing { .. }, Evaluation::Clear) => {
            (next(AlertPhase::Inactive), Some(Transition::Resolved))
        }
        // Unchanged: a gap is measured from the last known value.
        (_, Evaluation::Unknown) => (state, None),
        // A firing alert fires until the condition is known to be clear.
        (phase, _) => (next(phase), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000;
    const POLICY: HoldPolicy = HoldPolicy { for_ms: 10 * SECOND, max_gap_ms: 60 * SECOND };

    /// Advances by one evaluation per letter, two seconds apart; returns a letter per phase.
    fn run(evaluations: &str, policy: HoldPolicy) -> String {
        let mut state = AlertState::default();
        let mut step = |(index, symbol): (usize, char)| {
            let evaluation = match symbol {
                'x' => Evaluation::Breach,
                '~' => Evaluation::Hysteresis,
                '.' => Evaluation::Clear,
                _ => Evaluation::Unknown,
            };
            let at_ms = 1_000_000 + index as i64 * 2 * SECOND;
            let (next, transition) = advance(state, evaluation, at_ms, policy);
            state = next;
            match (transition, next.phase) {
                (Some(Transition::Fired), _) => 'F',
                (Some(Transition::Resolved), _) => 'R',
                (None, AlertPhase::Inactive) => '-',
                (None, AlertPhase::Pending { .. }) => 'p',
                (None, AlertPhase::Firing { .. }) => 'f',
            }
        };
        evaluations.chars().enumerate().map(&mut step).collect()
    }

    #[test]
    fn fires_after_hold_and_resolves_when_clear() {
        for (evaluations, expected) in [
            ("..xxxxxxxx...", "--pppppFffR--"),
            ("xxxx.xxxxxxx.", "pppp-pppppFfR"),
            // A value that oscillates around the threshold causes a single alert.
            ("xxxxxxx~x~x~~x~.", "pppppFfffffffffR"),
            ("xx~~xxxx", "pppppFff"),
            ("xx??xxxx", "pppppFff"),
            ("xxxxxx????...", "pppppFffffR--"),
            ("~~~~~~~~", "--------"),
        ] {
            assert_eq!(run(evaluations, POLICY), expected, "{evaluations}");
        }
        assert_eq!(run("x.", HoldPolicy { for_ms: 0, ..POLICY }), "FR");
    }

    #[test]
    fn gap_resets_pending_and_late_data_is_ignored() {
        let breach = |state, at_ms| advance(state, Evaluation::Breach, at_ms, POLICY);
        let (state, _) = breach(AlertState::default(), 100_000);
        let (state, fired) = breach(state, 100_000 + 61 * SECOND);
        assert_eq!((state.phase, fired), (AlertPhase::Pending { since_ms: 161_000 }, None));
        let (unchanged, transition) = advance(state, Evaluation::Clear, 120_000, POLICY);
        assert_eq!((unchanged, transition), (state, None), "backfilled");
        let (state, fired) = breach(state, 172_000);
        assert_eq!(fired, Some(Transition::Fired));
        // A gap does not end a firing alert.
        let (state, transition) = breach(state, 900_000);
        assert!(matches!(state.phase, AlertPhase::Firing { since_ms: 161_000, .. }));
        assert_eq!(transition, None);
    }

    proptest! {
        /// Fired and resolved alternate. An alert fires only during a breach and after its hold time.
        #[test]
        fn transitions_alternate(
            steps in prop::collection::vec((0u8..4, 1i64..90_000), 1..200),
            for_s in 0i64..60,
        ) {
            use Evaluation::{Breach, Clear, Hysteresis, Unknown};
            let policy = HoldPolicy { for_ms: for_s * SECOND, ..POLICY };
            let (mut state, mut at_ms, mut is_firing) = (AlertState::default(), 1_000_000, false);
            for (kind, later_ms) in steps {
                at_ms += later_ms;
                let evaluation = [Breach, Hysteresis, Clear, Unknown][usize::from(kind)];
                let (next, transition) = advance(state, evaluation, at_ms, policy);
                match transition {
                    Some(Transition::Fired) => {
                        prop_assert!(!is_firing && evaluation == Breach);
                        let AlertPhase::Firing { since_ms, fired_ms } = next.phase else {
                            panic!("{next:?}")
                        };
                        prop_assert!(fired_ms == at_ms && fired_ms - since_ms >= policy.for_ms);
                        is_firing = true;
                    }
                    Some(Transition::Resolved) => {
                        prop_assert!(is_firing && evaluation == Clear);
                        is_firing = false;
                    }
                    None => prop_assert_eq!(is_firing, matches!(next.phase, AlertPhase::Firing { .. })),
                }
                // A repeated observation changes nothing.
                prop_assert_eq!(advance(next, evaluation, at_ms, policy), (next, None));
                state = next;
            }
        }
    }
}
