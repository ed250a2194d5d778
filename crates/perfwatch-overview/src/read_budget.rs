//! Limits of a response that reads the history of many hosts, and what it leaves out because of them.

use crate::response::{ReplayLeftOut, ReplayPart, ReplayReason};
use perfwatch_model::limits::{MAX_READ_CELLS, QUERY_TIMEOUT};
use perfwatch_model::{Clock, limit_table};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Time and stored values that are left.
pub(crate) struct ReadBudget {
    clock: Arc<dyn Clock>,
    ends_at: Duration,
    cells: usize,
    left_out: BTreeMap<(ReplayPart, ReplayReason), usize>,
}

impl ReadBudget {
    /// Budget of a response that begins now.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let ends_at = clock.monotonic() + QUERY_TIMEOUT;
        Self { clock, ends_at, cells: MAX_READ_CELLS, left_out: BTreeMap::new() }
    }

    /// Stored values that may still be decoded.
    pub(crate) fn cells(&self) -> usize {
        self.cells
    }

    /// Takes decoded values from the budget.
    pub(crate) fn charge(&mut self, cells: usize) {
        self.cells = self.cells.saturating_sub(cells);
    }

    /// Reason for which nothing more is read; counts a refusal.
    pub(crate) fn limit(&self) -> Option<ReplayReason> {
        if self.clock.monotonic() >= self.ends_at {
            limit_table::QUERY_TIME.refuse();
            return Some(ReplayReason::Time);
        }
        if self.cells == 0 {
            limit_table::READ_CELLS.refuse();
            return Some(ReplayReason::Limit);
        }
        None
    }

    /// Adds to what is left out.
    pub(crate) fn leave_out(&mut self, part: ReplayPart, reason: ReplayReason, count: usize) {
        if count > 0 {
            *self.left_out.entry((part, reason)).or_default() += count;
        }
    }

    /// Leaves out a host with too many values, and counts a refusal.
    pub(crate) fn leave_out_large(&mut self, part: ReplayPart) {
        limit_table::READ_CELLS.refuse();
        self.leave_out(part, ReplayReason::Limit, 1);
    }

    /// Notes that a part is incomplete by an unknown count.
    pub(crate) fn leave_out_unknown(&mut self, part: ReplayPart, reason: ReplayReason) {
        self.left_out.insert((part, reason), 0);
    }

    /// What is left out, by part and reason.
    pub(crate) fn left_out(self) -> Vec<ReplayLeftOut> {
        let parts = self.left_out.into_iter();
        parts.map(|((part, reason), count)| ReplayLeftOut { part, reason, count }).collect()
    }
}
