//! Items, imports, and qualified paths of a source file, without test code.

use crate::lexer::TokenKind;
use crate::source::RustFile;
use std::collections::BTreeSet;

/// Import or qualified path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Import {
    /// Parts between `::`; without the `*` of a glob.
    pub(super) path: Vec<String>,
    /// Name that the import defines.
    pub(super) alias: String,
    /// Import of all items of the path.
    pub(super) is_glob: bool,
    /// Visible outside the module.
    pub(super) is_public: bool,
    /// One-based line in the file.
    pub(super) line: usize,
}

/// Definitions and references of a module.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Names that the module defines.
    pub(super) items: BTreeSet<String>,
    /// `use` declarations, those of function bodies included.
    pub(super) imports: Vec<Import>,
    /// Qualified paths in code.
    pub(super) paths: Vec<Import>,
}

struct Parser<'a> {
    file: &'a RustFile,
    index: usize,
    depth: usize,
    /// Inline modules that enclose the position, with the depth of their content.
    inline: Vec<(String, usize)>,
    scopes: Vec<(Vec<String>, Scope)>,
}

/// Scopes of a file by the path of inline modules; the file itself has the empty path.
pub(super) fn parse_file(file: &RustFile) -> Vec<(Vec<String>, Scope)> {
    let scopes = vec![(Vec::new(), Scope::default())];
    let mut parser = Parser { file, index: 0, depth: 0, inline: Vec::new(), scopes };
    while parser.index < file.code.len() {
        if file.in_test[parser.index] {
            parser.index += 1;
        } else {
            parser.step();
        }
    }
    parser.scopes
}

impl Parser<'_> {
    fn text(&self, offset: usize) -> &str {
        self.file.code_text(self.index + offset)
    }

    fn scope(&mut self) -> &mut Scope {
        let path: Vec<String> = self.inline.iter().map(|(name, _)| name.clone()).collect();
        let position = self.scopes.iter().position(|(known, _)| *known == path);
        let position = position.unwrap_or_else(|| {
            self.scopes.push((path, Scope::default()));
            self.scopes.len() - 1
        });
        &mut self.scopes[position].1
    }

    fn step(&mut self) {
        let at_module_level = self.depth == self.inline.last().map_or(0, |(_, depth)| *depth);
        match self.text(0) {
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last().is_some_and(|(_, depth)| self.depth < *depth) {
                    self.inline.pop();
                }
            }
            "mod" if self.text(2) == "{" => {
                self.depth += 1;
                self.inline.push((self.text(1).to_owned(), self.depth));
                self.scope();
                self.index += 2;
            }
            "mod" => self.index += 1,
            // `use<'a>` captures a lifetime.
            "use" if self.text(1) != "<" => return self.imports(),
            "struct" | "enum" | "union" | "trait" | "type" | "fn" | "const" | "static" if at_module_level => {
                let skipped = usize::from(matches!(self.text(1), "fn" | "mut" | "unsafe"));
                let name = self.text(1 + skipped).to_owned();
                self.scope().items.insert(name);
            }
            "macro_rules" if self.text(1) == "!" => {
                let name = self.text(2).to_owned();
                self.scope().items.insert(name);
            }
            _ if self.starts_path() => return self.path(),
            _ => {}
        }
        self.index += 1;
    }

    /// Identifier before `::` that is not itself part of a longer path.
    fn starts_path(&self) -> bool {
        let is_ident = self.file.code.get(self.index).is_some_and(|token| token.kind == TokenKind::Ident);
        let before =
            |distance: usize| self.index.checked_sub(distance).map_or("", |index| self.file.code_text(index));
        let is_continued = before(1) == "." || (before(1) == ":" && before(2) == ":");
        is_ident && self.text(1) == ":" && self.text(2) == ":" && !is_continued
    }

    fn path(&mut self) {
        let mut import = Import { line: self.file.line(self.index), ..Import::default() };
        import.path.push(self.text(0).to_owned());
        while self.text(1) == ":" && self.text(2) == ":" {
            let is_ident =
                self.file.code.get(self.index + 3).is_some_and(|token| token.kind == TokenKind::Ident);
            if !is_ident {
                break;
            }
            self.index += 3;
            import.path.push(self.text(0).to_owned());
        }
        self.index += 1;
        self.scope().paths.push(import);
    }

    /// `use` declaration; `pub use` and `pub(…) use` are public.
    fn imports(&mut self) {
        let previous = self.index.checked_sub(1).map_or("", |index| self.file.code_text(index));
        let is_public = previous == "pub" || previous == ")";
        self.index += 1;
        let mut found = Vec::new();
        self.tree(&[], is_public, &mut found);
        self.scope().imports.extend(found);
    }

    /// One tree of a `use` declaration; ends at `,`, `}`, or `;`.
    fn tree(&mut self, prefix: &[String], is_public: bool, found: &mut Vec<Import>) {
        let mut path = prefix.to_vec();
        let line = self.file.line(self.index);
        let mut import = Import { is_public, line, ..Import::default() };
        while self.index < self.file.code.len() {
            match self.text(0) {
                "," | "}" | ";" => break,
                ":" => {}
                "*" => import.is_glob = true,
                "{" => {
                    self.index += 1;
                    while !matches!(self.text(0), "}" | ";" | "") {
                        self.tree(&path, is_public, found);
                        self.index += usize::from(self.text(0) == ",");
                    }
                    self.index += 1;
                    return;
                }
                "as" => {
                    import.alias = self.text(1).to_owned();
                    self.index += 1;
                }
                "self" if !path.is_empty() => {}
                part => path.push(part.to_owned()),
            }
            self.index += 1;
        }
        if import.alias.is_empty() && !import.is_glob {
            import.alias = path.last().cloned().unwrap_or_default();
        }
        import.path = path;
        found.push(import);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(imports: &[Import]) -> Vec<String> {
        let suffix =
            |import: &Import| if import.is_glob { "::*".to_owned() } else { format!(" as {}", import.alias) };
        imports.iter().map(|import| import.path.join("::") + &suffix(import)).collect()
    }

    #[test]
    fn use_trees_are_expanded() {
        let text = "use a::{self, b::*, c::{D as E, f}}; pub(super) use super::g; fn x() { use self::h; }";
        let scopes = parse_file(&RustFile::new("crates/a/src/lib.rs", text.to_owned()));
        let expected = ["a as a", "a::b::*", "a::c::D as E", "a::c::f as f", "super::g as g", "self::h as h"];
        assert_eq!(names(&scopes[0].1.imports), expected);
        let public: Vec<_> = scopes[0].1.imports.iter().map(|import| import.is_public).collect();
        assert_eq!(public, [false, false, false, false, true, false]);
    }

    #[test]
    fn scopes_contain_items_and_qualified_paths() {
        let text = "pub struct A; const fn f() { let x: b::C<d::E> = crate::g::<u8>(); x.y::<z::Z>() }\n\
            mod inner { static mut S: u8 = 1; fn g() {} } impl A { fn hidden() {} }";
        let scopes = parse_file(&RustFile::new("crates/a/src/lib.rs", text.to_owned()));
        let paths: Vec<_> = scopes[0].1.paths.iter().map(|path| path.path.join("::")).collect();
        assert_eq!(paths, ["b::C", "d::E", "crate::g", "z::Z"]);
        let items = |at: usize| scopes[at].1.items.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(items(0), ["A", "f"]);
        assert_eq!(scopes[1].0, ["inner"]);
        assert_eq!(items(1), ["S", "g"]);
    }
}
