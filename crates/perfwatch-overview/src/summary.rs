//! Newest values of a host, for pages outside of the dashboard.

use crate::host_values::HostValues;

/// Newest values of a host; a missing value is `None`, never zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SummaryValues {
    /// CPU usage in percent.
    pub cpu: Option<f64>,
    /// Used memory in percent.
    pub memory: Option<f64>,
    /// Used share of the fullest filesystem in percent.
    pub disk: Option<f64>,
    /// Load average of the last minute.
    pub load: Option<f64>,
    /// Received bytes per second.
    pub rx: Option<f64>,
    /// Transmitted bytes per second.
    pub tx: Option<f64>,
}

impl SummaryValues {
    pub(crate) fn new(values: &HostValues) -> Self {
        Self {
            cpu: values.cpu,
            memory: values.memory,
            disk: values.mounts.first().map(|usage| usage.percent),
            load: values.load,
            rx: values.rx,
            tx: values.tx,
        }
    }
}
