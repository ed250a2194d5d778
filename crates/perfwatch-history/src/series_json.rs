//! JSON text of series for charts.

use super::series_points::{SeriesResult, SeriesValues};
use perfwatch_model::{Catalog, HostId, fixed_point};
use perfwatch_tsdb::query::average;
use serde_json::json;
use std::fmt::Write as _;

/// Writes a result with its range as JSON.
pub fn write(catalog: &Catalog, host: HostId, (from_ms, to_ms): (i64, i64), result: &SeriesResult) -> String {
    let mut out = String::with_capacity(256 + result.series.len() * result.at_ms.len() * 8);
    let list = |out: &mut String, key: &str, count: usize, item: &mut dyn FnMut(&mut String, usize)| {
        let _ = write!(out, ",\"{key}\":[");
        for at in 0..count {
            if at > 0 {
                out.push(',');
            }
            item(out, at);
        }
        out.push(']');
    };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{{\"host_id\":\"{host}\",\"from_ms\":{from_ms},\"to_ms\":{to_ms},\"tier\":\"{}\",\"step_ms\":{}",
        result.tier.name(),
        result.step_ms
    );
    list(&mut out, "t", result.at_ms.len(), &mut |out, at| {
        let _ = write!(out, "{}", result.at_ms[at]);
    });
    list(&mut out, "gaps", result.gaps.len(), &mut |out, at| {
        let gap = &result.gaps[at];
        let _ = write!(
            out,
            "{{\"from_ms\":{},\"to_ms\":{},\"reason\":\"{}\"}}",
            gap.from_ms,
            gap.to_ms,
            gap.kind.name()
        );
    });
    list(&mut out, "series", result.series.len(), &mut |out, at| {
        let series = &result.series[at];
        let unit = catalog.get(&series.metric).map(|def| def.unit);
        let name = json!({ "metric": series.metric, "instance": series.instance, "unit": unit }).to_string();
        out.push_str(name.trim_end_matches('}'));
        match &series.values {
            SeriesValues::Raw(values) => list(out, "v", values.len(), &mut |out, row| {
                fixed_point::write_scaled(out, values[row], series.decimals);
            }),
            SeriesValues::Points(points) => {
                let stats = points.stats();
                let decimals = points.decimals();
                list(out, "v", result.point_indices.len(), &mut |out, at| {
                    match average(&stats[result.point_indices[at]], decimals) {
                        // Two more decimals than the samples.
                        Some(mean) => fixed_point::write_rounded(out, mean, decimals + 2),
                        None => out.push_str("null"),
                    }
                });
                list(out, "min", result.point_indices.len(), &mut |out, at| {
                    fixed_point::write_scaled(out, stats[result.point_indices[at]].min, decimals);
                });
                list(out, "max", result.point_indices.len(), &mut |out, at| {
                    fixed_point::write_scaled(out, stats[result.point_indices[at]].max, decimals);
                });
            }
        }
        out.push('}');
    });
    out.push('}');
    out
}
