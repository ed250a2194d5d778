//! Temporary store of a benchmark.

use perfwatch_model::Clock;
use perfwatch_store::{SqliteOptions, SqliteStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Temporary directory, deleted on drop unless it is preserved.
pub(crate) struct Scratch(pub(crate) PathBuf, bool);

impl Scratch {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("perfwatch-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder, false))
    }

    /// Prevents the deletion of the directory, and returns its path.
    pub(crate) fn preserve(&mut self) -> &Path {
        self.1 = true;
        &self.0
    }

    pub(crate) fn sqlite(&self, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<SqliteStore>> {
        let options = SqliteOptions { folder: self.0.join("history"), budget_bytes: 20 << 30 };
        Ok(Arc::new(SqliteStore::open(&options, clock)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.1 {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
