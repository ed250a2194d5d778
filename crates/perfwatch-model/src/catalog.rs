//! Metric definitions: the types of the catalog. The data is in each collector's `METRICS` table;
//! the binary joins the tables and passes the catalog to the hub.

use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// Unit of a sample; the API uses the `snake_case` name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Percentage, 0 to 100. For processes, 100 is one core and larger values are possible.
    Percent,
    /// Amount of data in bytes.
    Bytes,
    /// Data rate in bytes per second.
    BytesPerSecond,
    /// Events or operations per second.
    PerSecond,
    /// Dimensionless number, such as a count of processes.
    Count,
    /// Duration or latency in milliseconds.
    Milliseconds,
    /// Duration or age in seconds.
    Seconds,
    /// Temperature in degrees Celsius.
    Celsius,
    /// Clock frequency in megahertz.
    Megahertz,
    /// Link speed in bits per second.
    BitsPerSecond,
    /// Fan speed in revolutions per minute.
    Rpm,
    /// Boolean: 1 for true, 0 for false.
    Flag,
}

/// Derivation of a sample from raw kernel values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// Current value, used unchanged.
    Gauge,
    /// Increase of a counter per second.
    Rate,
    /// Increase of a counter divided by that of another: a share of time, a latency per operation.
    Ratio,
    /// Increase of a counter since the last tick.
    Events,
}

/// Default aggregate of a bucket, used if a query names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollup {
    /// Mean of the samples.
    Mean,
    /// Last sample by time.
    Last,
    /// Sum of the samples.
    Sum,
}

/// Definition of a metric: an entry of a collector's `METRICS` table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MetricDef {
    /// Dotted name, e.g. `cpu.core.usage`.
    pub name: &'static str,
    /// Unit of the samples.
    pub unit: Unit,
    /// Precision: digits after the decimal point.
    pub decimals: u8,
    /// Derivation from raw kernel values.
    pub kind: MetricKind,
    /// Dimension that instances belong to (`core`, `interface`), or `""`.
    pub dimension: &'static str,
    /// Default aggregate of a bucket.
    pub rollup: Rollup,
    /// Factor from the raw increase to the sample. Example: 1,000 ms per second is 100 %, factor 0.1.
    #[serde(skip)]
    pub factor: f64,
    /// Sums increases over instances (interfaces, disks), so that the total does not jump when an
    /// instance appears or disappears.
    #[serde(skip)]
    pub summed: bool,
    /// Kept for every instance even if the snapshot has more columns than allowed.
    #[serde(skip)]
    pub essential: bool,
    /// Minimum value; lower samples are clamped.
    pub min: f64,
    /// Maximum value, if the metric is bounded; higher samples are clamped.
    pub max: Option<f64>,
    /// Help text, a single sentence.
    pub help: &'static str,
}

impl MetricDef {
    const fn new(name: &'static str, unit: Unit, decimals: u8, kind: MetricKind, help: &'static str) -> Self {
        let max = match unit {
            Unit::Percent => Some(100.0),
            Unit::Flag => Some(1.0),
            _ => None,
        };
        Self {
            name,
            unit,
            decimals,
            kind,
            dimension: "",
            rollup: Rollup::Mean,
            factor: 1.0,
            summed: false,
            essential: false,
            min: 0.0,
            max,
            help,
        }
    }

    /// Defines a metric whose raw value is used unchanged.
    pub const fn gauge(name: &'static str, unit: Unit, decimals: u8, help: &'static str) -> Self {
        Self::new(name, unit, decimals, MetricKind::Gauge, help)
    }

    /// Defines a metric that is the increase of a counter per second.
    pub const fn rate(name: &'static str, unit: Unit, decimals: u8, help: &'static str) -> Self {
        Self::new(name, unit, decimals, MetricKind::Rate, help)
    }

    /// Defines a metric that is a quotient of two increases; with [`Unit::Percent`], the factor
    /// is 100.
    pub const fn ratio(name: &'static str, unit: Unit, decimals: u8, help: &'static str) -> Self {
        let mut def = Self::new(name, unit, decimals, MetricKind::Ratio, help);
        if matches!(unit, Unit::Percent) {
            def.factor = 100.0;
        }
        def
    }

    /// Defines a metric that is the increase of a counter since the last tick, summed in roll-ups.
    pub const fn events(name: &'static str, help: &'static str) -> Self {
        let mut def = Self::new(name, Unit::Count, 0, MetricKind::Events, help);
        def.rollup = Rollup::Sum;
        def
    }

    /// Splits the metric into a series per value of `dimension`.
    pub const fn with_dimension(mut self, dimension: &'static str) -> Self {
        self.dimension = dimension;
        self
    }

    /// Sets the factor from the raw increase to the sample.
    pub const fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sums the increases of all instances into a single series.
    pub const fn summed(mut self) -> Self {
        self.summed = true;
        self
    }

    /// Keeps every instance if a snapshot has more columns than allowed.
    pub const fn essential(mut self) -> Self {
        self.essential = true;
        self
    }

    /// Replaces the range that the unit implies.
    pub const fn with_range(mut self, min: f64, max: Option<f64>) -> Self {
        self.min = min;
        self.max = max;
        self
    }

    /// Uses the last value as the default aggregate (sizes, limits, states).
    pub const fn rollup_last(mut self) -> Self {
        self.rollup = Rollup::Last;
        self
    }
}

/// All metric definitions of this build, by name. A metric without definition is stored as a
/// gauge with [`Catalog::UNKNOWN_DECIMALS`] decimals.
#[derive(Debug, Default)]
pub struct Catalog {
    metrics: Vec<MetricDef>,
    by_name: HashMap<&'static str, usize>,
    instance_nodes: HashSet<String>,
}

impl Catalog {
    /// Decimals of a metric without definition; less for very large and more for small values.
    pub const UNKNOWN_DECIMALS: u8 = 3;

    /// Joins the collectors' tables. The first definition of a name wins; a test of the collectors'
    /// registry ensures that names are unique.
    pub fn new(tables: impl IntoIterator<Item = MetricDef>) -> Self {
        let mut catalog = Self::default();
        for def in tables {
            if catalog.by_name.contains_key(def.name) {
                continue;
            }
            catalog.by_name.insert(def.name, catalog.metrics.len());
            if !def.dimension.is_empty() {
                catalog.instance_nodes.insert(crate::column::instance_path(def.name, def.dimension));
            }
            catalog.metrics.push(def);
        }
        catalog
    }

    /// Definition of the metric with this name.
    pub fn get(&self, name: &str) -> Option<&MetricDef> {
        self.by_name.get(name).map(|&index| &self.metrics[index])
    }

    /// Index of the metric with this name in [`Catalog::metrics`].
    pub(crate) fn index_of(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).and_then(|&index| u16::try_from(index).ok())
    }

    /// All definitions, in the order of the collectors.
    pub fn metrics(&self) -> &[MetricDef] {
        &self.metrics
    }

    /// Returns whether the keys under this JSON path are instances (`network.interface`).
    pub fn is_instance_node(&self, path: &str) -> bool {
        self.instance_nodes.contains(path)
    }
}
