//! Import graph of the modules of each crate, and its cycles.
//!
//! A node is a source file. A path that starts with `crate`, `super`, `self`, or a child module
//! is an edge to the file that defines the item; re-exports are followed to the definition.
//! `mod` and re-exports of a child (`pub use`) are no edges. Test code is excluded.

mod graph;
mod parse;

use crate::source::{RustFile, Workspace, child_dir};
use graph::cycles;
use parse::{Import, Scope, parse_file};
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of re-exports that are followed to a definition.
const MAX_REEXPORTS: usize = 8;

/// Import cycle: files that reach each other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cycle {
    /// Paths of the files, sorted.
    pub(crate) files: Vec<String>,
    /// Imports inside the cycle as `file:line -> file`.
    pub(crate) imports: Vec<String>,
}

/// Module of a crate: a file or an inline module.
#[derive(Debug, Default)]
struct Module {
    file: usize,
    scope: Scope,
}

/// Modules of a crate by their path from the crate root.
struct Crate<'a> {
    files: Vec<&'a RustFile>,
    modules: BTreeMap<Vec<String>, Module>,
}

/// Module path of a file, or `None` for the root of a secondary binary.
fn module_path(file: &RustFile, has_library: bool) -> Option<Vec<String>> {
    let relative = file.path.split_once("/src/")?.1;
    if relative == "lib.rs" || (relative == "main.rs" && !has_library) {
        return Some(Vec::new());
    }
    if relative == "main.rs" || relative.starts_with("bin/") {
        return None;
    }
    let stem = child_dir(relative);
    Some(stem.split('/').map(str::to_owned).collect())
}

impl<'a> Crate<'a> {
    fn new(files: Vec<&'a RustFile>) -> Self {
        let has_library = files.iter().any(|file| file.path.ends_with("/src/lib.rs"));
        let mut modules = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            let Some(path) = module_path(file, has_library) else { continue };
            for (inline, scope) in parse_file(file) {
                let path = path.iter().cloned().chain(inline).collect();
                modules.insert(path, Module { file: index, scope });
            }
        }
        Self { files, modules }
    }

    /// Absolute path of an import, or `None` if it leaves the crate.
    fn absolute(&self, module: &[String], import: &[String]) -> Option<Vec<String>> {
        let mut base = module.to_vec();
        let mut rest = import;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {}
            child => {
                base.push(child.to_owned());
                let is_child = self.modules.contains_key(&base);
                base.pop();
                if !is_child {
                    return None;
                }
            }
        }
        while rest.first().is_some_and(|part| part == "super") {
            base.pop()?;
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// Path of the module that defines the item of an absolute path.
    fn definition(&self, path: &[String], depth: usize) -> Option<Vec<String>> {
        let module_len = (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(module_len);
        let Some(name) = rest.first() else { return Some(module.to_vec()) };
        let scope = &self.modules.get(module)?.scope;
        if scope.items.contains(name) || depth == 0 {
            return Some(module.to_vec());
        }
        let named = scope.imports.iter().find(|import| import.alias == *name);
        if let Some(import) = named
            && let Some(mut target) = self.absolute(module, &import.path)
        {
            target.extend(rest[1..].iter().cloned());
            return self.definition(&target, depth - 1);
        }
        let globs = scope.imports.iter().filter(|import| import.is_glob);
        let candidates = globs.filter_map(|import| self.absolute(module, &import.path));
        let from_glob = candidates.filter(|target| target != module).find_map(|mut target| {
            target.extend(rest.iter().cloned());
            let found = self.definition(&target, depth - 1)?;
            self.modules.get(&found)?.scope.items.contains(name).then_some(found)
        });
        Some(from_glob.unwrap_or_else(|| module.to_vec()))
    }

    /// True if an import re-exports a descendant of its module.
    fn is_child_export(module: &[String], import: &Import, target: &[String]) -> bool {
        import.is_public && target.starts_with(module)
    }

    /// Edges as (from, to) with the line of the first import.
    fn edges(&self) -> BTreeMap<(usize, usize), usize> {
        let mut edges = BTreeMap::new();
        for (path, module) in &self.modules {
            for import in module.scope.imports.iter().chain(&module.scope.paths) {
                let Some(absolute) = self.absolute(path, &import.path) else { continue };
                let Some(target) = self.definition(&absolute, MAX_REEXPORTS) else { continue };
                let to = self.modules[&target].file;
                if to != module.file && !Self::is_child_export(path, import, &target) {
                    edges.entry((module.file, to)).or_insert(import.line);
                }
            }
        }
        edges
    }

    fn cycles(&self) -> Vec<Cycle> {
        let edges = self.edges();
        let name = |index: usize| self.files[index].path.clone();
        let groups = cycles(self.files.len(), &edges.keys().copied().collect::<Vec<_>>());
        let cycle = |group: BTreeSet<usize>| {
            let inside = edges.iter().filter(|((from, to), _)| group.contains(from) && group.contains(to));
            let imports = inside.map(|((from, to), line)| format!("{}:{line} -> {}", name(*from), name(*to)));
            Cycle { imports: imports.collect(), files: group.iter().map(|index| name(*index)).collect() }
        };
        groups.into_iter().map(cycle).collect()
    }
}

/// Import cycles of each crate below `crates/`, by the directory name of the crate.
pub(crate) fn cycles_by_crate(workspace: &Workspace) -> BTreeMap<String, Vec<Cycle>> {
    let mut files: BTreeMap<&str, Vec<&RustFile>> = BTreeMap::new();
    for file in &workspace.rust {
        if file.path.starts_with("crates/") && file.path.contains("/src/") && !file.is_test {
            files.entry(file.crate_dir().trim_start_matches("crates/")).or_default().push(file);
        }
    }
    files.into_iter().map(|(name, files)| (name.to_owned(), Crate::new(files).cycles())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_cycles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let rust = files
            .iter()
            .map(|(name, text)| RustFile::new(&format!("crates/a/src/{name}"), (*text).to_owned()));
        let workspace = Workspace { rust: rust.collect(), ..Workspace::default() };
        let mut cycles = cycles_by_crate(&workspace).remove("a").unwrap();
        let names = |cycle: Cycle| {
            cycle.files.iter().map(|path| path.trim_start_matches("crates/a/src/").to_owned()).collect()
        };
        cycles.drain(..).map(names).collect()
    }

    #[test]
    fn crate_modules_form_no_cycles() {
        let all = cycles_by_crate(crate::test_workspace());
        assert!(all.len() > 5, "only {} crates found", all.len());
        let mut found = String::new();
        for (name, cycles) in &all {
            for cycle in cycles {
                let (files, imports) = (
                    cycle.files.join(", "),
                    cycle.imports.join(
                        "
    ",
                    ),
                );
                found += &format!(
                    "{name}: cycle of {files}
    {imports}
"
                );
            }
        }
        assert!(found.is_empty(), "{found}");
    }

    #[test]
    fn siblings_that_import_each_other_are_a_cycle() {
        let files = [
            ("lib.rs", "mod x; mod y; mod z;"),
            ("x.rs", "use crate::y::A; pub struct X;"),
            ("y.rs", "pub struct A; fn f() -> super::x::X { super::x::X }"),
            ("z.rs", "use crate::{x::{X as B}, y::A}; struct Z;"),
        ];
        assert_eq!(crate_cycles(&files), [["x.rs", "y.rs"]]);
    }

    #[test]
    fn re_export_of_a_child_is_no_edge() {
        let parent = "mod child; mod other; pub use child::Child; pub(crate) use self::other::Other; \
            pub struct Parent;";
        let child = ("parent/child.rs", "use super::Parent; pub struct Child;");
        let other = ("parent/other.rs", "use super::Child; pub struct Other;");
        assert!(crate_cycles(&[("lib.rs", "mod parent;"), ("parent.rs", parent), child, other]).is_empty());
        let caller = format!("{parent} fn f() {{ child::call() }}");
        let cycles = crate_cycles(&[("lib.rs", "mod parent;"), ("parent.rs", &caller), child, other]);
        assert_eq!(cycles, [["parent.rs", "parent/child.rs"]]);
    }

    #[test]
    fn re_export_is_followed_to_the_definition() {
        let files = [
            ("lib.rs", "mod x; mod y; pub use x::*; pub use y::Y;"),
            ("x.rs", "use crate::Y; pub struct X;"),
            ("y.rs", "use crate::X; pub struct Y;"),
        ];
        assert_eq!(crate_cycles(&files), [["x.rs", "y.rs"]]);
    }

    #[test]
    fn imports_of_tests_and_other_crates_are_no_edges() {
        let files = [
            ("lib.rs", "mod x; mod y;"),
            ("x.rs", "use y::A; use std::fmt; #[cfg(test)] mod tests { use crate::y::A; }"),
            ("y.rs", "use crate::x::X; pub struct A;"),
        ];
        assert!(crate_cycles(&files).is_empty());
    }

    #[test]
    fn inline_module_belongs_to_its_file() {
        let files = [
            ("lib.rs", "mod x; mod y;"),
            ("x.rs", "pub mod inner { use super::super::y::A; pub struct X; } pub(crate) fn f() {}"),
            ("y.rs", "pub struct A; fn f() { crate::x::inner::X; }"),
        ];
        assert_eq!(crate_cycles(&files), [["x.rs", "y.rs"]]);
    }
}
