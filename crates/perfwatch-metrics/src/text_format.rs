//! Prometheus text format 0.0.4, for clients that do not accept OpenMetrics.
//!
//! The formats differ in metadata: OpenMetrics names a counter without `_total` and has the type `info`.

use std::collections::HashMap;

/// Content type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Converts an OpenMetrics exposition.
pub fn from_openmetrics(text: &str) -> String {
    let types: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut converted = String::with_capacity(text.len());
    for line in text.lines() {
        let metadata = ["# HELP ", "# TYPE "].iter().find_map(|kind| Some((kind, line.strip_prefix(kind)?)));
        match metadata.and_then(|(kind, rest)| Some((kind, rest.split_once(' ')?))) {
            Some((kind, (name, value))) => {
                let (suffix, value) = match types.get(name) {
                    Some(&"counter") => ("_total", value),
                    Some(&"info") => ("_info", if value == "info" { "gauge" } else { value }),
                    _ => ("", value),
                };
                converted.extend([kind, name, suffix, " ", value, "\n"]);
            }
            // Units and the end marker have no counterpart.
            None if line.starts_with('#') => {}
            None => converted.extend([line, "\n"]),
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_infos_are_named_as_their_samples() {
        let text = "# HELP a Requests.\n# TYPE a counter\na_total{x=\"1\"} 2\n# HELP b Version.\n\
            # TYPE b info\nb_info{v=\"1\"} 1\n# HELP c_seconds Time.\n# TYPE c_seconds histogram\n\
            # UNIT c_seconds seconds\nc_seconds_count 1\n# EOF\n";
        let expected = "# HELP a_total Requests.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n\
            # HELP b_info Version.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c_seconds Time.\n\
            # TYPE c_seconds histogram\nc_seconds_count 1\n";
        assert_eq!(from_openmetrics(text), expected);
    }
}
