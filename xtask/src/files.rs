//! Sizes of files, lines, crates, and types; module headers; paths named in documentation.
//! Clippy checks the length of functions (`too-many-lines-threshold`).

use crate::source::{RustFile, Workspace, list_files, read_file};
use std::collections::BTreeMap;

/// Characters per line of a web source.
const MAX_WEB_LINE_LEN: usize = 140;
/// Lines of the largest crate, below its `src`.
const MAX_CRATE_LINES: usize = 9_000;
/// Fields of a type that are shared or dynamically dispatched.
const MAX_DEPENDENCIES: usize = 10;

fn long_web_lines(workspace: &Workspace) -> Result<Vec<String>, String> {
    let mut offenders = Vec::new();
    for folder in ["web/src", "web/tests"] {
        for path in list_files(&workspace.root.join(folder), &[".ts", ".vue", ".css"])? {
            let file = read_file(&workspace.root, &path)?;
            if file.path == "web/src/api/schema.ts" {
                continue;
            }
            let lines = file.text.lines().enumerate();
            let long = lines.filter(|(_, line)| line.chars().count() > MAX_WEB_LINE_LEN);
            offenders.extend(long.map(|(index, _)| format!("{}:{} is too long", file.path, index + 1)));
        }
    }
    Ok(offenders)
}

fn large_crates(workspace: &Workspace) -> Vec<String> {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for file in
        workspace.rust.iter().filter(|file| file.path.starts_with("crates/") && file.path.contains("/src/"))
    {
        *lines.entry(file.crate_dir()).or_default() += file.text.lines().count();
    }
    let large = lines.into_iter().filter(|(_, lines)| *lines >= MAX_CRATE_LINES);
    large.map(|(name, lines)| format!("{name}: {lines} lines")).collect()
}

/// Number of fields of the type at `index` (`struct`) whose type is `Arc<…>` or contains `dyn`.
fn dependencies(file: &RustFile, index: usize) -> usize {
    let Some(open) = (index..file.code.len()).find(|at| matches!(file.code_text(*at), "{" | ";" | "("))
    else {
        return 0;
    };
    let end = file.after_group(open);
    let (mut count, mut depth, mut is_dependency) = (0, 0_usize, false);
    for at in open + 1..end {
        match file.code_text(at) {
            "<" | "(" | "[" => depth += 1,
            ">" if file.code_text(at - 1) != "-" => depth = depth.saturating_sub(1),
            ")" | "]" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                count += usize::from(is_dependency);
                is_dependency = false;
            }
            "Arc" if file.code_text(at - 1) == ":" => is_dependency = true,
            "dyn" => is_dependency = true,
            _ => {}
        }
    }
    count + usize::from(is_dependency)
}

fn wide_types(workspace: &Workspace) -> Vec<String> {
    let mut offenders = Vec::new();
    for file in &workspace.rust {
        for index in
            (0..file.code.len()).filter(|index| file.code_text(*index) == "struct" && !file.in_test[*index])
        {
            let count = dependencies(file, index);
            if count > MAX_DEPENDENCIES {
                let name = file.code_text(index + 1);
                offenders.push(format!("{}:{} {name}: {count} fields", file.path, file.line(index)));
            }
        }
    }
    offenders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root;

    /// Lines of a source file; a longer file is split into modules.
    const MAX_LINES: usize = 500;

    #[test]
    fn file_sizes_and_module_headers() {
        let paths = list_files(&root(), &[".rs", ".ts", ".vue"]).unwrap();
        assert!(paths.len() > 80);
        for path in paths {
            let file = read_file(&root(), &path).unwrap();
            if file.text.lines().take(3).any(|line| line.contains("auto-generated")) {
                continue;
            }
            assert!(file.text.lines().count() <= MAX_LINES, "{}: more than {MAX_LINES} lines", file.path);
            if file.path.ends_with(".rs") {
                assert!(file.text.starts_with("//! "), "{}: no module header (`//!`)", file.path);
            }
        }
    }

    /// Paths below these directories, in backticks or links, must exist.
    #[test]
    fn documented_paths_exist() {
        let mut checked = 0;
        for path in list_files(&root(), &[".md"]).unwrap() {
            let page = read_file(&root(), &path).unwrap();
            if page.path == "CHANGELOG.md" {
                continue;
            }
            for word in page.text.split(['`', '(', ')', ' ', '\n', '"']) {
                let is_path = ["crates/", "web/", "docs/", "xtask/", "bench/", "scripts/", ".ci/"]
                    .iter()
                    .any(|top| word.starts_with(top));
                let plain = word.split(['#', ':']).next().unwrap_or_default();
                if is_path && !plain.contains(['*', '{', '<', '…']) {
                    checked += 1;
                    assert!(root().join(plain).exists(), "{} names {plain}, which does not exist", page.path);
                }
            }
        }
        assert!(checked > 10, "only {checked} paths found");
    }

    #[test]
    fn sizes_stay_within_their_limits() {
        let workspace = crate::test_workspace();
        let mut violations = long_web_lines(workspace).unwrap();
        violations.extend(large_crates(workspace));
        violations.extend(wide_types(workspace));
        assert!(violations.is_empty(), "{violations:#?}");
    }

    #[test]
    fn dependencies_are_shared_or_dynamic_fields() {
        let text = "pub struct A<T> { a: Arc<u8>, b: u8, c: std::sync::Arc<Vec<(u8, u8)>>, \
            d: Box<dyn Fn(u8) -> u8>, e: Vec<Arc<u8>> }\n\
            struct B; struct C(Arc<u8>);";
        let file = RustFile::new("x.rs", text.to_owned());
        let index = |name: &str| (0..file.code.len()).find(|index| file.code_text(*index) == name).unwrap();
        assert_eq!(dependencies(&file, index("A") - 1), 3);
        assert_eq!(dependencies(&file, index("B") - 1), 0);
    }
}
