//! One step of one alert: a verdict comes in, a state goes out, and what changed.
//!
//! Inactive → Pending → Firing → Inactive. What is unknown changes nothing; what lies between the
//! threshold and where it clears keeps what there is; what is of the past is not heard.

use serde::{Deserialize, Serialize};

/// What an observation says of a rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evaluation {
    /// The condition holds.
    Breach,
    /// Between threshold and clear threshold: neither.
    Hysteresis,
    /// It does not hold.
    Clear,
    /// There is nothing to say by.
    Unknown,
}

/// How an alert stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum AlertPhase {
    /// All is well.
    #[default]
    Inactive,
    /// The condition holds, not yet for long enough.
    Pending {
        /// Since when, milliseconds since 1970.
        since_ms: i64,
    },
    /// Somebody should know.
    Firing {
        /// Since when the condition holds.
        since_ms: i64,
        /// When it began to fire.
        fired_ms: i64,
    },
}

/// One alert: of a rule, a host and an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertState {
    /// How it stands.
    pub phase: AlertPhase,
    /// Of the last observation that said something, milliseconds since 1970.
    pub last_observed_ms: i64,
}

/// What somebody should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It began to fire.
    Fired,
    /// It fires no more.
    Resolved,
}

/// How long a condition must hold, and what ends that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldPolicy {
    /// Milliseconds that it must hold without a break.
    pub for_ms: i64,
    /// Two observations further apart than this don't prove what was between them.
    pub max_gap_ms: i64,
}

/// One step. Observations of a time that was heard already change nothing: what an agent fills in
/// afterwards pages nobody for the past.
pub fn advance(
    state: AlertState,
    verdict: Evaluation,
    at_ms: i64,
    patience: HoldPolicy,
) -> (AlertState, Option<Transition>) {
    if at_ms <= state.last_observed_ms {
        return (state, None);
    }
    let gap = at_ms - state.last_observed_ms > patience.max_gap_ms;
    let next = |phase| AlertState { phase, last_observed_ms: at_ms };
    let begin = |since_ms: i64| {
        if at_ms - since_ms >= patience.for_ms {
            (next(AlertPhase::Firing { since_ms, fired_ms: at_ms }), Some(Transition::Fired))
        } else {
            (next(AlertPhase::Pending { since_ms }), None)
        }
    };
    match (state.phase, verdict) {
        // What was seen before a break may have ended in it.
        (AlertPhase::Pending { .. }, Evaluation::Breach) if gap => begin(at_ms),
        (AlertPhase::Pending { .. }, Evaluation::Hysteresis) if gap => (next(AlertPhase::Inactive), None),
        (AlertPhase::Inactive, Evaluation::Breach) => begin(at_ms),
        (AlertPhase::Pending { since_ms }, Evaluation::Breach) => begin(since_ms),
        (AlertPhase::Pending { .. }, Evaluation::Clear) => (next(AlertPhase::Inactive), None),
        (AlertPhase::Firing { .. }, Evaluation::Clear) => {
            (next(AlertPhase::Inactive), Some(Transition::Resolved))
        }
        // Not heard: a gap is counted from the last that said something.
        (_, Evaluation::Unknown) => (state, None),
        // Once it fires, it fires until it is seen to be clear.
        (phase, _) => (next(phase), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000;
    const PATIENCE: HoldPolicy = HoldPolicy { for_ms: 10 * SECOND, max_gap_ms: 60 * SECOND };

    /// Verdicts as letters, one each two seconds: where it fires and where it resolves.
    fn walk(verdicts: &str, patience: HoldPolicy) -> String {
        let mut state = AlertState::default();
        let told = |letter, at: usize| {
            let verdict = match letter {
                'x' => Evaluation::Breach,
                '~' => Evaluation::Hysteresis,
                '.' => Evaluation::Clear,
                _ => Evaluation::Unknown,
            };
            let (next, transition) = advance(state, verdict, 1_000_000 + at as i64 * 2 * SECOND, patience);
            state = next;
            match (transition, next.phase) {
                (Some(Transition::Fired), _) => 'F',
                (Some(Transition::Resolved), _) => 'R',
                (None, AlertPhase::Inactive) => '-',
                (None, AlertPhase::Pending { .. }) => 'p',
                (None, AlertPhase::Firing { .. }) => 'f',
            }
        };
        let mut told = told;
        verdicts.chars().enumerate().map(|(at, letter)| told(letter, at)).collect()
    }

    #[test]
    fn fires_after_hold_and_resolves_when_clear() {
        for (verdicts, want) in [
            ("..xxxxxxxx...", "--pppppFffR--"),
            ("xxxx.xxxxxxx.", "pppp-pppppFfR"),
            // Around the threshold: one alert, not many.
            ("xxxxxxx~x~x~~x~.", "pppppFfffffffffR"),
            ("xx~~xxxx", "pppppFff"),
            ("xx??xxxx", "pppppFff"),
            ("xxxxxx????...", "pppppFffffR--"),
            ("~~~~~~~~", "--------"),
        ] {
            assert_eq!(walk(verdicts, PATIENCE), want, "{verdicts}");
        }
        assert_eq!(walk("x.", HoldPolicy { for_ms: 0, ..PATIENCE }), "FR");
    }

    #[test]
    fn gap_resets_pending_and_late_data_is_ignored() {
        let breach = |state, at_ms| advance(state, Evaluation::Breach, at_ms, PATIENCE);
        let (state, _) = breach(AlertState::default(), 100_000);
        let (state, fired) = breach(state, 100_000 + 61 * SECOND);
        assert_eq!((state.phase, fired), (AlertPhase::Pending { since_ms: 161_000 }, None));
        let (same, none) = advance(state, Evaluation::Clear, 120_000, PATIENCE);
        assert_eq!((same, none), (state, None), "filled in afterwards");
        let (state, fired) = breach(state, 172_000);
        assert_eq!(fired, Some(Transition::Fired));
        // It goes on firing through a break.
        let (state, none) = breach(state, 900_000);
        assert!(matches!(state.phase, AlertPhase::Firing { since_ms: 161_000, .. }) && none.is_none());
    }

    proptest! {
        /// Fired and resolved take turns; it never fires before its time, and never without a
        /// breach right then.
        #[test]
        fn transitions_alternate(steps in prop::collection::vec((0u8..4, 1i64..90_000), 1..200), for_s in 0i64..60) {
            let patience = HoldPolicy { for_ms: for_s * SECOND, ..PATIENCE };
            let (mut state, mut at_ms, mut firing) = (AlertState::default(), 1_000_000, false);
            for (kind, later_ms) in steps {
                at_ms += later_ms;
                let verdict = [Evaluation::Breach, Evaluation::Hysteresis, Evaluation::Clear, Evaluation::Unknown][usize::from(kind)];
                let (next, transition) = advance(state, verdict, at_ms, patience);
                match transition {
                    Some(Transition::Fired) => {
                        prop_assert!(!firing && verdict == Evaluation::Breach);
                        let AlertPhase::Firing { since_ms, fired_ms } = next.phase else { panic!("{next:?}") };
                        prop_assert!(fired_ms == at_ms && fired_ms - since_ms >= patience.for_ms);
                        firing = true;
                    }
                    Some(Transition::Resolved) => {
                        prop_assert!(firing && verdict == Evaluation::Clear);
                        firing = false;
                    }
                    None => prop_assert_eq!(firing, matches!(next.phase, AlertPhase::Firing { .. })),
                }
                // The same once more changes nothing.
                prop_assert_eq!(advance(next, verdict, at_ms, patience), (next, None));
                state = next;
            }
        }
    }
}
