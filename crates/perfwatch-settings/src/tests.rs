//! Settings with a real database: sources, validation, versions, audit log, a second hub.

use super::*;
use perfwatch_auth::Grant;
use perfwatch_auth::SessionLifetimes;
use perfwatch_auth::access::{RouteMatch, match_route};
use perfwatch_auth::encryption::Keyring;
use perfwatch_auth::identity::{RequestCredentials, identify};
use perfwatch_auth::secret::hash_secret;
use perfwatch_history::{HistoryConfig, HistoryMetrics};
use perfwatch_http::rate_limit::RateLimitConfig;
use perfwatch_model::ManualClock;
use perfwatch_store::accounts::{Account, Role, Session};
use perfwatch_store::audit::{AuditFilter, list_audit_entries};
use perfwatch_store::{SqliteOptions, SqliteStore};

const DAY_S: i64 = 86_400;
const COOKIE: &str = "cookie";

struct TestHub {
    settings: Settings,
    history: Arc<History>,
    directory: Arc<AuthDirectory>,
}

async fn start(store: &Arc<dyn Store>, sources: &[(&str, SettingSource)]) -> TestHub {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::starting_at(1_000));
    let config = HistoryConfig::default();
    let history =
        History::open(store.clone(), clock.clone(), config.clone(), HistoryMetrics::default()).await.unwrap();
    let lifetimes = SessionLifetimes::default();
    let keyring = Arc::new(Keyring::new(&[]));
    insert_admin(store).await;
    let directory = AuthDirectory::open(store.clone(), clock.clone(), keyring, lifetimes).await.unwrap();
    let rates = RateLimitConfig::default();
    let rate_limiters = RateLimiters::new(rates);
    let base = SettingValues::new(&config, lifetimes, rates, None);
    let sources = sources.iter().map(|(key, source)| ((*key).to_owned(), *source)).collect();
    let collector = |name| CollectorInfo { name, metrics: 1, default_interval_ms: 0 };
    let collectors = vec![collector("cpu"), collector("processes")];
    let configured = ConfiguredSettings { sources, fixed: Vec::new(), collectors };
    let targets = SettingTargets { history: history.clone(), directory: directory.clone(), rate_limiters };
    let settings = Settings::open((store.clone(), clock), (base, configured), targets).await.unwrap();
    TestHub { settings, history, directory }
}

fn open_store(folder: &std::path::Path) -> Arc<dyn Store> {
    let options = SqliteOptions { folder: folder.to_owned(), budget_bytes: 10 << 30 };
    Arc::new(SqliteStore::open(&options, Arc::new(ManualClock::starting_at(1_000))).unwrap())
}

impl TestHub {
    /// Administrator who has just logged in.
    fn actor(&self) -> Actor {
        let credentials = RequestCredentials { session_cookies: &[COOKIE], ..RequestCredentials::default() };
        let identity = identify(&self.directory, credentials).unwrap().unwrap();
        let RouteMatch::Matched(access, accepts) = match_route("PUT", "/api/v1/settings") else {
            panic!("the route is missing")
        };
        let client_addr = perfwatch_auth::ClientAddr { address: [127, 0, 0, 1].into(), is_tls: false };
        Actor::new(Grant::new(self.directory.clone(), identity, (access, accepts), &[]), client_addr)
    }
}

/// Adds the administrator to an empty database.
async fn insert_admin(store: &Arc<dyn Store>) {
    let account = Account::new("vera".to_owned(), Role::Admin, 0);
    let session = Session {
        hash: hash_secret(COOKIE),
        account: account.id,
        created_ms: 1_000,
        last_used_ms: 1_000,
        address: "127.0.0.1".to_owned(),
        user_agent: String::new(),
    };
    let insert = |tx: &mut Transaction| {
        tx.accounts().insert(&account);
        tx.sessions().insert(&session);
    };
    // The second hub of a database finds the account.
    let _ = store.commit(Transaction::build(insert)).await;
}

fn change(version: i64, values: &[(&str, Option<i64>)]) -> UpdateSettingsRequest {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    UpdateSettingsRequest { version, values }
}

fn source(response: &SettingsResponse, name: &str) -> SettingSource {
    response.settings.iter().find(|setting| setting.name == name).unwrap().source
}

#[tokio::test]
async fn changes_apply_to_all_hubs_and_are_audited() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let (hub, other) = (start(&store, &[]).await, start(&store, &[]).await);
    let values = [
        ("raw_retention_s", Some(7 * DAY_S)),
        ("disk_budget_bytes", Some(20 << 30)),
        ("session_idle_timeout_s", Some(3_600)),
        ("min_password_length", Some(14)),
        ("agent_interval_ms", Some(10_000)),
    ];
    let response = hub.settings.update(&hub.actor(), &change(0, &values)).await.unwrap();
    assert_eq!((response.version, response.changed_by.as_deref()), (1, Some("user vera")));
    assert_eq!(source(&response, "raw_retention_s"), SettingSource::Database);
    assert_eq!(source(&response, "hour_retention_s"), SettingSource::Default);
    other.settings.refresh().await.unwrap();
    for hub in [&hub, &other] {
        let config = hub.history.config();
        assert_eq!((config.raw_retention.as_secs(), config.budget_bytes), (7 * 86_400, 20 << 30));
        assert_eq!(hub.directory.session_lifetimes().idle_timeout.as_secs(), 3_600);
        assert!(hub.directory.validate_password("correct horse", "vera").unwrap().contains("14"));
        assert_eq!(hub.settings.values().agent_interval_ms(), Some(10_000));
    }
    // The store rejects appends from the new budget on.
    assert!(store.disk_usage(None).await.unwrap().target_bytes > 18 << 30);
    let entry =
        list_audit_entries(&*store, AuditFilter { limit: 1, ..AuditFilter::default() }).await.unwrap();
    let entry = &entry[0];
    assert_eq!(
        (entry.action.as_str(), entry.actor.as_str(), entry.at_ms),
        ("settings.update", "user vera", 1_000)
    );
    assert!(entry.before.as_ref().unwrap().contains("\"raw_retention_s\":1209600"));
    assert!(entry.after.as_ref().unwrap().contains("\"raw_retention_s\":604800"));
    assert!(!entry.after.as_ref().unwrap().contains("hour_retention_s"));
    // Without a value, the default counts again.
    let response = hub.settings.update(&hub.actor(), &change(1, &[("raw_retention_s", None)])).await.unwrap();
    assert_eq!(source(&response, "raw_retention_s"), SettingSource::Default);
    assert_eq!(hub.history.config().raw_retention.as_secs(), 14 * 86_400);
}

#[tokio::test]
async fn invalid_and_stale_changes_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let hub = start(&store, &[("hub.retention.hours", SettingSource::File)]).await;
    let update = async |version, values: &[(&str, Option<i64>)]| {
        hub.settings.update(&hub.actor(), &change(version, values)).await.map_err(|error| error.to_string())
    };
    for (values, message) in [
        ([("raw_retention_s", Some(60))], "raw_retention_s: 60 is not between 3600 and 315360000"),
        (
            [("raw_retention_s", Some(100 * DAY_S))],
            "minute_retention_s: must be at least the retention of raw rows",
        ),
        (
            [("hour_retention_s", Some(800 * DAY_S))],
            "hour_retention_s: set as hub.retention.hours in the configuration",
        ),
        ([("session_max_age_s", Some(DAY_S))], "session_max_age_s: must be at least the idle timeout"),
        ([("listen", Some(1))], "listen: unknown setting"),
    ] {
        let error = update(0, &values).await.unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    update(0, &[("raw_retention_s", Some(5 * DAY_S))]).await.unwrap();
    assert_eq!(
        update(0, &[("raw_retention_s", Some(6 * DAY_S))]).await.unwrap_err(),
        "modified concurrently; reload and retry"
    );
    // Nothing to change: neither a version nor an audit entry.
    assert_eq!(update(1, &[("raw_retention_s", Some(5 * DAY_S))]).await.unwrap().version, 1);
}

/// A value in the configuration of a hub counts there, whatever is stored for the others.
#[tokio::test]
async fn configuration_overrides_stored_settings() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let hub = start(&store, &[]).await;
    hub.settings.update(&hub.actor(), &change(0, &[("raw_retention_s", Some(3 * DAY_S))])).await.unwrap();
    let locked = start(&store, &[("hub.retention.raw", SettingSource::Environment)]).await;
    assert_eq!(locked.history.config().raw_retention.as_secs(), 14 * 86_400);
    let response = locked.settings.response();
    assert_eq!(source(&response, "raw_retention_s"), SettingSource::Environment);
    assert_eq!(start(&store, &[]).await.history.config().raw_retention.as_secs(), 3 * 86_400);
}

fn policy(json: &str) -> CollectionPolicy {
    serde_json::from_str(json).unwrap()
}

async fn put_policy(hub: &TestHub, version: i64, json: &str) -> Result<(), String> {
    let request = UpdateCollectionPolicyRequest { version, policy: policy(json) };
    hub.settings.policy().update(&hub.actor(), request).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn later_overrides_replace_the_values_of_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let (hub, other) = (start(&store, &[]).await, start(&store, &[]).await);
    let (plain, tagged, named) = (HostId::generate(), HostId::generate(), HostId::generate());
    let tx = Transaction::build(|tx| tx.host_tags().set(tagged, &["env=lab".to_owned()]));
    store.commit(tx).await.unwrap();
    let json = format!(
        r#"{{"collectors":{{"processes":{{"disabled":true}},"cpu":{{"interval_ms":10000}}}},"overrides":[
            {{"tags":["env=lab"],"interval_ms":60000,"collectors":{{"cpu":{{"interval_ms":30000}}}}}},
            {{"hosts":["{named}"],"tags":["env=lab"],"collectors":{{"processes":{{}}}}}}]}}"#
    );
    hub.settings.update(&hub.actor(), &change(0, &[("agent_interval_ms", Some(5_000))])).await.unwrap();
    put_policy(&hub, 0, &json).await.unwrap();
    let requests = |hub: &TestHub, host| {
        let (interval_ms, requests) = hub.settings.collection_requests(host);
        (interval_ms, serde_json::to_string(&requests).unwrap())
    };
    let off = r#""processes":{"disabled":true,"interval_ms":null}"#;
    let cpu = |ms: u32| format!(r#""cpu":{{"disabled":false,"interval_ms":{ms}}}"#);
    other.settings.refresh().await.unwrap();
    other.settings.policy.refresh().await.unwrap();
    // A hub that starts later knows the tags.
    let fresh = start(&store, &[]).await;
    assert_eq!(requests(&fresh, None), (Some(5_000), format!("{{{},{off}}}", cpu(10_000))));
    assert_eq!(requests(&fresh, Some(plain)), (Some(5_000), format!("{{{},{off}}}", cpu(10_000))));
    // The last override lets "processes" run as the agent is configured.
    assert_eq!(requests(&fresh, Some(tagged)), (Some(60_000), format!("{{{}}}", cpu(30_000))));
    assert_eq!(requests(&fresh, Some(named)), (Some(5_000), format!("{{{}}}", cpu(10_000))));
    assert_eq!(requests(&other, Some(named)), (Some(5_000), format!("{{{}}}", cpu(10_000))));
    let response = fresh.settings.policy().response(&[plain, tagged, named], BTreeMap::new());
    assert_eq!((response.version, response.selected_hosts), (1, vec![1, 2]));
    let entries =
        list_audit_entries(&*store, AuditFilter { limit: 1, ..AuditFilter::default() }).await.unwrap();
    assert_eq!((entries[0].action.as_str(), entries[0].actor.as_str()), ("collectors.update", "user vera"));
    assert!(entries[0].after.as_ref().unwrap().contains("env=lab"));
}

#[tokio::test]
async fn invalid_and_stale_policies_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(&open_store(folder.path()), &[]).await;
    let many = format!(r#"{{"overrides":[{}]}}"#, vec![r#"{"tags":["a"],"interval_ms":1000}"#; 51].join(","));
    for (json, message) in [
        (r#"{"collectors":{"gpu":{}}}"#, "collectors: unknown collector; expected cpu, processes"),
        (
            r#"{"collectors":{"cpu":{"interval_ms":1}}}"#,
            "collectors.cpu.interval_ms: 1 is not between 250 and 3600000",
        ),
        (r#"{"overrides":[{"interval_ms":1000}]}"#, "overrides[0]: must select hosts by id or tag"),
        (r#"{"overrides":[{"tags":["a"]}]}"#, "overrides[0]: must set an interval or a collector"),
        (r#"{"overrides":[{"tags":["a b"],"interval_ms":1000}]}"#, "overrides[0].tags: tag must have"),
        (
            r#"{"overrides":[{"tags":["a"],"interval_ms":3600001}]}"#,
            "overrides[0].interval_ms: 3600001 is not between 250 and 3600000",
        ),
        (many.as_str(), "overrides: at most 50 are allowed"),
    ] {
        let error = put_policy(&hub, 0, json).await.unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    put_policy(&hub, 0, r#"{"collectors":{"cpu":{"disabled":true}}}"#).await.unwrap();
    let error = put_policy(&hub, 0, r#"{"collectors":{}}"#).await.unwrap_err();
    assert_eq!(error, "modified concurrently; reload and retry");
    // Unknown fields are misspelled options.
    assert!(serde_json::from_str::<CollectionPolicy>(r#"{"override":[]}"#).is_err());
}
