//! Refusals of every limit of the table of limits.

use perfwatch_model::limit_table::LIMITS;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// Collector of the refusals by limit.
#[derive(Debug)]
pub(crate) struct LimitCollector;

impl Collector for LimitCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Refusals and other effects of limits, by limit (docs/LIMITS.md).";
        let name = "perfwatch_limit_refusals";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for limit in LIMITS {
            let labels = [("limit", limit.name)];
            ConstCounter::new(limit.refusals()).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
