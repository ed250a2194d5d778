//! Value of a metric and the places that contribute to it.

use std::collections::BTreeMap;

/// Location that a metric counts.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// Path relative to the root of the repository.
    pub(crate) file: String,
    /// One-based line in the file.
    pub(crate) line: usize,
    /// Counted identifier, word, or text, compared with the allowed exceptions.
    pub(crate) text: String,
}

impl Finding {
    /// Finding from its parts; the text is reduced to one line.
    pub(crate) fn new(file: &str, line: usize, text: &str) -> Self {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { file: file.to_owned(), line, text }
    }
}

/// Conversion of places to the value of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    /// Number of the places.
    Count,
    /// Number of different texts.
    Names,
    /// Places per 1,000 of this number of words.
    PerThousand(usize),
    /// Places in percent of this number of blocks.
    Percent(usize),
}

/// Metric with its counted places.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    /// Identifier such as `V1`.
    pub(crate) id: &'static str,
    /// Conversion to the value.
    pub(crate) unit: Unit,
    /// Places that the metric counts.
    pub(crate) places: Vec<Finding>,
}

impl Measure {
    /// Measure from its parts.
    pub(crate) fn new(id: &'static str, unit: Unit, places: Vec<Finding>) -> Self {
        Self { id, unit, places }
    }

    /// Value in the unit of the metric, rounded to two decimals.
    pub(crate) fn value(&self) -> f64 {
        let count = self.places.len();
        let value = match self.unit {
            Unit::Count => to_f64(count),
            Unit::Names => {
                let mut texts: Vec<_> = self.places.iter().map(|place| &place.text).collect();
                texts.sort();
                texts.dedup();
                to_f64(texts.len())
            }
            Unit::PerThousand(words) => 1000.0 * to_f64(count) / to_f64(words.max(1)),
            Unit::Percent(blocks) => 100.0 * to_f64(count) / to_f64(blocks.max(1)),
        };
        (value * 100.0).round() / 100.0
    }

    /// First places of the files with the most places.
    pub(crate) fn worst(&self, limit: usize) -> Vec<&Finding> {
        let mut by_file: BTreeMap<&str, usize> = BTreeMap::new();
        for place in &self.places {
            *by_file.entry(&place.file).or_default() += 1;
        }
        let mut places: Vec<_> = self.places.iter().collect();
        places.sort_by_key(|place| std::cmp::Reverse(by_file.get(place.file.as_str()).copied()));
        places.truncate(limit);
        places
    }
}

/// Exact for every count of this repository.
fn to_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measure_value_depends_on_the_unit() {
        let places = vec![Finding::new("a", 1, "x"), Finding::new("b", 1, "x"), Finding::new("b", 2, "y")];
        let value = |unit| Measure::new("V1", unit, places.clone()).value();
        assert_eq!(value(Unit::Count).to_string(), "3");
        assert_eq!(value(Unit::Names).to_string(), "2");
        assert_eq!(value(Unit::PerThousand(7000)).to_string(), "0.43");
        assert_eq!(value(Unit::Percent(4)).to_string(), "75");
        let measure = Measure::new("V1", Unit::Count, places.clone());
        assert_eq!(measure.worst(1)[0].file, "b");
    }
}
