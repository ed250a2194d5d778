//! Files of the repository, grouped into the sets that the checks read.

use crate::lexer::{Token, TokenKind, token_text, tokenize};
use std::path::{Path, PathBuf};

/// Text file with its path relative to the repository, separated by `/`.
#[derive(Debug, Default)]
pub(crate) struct TextFile {
    /// Path relative to the root of the repository.
    pub(crate) path: String,
    /// Whole content of the file.
    pub(crate) text: String,
}

/// Rust source with its tokens.
#[derive(Debug, Default)]
pub(crate) struct RustFile {
    /// Path relative to the root of the repository.
    pub(crate) path: String,
    /// Whole content of the file.
    pub(crate) text: String,
    /// All tokens, comments included.
    pub(crate) tokens: Vec<Token>,
    /// Tokens that are not comments.
    pub(crate) code: Vec<Token>,
    /// Parallel to `code`: true inside an item under `#[cfg(test)]`.
    pub(crate) in_test: Vec<bool>,
    /// Modules that this file declares under `#[cfg(test)]`.
    pub(crate) test_modules: Vec<String>,
    /// Whole file is test code: by its name, its directory, or its declaration.
    pub(crate) is_test: bool,
}

impl RustFile {
    /// Tokenizes a source and marks its test code.
    pub(crate) fn new(path: &str, text: String) -> Self {
        let tokens = tokenize(&text);
        let is_comment =
            |token: &Token| matches!(token.kind, TokenKind::Doc | TokenKind::InnerDoc | TokenKind::Comment);
        let code: Vec<Token> = tokens.iter().copied().filter(|token| !is_comment(token)).collect();
        let mut file = Self {
            path: path.to_owned(),
            text,
            tokens,
            in_test: vec![false; code.len()],
            code,
            ..Self::default()
        };
        file.mark_tests();
        file.is_test = is_test_path(path);
        file
    }

    /// Text of a code token; empty behind the last one.
    pub(crate) fn code_text(&self, index: usize) -> &str {
        self.code.get(index).map_or("", |token| token_text(&self.text, token))
    }

    /// True if the code tokens from `index` on have exactly these texts.
    pub(crate) fn code_matches(&self, index: usize, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(offset, text)| self.code_text(index + offset) == *text)
    }

    /// Index behind the group that opens at `index`; `index` must be `(`, `[`, or `{`.
    pub(crate) fn after_group(&self, index: usize) -> usize {
        let mut depth = 0_usize;
        let mut at = index;
        while at < self.code.len() {
            match self.code_text(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
            if depth == 0 {
                break;
            }
        }
        at
    }

    /// Index behind the item that starts at `index`: behind its `;` or its block.
    fn after_item(&self, mut index: usize) -> usize {
        while index < self.code.len() {
            match self.code_text(index) {
                ";" => return index + 1,
                "{" => return self.after_group(index),
                "(" | "[" => index = self.after_group(index),
                _ => index += 1,
            }
        }
        index
    }

    fn mark_tests(&mut self) {
        let mut index = 0;
        while index < self.code.len() {
            let is_test = self.code_matches(index, &["#", "[", "cfg", "(", "test", ")"])
                || self.code_matches(index, &["#", "[", "cfg", "(", "all", "(", "test"]);
            if !is_test {
                index += 1;
                continue;
            }
            let end = self.after_item(self.after_group(index + 1));
            self.in_test[index..end].fill(true);
            if self.code_text(end - 1) == ";" && self.code_text(end - 3) == "mod" {
                let name = self.code_text(end - 2).to_owned();
                self.test_modules.push(name);
            }
            index = end;
        }
    }

    /// One-based line of a code token.
    pub(crate) fn line(&self, index: usize) -> usize {
        self.code.get(index).map_or(0, |token| token.line)
    }

    /// Directory of the crate, such as `crates/perfwatch-hub`.
    pub(crate) fn crate_dir(&self) -> &str {
        self.path.split("/src/").next().unwrap_or_default()
    }
}

fn is_test_path(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "tests.rs" || name.ends_with("_tests.rs") || path.contains("/tests/")
}

/// Directory in which the child modules of a source are: its own for a crate root or
/// `mod.rs`, otherwise the directory with the name of the module.
pub(crate) fn child_dir(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

/// Marks the files of modules declared under `#[cfg(test)]`, with their child modules.
fn mark_test_files(files: &mut [RustFile]) {
    let mut stems = Vec::new();
    for file in files.iter() {
        let folder = child_dir(&file.path);
        stems.extend(file.test_modules.iter().map(|name| format!("{folder}/{name}")));
    }
    for file in files {
        let path = file.path.trim_end_matches(".rs");
        let is_below = |stem: &String| {
            path.strip_prefix(stem.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        file.is_test |= stems.iter().any(is_below);
    }
}

/// All files that the checks read.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Root of the repository.
    pub(crate) root: PathBuf,
    /// Rust sources of crates, benchmarks, and xtask.
    pub(crate) rust: Vec<RustFile>,
    /// Dashboard sources and tests, without the generated schema.
    pub(crate) web: Vec<TextFile>,
    /// Markdown pages, without changelog and glossary.
    pub(crate) docs: Vec<TextFile>,
    /// Migrations of both database engines.
    pub(crate) sql: Vec<TextFile>,
    /// OpenAPI document of the hub.
    pub(crate) api: TextFile,
}

impl Workspace {
    /// Reads the files of all sets.
    ///
    /// # Errors
    /// Fails if a directory or a file cannot be read, or if a set is empty.
    pub(crate) fn load(root: &Path) -> Result<Self, String> {
        let rust = read_all(root, &["crates", "bench", "xtask"], &[".rs"])?;
        let mut web = read_all(root, &["web/src", "web/tests"], &[".vue", ".ts"])?;
        web.retain(|file| file.path != "web/src/api/schema.ts");
        let mut docs = read_all(root, &["docs"], &[".md"])?;
        docs.extend(read_top_level(root, ".md")?);
        docs.retain(|file| file.path != "CHANGELOG.md" && file.path != "docs/GLOSSARY.md");
        let sql = read_all(root, &["crates/perfwatch-store/migrations"], &[".sql", ".rs"])?;
        let api = read_file(root, &root.join("openapi/perfwatch-v1.json"))?;
        for (set, count) in
            [("RUST", rust.len()), ("WEB", web.len()), ("DOCS", docs.len()), ("SQL", sql.len())]
        {
            if count == 0 {
                return Err(format!("input set {set} is empty"));
            }
        }
        let mut rust: Vec<_> = rust.into_iter().map(|file| RustFile::new(&file.path, file.text)).collect();
        mark_test_files(&mut rust);
        Ok(Self { root: root.to_owned(), rust, web, docs, sql, api })
    }
}

/// Sorted paths below `folder` with a listed ending; build output is excluded.
///
/// # Errors
/// Fails if a directory cannot be read.
pub(crate) fn list_files(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", "dist", ".git", "fixtures"].contains(&name.as_str()) {
                paths.extend(list_files(&path, endings)?);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_all(root: &Path, folders: &[&str], endings: &[&str]) -> Result<Vec<TextFile>, String> {
    let mut files = Vec::new();
    for folder in folders {
        for path in list_files(&root.join(folder), endings)? {
            files.push(read_file(root, &path)?);
        }
    }
    Ok(files)
}

fn read_top_level(root: &Path, ending: &str) -> Result<Vec<TextFile>, String> {
    let entries = std::fs::read_dir(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| path.is_file() && path.to_string_lossy().ends_with(ending));
    paths.sort();
    paths.iter().map(|path| read_file(root, path)).collect()
}

/// Reads one file; its path becomes relative to the root.
///
/// # Errors
/// Fails if the file cannot be read or is not UTF-8.
pub(crate) fn read_file(root: &Path, path: &Path) -> Result<TextFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let relative = path.strip_prefix(root).unwrap_or(path);
    Ok(TextFile { path: relative.to_string_lossy().replace('\\', "/"), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_file_marks_items_under_cfg_test() {
        let text = "fn a() {}\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests;\n#[cfg(test)]\n\
            mod more { fn b() {} }\nfn c() {}";
        let file = RustFile::new("crates/x/src/lib.rs", text.to_owned());
        let names: Vec<_> = (0..file.code.len())
            .filter(|index| file.code_text(*index) == "fn" && !file.in_test[*index])
            .map(|index| file.code_text(index + 1))
            .collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(file.test_modules, ["tests"]);
        assert_eq!(file.crate_dir(), "crates/x");
        let mut files = ["lib", "tests", "tests/more", "testset"]
            .map(|stem| RustFile::new(&format!("crates/x/src/{stem}.rs"), String::new()));
        files[0] = file;
        mark_test_files(&mut files);
        assert_eq!(files.map(|file| file.is_test), [false, true, true, false]);
    }
}
