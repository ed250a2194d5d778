//! Applies the faults of a plan at their times.

use super::faults::{FaultKind, PlannedFault};
use super::installation::Installation;
use perfwatch_model::{Clock as _, SystemClock};
use std::collections::VecDeque;
use std::time::Duration;

/// Fault with the monotonic times at which it started and ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct AppliedFault {
    pub(super) kind: FaultKind,
    /// Index of the hub, for faults of one hub.
    pub(super) hub: Option<usize>,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// Fault that has not ended.
struct ActiveFault {
    planned: PlannedFault,
    hub: usize,
    from: Duration,
}

/// Applies faults whose times count from now, until all have ended.
pub(super) fn apply(
    installation: &mut Installation,
    plan: Vec<PlannedFault>,
    clock: SystemClock,
) -> anyhow::Result<Vec<AppliedFault>> {
    let started = clock.monotonic();
    let (mut waiting, mut active) = (VecDeque::from(plan), Vec::<ActiveFault>::new());
    let mut applied = Vec::new();
    loop {
        let first_end = active.iter().enumerate().min_by_key(|(_, fault)| fault.planned.to);
        let first_end = first_end.map(|(index, fault)| (index, fault.planned.to));
        let next = waiting.front().copied();
        if let Some((index, to)) = first_end.filter(|(_, to)| next.is_none_or(|next| *to <= next.from)) {
            sleep_until(started + to, clock);
            let ActiveFault { planned, hub, from } = active.remove(index);
            installation.end(planned.kind, hub)?;
            let hub = Some(hub).filter(|_| planned.kind.has_hub());
            applied.push(AppliedFault { kind: planned.kind, hub, from, to: clock.monotonic() });
        } else if let Some(planned) = waiting.pop_front() {
            sleep_until(started + planned.from, clock);
            let Some(hub) = select_hub(installation, &planned, &active) else { continue };
            let from = clock.monotonic();
            installation.begin(planned.kind, hub)?;
            active.push(ActiveFault { planned, hub, from });
        } else {
            applied.sort_by_key(|fault| fault.from);
            return Ok(applied);
        }
    }
}

fn sleep_until(time: Duration, clock: SystemClock) {
    std::thread::sleep(time.saturating_sub(clock.monotonic()));
}

/// Hub of a fault: one without another fault, while at least one other hub has none. `None` if there is no
/// such hub; the fault is left out.
fn select_hub(installation: &Installation, planned: &PlannedFault, active: &[ActiveFault]) -> Option<usize> {
    if !planned.kind.has_hub() {
        return Some(0);
    }
    let has_fault = |hub| active.iter().any(|fault| fault.planned.kind.has_hub() && fault.hub == hub);
    let free: Vec<usize> = (0..installation.hub_count()).filter(|hub| !has_fault(*hub)).collect();
    if free.len() < 2 {
        return None;
    }
    let holder = match planned.kind {
        FaultKind::SuspendLeaseHolder => installation.lease_holder().filter(|hub| free.contains(hub)),
        _ => None,
    };
    Some(holder.unwrap_or(free[planned.choice % free.len()]))
}
