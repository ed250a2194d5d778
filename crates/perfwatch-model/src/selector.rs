//! Selection of series by metric and instance.

use crate::glob;
use std::collections::{HashMap, HashSet};

/// Selects all instances of a metric or group, or a single instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesSelector {
    /// Dotted metric name, or a wildcard pattern such as `cpu.*`.
    pub metric: String,
    /// Exact instance; `None` selects all instances.
    pub instance: Option<String>,
}

impl SeriesSelector {
    /// Parses `cpu.usage`, `cpu.*`, or a single instance: `network.rx_bytes{eth0}`.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('}').and_then(|text| text.split_once('{')) {
            Some((metric, instance)) => {
                Self { metric: metric.to_owned(), instance: Some(instance.to_owned()) }
            }
            None => Self { metric: text.to_owned(), instance: None },
        }
    }

    /// Returns whether the metric is a wildcard pattern.
    pub fn is_pattern(&self) -> bool {
        self.metric.contains(['*', '?'])
    }

    /// Returns whether the series of this metric and instance is selected.
    pub fn matches(&self, metric: &str, instance: &str) -> bool {
        glob::matches(&self.metric, metric)
            && self.instance.as_deref().is_none_or(|selected| selected == instance)
    }
}

/// Selectors by kind: names are looked up, only patterns are compared one by one.
#[derive(Debug)]
pub struct SelectorIndex<'a> {
    /// Instances by metric; `None` for all instances.
    exact: HashMap<&'a str, Option<HashSet<&'a str>>>,
    patterns: Vec<&'a SeriesSelector>,
}

impl<'a> SelectorIndex<'a> {
    /// Index of these selectors.
    pub fn new(selectors: &'a [SeriesSelector]) -> Self {
        let mut index = Self { exact: HashMap::new(), patterns: Vec::new() };
        let mut seen = HashSet::new();
        for selector in selectors.iter().filter(|selector| seen.insert(*selector)) {
            if selector.is_pattern() {
                index.patterns.push(selector);
                continue;
            }
            let instances = index.exact.entry(&selector.metric).or_insert_with(|| Some(HashSet::new()));
            match (&mut *instances, &selector.instance) {
                (Some(instances), Some(instance)) => {
                    instances.insert(instance);
                }
                (instances, _) => *instances = None,
            }
        }
        index
    }

    /// Number of patterns, which are compared one by one.
    pub fn patterns(&self) -> usize {
        self.patterns.len()
    }

    /// Returns whether a selector matches the series.
    pub fn contains(&self, metric: &str, instance: &str) -> bool {
        let is_named = self
            .exact
            .get(metric)
            .is_some_and(|instances| instances.as_ref().is_none_or(|instances| instances.contains(instance)));
        is_named || self.patterns.iter().any(|selector| selector.matches(metric, instance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_groups_and_single_instances() {
        for (metric, instance, series, expected) in [
            ("cpu.usage", None, ("cpu.usage", ""), true),
            ("cpu.usage", None, ("cpu.user", ""), false),
            ("cpu.*", None, ("cpu.core.usage", "3"), true),
            ("cpu.*", None, ("cpu", ""), false),
            ("*", None, ("disk.read_bytes", "sda"), true),
            ("disk.*", Some("sda"), ("disk.read_bytes", "sda"), true),
            ("disk.*", Some("sda"), ("disk.read_bytes", "sdb"), false),
            ("disk.*", Some("sd*"), ("disk.read_bytes", "sdb"), false),
        ] {
            let selector =
                SeriesSelector { metric: metric.to_owned(), instance: instance.map(str::to_owned) };
            assert_eq!(selector.matches(series.0, series.1), expected, "{selector:?} on {series:?}");
        }
    }
}
