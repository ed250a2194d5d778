//! Groups of series: keys, ranking, and formulas over groups with equal labels.

use crate::aggregate::{GroupAccumulator, GroupValues, MemberValues};
use crate::formula::Formula;
use crate::request::{Grouping, SeriesQuery, common_grouping};
use perfwatch_model::HostId;
use std::collections::{BTreeMap, HashMap};

/// Labels that identify a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupLabels {
    pub(crate) host: Option<HostId>,
    pub(crate) instance: Option<String>,
    /// Value of the tag of the grouping; empty for hosts without the tag.
    pub(crate) tag: Option<String>,
}

impl GroupLabels {
    /// Labels of a series of a host.
    fn new(grouping: &Grouping, host: HostId, tags: &[String], instance: &str) -> Self {
        let (by_host, by_instance) = match grouping {
            Grouping::Host => (true, false),
            Grouping::Series => (true, true),
            Grouping::Instance => (false, true),
            Grouping::Tag(_) | Grouping::None => (false, false),
        };
        let tag = match grouping {
            Grouping::Tag(key) => {
                let value = |tag: &String| {
                    tag.split_once('=').filter(|(name, _)| name == key).map(|(_, value)| value.to_owned())
                };
                Some(tags.iter().find_map(value).unwrap_or_default())
            }
            _ => None,
        };
        Self { host: by_host.then_some(host), instance: by_instance.then(|| instance.to_owned()), tag }
    }

    /// Labels without those that another grouping does not have.
    fn reduced(&self, to: &Grouping) -> Self {
        let with_host = matches!(to, Grouping::Host | Grouping::Series);
        let with_instance = matches!(to, Grouping::Instance | Grouping::Series);
        Self {
            host: self.host.filter(|_| with_host),
            instance: self.instance.clone().filter(|_| with_instance),
            tag: self.tag.clone().filter(|_| matches!(to, Grouping::Tag(_))),
        }
    }
}

/// Metric and labels of a group. Metrics are never combined.
pub(crate) type GroupKey = (String, GroupLabels);

/// Series of a host: metric, instance, values.
pub(crate) type HostSeries<'a> = (&'a str, &'a str, MemberValues);

/// Group with its values.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: GroupKey,
    pub(crate) values: GroupValues,
}

/// Sorts groups by their newest value, largest first, and drops those without values or above the limit. Returns
/// the number of dropped groups.
pub(crate) fn rank(groups: &mut Vec<Group>, limit: usize) -> usize {
    let count = groups.len();
    groups.retain(|group| !group.values.newest().is_nan());
    let by_value = |a: &Group, b: &Group| b.values.newest().total_cmp(&a.values.newest());
    groups.sort_by(|a, b| by_value(a, b).then_with(|| a.key.cmp(&b.key)));
    groups.truncate(limit);
    count - groups.len()
}

/// Points in memory that a request may still add.
#[derive(Debug)]
pub(crate) struct PointBudget {
    pub(crate) left: usize,
    /// Number of series that did not fit.
    pub(crate) refused: usize,
}

impl PointBudget {
    fn consume(&mut self, points: usize) -> bool {
        let rest = self.left.checked_sub(points);
        self.left = rest.unwrap_or(self.left);
        self.refused += usize::from(rest.is_none());
        rest.is_some()
    }
}

/// Groups of a query.
#[derive(Debug)]
pub(crate) struct QueryGroups<'a> {
    query: &'a SeriesQuery,
    /// Number of points of the grid.
    len: usize,
    /// Maximum number of groups that are needed; `None` if a formula uses all of them.
    limit: Option<usize>,
    /// Groups that later hosts may extend.
    open: BTreeMap<GroupKey, GroupAccumulator>,
    finished: Vec<Group>,
    /// Number of groups, dropped groups included.
    pub(crate) count: usize,
}

impl<'a> QueryGroups<'a> {
    pub(crate) fn new(query: &'a SeriesQuery, len: usize, limit: Option<usize>) -> Self {
        Self { query, len, limit, open: BTreeMap::new(), finished: Vec::new(), count: 0 }
    }

    /// Adds the series of a host.
    pub(crate) fn add_host(
        &mut self,
        (host, tags): (HostId, &[String]),
        series: Vec<HostSeries<'_>>,
        budget: &mut PointBudget,
    ) {
        let grouping = &self.query.by;
        let mut members: BTreeMap<GroupKey, Vec<MemberValues>> = BTreeMap::new();
        for (metric, instance, values) in series {
            let labels = GroupLabels::new(grouping, host, tags, instance);
            members.entry((metric.to_owned(), labels)).or_default().push(values);
        }
        for (key, members) in members {
            if key.1.host.is_some() {
                self.finish_group(key, members, budget);
                continue;
            }
            let is_percentile = self.query.aggregate == crate::request::Aggregation::P95;
            let is_new = !self.open.contains_key(&key);
            let columns = usize::from(is_new) + if is_percentile { members.len() } else { 0 };
            if !budget.consume(columns * self.len) {
                continue;
            }
            self.count += usize::from(is_new);
            let new_group = || GroupAccumulator::new(self.query.aggregate, self.len);
            self.open.entry(key).or_insert_with(new_group).add_host(members);
        }
    }

    /// Adds a group that belongs to a single host.
    fn finish_group(&mut self, key: GroupKey, members: Vec<MemberValues>, budget: &mut PointBudget) {
        self.count += 1;
        if !budget.consume(self.len) {
            return;
        }
        let mut group = GroupAccumulator::new(self.query.aggregate, self.len);
        group.add_host(members);
        self.finished.push(Group { key, values: group.finish() });
        if let Some(limit) = self.limit
            && self.finished.len() >= 2 * limit
        {
            budget.left += rank(&mut self.finished, limit) * self.len;
        }
    }

    /// All groups that are in memory.
    pub(crate) fn finish(self) -> Vec<Group> {
        let open = self.open.into_iter().map(|(key, group)| Group { key, values: group.finish() });
        self.finished.into_iter().chain(open).collect()
    }
}

/// Values of a formula for each group of its widest query that has a counterpart in all others.
pub(crate) fn apply_formula(
    formula: &Formula,
    queries: &[(&Grouping, &[Group])],
    len: usize,
    limit: usize,
) -> (Vec<Group>, usize) {
    let groupings: Vec<&Grouping> = formula.queries().iter().map(|index| queries[*index].0).collect();
    let Some(common) = common_grouping(&groupings) else { return (Vec::new(), 0) };
    let by_labels: HashMap<usize, HashMap<&GroupLabels, &GroupValues>> = formula
        .queries()
        .iter()
        .map(|index| {
            let groups = queries[*index].1.iter();
            (*index, groups.map(|group| (&group.key.1, &group.values)).collect())
        })
        .collect();
    let widest = formula.queries().iter().find(|index| queries[**index].0 == common);
    let mut results = Vec::new();
    let mut count = 0;
    for group in widest.map_or(&[][..], |index| queries[*index].1) {
        let labels = &group.key.1;
        let find = |index: &usize| {
            let values = by_labels.get(index)?.get(&labels.reduced(queries[*index].0)).copied()?;
            Some((*index, values))
        };
        let Some(operands) = formula.queries().iter().map(find).collect::<Option<HashMap<_, _>>>() else {
            continue;
        };
        let value = |at: usize| {
            formula.evaluate(|index| operands.get(&index).map_or(f64::NAN, |values| values.v[at]))
        };
        let v = (0..len).map(value).collect();
        count += 1;
        let values = GroupValues { v, band: None, hosts: None };
        results.push(Group { key: (String::new(), labels.clone()), values });
        if results.len() >= 2 * limit {
            rank(&mut results, limit);
        }
    }
    rank(&mut results, limit);
    (results, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GAP: f64 = f64::NAN;

    fn query(aggregate: &str, by: &str) -> SeriesQuery {
        serde_json::from_value(json!({ "id": "A", "metric": "m", "aggregate": aggregate, "by": by })).unwrap()
    }

    fn values(mean: &[f64]) -> MemberValues {
        MemberValues { mean: mean.to_vec(), min: mean.to_vec(), max: mean.to_vec() }
    }

    /// Three hosts with two instances each; the third has no tag.
    fn groups(query: &SeriesQuery, limit: Option<usize>, points: usize) -> (Vec<Group>, usize, PointBudget) {
        let mut budget = PointBudget { left: points, refused: 0 };
        let mut groups = QueryGroups::new(query, 2, limit);
        for (number, tag) in [(1.0, Some("role=db")), (2.0, Some("role=web")), (3.0, None)] {
            let host = HostId(uuid::Uuid::from_u128(number as u128));
            let tags: Vec<String> = tag.into_iter().map(str::to_owned).collect();
            let series =
                vec![("m", "a", values(&[number, number])), ("m", "b", values(&[10.0 * number, GAP]))];
            groups.add_host((host, &tags), series, &mut budget);
        }
        let count = groups.count;
        let mut finished = groups.finish();
        rank(&mut finished, 100);
        (finished, count, budget)
    }

    fn texts(groups: &[Group]) -> Vec<String> {
        let text = |group: &Group| {
            let (labels, values) = (&group.key.1, &group.values.v);
            let host = labels.host.map_or(0, |host| host.0.as_u128());
            let instance = labels.instance.as_deref().unwrap_or("-");
            format!("{host} {instance} {} {values:?}", labels.tag.as_deref().unwrap_or("-"))
        };
        groups.iter().map(text).collect()
    }

    #[test]
    fn series_are_grouped_by_host_tag_and_instance() {
        for (by, expected) in [
            ("host", vec!["3 - - [33.0, 3.0]", "2 - - [22.0, 2.0]", "1 - - [11.0, 1.0]"]),
            ("tag:role", vec!["0 - web [22.0, 2.0]", "0 - db [11.0, 1.0]", "0 -  [33.0, 3.0]"]),
            ("instance", vec!["0 b - [60.0, NaN]", "0 a - [6.0, 6.0]"]),
            ("none", vec!["0 - - [66.0, 6.0]"]),
        ] {
            let (groups, count, _) = groups(&query("sum", by), None, 1_000);
            let mut found = texts(&groups);
            let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            if by == "tag:role" {
                found.sort();
                expected.sort();
            }
            assert_eq!(found, expected, "{by}");
            assert_eq!(count, expected.len(), "{by}");
        }
        assert_eq!(groups(&query("max", "series"), None, 1_000).1, 6);
    }

    #[test]
    fn groups_above_the_limit_are_dropped_early() {
        let (found, count, budget) = groups(&query("sum", "host"), Some(1), 1_000);
        assert_eq!(texts(&found), ["3 - - [33.0, 3.0]"]);
        assert_eq!((count, budget.left, budget.refused), (3, 998, 0));
    }

    #[test]
    fn points_above_the_budget_are_refused() {
        let (found, count, budget) = groups(&query("sum", "host"), None, 5);
        assert_eq!((found.len(), count, budget.left, budget.refused), (2, 3, 1, 1));
        let (found, count, budget) = groups(&query("p95", "none"), None, 6);
        // A group, and two of six series: further hosts do not fit.
        assert_eq!((found.len(), count, budget.refused), (1, 1, 2));
    }

    #[test]
    fn formulas_combine_groups_with_equal_labels() {
        let formula = |expression: &str| Formula::parse(expression, &["A", "B"]).unwrap();
        let (by_host, by_series, total, by_tag) =
            (query("sum", "host"), query("sum", "series"), query("sum", "none"), query("sum", "tag:role"));
        let apply = |a: &SeriesQuery, b: &SeriesQuery| {
            let (left, right) = (groups(a, None, 1_000).0, groups(b, None, 1_000).0);
            let queries = [(&a.by, &left[..]), (&b.by, &right[..])];
            texts(&apply_formula(&formula("A / B"), &queries, 2, 2).0)
        };
        assert_eq!(apply(&by_host, &by_host), ["1 - - [1.0, 1.0]", "2 - - [1.0, 1.0]"]);
        assert_eq!(
            apply(&by_host, &total),
            ["3 - - [0.5, 0.5]", "2 - - [0.3333333333333333, 0.3333333333333333]"]
        );
        assert_eq!(apply(&total, &total), ["0 - - [1.0, 1.0]"]);
        let shares = apply(&by_series, &by_host);
        assert_eq!(shares, ["1 a - [0.09090909090909091, 1.0]", "2 a - [0.09090909090909091, 1.0]"]);
        assert!(apply(&by_host, &by_tag).is_empty());
        assert_eq!(common_grouping(&[&by_host.by, &by_tag.by]), None);
        assert_eq!(common_grouping(&[&total.by, &by_host.by, &by_series.by]), Some(&Grouping::Series));
    }
}
