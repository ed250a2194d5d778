//! Faults of a run: what fails, when and for how long, derived from a seed.

use super::links::LinkState;
use fastrand::Rng;
use std::fmt;
use std::time::Duration;

/// Time before the first fault, in which everything works.
const WARM_UP: Duration = Duration::from_secs(4);
/// Shortest time between the end of a fault and the next fault: longer than dashboards may be without data.
const MIN_PAUSE: Duration = Duration::from_secs(6);
/// Time for which a lease holder is suspended, at most half of the run: its leases move after 9 s.
const SUSPEND_TIME: Duration = Duration::from_secs(30);
/// Shortest fault beside which others occur.
const MIN_LONG_FAULT: Duration = Duration::from_secs(8);
/// Time between the faults beside a long fault.
const INNER_PAUSE: Duration = Duration::from_secs(3);

/// Part of the installation that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// SIGKILL to a hub, which starts again at the end of the fault.
    KillHub,
    /// SIGTERM to a hub, which starts again at the end of the fault.
    TerminateHub,
    /// SIGSTOP to the hub that holds the leases.
    SuspendLeaseHolder,
    /// Redis is killed, and starts without data at the end of the fault.
    KillRedis,
    /// SIGSTOP to Redis.
    SuspendRedis,
    /// PostgreSQL ends its connections and stops.
    StopPostgres,
    /// PostgreSQL stops at once and recovers at its next start.
    CrashPostgres,
    /// The link of a hub to agents and viewers.
    CutClients(LinkState),
    /// The link of a hub to PostgreSQL.
    CutStore(LinkState),
    /// The link of a hub to Redis.
    CutRedis(LinkState),
}

use FaultKind::{
    CrashPostgres, CutClients, CutRedis, CutStore, KillHub, KillRedis, StopPostgres, SuspendLeaseHolder,
    SuspendRedis, TerminateHub,
};
use LinkState::{Refused, Silent};

const KINDS: [FaultKind; 13] = [
    KillHub,
    TerminateHub,
    SuspendLeaseHolder,
    KillRedis,
    SuspendRedis,
    StopPostgres,
    CrashPostgres,
    CutClients(Refused),
    CutClients(Silent),
    CutStore(Refused),
    CutStore(Silent),
    CutRedis(Refused),
    CutRedis(Silent),
];

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KillHub => "hub killed",
            TerminateHub => "hub terminated",
            SuspendLeaseHolder => "lease holder suspended",
            KillRedis => "Redis killed",
            SuspendRedis => "Redis suspended",
            StopPostgres => "PostgreSQL stopped",
            CrashPostgres => "PostgreSQL crashed",
            CutClients(Silent) => "link to clients silent",
            CutClients(_) => "link to clients cut",
            CutStore(Silent) => "link to PostgreSQL silent",
            CutStore(_) => "link to PostgreSQL cut",
            CutRedis(Silent) => "link to Redis silent",
            CutRedis(_) => "link to Redis cut",
        })
    }
}

impl FaultKind {
    /// Returns whether the fault concerns one hub.
    pub(super) fn has_hub(self) -> bool {
        !matches!(self, KillRedis | SuspendRedis | StopPostgres | CrashPostgres)
    }

    /// Returns whether dashboards have new data during the fault, because the clients of the hub know that it
    /// is gone. All others wait for the end of the fault.
    pub(super) fn recovers_at_start(self) -> bool {
        matches!(self, KillHub | TerminateHub | CutClients(Refused))
    }

    /// Returns whether a hub starts at the end of the fault, for which it needs the database.
    fn restarts_hub(self) -> bool {
        matches!(self, KillHub | TerminateHub)
    }

    fn is_postgres(self) -> bool {
        matches!(self, StopPostgres | CrashPostgres)
    }

    fn is_redis(self) -> bool {
        matches!(self, KillRedis | SuspendRedis)
    }

    /// Returns whether both faults may exist at the same time.
    fn is_compatible(self, other: Self) -> bool {
        let excludes = |a: Self, b: Self| {
            a.is_postgres() && (b.restarts_hub() || b.is_postgres() || b == SuspendLeaseHolder)
        };
        !(excludes(self, other) || excludes(other, self) || (self.is_redis() && other.is_redis()))
    }

    fn time(self, rng: &mut Rng, run_time: Duration) -> Duration {
        let ms = match self {
            SuspendLeaseHolder => return SUSPEND_TIME.min(run_time / 2),
            // The time until the server is ready again is added.
            StopPostgres | CrashPostgres => rng.u64(200..2_500),
            KillHub | TerminateHub => rng.u64(3_000..6_000),
            KillRedis => rng.u64(200..5_000),
            CutStore(_) => rng.u64(2_000..9_000),
            _ => rng.u64(2_000..8_000),
        };
        Duration::from_millis(ms)
    }
}

/// Fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedFault {
    pub(super) kind: FaultKind,
    /// Start after the start of the run.
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// Random number that selects the hub among those that work.
    pub(super) choice: usize,
}

/// Kinds in random order, each once before one is repeated.
struct Deck(Vec<FaultKind>);

impl Deck {
    /// The next kind that fits the condition.
    fn draw(&mut self, rng: &mut Rng, is_suitable: impl Fn(FaultKind) -> bool) -> FaultKind {
        loop {
            if let Some(index) = self.0.iter().position(|kind| is_suitable(*kind)) {
                return self.0.remove(index);
            }
            let mut kinds = KINDS;
            rng.shuffle(&mut kinds);
            self.0.extend(kinds);
        }
    }
}

/// Faults of a run, by their start. All faults end before `run_time`, unless the first is longer.
pub(super) fn plan(rng: &mut Rng, run_time: Duration) -> Vec<PlannedFault> {
    let (mut deck, mut faults, mut from) = (Deck(Vec::new()), Vec::new(), WARM_UP.min(run_time / 4));
    while faults.is_empty() || from + MIN_PAUSE < run_time {
        let kind = deck.draw(rng, |_| true);
        let to = from + kind.time(rng, run_time);
        faults.push(PlannedFault { kind, from, to, choice: rng.usize(..) });
        let mut end = to;
        // Beside a long fault, others follow each other; beside others, sometimes one.
        let is_long = to - from >= MIN_LONG_FAULT;
        let mut inner = from + Duration::from_millis(rng.u64(500..3_000));
        while inner < to && (is_long || rng.u8(..3) == 0) {
            let beside = deck.draw(rng, |other| other != SuspendLeaseHolder && kind.is_compatible(other));
            let to = inner + beside.time(rng, run_time);
            faults.push(PlannedFault { kind: beside, from: inner, to, choice: rng.usize(..) });
            end = end.max(to);
            inner = to + INNER_PAUSE;
        }
        from = end + MIN_PAUSE + Duration::from_millis(rng.u64(..2_000));
    }
    faults.sort_by_key(|fault| fault.from);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn plans_repeat_and_cover_all_kinds() {
        let run_time = Duration::from_secs(45);
        let plan = |seed: u64| plan(&mut Rng::with_seed(seed), run_time);
        let mut kinds = HashSet::new();
        for seed in 1..=20 {
            let faults = plan(seed);
            assert_eq!(faults, plan(seed));
            assert!(faults.iter().all(|fault| fault.from < fault.to));
            for (index, fault) in faults.iter().enumerate() {
                kinds.insert(fault.kind.to_string());
                let beside = faults[index + 1..].iter().filter(|other| other.from < fault.to);
                assert!(beside.into_iter().all(|other| fault.kind.is_compatible(other.kind)), "{faults:?}");
            }
        }
        assert_eq!(kinds.len(), KINDS.len(), "{kinds:?}");
    }
}
