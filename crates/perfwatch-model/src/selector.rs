//! Selection of series by metric and instance.

use crate::glob;

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

    /// Returns whether the series of this metric and instance is selected.
    pub fn matches(&self, metric: &str, instance: &str) -> bool {
        glob::matches(&self.metric, metric)
            && self.instance.as_deref().is_none_or(|selected| selected == instance)
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
