//! Vocabulary check: measures prose and names, and compares them with their targets.

mod commits;
mod identifiers;
mod interface;
mod logs;
mod measure;
mod pages;
mod prose;
mod spelling;
mod text;

use crate::config::VocabularyConfig;
use crate::source::Workspace;
use measure::Measure;
use spelling::Spelling;
use std::fmt::Write;
use std::path::Path;

/// Places per metric in the report.
const MAX_PLACES: usize = 10;

/// Metric with its target and what it counts.
struct Metric {
    id: &'static str,
    target: f64,
    title: &'static str,
}

const fn metric(id: &'static str, target: f64, title: &'static str) -> Metric {
    Metric { id, target, title }
}

/// All metrics in the order of the report.
const CATALOG: &[Metric] = &[
    metric("V1", 0.30, "verbs of speech and posture per 1,000 words"),
    metric("V2", 0.50, "visual verbs per 1,000 words"),
    metric("V3", 0.02, "permission phrases per 1,000 words"),
    metric("V4", 1.00, "pronoun phrases per 1,000 words"),
    metric("V5", 0.20, "indefinite persons per 1,000 words"),
    metric("V6", 0.05, "relative clauses as subjects per 1,000 words"),
    metric("V7", 0.05, "archaic adverbs per 1,000 words"),
    metric("V8", 0.10, "figures of speech per 1,000 words"),
    metric("D1", 5.0, "doc blocks of at most three words, %"),
    metric("D2", 3.0, "doc blocks that start with a question word, %"),
    metric("D3", 6.0, "doc blocks that start with a question or function word, %"),
    metric("D4", 0.0, "repeated short doc blocks"),
    metric("D5", 5.0, "sentences of more than 40 words in doc blocks"),
    metric("H1", 0.0, "headings that start with a question word"),
    metric("H2", 0.0, "headings, table headers, and links with banned words"),
    metric("O1", 0.0, "operation summaries that are long or start with a banned word"),
    metric("O2", 0.0, "API components with banned names"),
    metric("L1", 0.0, "malformed log messages"),
    metric("L2", 0.0, "log messages without a verb"),
    metric("U1", 0.0, "UI strings with banned words"),
    metric("S1", 0.0, "migration lines with banned words or names"),
    metric("T1", 0.0, "test names that are vague or long"),
    metric("B1", 0.0, "British spellings"),
    metric("C1", 0.0, "commit subjects without convention"),
    metric("I1", 0.0, "banned types"),
    metric("I2", 0.0, "banned constants (names)"),
    metric("I3", 0.0, "banned words in identifiers"),
    metric("I4", 0.0, "functions with banned names"),
    metric("I5", 0.0, "bounds without a standard prefix or suffix"),
    metric("I6", 0.0, "generic type names in several modules"),
];

/// Measures every metric, without the excepted places.
///
/// # Errors
/// Fails if the API document is not JSON or if the git history is not readable.
fn measure_all(workspace: &Workspace, config: &VocabularyConfig) -> Result<Vec<Measure>, String> {
    let mut measures = prose::measure_words(workspace);
    measures.extend(prose::measure_docs(workspace));
    measures.extend(pages::measure_headings(workspace));
    measures.extend(pages::measure_api(workspace)?);
    measures.extend(logs::measure_logs(workspace));
    measures.push(interface::measure_interface(workspace));
    measures.push(interface::measure_schema(workspace));
    measures.push(identifiers::measure_test_names(workspace));
    measures.push(Spelling::new(&config.spelling).measure(workspace));
    measures.push(commits::measure_commits(&workspace.root, &config.base_commit)?);
    measures.extend(identifiers::measure_names(workspace));
    measures.push(identifiers::measure_bounds(workspace));
    measures.push(identifiers::measure_generic_types(workspace));
    for measure in &mut measures {
        let id = measure.id;
        measure.places.retain(|place| !config.is_excepted(id, &place.text, &place.file));
    }
    Ok(measures)
}

fn line(metric: &Metric, value: f64) -> String {
    let Metric { id, target, title } = metric;
    format!("{id:<3} {value:>8} (target {target})  {title}")
}

fn listing(measure: &Measure) -> String {
    let mut text = String::new();
    for place in measure.worst(MAX_PLACES) {
        let _ = write!(text, "\n      {}:{} {}", place.file, place.line, place.text);
    }
    text
}

/// Metrics above their targets, each with its worst places.
#[cfg(test)]
fn violations(measures: &[Measure]) -> Vec<String> {
    let found = CATALOG.iter().filter_map(|metric| {
        let measure = measures.iter().find(|measure| measure.id == metric.id)?;
        let value = measure.value();
        (value > metric.target).then(|| line(metric, value) + &listing(measure))
    });
    found.collect()
}

/// Result of the `vocabulary` command: report, or the places of a metric.
///
/// # Errors
/// Fails if the sources cannot be read or if the metric is unknown.
pub fn report(root: &Path, listed: Option<&str>) -> Result<String, String> {
    let config = VocabularyConfig::load(root)?;
    let workspace = Workspace::load(root)?;
    let measures = measure_all(&workspace, &config)?;
    let mut text = String::new();
    if let Some(id) = listed {
        let measure =
            measures.iter().find(|measure| measure.id == id).ok_or_else(|| format!("unknown metric {id}"))?;
        for place in &measure.places {
            let _ = writeln!(text, "{}:{} {}", place.file, place.line, place.text);
        }
        return Ok(text);
    }
    for metric in CATALOG {
        let Some(measure) = measures.iter().find(|measure| measure.id == metric.id) else { continue };
        let _ = writeln!(text, "{}{}", line(metric, measure.value()), listing(measure));
    }
    Ok(text)
}

/// Replaces British spellings in all sources of B1; returns the changed paths.
///
/// # Errors
/// Fails if a file cannot be read or written.
pub fn fix_spelling(root: &Path) -> Result<Vec<String>, String> {
    let config = VocabularyConfig::load(root)?;
    Spelling::new(&config.spelling).fix(root, &Workspace::load(root)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use measure::{Finding, Unit};

    #[test]
    fn vocabulary_meets_its_targets() {
        let config = VocabularyConfig::load(&crate::root()).unwrap();
        let measures = measure_all(crate::test_workspace(), &config).unwrap();
        let ids: Vec<_> = measures.iter().map(|measure| measure.id).collect();
        assert_eq!(ids.len(), CATALOG.len());
        assert!(CATALOG.iter().all(|metric| ids.contains(&metric.id)), "{ids:?}");
        let violations = violations(&measures);
        assert!(violations.is_empty(), "above the target:\n{}", violations.join("\n"));
    }

    #[test]
    fn violations_list_values_above_the_target() {
        let place = Finding::new("a.rs", 3, "Told");
        let measure = |id, count| Measure::new(id, Unit::Count, vec![place.clone(); count]);
        let violations = violations(&[measure("I1", 2), measure("D5", 5), measure("I4", 0)]);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].contains("a.rs:3 Told"), "{violations:?}");
    }
}
