//! Temporary store of a benchmark.

use perfwatch_model::Clock;
use perfwatch_store::{SqliteOptions, SqliteStore};
use std::path::PathBuf;
use std::sync::Arc;

/// Temporary directory, deleted on drop.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("perfwatch-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub(crate) fn sqlite(&self, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<SqliteStore>> {
        let options = SqliteOptions { folder: self.0.join("history"), budget_bytes: 20 << 30 };
        Ok(Arc::new(SqliteStore::open(&options, clock)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
