//! Course of the visible hosts over a range of the history: sums, bands and health. Hosts are read one by one; stored
//! values and time are bounded, and the response counts the hosts that were left out.

use crate::course::{MAX_LEVELS, level_of};
use crate::day::DAY_METRICS;
use crate::read_budget::ReadBudget;
use crate::response::{OverviewHistoryResponse, ReplayPart};
use crate::{MAX_COURSE_ALERTS, Overview, OverviewDeps};
use perfwatch_alerting::{Alert, can_view};
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_history::grid::{GridBounds, GridRequest, GridSize};
use perfwatch_live::host_registry::Host;
use perfwatch_model::{HostId, SeriesSelector};
use perfwatch_store::incidents::{AlertFilter, AlertRow};
use perfwatch_store::{HeldPermits, StoreError};
use perfwatch_tsdb::Tier;
use perfwatch_tsdb::fill::{FillGrid, fill_between_samples};
use perfwatch_tsdb::query::{self, average};
use perfwatch_tsdb::rollup::bucket_start;
use std::collections::HashMap;

/// Number of steps if the request names none, and the fewest and most.
const DEFAULT_COURSE_LEN: usize = 120;
const MIN_COURSE_LEN: usize = 10;
const MAX_COURSE_LEN: usize = 400;
/// Stored values in memory at the same time.
const MAX_PART_CELLS: usize = 512 << 10;
/// Maximum number of points of a host.
const MAX_HOST_POINTS: usize = 4 * (MAX_COURSE_LEN + 2);
/// Bytes of the values of a host at a step.
const STEP_BYTES: usize = 48;

/// Request for the course over a range.
pub struct CourseRequest {
    /// Start and exclusive end, Unix milliseconds.
    pub range: (i64, i64),
    /// Number of steps; `None` for the default.
    pub points: Option<usize>,
    /// Permits that the reads hold.
    pub held: HeldPermits,
}

impl CourseRequest {
    fn points(&self) -> usize {
        self.points.unwrap_or(DEFAULT_COURSE_LEN).clamp(MIN_COURSE_LEN, MAX_COURSE_LEN)
    }
}

/// Grid of a course, and the reads that it consists of.
struct CourseReads<'a> {
    deps: &'a OverviewDeps,
    request: &'a CourseRequest,
    start_ms: i64,
    step_ms: i64,
    len: usize,
    tier: Tier,
    /// End of the range, or the current time if it is earlier.
    end_ms: i64,
    budget: ReadBudget,
}

/// Sums of the hosts that were read.
struct CourseSums {
    /// Values of all hosts at each step, by metric of [`DAY_METRICS`].
    values: Vec<[Vec<f64>; DAY_METRICS.len()]>,
    health: Vec<[usize; MAX_LEVELS]>,
    tier: Tier,
}

impl Overview {
    /// Memory in bytes that a course over a range needs at most.
    pub fn course_memory_bytes(&self, request: &CourseRequest) -> usize {
        // A part is in memory decoded and as points.
        2 * MAX_PART_CELLS * size_of::<i64>() + self.0.deps.hosts.count() * request.points() * STEP_BYTES
    }

    /// Course of a range as JSON for a caller.
    ///
    /// # Errors
    /// Returns the error of the store if the history or the alerts cannot be read.
    pub async fn course(&self, identity: &Identity, request: CourseRequest) -> Result<String, StoreError> {
        let deps = &self.0.deps;
        let auth_snapshot = deps.directory.snapshot();
        let mut hosts = deps.hosts.list();
        hosts.retain(|host| identity.can_view(&auth_snapshot, host.record.id));
        let mut reads = CourseReads::new(deps, &request, &hosts);
        let levels = reads.alert_levels(identity, &auth_snapshot).await?;
        let sums = reads.read(&hosts, &levels).await?;
        Ok(serde_json::to_string(&reads.respond(sums)).unwrap_or_default())
    }
}

impl<'a> CourseReads<'a> {
    fn new(deps: &'a OverviewDeps, request: &'a CourseRequest, hosts: &[Host]) -> Self {
        let (from_ms, to_ms) = request.range;
        let now_ms = deps.clock.wall_ms();
        let intervals = hosts.iter().map(|host| i64::from(host.interval_ms()));
        let size = GridSize {
            range: request.range,
            now_ms,
            hosts: hosts.len(),
            series: DAY_METRICS.len(),
            interval_ms: intervals.filter(|interval_ms| *interval_ms > 0).min().unwrap_or_default(),
        };
        let finest_ms = query::step_ms(to_ms - from_ms, request.points());
        let tier = size.tier(query::tier_for(finest_ms));
        let step_ms = finest_ms.max(tier.width_ms());
        let start_ms = bucket_start(from_ms, step_ms);
        Self {
            deps,
            request,
            start_ms,
            step_ms,
            len: usize::try_from((to_ms - 1 - start_ms) / step_ms + 1).unwrap_or(1),
            tier,
            end_ms: to_ms.min(now_ms),
            budget: ReadBudget::new(deps.clock.clone()),
        }
    }

    /// Worst level of the visible alerts of each host at each step.
    async fn alert_levels(
        &self,
        identity: &Identity,
        auth_snapshot: &AuthSnapshot,
    ) -> Result<HashMap<HostId, Vec<u8>>, StoreError> {
        let (from_ms, to_ms) = self.request.range;
        let filter = AlertFilter::Between(from_ms, to_ms, MAX_COURSE_ALERTS);
        let rows = AlertRow::list(self.deps.alerting.store(), filter).await?;
        let mut levels: HashMap<HostId, Vec<u8>> = HashMap::new();
        for alert in rows.iter().filter_map(Alert::from_row) {
            let Some(level) = level_of(alert.severity) else { continue };
            if !can_view(identity, auth_snapshot, &alert) {
                continue;
            }
            let step = |at_ms: i64| usize::try_from((at_ms - self.start_ms) / self.step_ms).unwrap_or(0);
            let last = alert.resolved_ms.map_or(self.len, |at_ms| step(at_ms) + 1).min(self.len);
            let steps = levels.entry(alert.host).or_insert_with(|| vec![0; self.len]);
            for slot in steps.iter_mut().take(last).skip(step(alert.fired_ms.max(self.start_ms))) {
                *slot = (*slot).max(level);
            }
        }
        Ok(levels)
    }

    /// Reads the hosts until a limit is reached.
    async fn read(
        &mut self,
        hosts: &[Host],
        levels: &HashMap<HostId, Vec<u8>>,
    ) -> Result<CourseSums, StoreError> {
        let mut sums = CourseSums {
            values: (0..self.len).map(|_| std::array::from_fn(|_| Vec::new())).collect(),
            health: vec![[0; MAX_LEVELS]; self.len],
            tier: Tier::Raw,
        };
        for (position, host) in hosts.iter().enumerate() {
            if let Some(reason) = self.budget.limit() {
                self.budget.leave_out(ReplayPart::Values, reason, hosts.len() - position);
                break;
            }
            if let Some(values) = self.read_host(host, &mut sums.tier).await? {
                let levels = levels.get(&host.record.id).map_or(&[][..], Vec::as_slice);
                self.add(host, &values, levels, &mut sums);
            }
        }
        Ok(sums)
    }

    /// Values of a host at each step by metric; `None` if it has too many.
    async fn read_host(
        &mut self,
        host: &Host,
        coarsest: &mut Tier,
    ) -> Result<Option<[Vec<f64>; DAY_METRICS.len()]>, StoreError> {
        let selector =
            |metric: &&str| SeriesSelector { metric: (*metric).to_owned(), instance: Some(String::new()) };
        let request = GridRequest {
            host: host.record.id,
            selectors: DAY_METRICS.iter().map(selector).collect(),
            range: self.request.range,
            step_ms: self.step_ms,
            tier: self.tier,
            bounds: GridBounds {
                part_cells: MAX_PART_CELLS,
                cells: self.budget.cells(),
                points: MAX_HOST_POINTS,
            },
            held: Some(self.request.held.clone()),
        };
        let grid = match self.deps.history.read_grid(request).await {
            Err(StoreError::TooLarge(_)) => {
                self.budget.leave_out_large(ReplayPart::Values);
                return Ok(None);
            }
            grid => grid?,
        };
        self.budget.charge(grid.cells);
        *coarsest = grid.tier.max(*coarsest);
        let tier_ms = if grid.tier == Tier::Raw { 0 } else { grid.tier.width_ms() };
        let fill = FillGrid {
            start_ms: self.start_ms,
            step_ms: self.step_ms,
            interval_ms: i64::from(host.interval_ms()).max(tier_ms),
            end_ms: self.end_ms,
        };
        let series = |metric: usize| {
            let points = grid.series.get(&(DAY_METRICS[metric].to_owned(), String::new()));
            let mut values = vec![f64::NAN; self.len];
            for (value, stats) in values.iter_mut().zip(points.map_or(&[][..], |points| points.stats())) {
                let decimals = points.map_or(0, |points| points.decimals());
                *value = average(stats, decimals).unwrap_or(f64::NAN);
            }
            fill_between_samples(&mut values, fill);
            values
        };
        Ok(Some(std::array::from_fn(series)))
    }

    /// Adds a host to the sums.
    fn add(&self, host: &Host, values: &[Vec<f64>; DAY_METRICS.len()], levels: &[u8], sums: &mut CourseSums) {
        for step in 0..self.len {
            let mut has_data = false;
            for (metric, values) in values.iter().enumerate() {
                if !values[step].is_nan() {
                    has_data = true;
                    sums.values[step][metric].push(values[step]);
                }
            }
            let step_end_ms = self.start_ms + (i64::try_from(step).unwrap_or_default() + 1) * self.step_ms;
            let level = match levels.get(step) {
                Some(level) if *level > 0 => usize::from(*level),
                _ if has_data => 0,
                // A host has no state before it joined, and none of the future.
                _ if host.record.first_seen_ms >= step_end_ms || step_end_ms - self.step_ms > self.end_ms => {
                    continue;
                }
                _ => MAX_LEVELS - 1,
            };
            sums.health[step][level] += 1;
        }
    }

    fn respond(self, sums: CourseSums) -> OverviewHistoryResponse {
        let steps =
            (0..self.len).map(|step| self.start_ms + i64::try_from(step).unwrap_or_default() * self.step_ms);
        let mut response = OverviewHistoryResponse {
            step_ms: self.step_ms,
            t: steps.collect(),
            tier: Some(sums.tier.name()),
            left_out: Vec::new(),
            ..OverviewHistoryResponse::default()
        };
        for (values, levels) in sums.values.into_iter().zip(sums.health) {
            response.push_step(values, levels);
        }
        response.left_out = self.budget.left_out();
        response
    }
}
