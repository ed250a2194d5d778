//! Repository checks: each is a test of `cargo test -p xtask`, some are commands as well.

mod config;
#[cfg(test)]
mod files;
#[cfg(test)]
mod layers;
mod lexer;
#[cfg(test)]
mod migrations;
#[cfg(test)]
mod modules;
mod script;
mod source;
pub mod vocabulary;

#[cfg(test)]
use source::Workspace;
use std::path::{Path, PathBuf};

/// Root directory of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Sources of the repository, read once for all tests.
#[cfg(test)]
fn test_workspace() -> &'static Workspace {
    static WORKSPACE: std::sync::OnceLock<Workspace> = std::sync::OnceLock::new();
    WORKSPACE.get_or_init(|| Workspace::load(&root()).unwrap())
}
