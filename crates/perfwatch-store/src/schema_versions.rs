//! Version of the tables of a database beside the version that this program supports.

/// Schema versions; a version is the number of the newest migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaVersions {
    /// Version of the database; `None` without tables.
    pub current: Option<i32>,
    /// Version that this program creates and migrates to.
    pub supported: i32,
}

impl SchemaVersions {
    /// Version of a database beside the embedded migrations of its engine.
    pub(crate) fn new(current: Option<i32>, runner: &refinery::Runner) -> Self {
        let versions = runner.get_migrations().iter().map(refinery::Migration::version);
        Self { current, supported: versions.max().unwrap_or_default() }
    }

    /// Rejects a database of a newer program, whose tables this program does not know.
    ///
    /// # Errors
    /// Returns a message with both versions.
    pub fn reject_newer(self) -> Result<(), String> {
        match self.current {
            Some(current) if current > self.supported => Err(format!(
                "database schema version {current} is newer than this PerfWatch supports ({}); \
                 upgrade PerfWatch",
                self.supported
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_databases_are_rejected() {
        let versions = |current| SchemaVersions { current, supported: 2 };
        for current in [None, Some(1), Some(2)] {
            assert_eq!(versions(current).reject_newer(), Ok(()));
        }
        let error = versions(Some(3)).reject_newer().unwrap_err();
        assert!(error.contains("version 3") && error.contains("(2)"), "{error}");
    }
}
