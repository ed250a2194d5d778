//! Metrics of documentation pages (H1, H2) and of the OpenAPI document (O1, O2).

use super::identifiers::is_banned_type;
use super::measure::{Finding, Measure, Unit};
use super::prose::has_dialect;
use super::text::{first_word, is_listed};
use crate::source::{TextFile, Workspace};
use serde_json::Value;

const QUESTION_WORDS: &str = "what who whom whose where how why when";
const SUMMARY_WORDS: &str = "\
    what who how whether where those all one another the a an this look looks let lets takes gives says \
    makes tries shuts sends shows switches trusts changes removes ends forgets logs offers puts no";
const SCHEMA_SUFFIXES: &[&str] = &["Json", "Wish", "Answer"];
/// Characters of an operation summary above which O1 counts it.
const MAX_SUMMARY_LEN: usize = 60;
const MAX_HEADING_LEVEL: usize = 4;

/// Lines of a page with their numbers, without code blocks and "before" examples.
pub(crate) fn prose_lines(page: &TextFile) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut in_code = false;
    for (index, line) in page.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code && !line.contains("before:") {
            lines.push((index + 1, line));
        }
    }
    lines
}

fn heading(line: &str) -> Option<&str> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let text = line[level..].strip_prefix(' ')?;
    (1..=MAX_HEADING_LEVEL).contains(&level).then_some(text)
}

/// Texts of the links of a line.
fn link_texts(line: &str) -> Vec<&str> {
    let before_targets = line.match_indices("](").map(|(at, _)| &line[..at]);
    before_targets.filter_map(|before| before.rfind('[').map(|open| &before[open + 1..])).collect()
}

/// Measures H1 and H2 over headings, table headers, and links.
pub(crate) fn measure_headings(workspace: &Workspace) -> Vec<Measure> {
    let (mut questions, mut dialect) = (Vec::new(), Vec::new());
    for page in &workspace.docs {
        let lines = prose_lines(page);
        for (index, (number, line)) in lines.iter().enumerate() {
            let is_table_header = lines.get(index + 1).is_some_and(|(_, next)| {
                line.starts_with('|')
                    && next.starts_with('|')
                    && next.chars().all(|letter| "|-: ".contains(letter))
            });
            let place = |text: &str| Finding::new(&page.path, *number, text);
            if let Some(text) = heading(line) {
                let first = first_word(text);
                let is_decision = page.path.starts_with("docs/adr/") && first == "why";
                if is_listed(QUESTION_WORDS, &first) && !is_decision {
                    questions.push(place(text));
                }
            }
            let titles =
                heading(line).into_iter().chain(is_table_header.then_some(*line)).chain(link_texts(line));
            dialect.extend(titles.filter(|text| has_dialect(text)).map(place));
        }
    }
    vec![Measure::new("H1", Unit::Count, questions), Measure::new("H2", Unit::Count, dialect)]
}

/// Measures O1 and O2.
///
/// # Errors
/// Fails if the document is not JSON.
pub(crate) fn measure_api(workspace: &Workspace) -> Result<Vec<Measure>, String> {
    let api = &workspace.api;
    let document: Value =
        serde_json::from_str(&api.text).map_err(|error| format!("{}: {error}", api.path))?;
    let line_of =
        |needle: &str| api.text.lines().position(|line| line.contains(needle)).map_or(1, |index| index + 1);
    let mut summaries = Vec::new();
    let paths = document["paths"].as_object().into_iter().flatten();
    for operation in paths.flat_map(|(_, item)| item.as_object().into_iter().flatten()) {
        let Some(summary) = operation.1["summary"].as_str() else { continue };
        if summary.chars().count() > MAX_SUMMARY_LEN || is_listed(SUMMARY_WORDS, &first_word(summary)) {
            let line = line_of(&format!("\"summary\": {}", Value::from(summary)));
            summaries.push(Finding::new(&api.path, line, summary));
        }
    }
    let groups = document["components"].as_object().into_iter().flatten();
    let names = groups.flat_map(|(_, group)| group.as_object().into_iter().flatten()).map(|(name, _)| name);
    let is_banned =
        |name: &&String| is_banned_type(name) || SCHEMA_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    let schemas = names
        .filter(is_banned)
        .map(|name| Finding::new(&api.path, line_of(&format!("\"{name}\": {{")), name));
    let schemas = schemas.collect();
    Ok(vec![Measure::new("O1", Unit::Count, summaries), Measure::new("O2", Unit::Count, schemas)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_tables_and_links_are_checked() {
        let text = "# What is told\n```\n# Who\n```\n##### Who\n## Timing\n| Says | x |\n|---|---|\n\
            | says | y |\n\
            See [who heard](a.md), says nobody.\n- before: # Who\n#hashtag Who\n";
        let adr = TextFile { path: "docs/adr/1.md".to_owned(), text: "## Why\n## When\n".to_owned() };
        let docs = vec![TextFile { path: "docs/A.md".to_owned(), text: text.to_owned() }, adr];
        let measures = measure_headings(&Workspace { docs, ..Workspace::default() });
        let texts =
            |at: usize| measures[at].places.iter().map(|place| place.text.as_str()).collect::<Vec<_>>();
        assert_eq!(texts(0), ["What is told", "When"]);
        assert_eq!(texts(1), ["What is told", "| Says | x |", "who heard"]);
    }

    #[test]
    fn api_summaries_and_schema_names_are_checked() {
        let long = "List ".repeat(13);
        let text = format!(
            r#"{{"components": {{"schemas": {{"HostJson": {{}}, "SaveWish": {{}}, "Host": {{}}}}}},
            "paths": {{"/a": {{"get": {{"summary": "All hosts"}}, "put": {{"summary": "Update host"}}}},
            "/b": {{"get": {{"summary": "{long}"}}}}}}}}"#
        );
        let api = TextFile { path: "a.json".to_owned(), text };
        let measures = measure_api(&Workspace { api, ..Workspace::default() }).unwrap();
        assert_eq!(measures[0].places[0].line, 2);
        assert_eq!(measures.iter().map(|measure| measure.places.len()).collect::<Vec<_>>(), [2, 2]);
    }
}
