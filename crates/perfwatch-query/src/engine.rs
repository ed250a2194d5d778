//! Runs a request: reads the selected hosts one by one, so that the rows of a single host are in memory.

use crate::aggregate::MemberValues;
use crate::formula::Formula;
use crate::groups::{Group, HostSeries, PointBudget, QueryGroups, apply_formula, rank};
use crate::plan::{GridPlan, RequestSize};
use crate::request::{Grouping, HostMatcher, QueryRequest, QuerySet, SeriesQuery, common_grouping};
use crate::response::{LeftOut, LeftOutReason, QueryCounts, QueryResponse, ResponseSeries};
use perfwatch_auth::{AuthDirectory, Identity};
use perfwatch_history::History;
use perfwatch_history::grid::{GridRequest, GridResult};
use perfwatch_http::read_limiter::Reader;
use perfwatch_http::{ApiError, params};
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::limits::{MAX_READ_CELLS, QUERY_TIMEOUT};
use perfwatch_model::{Catalog, Clock, HostId, SeriesSelector, limit_table};
use perfwatch_store::{Store, StoreError};
use perfwatch_tsdb::Tier;
use perfwatch_tsdb::fill::FillGrid;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Services that queries read.
#[derive(Clone)]
pub struct QueryDeps {
    /// Database of the saved views.
    pub store: Arc<dyn Store>,
    /// Source of wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Definitions of all metrics.
    pub catalog: Arc<Catalog>,
    /// Accounts and tags of hosts.
    pub directory: Arc<AuthDirectory>,
    /// Hosts that a query may select.
    pub hosts: Arc<HostRegistry>,
    /// Stored history of all hosts.
    pub history: Arc<History>,
}

/// Host that at least one query selects.
struct SelectedHost {
    id: HostId,
    name: String,
    tags: Vec<String>,
    interval_ms: i64,
    /// Indices of the queries that select the host.
    queries: Vec<usize>,
}

/// Queries of a request that are read, with the hosts that they select.
struct Selection<'a> {
    set: &'a QuerySet,
    formulas: Vec<Formula>,
    /// Whether each query is read: it is visible, or a visible formula uses it.
    is_read: Vec<bool>,
    hosts: Vec<SelectedHost>,
    /// Number of hosts of each query.
    host_counts: Vec<usize>,
}

impl Selection<'_> {
    fn is_formula_operand(&self, index: usize) -> bool {
        let formulas = self.formulas.iter().zip(&self.set.formulas);
        formulas.filter(|(_, query)| !query.hidden).any(|(formula, _)| formula.queries().contains(&index))
    }
}

/// Groups of all queries, and what was left out.
struct Results<'a> {
    groups: Vec<Option<QueryGroups<'a>>>,
    budget: PointBudget,
    cells: usize,
    tier: Tier,
    left_out: LeftOut,
}

/// Runs queries over the series of many hosts.
pub struct QueryEngine(QueryDeps);

impl QueryEngine {
    /// Engine that reads these services.
    pub fn new(deps: QueryDeps) -> Self {
        Self(deps)
    }

    /// Runs the queries of a caller over the hosts that the caller may view.
    ///
    /// # Errors
    /// Returns the reason for which a query is invalid, `busy` if the permits of the read are not free, and
    /// `store_unavailable` if the history cannot be read.
    pub async fn run(
        &self,
        identity: &Identity,
        reader: &Reader,
        request: QueryRequest,
    ) -> Result<QueryResponse, ApiError> {
        let started = self.0.clock.monotonic();
        let set = QuerySet { queries: request.queries, formulas: request.formulas };
        let formulas = set.validate()?;
        let now_ms = self.0.clock.wall_ms();
        let range = params::range(request.from.as_deref(), request.to.as_deref(), now_ms)?;
        let mut left_out = LeftOut::default();
        let selection = self.select(identity, &set, formulas, &mut left_out);
        let visible = set.queries.iter().filter(|query| !query.hidden).count()
            + set.formulas.iter().filter(|formula| !formula.hidden).count();
        let intervals = selection.hosts.iter().map(|host| host.interval_ms);
        let plan = GridPlan::new(&RequestSize {
            range,
            now_ms,
            points: request.points,
            hosts: selection.hosts.len(),
            queries: set.queries.len(),
            visible,
            interval_ms: intervals.filter(|interval_ms| *interval_ms > 0).min().unwrap_or_default(),
        });
        if plan.left_out_points > 0 {
            limit_table::READ_CELLS.refuse();
            left_out.points = plan.left_out_points;
            left_out.reasons.insert(LeftOutReason::Values);
        }
        reader.reserve(plan.memory_bytes()).await?;
        let mut results = Results::new(&selection, &plan, left_out);
        let ends_at = started + QUERY_TIMEOUT;
        let fill = FillGrid {
            start_ms: plan.start_ms,
            step_ms: plan.step_ms,
            interval_ms: 0,
            end_ms: range.1.min(now_ms),
        };
        for (position, host) in selection.hosts.iter().enumerate() {
            let reason = match (self.0.clock.monotonic() >= ends_at, results.cells == 0) {
                (true, _) => LeftOutReason::Time,
                (_, true) => LeftOutReason::Values,
                _ => {
                    self.read_host(&selection, host, (range, &plan, fill), reader, &mut results).await?;
                    continue;
                }
            };
            results.leave_out(selection.hosts.len() - position, reason);
            break;
        }
        let mut response = self.respond(&selection, results, (range, &plan));
        let duration = self.0.clock.monotonic().saturating_sub(started).as_millis();
        response.duration_ms = u64::try_from(duration).unwrap_or_default();
        Ok(response)
    }

    /// Hosts of the queries that are read, sorted by name.
    fn select<'a>(
        &self,
        identity: &Identity,
        set: &'a QuerySet,
        formulas: Vec<Formula>,
        left_out: &mut LeftOut,
    ) -> Selection<'a> {
        let mut selection = Selection {
            set,
            formulas,
            is_read: Vec::new(),
            hosts: Vec::new(),
            host_counts: vec![0; set.queries.len()],
        };
        selection.is_read = (0..set.queries.len())
            .map(|index| !set.queries[index].hidden || selection.is_formula_operand(index))
            .collect();
        let matchers: Vec<HostMatcher<'_>> =
            set.queries.iter().map(|query| HostMatcher::new(&query.hosts)).collect();
        let named = set.queries.iter().flat_map(|query| &query.hosts.hosts);
        let mut unknown: HashSet<&str> = named.map(String::as_str).collect();
        let auth_snapshot = self.0.directory.snapshot();
        let visible = self.0.hosts.list().into_iter();
        for host in visible.filter(|host| identity.can_view(&auth_snapshot, host.record.id)) {
            let (id, tags) = (host.record.id.to_string(), auth_snapshot.host_tags(host.record.id));
            unknown.remove(id.as_str());
            unknown.remove(host.record.name.as_str());
            let is_selected = |index: &usize| matchers[*index].matches(&id, &host.record.name, tags);
            let queries: Vec<usize> = (0..matchers.len()).filter(is_selected).collect();
            queries.iter().for_each(|index| selection.host_counts[*index] += 1);
            let queries: Vec<usize> = queries.into_iter().filter(|index| selection.is_read[*index]).collect();
            if !queries.is_empty() {
                let (id, interval_ms) = (host.record.id, i64::from(host.interval_ms()));
                let tags = tags.to_vec();
                selection.hosts.push(SelectedHost { id, name: host.record.name, tags, interval_ms, queries });
            }
        }
        left_out.unknown_hosts = unknown.into_iter().map(str::to_owned).collect();
        selection
    }

    /// Reads the series of a host and adds them to the groups of its queries.
    async fn read_host(
        &self,
        selection: &Selection<'_>,
        host: &SelectedHost,
        (range, plan, fill): ((i64, i64), &GridPlan, FillGrid),
        reader: &Reader,
        results: &mut Results<'_>,
    ) -> Result<(), ApiError> {
        let queries = || host.queries.iter().map(|index| (*index, &selection.set.queries[*index]));
        let mut selectors: Vec<SeriesSelector> = queries().map(|(_, query)| query.selector()).collect();
        selectors.dedup();
        let request = GridRequest {
            host: host.id,
            selectors,
            range,
            step_ms: plan.step_ms,
            tier: plan.tier,
            bounds: plan.bounds(results.cells),
            held: Some(reader.permit()),
        };
        let grid = match self.0.history.read_grid(request).await {
            Err(StoreError::TooLarge(_)) => {
                results.leave_out(1, LeftOutReason::Values);
                return Ok(());
            }
            grid => grid?,
        };
        results.cells = results.cells.saturating_sub(grid.cells);
        let tier_ms = if grid.tier == Tier::Raw { 0 } else { grid.tier.width_ms() };
        let fill = FillGrid { interval_ms: host.interval_ms.max(tier_ms), ..fill };
        results.tier = results.tier.max(grid.tier);
        for (index, query) in queries() {
            let series = member_series(query, &grid, fill);
            if let Some(groups) = &mut results.groups[index] {
                groups.add_host((host.id, &host.tags), series, &mut results.budget);
            }
        }
        Ok(())
    }

    /// Response with the groups of the visible queries and formulas.
    fn respond(
        &self,
        selection: &Selection<'_>,
        results: Results<'_>,
        ((from_ms, to_ms), plan): ((i64, i64), &GridPlan),
    ) -> QueryResponse {
        let (set, mut left_out) = (selection.set, results.left_out);
        if results.budget.refused > 0 {
            limit_table::QUERY_POINTS.refuse();
            left_out.series += results.budget.refused;
            left_out.reasons.insert(LeftOutReason::Memory);
        }
        let names: BTreeMap<HostId, &str> =
            selection.hosts.iter().map(|host| (host.id, host.name.as_str())).collect();
        let mut counts = Vec::new();
        let mut finished: Vec<(&Grouping, Vec<Group>)> = Vec::new();
        for ((index, query), groups) in set.queries.iter().enumerate().zip(results.groups) {
            let series = groups.as_ref().map_or(0, |groups| groups.count);
            counts.push(QueryCounts { id: query.id.clone(), hosts: selection.host_counts[index], series });
            finished.push((&query.by, groups.map(QueryGroups::finish).unwrap_or_default()));
        }
        let mut series = Vec::new();
        let mut add = |id: &str, by: &Grouping, mut groups: Vec<Group>, count, limit: Option<usize>| {
            let max = plan.series_limit(limit);
            rank(&mut groups, max);
            // What the caller limits is not left out.
            if count > max && limit.is_none_or(|limit| limit > max) {
                limit_table::QUERY_SERIES.refuse();
                left_out.series += count - max;
                left_out.reasons.insert(LeftOutReason::Series);
            }
            series.extend(groups.into_iter().map(|group| self.to_response(id, by, group, &names)));
        };
        let mut formula_groups = Vec::new();
        {
            let operands: Vec<(&Grouping, &[Group])> =
                finished.iter().map(|(by, groups)| (*by, &groups[..])).collect();
            for (formula, query) in selection.formulas.iter().zip(&set.formulas) {
                if query.hidden {
                    counts.push(QueryCounts { id: query.id.clone(), hosts: 0, series: 0 });
                    continue;
                }
                let limit = plan.series_limit(query.limit);
                let (groups, count) = apply_formula(formula, &operands, plan.len, limit);
                let hosts = formula.queries().iter().map(|index| selection.host_counts[*index]).max();
                let hosts = hosts.unwrap_or_default();
                counts.push(QueryCounts { id: query.id.clone(), hosts, series: count });
                let groupings: Vec<&Grouping> =
                    formula.queries().iter().map(|index| &set.queries[*index].by).collect();
                let by = common_grouping(&groupings).unwrap_or(&Grouping::None);
                formula_groups.push((query, by, groups, count));
            }
        }
        for (query, (by, groups)) in set.queries.iter().zip(finished).filter(|(query, _)| !query.hidden) {
            let count = counts.iter().find(|counts| counts.id == query.id).map_or(0, |counts| counts.series);
            add(&query.id, by, groups, count, query.limit);
        }
        for (query, by, groups, count) in formula_groups {
            add(&query.id, by, groups, count, query.limit);
        }
        QueryResponse {
            from_ms,
            to_ms,
            start_ms: plan.start_ms,
            step_ms: plan.step_ms,
            points: plan.len,
            tier: results.tier.name(),
            queries: counts,
            series,
            left_out,
            duration_ms: 0,
        }
    }

    fn to_response(
        &self,
        id: &str,
        by: &Grouping,
        group: Group,
        names: &BTreeMap<HostId, &str>,
    ) -> ResponseSeries {
        let ((metric, labels), mut values) = (group.key, group.values);
        let def = self.0.catalog.get(&metric);
        // Aggregates have two more decimals than the samples; formulas have any magnitude.
        let decimals = def.map_or(6, |def| i32::from(def.decimals) + 2);
        let round =
            |column: &mut Vec<f64>| column.iter_mut().for_each(|value| *value = rounded(*value, decimals));
        round(&mut values.v);
        let (mut min, mut max) = values.band.unzip();
        min.iter_mut().chain(&mut max).for_each(round);
        let host = labels.host.and_then(|id| names.get(&id)).map(|name| (*name).to_owned());
        let key = if let Grouping::Tag(key) = by { key.as_str() } else { "tag" };
        let labels_by_name = [("host", host), ("instance", labels.instance), (key, labels.tag)];
        let to_label = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?));
        ResponseSeries {
            query: id.to_owned(),
            metric: Some(metric).filter(|metric| !metric.is_empty()),
            host: labels.host,
            labels: labels_by_name.into_iter().filter_map(to_label).collect(),
            unit: def.map(|def| def.unit),
            v: values.v,
            min,
            max,
            hosts: values.hosts,
        }
    }
}

impl<'a> Results<'a> {
    fn new(selection: &Selection<'a>, plan: &GridPlan, left_out: LeftOut) -> Self {
        let new_groups = |(index, query): (usize, &'a SeriesQuery)| {
            let is_operand = selection.is_formula_operand(index);
            let limit = (!is_operand).then(|| plan.series_limit(query.limit));
            selection.is_read[index].then(|| QueryGroups::new(query, plan.len, limit))
        };
        Self {
            groups: selection.set.queries.iter().enumerate().map(new_groups).collect(),
            budget: PointBudget { left: plan.max_points, refused: 0 },
            cells: MAX_READ_CELLS,
            tier: Tier::Raw,
            left_out,
        }
    }

    /// Counts hosts that are not read.
    fn leave_out(&mut self, hosts: usize, reason: LeftOutReason) {
        match reason {
            LeftOutReason::Time => limit_table::QUERY_TIME.refuse(),
            _ => limit_table::READ_CELLS.refuse(),
        }
        self.left_out.hosts += hosts;
        self.left_out.reasons.insert(reason);
    }
}

/// Series of a host that a query selects.
fn member_series<'a>(query: &SeriesQuery, grid: &'a GridResult, fill: FillGrid) -> Vec<HostSeries<'a>> {
    let selector = query.selector();
    let selected = grid.series.iter().filter(|((metric, instance), _)| selector.matches(metric, instance));
    let to_member = |((metric, instance), points): (&'a (String, String), _)| {
        let mut values = MemberValues::from_points(points);
        values.fill(fill);
        (metric.as_str(), instance.as_str(), values)
    };
    selected.map(to_member).collect()
}

/// Rounds to a number of decimals; a gap stays a gap.
fn rounded(value: f64, decimals: i32) -> f64 {
    let factor = 10f64.powi(decimals);
    let scaled = value * factor;
    // Larger values have no decimals in a binary fraction.
    if scaled.abs() < 1e15 { scaled.round() / factor } else { value }
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn values_are_rounded_and_gaps_stay_gaps() {
        assert_eq!(rounded(12.345_678, 3), 12.346);
        assert_eq!(rounded(1e18 + 0.5, 3), 1e18);
        assert!(rounded(f64::NAN, 3).is_nan());
    }
}
