//! Column of a shape, and the place of its instances in snapshot JSON.

use std::borrow::Cow;

/// Metric, instance and precision of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Dotted name of the metric.
    pub metric: Cow<'static, str>,
    /// Dimension of the metric (`interface`), or `""`.
    pub dimension: Cow<'static, str>,
    /// Instance, a value of the dimension (`eth0`), or `""`.
    pub instance: Box<str>,
    /// Decimals: values are integers scaled by ten to this power.
    pub decimals: u8,
}

/// Returns the JSON path of the object whose keys are a metric's instances.
///
/// `network.rx_bytes` with dimension `interface` → `network.interface`; `cpu.core.usage` with
/// dimension `core` → `cpu.core`, because the group already ends in the dimension.
pub fn instance_path(metric: &str, dimension: &str) -> String {
    let group = metric.rsplit_once('.').map_or("", |(group, _)| group);
    if group == dimension || group.ends_with(&format!(".{dimension}")) {
        group.to_owned()
    } else if group.is_empty() {
        dimension.to_owned()
    } else {
        format!("{group}.{dimension}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_nested_under_dimension() {
        assert_eq!(instance_path("cpu.core.usage", "core"), "cpu.core");
        assert_eq!(instance_path("network.rx_bytes", "interface"), "network.interface");
        assert_eq!(instance_path("temperature", "sensor"), "sensor");
    }
}
