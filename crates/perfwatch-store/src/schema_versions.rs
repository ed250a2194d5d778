//! Version of the tables of a database beside the version that this program supports.
//!
//! During a rolling upgrade, hubs of two releases use the same tables. Migrations only add what the programs of the
//! release before ignore. A later release may remove what no program uses any more; its migration raises the version in
//! the table `schema_compatibility`. A test of `xtask` (`migrations.rs`) reads the statements of all migrations.

/// Reads the oldest version of a program that can use the tables.
pub(crate) const MIN_PROGRAM_SQL: &str = "SELECT max(min_version) FROM schema_compatibility";

/// Schema versions; a version is the number of the newest migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaVersions {
    /// Version of the database; `None` without tables.
    pub current: Option<i32>,
    /// Version that this program creates and migrates to.
    pub supported: i32,
    /// Oldest version of a program that can use the tables; `None` if they do not state it.
    pub min_program: Option<i32>,
}

impl SchemaVersions {
    /// Version of a database beside the embedded migrations of its engine.
    pub(crate) fn new(current: Option<i32>, min_program: Option<i32>, runner: &refinery::Runner) -> Self {
        let versions = runner.get_migrations().iter().map(refinery::Migration::version);
        Self { current, supported: versions.max().unwrap_or_default(), min_program }
    }

    /// Returns whether the tables are those of a newer program.
    pub fn is_newer(self) -> bool {
        self.current > Some(self.supported)
    }

    /// Rejects a database of a newer program whose tables this program cannot use.
    ///
    /// # Errors
    /// Returns a message with both versions.
    pub fn reject_newer(self) -> Result<(), String> {
        let is_usable = self.min_program.is_some_and(|min_program| min_program <= self.supported);
        match self.current {
            Some(current) if self.is_newer() && !is_usable => Err(format!(
                "database schema version {current} is newer than this PerfWatch supports ({}); \
                 upgrade PerfWatch",
                self.supported
            )),
            _ => Ok(()),
        }
    }

    /// Returns whether migrations are to run: not on the tables of a newer program.
    ///
    /// # Errors
    /// Returns the error of [`SchemaVersions::reject_newer`].
    pub(crate) fn check_migration(self) -> Result<bool, String> {
        self.reject_newer().map(|()| !self.is_newer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_databases_are_rejected_unless_they_only_add() {
        let versions = |current, min_program| SchemaVersions { current, supported: 9, min_program };
        for current in [None, Some(1), Some(9)] {
            assert_eq!(versions(current, None).reject_newer(), Ok(()));
        }
        for min_program in [None, Some(10), Some(11)] {
            let error = versions(Some(11), min_program).reject_newer().unwrap_err();
            assert!(error.contains("version 11") && error.contains("(9)"), "{error}");
        }
        for min_program in [8, 9] {
            assert_eq!(versions(Some(11), Some(min_program)).reject_newer(), Ok(()));
        }
        assert!(versions(Some(10), Some(9)).is_newer());
        assert!(!versions(Some(9), Some(9)).is_newer() && !versions(None, None).is_newer());
    }
}
