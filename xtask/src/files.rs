//! Sizes, headers, and documents that name files which are there.

use super::root;
use std::path::{Path, PathBuf};

/// Longer than this, a file holds more than one idea.
const LINES: usize = 500;

fn sources(folder: &Path, endings: &[&str], out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", "dist", ".git", "fixtures"].contains(&name.as_str()) {
                sources(&path, endings, out);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            out.push(path);
        }
    }
}

#[test]
fn files_hold_one_idea_and_rust_modules_say_which() {
    let mut paths = Vec::new();
    sources(&root(), &[".rs", ".ts", ".vue"], &mut paths);
    assert!(paths.len() > 80);
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        // Nobody reads what a tool wrote.
        if text.lines().take(3).any(|line| line.contains("auto-generated")) {
            continue;
        }
        assert!(text.lines().count() <= LINES, "{}: more than {LINES} lines", path.display());
        if path.extension().is_some_and(|ending| ending == "rs") {
            assert!(text.starts_with("//! "), "{}: a module opens by saying its place", path.display());
        }
    }
}

/// `crates/…`, `web/…`, `docs/…` and the like, in backquotes or links, must exist.
#[test]
fn documents_name_what_is_there() {
    let mut pages = Vec::new();
    sources(&root(), &[".md"], &mut pages);
    let mut checked = 0;
    for page in pages.iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        let text = std::fs::read_to_string(page).unwrap();
        for word in text.split(['`', '(', ')', ' ', '\n', '"']) {
            let is_path = ["crates/", "web/", "docs/", "xtask/", "bench/", "scripts/", ".ci/"]
                .iter()
                .any(|top| word.starts_with(top));
            let plain = word.split(['#', ':']).next().unwrap_or_default();
            if is_path && !plain.contains(['*', '{', '<', '…']) {
                checked += 1;
                assert!(root().join(plain).exists(), "{} names {plain}, which is not there", page.display());
            }
        }
    }
    assert!(checked > 10, "only {checked} paths found");
}
