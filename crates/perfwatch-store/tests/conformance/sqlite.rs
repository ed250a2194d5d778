//! SQLite only: data directory, file permissions, schema version, backup and disk budget.

use crate::support::*;
use perfwatch_model::*;
use perfwatch_store::*;
use perfwatch_tsdb::Tier;
use std::sync::Arc;

#[tokio::test]
async fn data_is_read_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open_sqlite(folder.path(), 1 << 30).unwrap());
    crate::run_all_cases(&store).await;
    drop(store);
    let store = open_sqlite(folder.path(), 1 << 30).unwrap();
    assert_eq!(as_dyn(&store).list_hosts().await.unwrap().len(), 2);
    assert_eq!(store.read_blocks(Tier::Raw, host(3).id, T0, T0 + HOUR).await.unwrap().len(), 2);
    assert_eq!(head_seqs(&store).await, [99, 1]);
}

#[tokio::test]
async fn second_hub_on_a_data_dir_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_sqlite(folder.path(), 1 << 30).unwrap();
    let error = open_sqlite(folder.path(), 1 << 30).err().unwrap().to_string();
    assert!(error.contains("in use by another hub"), "{error}");
    drop(first);
    open_sqlite(folder.path(), 1 << 30).unwrap();
}

#[tokio::test]
async fn newer_schema_and_foreign_files_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_sqlite(folder.path(), 1 << 30).unwrap());
    let file = folder.path().join("history/history.db");
    let raw = rusqlite::Connection::open(&file).unwrap();
    raw.execute("INSERT INTO refinery_schema_history VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')", [])
        .unwrap();
    raw.execute("UPDATE schema_compatibility SET min_version = 999", []).unwrap();
    drop(raw);
    let error = open_sqlite(folder.path(), 1 << 30).err().unwrap().to_string();
    assert!(error.contains("upgrade PerfWatch") && error.contains("999"), "{error}");
    std::fs::write(&file, vec![b'x'; 20_000]).unwrap();
    let error = open_sqlite(folder.path(), 1 << 30).err().unwrap().to_string();
    assert!(error.contains("not a database"), "{error}");
}

#[tokio::test]
async fn schema_versions_are_read_without_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let history = folder.path().join("history");
    assert!(SqliteStore::schema_versions(&history).is_err() && !history.exists(), "no database");
    let running = open_sqlite(folder.path(), 1 << 30).unwrap();
    let versions = SqliteStore::schema_versions(&history).unwrap();
    assert_eq!(versions.current, Some(versions.supported), "beside a running hub");
    drop(running);
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join("history.db"), "").unwrap();
    assert_eq!(SqliteStore::schema_versions(&empty).unwrap().current, None);
    assert_eq!(std::fs::metadata(empty.join("history.db")).unwrap().len(), 0, "nothing is created");
    std::fs::write(empty.join("history.db"), vec![b'x'; 20_000]).unwrap();
    let error = SqliteStore::schema_versions(&empty).unwrap_err().to_string();
    assert!(error.contains("not a database"), "{error}");
}

#[tokio::test]
async fn backup_is_consistent_under_writes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open_sqlite(folder.path(), 1 << 30).unwrap());
    let tx = Transaction::build(|tx| tx.settings().put("signing_keys", "a signing key"));
    store.commit(tx).await.unwrap();
    let shape = shape(&["x"]);
    let writer = {
        let (store, shape) = (store.clone(), shape.clone());
        tokio::spawn(async move {
            for seq in 0..60 {
                store.append(vec![row(host(1).id, &shape, seq, T0)]).await.unwrap();
            }
        })
    };
    let to = folder.path().join("copy/history.db");
    std::fs::create_dir(to.parent().unwrap()).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    store.backup(&to).await.unwrap();
    assert!(store.backup(&to).await.unwrap_err().to_string().contains("already exists"));
    // The files contain session hashes and signing keys.
    let history = folder.path().join("history");
    for file in [to.clone(), history.join("history.db"), history.join("history.db-wal")] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    assert!(String::from_utf8_lossy(&std::fs::read(&to).unwrap()).matches("a signing key").count() == 0);
    writer.await.unwrap();
    let options = SqliteOptions { folder: to.parent().unwrap().to_owned(), budget_bytes: 1 << 30 };
    let copy = SqliteStore::open(&options, Arc::new(SystemClock::new())).unwrap();
    let seqs = head_seqs(&copy).await;
    assert!(!seqs.is_empty());
    assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>(), "a consistent copy");
}

#[tokio::test]
async fn disk_budget_is_never_exceeded() {
    let folder = tempfile::tempdir().unwrap();
    let budget = 4 << 20;
    let store = open_sqlite(folder.path(), budget).unwrap();
    let shape = shape(&["x"]);
    let disk = || -> u64 {
        let files = std::fs::read_dir(folder.path().join("history")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let mut rejected = 0;
    for seq in 0..400 {
        let mut row = row(host(1).id, &shape, seq, T0);
        // Random text does not compress.
        let noise: String = (0..1_000).map(|_| char::from(fastrand::u8(33..126))).collect();
        let processes = (0..20).map(|n| ProcessRow {
            pid: n,
            command: noise.chars().rev().cycle().skip(n as usize * 7).take(1_000).collect::<String>().into(),
            name: fastrand::u64(..).to_string().into(),
            ..ProcessRow::default()
        });
        Arc::make_mut(&mut row.snapshot).processes = processes.collect();
        Arc::make_mut(&mut row.snapshot).errors = (0..8)
            .map(|_| CollectorError {
                collector: "x".into(),
                message: (0..1_000).map(|_| fastrand::alphanumeric()).collect(),
            })
            .collect();
        match store.append(vec![row]).await {
            Ok(_) => assert_eq!(rejected, 0),
            Err(error) => {
                assert!(error.to_string().contains("budget"), "{error}");
                rejected += 1;
            }
        }
        assert!(disk() <= budget, "{} of {budget}", disk());
    }
    assert!(rejected > 0, "{}", disk());
    // Space of deleted rows is reused, and returned to the file system step by step.
    store.truncate_head(i64::MAX).await.unwrap();
    let full = disk();
    for _ in 0..10 {
        store.vacuum(0).await.unwrap();
    }
    drop(store);
    assert!(disk() < full / 2, "{} of {full}", disk());
    let store = open_sqlite(folder.path(), budget).unwrap();
    store.append(vec![row(host(1).id, &shape, 1_000, T0)]).await.unwrap();
}
