//! The file itself: made, locked, brought up to date, put back from a backup.

use super::{PAGE_BYTES, SqliteOptions, SqliteStore, store_error, unavailable};
use crate::store::StoreError;
use perfwatch_model::Clock;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

mod migrations {
    refinery::embed_migrations!("migrations/sqlite");
}

impl SqliteStore {
    /// Puts a backup in the place of what is in the folder, which is kept beside it.
    ///
    /// # Errors
    /// A hub runs on the folder, or the file is no backup that this version can read.
    pub fn restore(
        options: &SqliteOptions,
        from: &Path,
        clock: &dyn Clock,
    ) -> Result<Option<PathBuf>, StoreError> {
        let failed =
            |error: &dyn std::fmt::Display| StoreError::Rejected(format!("{}: {error}", from.display()));
        let folder = &options.folder;
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        let copy = folder.join("restore.db");
        let lock = lock(folder)?;
        std::fs::copy(from, &copy).map_err(|error| failed(&error))?;
        let checked = open_backup(&copy).map(drop);
        if let Err(error) = checked {
            // What was there stays as it is.
            let _ = std::fs::remove_file(&copy);
            // People know the file by the name they gave.
            let (copy, from) = (copy.display().to_string(), from.display().to_string());
            return Err(StoreError::Rejected(error.to_string().replace(&copy, &from)));
        }
        let path = folder.join("history.db");
        let mut before = None;
        if path.exists() {
            let aside = folder.join(format!("history.db.{}", clock.wall_ms() / 1_000));
            // Its log belongs to it: folded in first.
            let fold = Connection::open(&path).and_then(|connection| {
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            });
            fold.map_err(unavailable)?;
            std::fs::rename(&path, &aside).map_err(|error| failed(&error))?;
            before = Some(aside);
        }
        for suffix in ["history.db-wal", "history.db-shm"] {
            let _ = std::fs::remove_file(folder.join(suffix));
        }
        std::fs::rename(&copy, &path).map_err(|error| failed(&error))?;
        drop(lock);
        Ok(before)
    }
}

/// One hub a folder; let go when the process ends, however it ends.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let lock = File::create(folder.join("hub.lock")).map_err(|error| store_error(folder, &error))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| store_error(folder, &"another hub runs on this folder"))?;
    Ok(lock)
}

/// The folder and the files in it are their owner's alone: who reads them could log in as anyone.
/// SQLite gives its log the mode of its file.
pub(super) fn restrict_permissions(folder: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    for name in ["history.db", "history.db-wal", "history.db-shm"] {
        create_private(&folder.join(name), name == "history.db")?;
    }
    Ok(())
}

/// A file that only its owner reads, made where there is none.
pub(super) fn create_private(path: &Path, make: bool) -> std::io::Result<()> {
    match std::fs::OpenOptions::new().append(true).create(make).mode(0o600).open(path) {
        Ok(file) => file.set_permissions(std::fs::Permissions::from_mode(0o600)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Leaves out what would let who finds a copy log in: keys that sign, and browsers.
pub(crate) fn strip_secrets(copy: &Connection) -> rusqlite::Result<()> {
    // What is deleted is overwritten, too.
    let sql = "PRAGMA secure_delete=ON; DELETE FROM session; DELETE FROM outbox; DELETE FROM job; DELETE FROM setting WHERE name = 'signing_keys'";
    copy.execute_batch(sql)
}

/// An empty database of our tables in a file of its own.
pub(crate) fn new_file(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Rejected(format!("{}: {error}", path.display()));
    create_private(path, true).map_err(|error| failed(&error))?;
    let mut connection = Connection::open(path).map_err(|error| failed(&error))?;
    let settings = format!("PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL");
    connection.execute_batch(&settings).map_err(|error| failed(&error))?;
    migrate(&mut connection).map_err(|error| failed(&error))?;
    Ok(connection)
}

/// A backup, whole and of tables that this version knows.
pub(crate) fn open_backup(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Rejected(format!("{}: {error}", path.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| failed(&error))?;
    let check: String =
        connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).map_err(|error| failed(&error))?;
    if check != "ok" {
        return Err(failed(&check));
    }
    if !connection.table_exists(None, "block_raw").map_err(unavailable)? {
        return Err(failed(&"not a backup of PerfWatch"));
    }
    migrate(&mut connection).map_err(|error| failed(&error))?;
    Ok(connection)
}

pub(super) fn prepare(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let checkpoint_pages = (options.wal_bytes() / PAGE_BYTES / 2).max(1);
    // The first two count only before there are tables.
    connection.execute_batch(&format!(
        "PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; \
         PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint={checkpoint_pages}; \
         PRAGMA journal_size_limit={}; PRAGMA cache_size=-16384; PRAGMA temp_store=MEMORY; PRAGMA secure_delete=FAST; \
         PRAGMA max_page_count={}",
        options.wal_bytes(),
        options.pages()
    ))
}

pub(super) fn migrate(connection: &mut Connection) -> Result<(), String> {
    let newest =
        migrations::migrations::runner().get_migrations().iter().map(refinery::Migration::version).max();
    let there: Option<i32> = connection
        .query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))
        .optional()
        .unwrap_or_default()
        .flatten();
    if there > newest {
        return Err(format!(
            "made by a newer PerfWatch (tables of version {}, this one knows {}); start that one, or another folder",
            there.unwrap_or_default(),
            newest.unwrap_or_default()
        ));
    }
    migrations::migrations::runner().run(connection).map(|_| ()).map_err(|error| error.to_string())
}
