//! Repository checks: each is a test of `cargo test -p xtask`, some are commands as well.

mod baseline;
mod files;
#[cfg(test)]
mod layers;
mod lexer;
mod modules;
mod script;
mod source;
pub mod vocabulary;

use baseline::{Baseline, MODULE_CYCLES, SIZES};
use source::Workspace;
use std::path::{Path, PathBuf};

/// Root directory of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Lowers every baseline that is above its measured value; returns one line per change.
///
/// # Errors
/// Fails if the sources or the baseline file cannot be read or written.
pub fn lower_baselines(root: &Path) -> Result<Vec<String>, String> {
    let workspace = Workspace::load(root)?;
    let mut measured = vocabulary::values(&workspace, &Baseline::load(root)?)?;
    let cycles = modules::count_by_crate(&workspace);
    measured.extend(cycles.into_iter().map(|(name, count)| (MODULE_CYCLES, name, f64::from(count))));
    let sizes = files::oversizes(&workspace)?;
    measured.extend(sizes.into_iter().map(|size| (SIZES, size.key.to_owned(), f64::from(size.count()))));
    Baseline::lower(root, &measured)
}

/// Sources of the repository, read once for all tests.
#[cfg(test)]
fn test_workspace() -> &'static Workspace {
    static WORKSPACE: std::sync::OnceLock<Workspace> = std::sync::OnceLock::new();
    WORKSPACE.get_or_init(|| Workspace::load(&root()).unwrap())
}
