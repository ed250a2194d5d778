//! Backup files: SQLite databases without secrets, for both engines.

use super::file::{lock, migrate};
use super::inner::{FILE_NAME, PAGE_BYTES, SqliteOptions, unavailable};
use crate::error::StoreError;
use crate::schema::excluded_tables;
use crate::settings::SIGNING_KEYS;
use perfwatch_files::Directory;
use perfwatch_model::Clock;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn file_error(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Rejected(format!("{}: {error}", path.display()))
}

/// Creates the file of a backup, readable by the user of this process alone.
fn create_file(path: &Path) -> std::io::Result<()> {
    let (directory, name) = Directory::open_parent(path)?;
    directory.create_own(name).map(drop)
}

/// Copies the database with SQLite's online backup while the writer continues.
pub(super) fn backup(connection: &Connection, to: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| file_error(to, &error);
    if to.exists() {
        return Err(StoreError::Rejected(format!("{} already exists", to.display())));
    }
    create_file(to).map_err(|error| file_error(to, &error))?;
    let mut copy = Connection::open(to).map_err(failed)?;
    {
        let backup = rusqlite::backup::Backup::new(connection, &mut copy).map_err(failed)?;
        // All pages in one step. A copy that restarts at each commit would never complete under load.
        backup.run_to_completion(i32::MAX, Duration::from_millis(5), None).map_err(failed)?;
    }
    copy.execute_batch("PRAGMA journal_mode=DELETE").map_err(failed)?;
    strip_secrets(&copy).map_err(failed)
}

/// File of the data directory that a backup is copied to before it replaces the database.
const RESTORED_FILE: &str = "restore.db";

/// Copies a backup into the data directory, readable by its owner alone.
fn copy_to(from: &Path, directory: &Directory) -> std::io::Result<()> {
    directory.remove(RESTORED_FILE)?;
    let mut copy = directory.create_new(RESTORED_FILE)?;
    std::io::copy(&mut std::fs::File::open(from)?, &mut copy)?;
    copy.sync_all()
}

/// Replaces the database in the data directory by a backup. The previous database is renamed and its path
/// returned.
pub(super) fn restore(
    options: &SqliteOptions,
    from: &Path,
    clock: &dyn Clock,
) -> Result<Option<PathBuf>, StoreError> {
    let failed = |error: &dyn std::fmt::Display| file_error(from, error);
    let folder = &options.folder;
    let directory = Directory::create_private(folder).map_err(|error| failed(&error))?;
    let copy = folder.join(RESTORED_FILE);
    let lock = lock(folder)?;
    copy_to(from, &directory).map_err(|error| failed(&error))?;
    if let Err(error) = open_backup(&copy) {
        // The previous database stays in place.
        let _ = std::fs::remove_file(&copy);
        // The message names the file that the user gave.
        let (copy, from) = (copy.display().to_string(), from.display().to_string());
        return Err(StoreError::Rejected(error.to_string().replace(&copy, &from)));
    }
    let path = folder.join(FILE_NAME);
    let mut previous = None;
    if path.exists() {
        let renamed = folder.join(format!("{FILE_NAME}.{}", clock.wall_ms() / 1_000));
        // The log belongs to the previous database and is written into it before the rename. The log of a
        // corrupt database is renamed with it.
        let checkpoint = Connection::open(&path)
            .and_then(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if checkpoint.is_err() {
            let (log, renamed_log) = (format!("{FILE_NAME}-wal"), format!("{}-wal", renamed.display()));
            let _ = std::fs::rename(folder.join(log), renamed_log);
        }
        std::fs::rename(&path, &renamed).map_err(|error| failed(&error))?;
        previous = Some(renamed);
    }
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("{FILE_NAME}{suffix}")));
    }
    std::fs::rename(&copy, &path).map_err(|error| failed(&error))?;
    drop(lock);
    Ok(previous)
}

/// Deletes signing keys, sessions and the other tables that are not part of a backup, so that a copy does not
/// allow a login.
pub(crate) fn strip_secrets(copy: &Connection) -> rusqlite::Result<()> {
    // Deleted rows are overwritten in the file, too.
    copy.execute_batch("PRAGMA secure_delete=ON")?;
    for table in excluded_tables() {
        copy.execute_batch(&format!("DELETE FROM {table}"))?;
    }
    copy.execute("DELETE FROM setting WHERE name = ?1", [SIGNING_KEYS]).map(drop)
}

/// Creates a file with an empty database of the current schema.
pub(crate) fn new_file(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error: &dyn std::fmt::Display| file_error(path, error);
    create_file(path).map_err(|error| failed(&error))?;
    let mut connection = Connection::open(path).map_err(|error| failed(&error))?;
    let settings = format!("PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL");
    connection.execute_batch(&settings).map_err(|error| failed(&error))?;
    migrate(&mut connection).map_err(|error| failed(&error))?;
    Ok(connection)
}

/// Opens a backup, checks its integrity and migrates it to the current schema.
pub(crate) fn open_backup(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error: &dyn std::fmt::Display| file_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| failed(&error))?;
    let check: String =
        connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).map_err(|error| failed(&error))?;
    if check != "ok" {
        return Err(failed(&check));
    }
    if !connection.table_exists(None, "block_raw").map_err(unavailable)? {
        return Err(failed(&"not a PerfWatch backup"));
    }
    migrate(&mut connection).map_err(|error| failed(&error))?;
    Ok(connection)
}

/// Columns of a table, in the order of the schema.
pub(crate) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}
