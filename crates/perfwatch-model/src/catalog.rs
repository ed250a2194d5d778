//! What a metric is: the *types* of the catalogue. The data stands in each collector's own
//! `METRICS` table and is joined by the binary, which hands it to the hub.

use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// What a sample counts. The text form is what the API says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 0 to 100, but for processes and load, where 100 is one core.
    Percent,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Things a second.
    PerSecond,
    /// Things.
    Count,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Degrees Celsius.
    Celsius,
    /// Megahertz.
    Megahertz,
    /// Bits a second.
    BitsPerSecond,
    /// Turns a minute.
    Rpm,
    /// 1 for yes, 0 for no.
    Flag,
}

/// How raw kernel numbers become a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// The number as it is.
    Gauge,
    /// A counter's growth a second.
    Rate,
    /// One counter's growth over another's (a share of time, a latency an operation).
    Ratio,
    /// A counter's growth since the last tick.
    Events,
}

/// Which figure of a bucket stands for it when one must be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollup {
    /// Average.
    Mean,
    /// Latest.
    Last,
    /// Total.
    Sum,
}

/// One line of a collector's `METRICS` table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MetricDef {
    /// Dotted name, e.g. `cpu.core.usage`.
    pub name: &'static str,
    /// What a sample counts.
    pub unit: Unit,
    /// Digits kept after the point.
    pub decimals: u8,
    /// How raw numbers become a sample.
    pub kind: MetricKind,
    /// What tells instances apart (`core`, `interface`), or `""`.
    pub dimension: &'static str,
    /// The figure that stands for a bucket.
    pub rollup: Rollup,
    /// Raw growth times this is the sample (1,000 ms a second is 100 %: 0.1).
    #[serde(skip)]
    pub factor: f64,
    /// The collector gives one raw number a part (an interface, a disk) and the sample is the
    /// sum of their growths: a part that comes or goes makes no jump.
    #[serde(skip)]
    pub summed: bool,
    /// Smallest possible value.
    pub min: f64,
    /// Largest possible value, if there is one.
    pub max: Option<f64>,
    /// One sentence.
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
            min: 0.0,
            max,
            help,
        }
    }

    /// A number taken as it is.
    pub const fn gauge(name: &'static str, unit: Unit, decimals: u8, help: &'static str) -> Self {
        Self::new(name, unit, decimals, MetricKind::Gauge, help)
    }

    /// A counter's growth a second.
    pub const fn rate(name: &'static str, unit: Unit, decimals: u8, help: &'static str) -> Self {
        Self::new(name, unit, decimals, MetricKind::Rate, help)
    }

    /// One counter's growth over another's; a percentage unless `factor` says else.
    pub const fn ratio(name: &'static str, unit: Unit, decimals: u8, help: &'static str) -> Self {
        let mut def = Self::new(name, unit, decimals, MetricKind::Ratio, help);
        if matches!(unit, Unit::Percent) {
            def.factor = 100.0;
        }
        def
    }

    /// A counter's growth since the last tick.
    pub const fn events(name: &'static str, help: &'static str) -> Self {
        let mut def = Self::new(name, Unit::Count, 0, MetricKind::Events, help);
        def.rollup = Rollup::Sum;
        def
    }

    /// One series for each value of `dimension`.
    pub const fn with_dimension(mut self, dimension: &'static str) -> Self {
        self.dimension = dimension;
        self
    }

    /// Raw growth times `factor` is the sample.
    pub const fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// The sum over parts that the collector names as instances.
    pub const fn summed(mut self) -> Self {
        self.summed = true;
        self
    }

    /// Another range than the unit's own.
    pub const fn with_range(mut self, min: f64, max: Option<f64>) -> Self {
        self.min = min;
        self.max = max;
        self
    }

    /// The latest value stands for a bucket (sizes, limits, states).
    pub const fn rollup_last(mut self) -> Self {
        self.rollup = Rollup::Last;
        self
    }
}

/// All metrics this build knows, by name. A metric outside it is stored by a default rule:
/// a gauge with [`Catalog::UNKNOWN_DECIMALS`] decimals and no instances.
#[derive(Debug, Default)]
pub struct Catalog {
    metrics: Vec<MetricDef>,
    by_name: HashMap<&'static str, usize>,
    instance_nodes: HashSet<String>,
}

impl Catalog {
    /// Precision of a metric that this build doesn't know.
    pub const UNKNOWN_DECIMALS: u8 = 3;

    /// Joins the collectors' tables. The first of two equal names wins; a test of the
    /// collectors' registry makes sure that there are none.
    pub fn new(tables: impl IntoIterator<Item = MetricDef>) -> Self {
        let mut catalog = Self::default();
        for def in tables {
            if catalog.by_name.contains_key(def.name) {
                continue;
            }
            catalog.by_name.insert(def.name, catalog.metrics.len());
            if !def.dimension.is_empty() {
                catalog.instance_nodes.insert(crate::shape::instance_path(def.name, def.dimension));
            }
            catalog.metrics.push(def);
        }
        catalog
    }

    /// The metric of that name.
    pub fn get(&self, name: &str) -> Option<&MetricDef> {
        self.by_name.get(name).map(|&index| &self.metrics[index])
    }

    /// All metrics, in the order of the collectors.
    pub fn metrics(&self) -> &[MetricDef] {
        &self.metrics
    }

    /// Whether the keys under this JSON path are instances (`network.interface`).
    pub fn is_instance_node(&self, path: &str) -> bool {
        self.instance_nodes.contains(path)
    }
}
