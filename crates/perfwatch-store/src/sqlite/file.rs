//! Database file of a SQLite store: data directory, lock, permissions, pragmas and migrations.

use super::inner::{BUSY_TIMEOUT, FILE_NAME, PAGE_BYTES, SqliteInner, SqliteOptions, store_error};
use crate::error::StoreError;
use crate::schema_versions::{MIN_PROGRAM_SQL, SchemaVersions};
use perfwatch_files::Directory;
use rusqlite::{Connection, OptionalExtension as _};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;

mod migrations {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Locks the data directory for one hub. The kernel releases the lock when the process ends, also after a
/// crash.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let open = || Directory::open(folder)?.open_or_create("hub.lock");
    let lock = open().map_err(|error| store_error(folder, &error))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| store_error(folder, &"the data directory is in use by another hub"))?;
    Ok(lock)
}

/// Restricts the data directory and the database files to their owner, because they contain session hashes
/// and signing keys. SQLite creates its log with the mode of the database file.
pub(super) fn restrict_permissions(folder: &Path) -> std::io::Result<()> {
    let directory = Directory::create_private(folder)?;
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("{FILE_NAME}{suffix}");
        directory.reject_foreign_link(&name)?;
        if suffix.is_empty() {
            match directory.open_or_create(&name) {
                Ok(_) => {}
                // A link of this user, to a file that SQLite opens or creates.
                Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
        directory.restrict_files([name.as_str()]);
    }
    Ok(())
}

pub(super) fn prepare(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let sizes = options.sizes();
    let checkpoint_pages = (sizes.wal_bytes() / PAGE_BYTES / 2).max(1);
    // page_size and auto_vacuum take effect only on an empty database. The cache suffices for the pages of a commit.
    connection.execute_batch(&format!(
        "PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; \
         PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint={checkpoint_pages}; \
         PRAGMA journal_size_limit={}; PRAGMA cache_size=-2048; PRAGMA temp_store=MEMORY; \
         PRAGMA secure_delete=FAST; PRAGMA max_page_count={}",
        sizes.wal_bytes(),
        sizes.pages()
    ))
}

/// Limits the size of the file to the disk budget. SQLite never sets a limit below the present size.
pub(super) fn limit_pages(connection: &Connection, inner: &SqliteInner) -> rusqlite::Result<()> {
    let pages = inner.max_pages.load(Ordering::Relaxed);
    connection.execute_batch(&format!("PRAGMA max_page_count={pages}"))
}

/// Versions of the tables.
pub(super) fn schema_versions(connection: &Connection) -> SchemaVersions {
    // Without the table, there is no number.
    let number = |sql| -> Option<i32> {
        connection.query_row(sql, [], |row| row.get(0)).optional().unwrap_or_default().flatten()
    };
    let current = number("SELECT max(version) FROM refinery_schema_history");
    SchemaVersions::new(current, number(MIN_PROGRAM_SQL), &migrations::migrations::runner())
}

pub(super) fn migrate(connection: &mut Connection) -> Result<(), String> {
    if !schema_versions(connection).check_migration()? {
        return Ok(());
    }
    migrations::migrations::runner().run(connection).map(|_| ()).map_err(|error| error.to_string())
}
