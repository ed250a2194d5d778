//! Metric U1 of the dashboard's strings and metric S1 of the database schema.

use super::identifiers::has_banned_part;
use super::measure::{Finding, Measure, Unit};
use super::prose::has_dialect;
use crate::script::{ScriptKind, ScriptToken, web_parts};
use crate::source::{TextFile, Workspace};

const LABELS: &[&str] = &["Give back", "Hears", "Figures", "Looked at", "Take it", "Once more"];
const TEXT_ATTRIBUTES: &[&str] =
    &["", "title", "label", "placeholder", "aria-label", "alt", "legend", "note", "verb"];
const CATALOG_DIR: &str = "web/src/locales/";

fn is_banned(text: &str) -> bool {
    LABELS.iter().any(|label| text.contains(label)) || has_dialect(text)
}

/// A literal with a space or an upper-case first letter is text; others are keys or classes.
fn is_text(literal: &str) -> bool {
    literal.contains(' ') || literal.starts_with(char::is_uppercase)
}

fn strings<'a>(tokens: &'a [ScriptToken<'a>], in_catalog: bool) -> impl Iterator<Item = (usize, &'a str)> {
    let literals = tokens
        .iter()
        .filter(move |token| token.kind == ScriptKind::Text && (in_catalog || is_text(token.text)));
    literals.map(|token| (token.line, token.text))
}

fn interface_places(file: &TextFile) -> Vec<Finding> {
    let parts = web_parts(&file.path, &file.text);
    let in_catalog = file.path.starts_with(CATALOG_DIR);
    let markup = parts.markup.iter().filter(|part| TEXT_ATTRIBUTES.contains(&part.attribute));
    let texts = markup
        .map(|part| (part.line, part.text))
        .chain(strings(&parts.script, in_catalog))
        .chain(strings(&parts.expressions, in_catalog));
    texts
        .filter(|(_, text)| is_banned(text))
        .map(|(line, text)| Finding::new(&file.path, line, text))
        .collect()
}

/// Measures U1: strings of the locales, and literals of components and modules.
pub(crate) fn measure_interface(workspace: &Workspace) -> Measure {
    let is_product = |file: &&TextFile| file.path.starts_with("web/src/") && !file.path.ends_with(".spec.ts");
    let places = workspace.web.iter().filter(is_product).flat_map(interface_places).collect();
    Measure::new("U1", Unit::Count, places)
}

/// Measures S1: comments of migrations with words of V1, V2, V5, or V7, and names with
/// words of I3.
pub(crate) fn measure_schema(workspace: &Workspace) -> Measure {
    let mut places = Vec::new();
    for file in workspace.sql.iter().filter(|file| file.path.ends_with(".sql")) {
        for (index, line) in file.text.lines().enumerate() {
            let (statement, comment) = line.split_once("--").unwrap_or((line, ""));
            let mut names = statement.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            if has_dialect(comment) || names.any(has_banned_part) {
                places.push(Finding::new(&file.path, index + 1, line));
            }
        }
    }
    Measure::new("S1", Unit::Count, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn interface_strings_are_checked_where_users_read_them() {
        let vue = "<script setup>\nconst a = 'told'\nconst b = 'It told us'\n</script>\n<template>\n\
            <p class=\"is told\" title=\"Told\" :note=\"x ? 'Told' : ''\">Hears</p>\n</template>\n";
        let web = vec![
            file("web/src/a.vue", vue),
            file("web/src/locales/en.ts", "export default { a: 'told', told: 'x' }"),
            file("web/tests/a.ts", "const a = 'It told us'"),
        ];
        let measure = measure_interface(&Workspace { web, ..Workspace::default() });
        let found: Vec<_> = measure.places.iter().map(|place| (place.line, place.text.as_str())).collect();
        assert_eq!(found, [(6, "Told"), (6, "Hears"), (3, "It told us"), (6, "Told"), (1, "told")]);
    }

    #[test]
    fn schema_comments_and_names_are_checked() {
        let text = "-- What somebody told\nCREATE TABLE looks (\n  id INTEGER, \
            -- says nothing\n  asked_ms INTEGER\n);\n";
        let sql = vec![file("crates/perfwatch-store/migrations/sqlite/V1.sql", text)];
        let measure = measure_schema(&Workspace { sql, ..Workspace::default() });
        assert_eq!(measure.places.iter().map(|place| place.line).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
