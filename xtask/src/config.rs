//! Configuration `xtask/vocabulary.toml`: exceptions, spellings, and the first checked commit.

use std::collections::BTreeMap;
use std::path::Path;
use toml::Table;

const FILE: &str = "xtask/vocabulary.toml";

/// Text that a metric does not count.
#[derive(Debug)]
pub(crate) struct Exception {
    metric: String,
    text: String,
    path: String,
}

/// Content of the configuration file.
#[derive(Debug)]
pub(crate) struct VocabularyConfig {
    /// American forms by British stem.
    pub(crate) spelling: BTreeMap<String, String>,
    /// Commit after which subjects are checked if the tag is absent.
    pub(crate) base_commit: String,
    exceptions: Vec<Exception>,
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

impl VocabularyConfig {
    /// Reads the configuration file.
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
        Ok(Self { spelling, base_commit, exceptions })
    }

    /// True if a metric skips this text in this file; a `*` in the file matches every text.
    pub(crate) fn is_excepted(&self, metric: &str, text: &str, path: &str) -> bool {
        self.exceptions.iter().any(|exception| {
            let is_text = exception.text == text || exception.text == "*";
            exception.metric == metric && is_text && path.starts_with(&exception.path)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "base_commit = \"abc\"\n[spelling]\nx = \"y\"\n\
        [[exceptions]]\nmetric = \"I1\"\ntext = \"Watch\"\npath = \"crates/a/\"\nreason = \"foreign type\"\n";

    #[test]
    fn exceptions_apply_to_metric_text_and_path() {
        let config = VocabularyConfig::parse(TEXT).unwrap();
        assert!(config.is_excepted("I1", "Watch", "crates/a/src/x.rs"));
        assert!(!config.is_excepted("I1", "Watch", "crates/b/src/x.rs"));
        assert!(!config.is_excepted("I3", "Watch", "crates/a/src/x.rs"));
    }

    #[test]
    fn exception_without_reason_is_rejected() {
        let error = VocabularyConfig::parse(&TEXT.replace("reason", "cause")).unwrap_err();
        assert!(error.contains("reason is missing"), "{error}");
    }
}
