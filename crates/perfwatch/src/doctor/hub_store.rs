//! Checks of the store: reachable, of a supported version, with agents of supported versions.

use super::report::Report;
use crate::config::Settings;
use crate::store_url::StoreUrl;
use crate::{runtime, store};
use perfwatch_model::Clock;
use perfwatch_store::agents::Agent;
use perfwatch_store::{HostRecord, PostgresStore, SchemaVersions, SqliteStore};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const CHECK: &str = "store";
/// Time for all reads of the database.
const STORE_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of hosts that a message names.
const MAX_NAMES: usize = 5;

/// State of the database, as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreState {
    Empty,
    Used,
    Unknown,
}

/// Checks the database and the agents in it.
///
/// # Errors
/// Fails if the asynchronous runtime cannot be created.
pub(super) fn check_store(
    report: &mut Report,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<StoreState> {
    let url = match store::store_url(settings) {
        Ok(url) => url,
        Err(error) => {
            report.error(CHECK, format!("{error:#}"), "correct hub.store");
            return Ok(StoreState::Unknown);
        }
    };
    if let StoreUrl::Sqlite(folder) = &url
        && !folder.join("history.db").exists()
    {
        report.ok(CHECK, format!("{} is created at the first start", folder.display()));
        return Ok(StoreState::Empty);
    }
    let runtime = runtime::current_thread()?;
    let advice = match url {
        StoreUrl::Sqlite(_) => "run doctor as the user of the hub; restore a backup if the file is damaged",
        StoreUrl::Postgres(_) => "start the server; check address, user, password and pg_hba.conf",
    };
    let read = async { tokio::time::timeout(STORE_TIMEOUT, read_store(report, settings, &url, clock)).await };
    Ok(match runtime.block_on(read) {
        Ok(Ok(state)) => state,
        Ok(Err(error)) => {
            report.error(CHECK, format!("{error:#}"), advice);
            StoreState::Unknown
        }
        Err(_) => {
            report.error(CHECK, format!("no response within {} s", STORE_TIMEOUT.as_secs()), advice);
            StoreState::Unknown
        }
    })
}

async fn read_store(
    report: &mut Report,
    settings: &Settings,
    url: &StoreUrl,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<StoreState> {
    let versions = match url {
        StoreUrl::Sqlite(folder) => SqliteStore::schema_versions(folder)?,
        StoreUrl::Postgres(url) => PostgresStore::schema_versions(url, clock.clone()).await?,
    };
    if !check_versions(report, versions) {
        return Ok(if versions.current.is_some() { StoreState::Used } else { StoreState::Empty });
    }
    let store = store::open_read_only(settings, clock.clone()).await?;
    let hosts = store.list_hosts().await?;
    let usage = store.disk_usage(None).await?;
    #[expect(clippy::cast_precision_loss, reason = "rounded for display")]
    let used = perfwatch_model::value_format::format_bytes(usage.used_bytes as f64);
    report.ok(CHECK, format!("{}, {} hosts, {used} used", store.backend(), hosts.len()));
    check_future(report, &hosts, clock.wall_ms());
    let agents = Agent::list(&*store).await?;
    check_agents(report, &hosts, &agents, env!("CARGO_PKG_VERSION"));
    Ok(StoreState::Used)
}

/// Returns whether this program can read the tables without a migration.
fn check_versions(report: &mut Report, versions: SchemaVersions) -> bool {
    let supported = versions.supported;
    match (versions.reject_newer(), versions.current) {
        (Err(error), _) => report.error(CHECK, error, "install the newer version again, or restore a backup"),
        (Ok(()), None) => report.ok(CHECK, "reachable; tables are created at the first start"),
        (Ok(()), Some(current)) if current < supported => report.warning(
            CHECK,
            format!("tables of version {current}; the next start migrates them to version {supported}"),
            "back up first: perfwatch backup FILE, with the program of the earlier version",
        ),
        (Ok(()), Some(current)) => {
            if versions.is_newer() {
                report.ok(
                    CHECK,
                    format!("tables of version {current} of a newer program, which this version can use"),
                );
            }
            return true;
        }
    }
    false
}

/// Snapshots from the future: the clock of this machine was set back.
fn check_future(report: &mut Report, hosts: &[HostRecord], now_ms: i64) {
    let newest = hosts.iter().filter_map(|host| host.last_snapshot_ms).max();
    let ahead_ms = newest.map_or(0, |newest| newest.saturating_sub(now_ms));
    if ahead_ms > 60_000 {
        let ahead = perfwatch_model::HumanDuration::from_ms(ahead_ms / 1_000 * 1_000);
        report.warning(
            "clock",
            format!("the newest stored snapshot is {ahead} ahead: this clock is behind, or was ahead"),
            "start a time service: timedatectl set-ntp true",
        );
    }
}

/// Compares the versions of enrolled agents with that of this hub.
fn check_agents(report: &mut Report, hosts: &[HostRecord], agents: &[Agent], hub: &str) {
    const CHECK: &str = "agents";
    let hosts: HashMap<_, _> = hosts.iter().map(|host| (host.id, host)).collect();
    let active = agents.iter().filter(|agent| agent.revoked_ms.is_none());
    let (mut count, mut older, mut newer, mut foreign) = (0, Vec::new(), Vec::new(), Vec::new());
    for agent in active {
        count += 1;
        let Some(host) = hosts.get(&agent.host) else { continue };
        let Some(facts) = &host.facts else { continue };
        let list = match compare_versions(&facts.agent_version, hub) {
            VersionOrder::Equal => continue,
            VersionOrder::Older => &mut older,
            VersionOrder::Newer => &mut newer,
            VersionOrder::Foreign => &mut foreign,
        };
        list.push(format!("{} ({})", host.name, facts.agent_version));
    }
    if !foreign.is_empty() {
        report.error(
            CHECK,
            format!("of another major version than the hub ({hub}): {}", join_names(&foreign)),
            "install agents of the version of the hub: run the line of \"Add host\" there again",
        );
    }
    if !newer.is_empty() {
        report.warning(
            CHECK,
            format!("newer than the hub ({hub}): {}", join_names(&newer)),
            "upgrade the hub: metrics that it does not know have no unit and no description",
        );
    }
    if !older.is_empty() {
        report.warning(
            CHECK,
            format!("older than the hub ({hub}): {}", join_names(&older)),
            "upgrade them when convenient: run the line of \"Add host\" there again",
        );
    }
    if foreign.is_empty() && newer.is_empty() && older.is_empty() {
        report.ok(CHECK, format!("{count} enrolled, none of another version"));
    }
}

fn join_names(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let text = names[..names.len().min(MAX_NAMES)].join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

#[derive(Debug, PartialEq, Eq)]
enum VersionOrder {
    Equal,
    Older,
    Newer,
    /// Of another major version.
    Foreign,
}

/// Compares versions such as `1.2.3`. Other texts are from programs that are not PerfWatch: equal.
fn compare_versions(agent: &str, hub: &str) -> VersionOrder {
    let parse = |text: &str| -> Option<[u64; 3]> {
        let mut parts = text.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok());
        Some([parts.next()??, parts.next()??, parts.next()??])
    };
    let (Some(agent), Some(hub)) = (parse(agent), parse(hub)) else { return VersionOrder::Equal };
    match agent.cmp(&hub) {
        _ if agent[0] != hub[0] => VersionOrder::Foreign,
        std::cmp::Ordering::Less => VersionOrder::Older,
        std::cmp::Ordering::Greater => VersionOrder::Newer,
        std::cmp::Ordering::Equal => VersionOrder::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::CheckStatus::{Error, Ok, Warning};
    use super::*;
    use crate::config::load;
    use perfwatch_model::{HostFacts, HostId, SystemClock};

    fn check(data: &std::path::Path, store: &str) -> (Report, StoreState) {
        let flags = [("data", data.display().to_string()), ("hub.store", store.to_owned())];
        let settings = load(None, &[], &flags).unwrap();
        let mut report = Report::default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let state = check_store(&mut report, &settings, &clock).unwrap();
        (report, state)
    }

    #[test]
    fn stores_are_absent_damaged_or_unreachable() {
        let folder = tempfile::tempdir().unwrap();
        let (report, state) = check(folder.path(), "");
        assert_eq!((report.result_of("store").0, state), (Ok, StoreState::Empty));
        std::fs::create_dir(folder.path().join("history")).unwrap();
        std::fs::write(folder.path().join("history/history.db"), vec![b'x'; 20_000]).unwrap();
        let (report, state) = check(folder.path(), "");
        let (status, text) = report.result_of("store");
        assert!(status == Error && text.contains("restore a backup"), "{text}");
        assert_eq!(state, StoreState::Unknown);
        let (report, _) = check(folder.path(), "postgres://perfwatch:secret@127.0.0.1:1/perfwatch");
        let (status, text) = report.result_of("store");
        assert!(status == Error && text.contains("pg_hba.conf") && !text.contains("secret"), "{text}");
        let (report, _) = check(folder.path(), "mysql://x");
        assert!(report.result_of("store").1.contains("hub.store"));
    }

    #[test]
    fn schema_versions_are_compared() {
        let check = |current, min_program| {
            let mut report = Report::default();
            let versions = SchemaVersions { current, supported: 2, min_program: Some(min_program) };
            let is_readable = check_versions(&mut report, versions);
            (is_readable, report.status(), report.errors())
        };
        assert_eq!(check(Some(2), 1), (true, Ok, 0));
        assert_eq!(check(None, 1), (false, Ok, 0));
        assert_eq!(check(Some(1), 1), (false, Warning, 0));
        assert_eq!(check(Some(3), 2), (true, Ok, 0));
        assert_eq!(check(Some(3), 3), (false, Error, 1));
    }

    #[test]
    fn versions_are_ordered() {
        for (agent, expected) in [
            ("1.2.3", VersionOrder::Equal),
            ("1.2.3-rc1", VersionOrder::Equal),
            ("1.2.2", VersionOrder::Older),
            ("1.10.0", VersionOrder::Newer),
            ("2.0.0", VersionOrder::Foreign),
            ("0.9.0", VersionOrder::Foreign),
            ("", VersionOrder::Equal),
            ("git", VersionOrder::Equal),
        ] {
            assert_eq!(compare_versions(agent, "1.2.3"), expected, "{agent}");
        }
    }

    fn host(name: &str, version: &str, last_snapshot_ms: i64) -> HostRecord {
        HostRecord {
            id: HostId::generate(),
            name: name.to_owned(),
            facts: Some(Arc::new(HostFacts { agent_version: version.to_owned(), ..HostFacts::default() })),
            first_seen_ms: 0,
            last_snapshot_ms: Some(last_snapshot_ms),
            interval_ms: 2_000,
            created_by: None,
        }
    }

    fn agent(host: &HostRecord, revoked_ms: Option<i64>) -> Agent {
        Agent {
            id: uuid::Uuid::now_v7(),
            hash: Default::default(),
            host: host.id,
            enrollment_token: String::new(),
            enrollment_token_id: None,
            previous_hash: None,
            address: String::new(),
            created_ms: 0,
            last_seen_ms: 0,
            revoked_ms,
        }
    }

    #[test]
    fn agents_of_other_versions_are_named() {
        let hosts = [
            host("old", "1.0.0", 0),
            host("same", "1.1.0", 0),
            host("new", "1.2.0", 0),
            host("far", "3.0.0", 0),
        ];
        let check = |agents: &[Agent]| {
            let mut report = Report::default();
            check_agents(&mut report, &hosts, agents, "1.1.0");
            report
        };
        assert_eq!(check(&[]).status(), Ok);
        assert_eq!(check(&[agent(&hosts[1], None), agent(&hosts[3], Some(1))]).status(), Ok, "revoked");
        let report = check(&[agent(&hosts[0], None), agent(&hosts[2], None)]);
        assert_eq!((report.errors(), report.status()), (0, Warning));
        assert!(report.to_text().contains("old (1.0.0)") && report.to_text().contains("new (1.2.0)"));
        assert_eq!(check(&[agent(&hosts[3], None)]).errors(), 1);
        let names: Vec<String> = (0..8).map(|n| format!("h{n}")).collect();
        assert_eq!(join_names(&names), "h0, h1, h2, h3, h4 and 3 more");
    }

    #[test]
    fn snapshots_from_the_future_are_found() {
        let check = |ahead_ms: i64| {
            let mut report = Report::default();
            check_future(&mut report, &[host("web", "1.0.0", 1_000_000 + ahead_ms)], 1_000_000);
            report.status()
        };
        assert_eq!((check(-5), check(60_000), check(120_000)), (Ok, Ok, Warning));
    }
}
