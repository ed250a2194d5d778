//! Vocabulary ratchet: measures prose and names, and compares them with their baselines.

mod commits;
mod identifiers;
mod interface;
mod logs;
mod measure;
mod pages;
mod prose;
mod spelling;
mod text;

use crate::baseline::{Baseline, METRICS};
use crate::source::Workspace;
use measure::Measure;
use spelling::Spelling;
use std::fmt::Write;
use std::path::Path;

/// Share of the baseline below which a value asks for a lower baseline.
const LOWER_FACTOR: f64 = 0.95;
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
fn measure_all(workspace: &Workspace, baseline: &Baseline) -> Result<Vec<Measure>, String> {
    let mut measures = prose::measure_words(workspace);
    measures.extend(prose::measure_docs(workspace));
    measures.extend(pages::measure_headings(workspace));
    measures.extend(pages::measure_api(workspace)?);
    measures.extend(logs::measure_logs(workspace));
    measures.push(interface::measure_interface(workspace));
    measures.push(interface::measure_schema(workspace));
    measures.push(identifiers::measure_test_names(workspace));
    measures.push(Spelling::new(&baseline.spelling).measure(workspace));
    measures.push(commits::measure_commits(&workspace.root, &baseline.base_commit)?);
    measures.extend(identifiers::measure_names(workspace));
    measures.push(identifiers::measure_bounds(workspace));
    measures.push(identifiers::measure_generic_types(workspace));
    for measure in &mut measures {
        let id = measure.id;
        measure.places.retain(|place| !baseline.is_excepted(id, &place.text, &place.file));
    }
    Ok(measures)
}

/// Values above their baselines, each with its worst places, and requests for lower baselines.
#[derive(Debug, Default, PartialEq)]
struct Verdict {
    raised: Vec<String>,
    lowered: Vec<String>,
}

fn line(metric: &Metric, value: f64, baseline: f64) -> String {
    let Metric { id, target, title } = metric;
    format!("{id:<3} {value:>8} (baseline {baseline}, target {target})  {title}")
}

fn listing(measure: &Measure) -> String {
    let mut text = String::new();
    for place in measure.worst(MAX_PLACES) {
        let _ = write!(text, "\n      {}:{} {}", place.file, place.line, place.text);
    }
    text
}

fn verdict(measures: &[Measure], baseline: &Baseline) -> Verdict {
    let mut verdict = Verdict::default();
    for metric in CATALOG {
        let Some(measure) = measures.iter().find(|measure| measure.id == metric.id) else { continue };
        let (value, limit) = (measure.value(), baseline.value(METRICS, metric.id));
        let line = line(metric, value, limit);
        if value > limit {
            verdict.raised.push(line + &listing(measure));
        } else if value < limit * LOWER_FACTOR {
            verdict.lowered.push(line);
        }
    }
    verdict
}

/// Result of the `vocabulary` command: report, or the places of a metric.
///
/// # Errors
/// Fails if the sources cannot be read or if the metric is unknown.
pub fn report(root: &Path, listed: Option<&str>) -> Result<String, String> {
    let baseline = Baseline::load(root)?;
    let workspace = Workspace::load(root)?;
    let measures = measure_all(&workspace, &baseline)?;
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
        let limit = baseline.value(METRICS, metric.id);
        let _ = writeln!(text, "{}{}", line(metric, measure.value(), limit), listing(measure));
    }
    let lowered = verdict(&measures, &baseline).lowered;
    if !lowered.is_empty() {
        let _ = writeln!(text, "\nLower these baselines (`--lower`):\n{}", lowered.join("\n"));
    }
    Ok(text)
}

/// Replaces British spellings in all sources of B1; returns the changed paths.
///
/// # Errors
/// Fails if a file cannot be read or written.
pub fn fix_spelling(root: &Path) -> Result<Vec<String>, String> {
    let baseline = Baseline::load(root)?;
    Spelling::new(&baseline.spelling).fix(root, &Workspace::load(root)?)
}

/// Values of the metrics, by section and key of the baseline file.
///
/// # Errors
/// Fails if the metrics cannot be measured.
pub(crate) fn values(
    workspace: &Workspace,
    baseline: &Baseline,
) -> Result<Vec<(&'static str, String, f64)>, String> {
    let measures = measure_all(workspace, baseline)?;
    Ok(measures.iter().map(|measure| (METRICS, measure.id.to_owned(), measure.value())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use measure::{Finding, Unit};

    #[test]
    fn vocabulary_stays_within_its_baselines() {
        let baseline = Baseline::load(&crate::root()).unwrap();
        let measures = measure_all(crate::test_workspace(), &baseline).unwrap();
        let ids: Vec<_> = measures.iter().map(|measure| measure.id).collect();
        assert_eq!(ids.len(), CATALOG.len());
        assert!(CATALOG.iter().all(|metric| ids.contains(&metric.id)), "{ids:?}");
        let verdict = verdict(&measures, &baseline);
        if !verdict.lowered.is_empty() {
            let lowered = verdict.lowered.join("\n");
            println!("lower the baselines: cargo run -p xtask -- vocabulary --lower\n{lowered}");
        }
        assert!(verdict.raised.is_empty(), "above the baseline:\n{}", verdict.raised.join("\n"));
    }

    #[test]
    fn verdict_reports_rises_and_requests_lower_baselines() {
        let mut baseline = Baseline::load(&crate::root()).unwrap();
        let place = Finding::new("a.rs", 3, "Told");
        baseline.set(METRICS, &[("I1", 1.0), ("I3", 100.0), ("I4", 100.0)]);
        let measure = |id, count| Measure::new(id, Unit::Count, vec![place.clone(); count]);
        let verdict = verdict(&[measure("I1", 2), measure("I3", 95), measure("I4", 94)], &baseline);
        assert_eq!(verdict.raised.len(), 1);
        assert!(verdict.raised[0].contains("a.rs:3 Told"), "{:?}", verdict.raised);
        assert_eq!(verdict.lowered.len(), 1);
        assert!(verdict.lowered[0].starts_with("I4"), "{:?}", verdict.lowered);
    }
}
