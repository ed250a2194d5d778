//! Baseline file `xtask/vocabulary.toml`: highest accepted values, exceptions, and spellings.

use std::collections::BTreeMap;
use std::path::Path;
use toml::Table;

const FILE: &str = "xtask/vocabulary.toml";

/// Section with the baselines of the metrics.
pub(crate) const METRICS: &str = "metrics";
/// Section with the files in import cycles, by crate.
pub(crate) const MODULE_CYCLES: &str = "module_cycles";
/// Section with the sizes that exceed their limits.
pub(crate) const SIZES: &str = "sizes";

/// Text that a metric does not count.
#[derive(Debug)]
pub(crate) struct Exception {
    metric: String,
    text: String,
    path: String,
}

/// Content of the baseline file.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// American forms by British stem.
    pub(crate) spelling: BTreeMap<String, String>,
    /// Commit after which subjects are checked if the tag is absent.
    pub(crate) base_commit: String,
    exceptions: Vec<Exception>,
    sections: Table,
}

fn field<'a>(table: &'a Table, key: &str) -> Result<&'a str, String> {
    table.get(key).and_then(toml::Value::as_str).ok_or_else(|| format!("{FILE}: {key} is missing: {table:?}"))
}

impl Exception {
    fn parse(value: &toml::Value) -> Result<Self, String> {
        let table = value.as_table().ok_or_else(|| format!("{FILE}: exceptions must be tables"))?;
        if field(table, "reason")?.is_empty() {
            return Err(format!("{FILE}: an exception needs a reason: {table:?}"));
        }
        let path = field(table, "path").unwrap_or_default().to_owned();
        Ok(Self { metric: field(table, "metric")?.to_owned(), text: field(table, "text")?.to_owned(), path })
    }
}

impl Baseline {
    /// Reads the baseline file.
    ///
    /// # Errors
    /// Fails if the file is absent, is not TOML, or has an exception without a reason.
    pub(crate) fn load(root: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(root.join(FILE)).map_err(|error| format!("{FILE}: {error}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let sections: Table = toml::from_str(text).map_err(|error| format!("{FILE}: {error}"))?;
        let list =
            sections.get("exceptions").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let exceptions = list.iter().map(Exception::parse).collect::<Result<_, _>>()?;
        let words = sections.get("spelling").and_then(toml::Value::as_table);
        let spelling = words.into_iter().flatten();
        let spelling = spelling.map(|(british, american)| {
            let american = american.as_str().ok_or_else(|| format!("{FILE}: {british} must be a string"))?;
            Ok((british.clone(), american.to_owned()))
        });
        let spelling = spelling.collect::<Result<_, String>>()?;
        let base_commit = field(&sections, "base_commit")?.to_owned();
        Ok(Self { spelling, base_commit, exceptions, sections })
    }

    /// Highest accepted value; zero if the section has no such key.
    pub(crate) fn value(&self, section: &str, key: &str) -> f64 {
        let value = self.sections.get(section).and_then(|section| section.get(key));
        let integer = value.and_then(toml::Value::as_integer).and_then(|value| i32::try_from(value).ok());
        value.and_then(toml::Value::as_float).or(integer.map(f64::from)).unwrap_or_default()
    }

    /// True if a metric skips this text in this file; a `*` in the file matches every text.
    pub(crate) fn is_excepted(&self, metric: &str, text: &str, path: &str) -> bool {
        self.exceptions.iter().any(|exception| {
            let is_text = exception.text == text || exception.text == "*";
            exception.metric == metric && is_text && path.starts_with(&exception.path)
        })
    }

    /// Replaces all values of a section; only tests need it.
    #[cfg(test)]
    pub(crate) fn set(&mut self, section: &str, values: &[(&str, f64)]) {
        let table: Table = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        self.sections.insert(section.to_owned(), table.into());
    }

    /// Lowers the values that are above the measurement; the rest of the file is unchanged.
    ///
    /// # Errors
    /// Fails if the file cannot be read or written.
    pub(crate) fn lower(root: &Path, measured: &[(&str, String, f64)]) -> Result<Vec<String>, String> {
        let path = root.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{FILE}: {error}"))?;
        let baseline = Self::parse(&text)?;
        let (mut section, mut changes, mut lines) = (String::new(), Vec::new(), Vec::new());
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_owned();
            }
            let key = line.split('=').next().unwrap_or_default().trim();
            let lower = measured.iter().find(|(group, name, value)| {
                *group == section && name == key && *value < baseline.value(group, name)
            });
            lines.push(lower.map_or(line.to_owned(), |(_, name, value)| format!("{name} = {value}")));
            changes.extend(
                lower.map(|(_, name, value)| {
                    format!("{name} = {value}, was {}", baseline.value(&section, name))
                }),
            );
        }
        lines.push(String::new());
        std::fs::write(&path, lines.join("\n")).map_err(|error| format!("{FILE}: {error}"))?;
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "base_commit = \"abc\"\n[metrics]\nV1 = 1.5\nI1 = 7\n[spelling]\nx = \"y\"\n\
        [[exceptions]]\nmetric = \"I1\"\ntext = \"Watch\"\npath = \"crates/a/\"\nreason = \"foreign type\"\n";

    #[test]
    fn baseline_values_default_to_zero() {
        let baseline = Baseline::parse(TEXT).unwrap();
        let value = |key| baseline.value(METRICS, key).to_string();
        assert_eq!(["V1", "I1", "X9"].map(value), ["1.5", "7", "0"]);
    }

    #[test]
    fn baseline_exceptions_apply_to_metric_text_and_path() {
        let baseline = Baseline::parse(TEXT).unwrap();
        assert!(baseline.is_excepted("I1", "Watch", "crates/a/src/x.rs"));
        assert!(!baseline.is_excepted("I1", "Watch", "crates/b/src/x.rs"));
        assert!(!baseline.is_excepted("I3", "Watch", "crates/a/src/x.rs"));
    }

    #[test]
    fn baseline_exception_without_reason_is_rejected() {
        let error = Baseline::parse(&TEXT.replace("reason", "cause")).unwrap_err();
        assert!(error.contains("reason is missing"), "{error}");
    }
}
