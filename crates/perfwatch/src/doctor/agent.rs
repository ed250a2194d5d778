//! Checks of an agent: configuration, data, credential, hub, clock, process and collectors.

use super::clock::{check_clock, check_difference};
use super::data::{SpaceNeeds, check_data, size_of};
use super::report::Report;
use super::{DoctorFlags, Inspected, check_configuration, finish};
use crate::config::{ConfigError, Settings};
use perfwatch_agent::{
    AgentConfig, HubClient, HubResponse, TimeoutSource, check_heartbeat, collect_once, foreign_identifier,
    is_unencrypted, load_secret,
};
use perfwatch_collect::{CollectorSet, LocalRoot, Source};
use perfwatch_model::{Clock, CollectorError, SystemClock};
use std::sync::Arc;
use std::time::Duration;

/// Timeout of a request to the hub.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval over which the rates of the collectors are computed.
const RATE_INTERVAL: Duration = Duration::from_millis(250);
/// Free space below which a snapshot may not be stored.
const MIN_FREE_BYTES: u64 = 1 << 20;

/// Checks the agent of this configuration and prints the results.
pub(crate) fn check_agent_installation(
    inspected: Result<Inspected, ConfigError>,
    flags: DoctorFlags,
) -> anyhow::Result<()> {
    let mut report = Report::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    if let Some(settings) = check_configuration(&mut report, inspected)
        && let Some(config) = check_settings(&mut report, &settings)
    {
        let limit = config.max_spool_bytes;
        let needs = SpaceNeeds { setting: "agent.spool_max_size", limit, min_free: MIN_FREE_BYTES };
        check_data(&mut report, &settings.data, needs);
        check_machine(&mut report, &config);
        check_spool(&mut report, &config);
        check_process(&mut report, &settings, &*clock);
        check_clock(&mut report, clock.wall_ms());
        check_hub(&mut report, &config, &*clock);
        check_collectors(&mut report, &settings, &config, &clock);
    }
    finish(&report, flags)
}

/// Converts and validates the settings of the agent.
fn check_settings(report: &mut Report, settings: &Settings) -> Option<AgentConfig> {
    let config = settings.agent_config();
    let config = config.and_then(|config| match config.validate() {
        Ok(()) => Ok(config),
        Err(error) => Err(format!("agent.{error}")),
    });
    config.map_err(|error| report.error("settings", error, "correct the setting")).ok()
}

/// The state directory of a cloned machine belongs to its original.
fn check_machine(report: &mut Report, config: &AgentConfig) {
    let source = LocalRoot::new(&config.procfs, &config.sysfs, &config.rootfs);
    if let Some(identifier) = foreign_identifier(&config.state, &source) {
        report.error(
            "machine",
            format!("{} belongs to another machine: {identifier} differs", config.state.display()),
            "enroll this machine with an enrollment token of its own; its agent then starts as a new host",
        );
    }
}

/// A spool that fills is close to losing the oldest snapshots.
fn check_spool(report: &mut Report, config: &AgentConfig) {
    let used = size_of(&config.state.join("spool"));
    let percent = used.saturating_mul(100) / config.max_spool_bytes.max(1);
    if percent > 50 {
        report.warning(
            "spool",
            format!("{percent} % of agent.spool_max_size wait for the hub"),
            "check the connection to the hub; when the spool is full, the oldest snapshots are dropped",
        );
    } else {
        report.ok("spool", format!("{percent} % full"));
    }
}

fn check_process(report: &mut Report, settings: &Settings, clock: &dyn Clock) {
    match check_heartbeat(&settings.agent_state(), clock.wall_ms()) {
        Ok(age) => report.ok("process", format!("running; last tick {:.1} s ago", age.as_secs_f64())),
        Err(error) => report.warning(
            "process",
            format!("not running: {error}"),
            "start it: systemctl start perfwatch-agent; its log: journalctl -u perfwatch-agent",
        ),
    }
}

/// Connection to the hub, and the credential there.
fn check_hub(report: &mut Report, config: &AgentConfig, clock: &dyn Clock) {
    const CHECK: &str = "hub";
    let client = match HubClient::new(&config.hub, config.ca.as_deref()) {
        Ok(client) => client,
        Err(error) => return report.error(CHECK, format!("agent.{error}"), "correct the setting"),
    };
    let label = client.label().to_owned();
    let response = match client.get("/healthz", None, Some(REQUEST_TIMEOUT)) {
        Ok(response) => response,
        Err(error) => return report.error(CHECK, format!("{label}: {error}"), connection_advice(&error)),
    };
    if response.status != 200 || response.body != "ok\n" {
        return report.error(
            CHECK,
            format!("{label} is not a PerfWatch hub (HTTP {})", response.status),
            "correct agent.hub: the URL of the hub, with the path if a proxy mounts it below one",
        );
    }
    if is_unencrypted(&config.hub) {
        report.warning(
            CHECK,
            format!("{label} responds, without encryption: others can read and change what is sent"),
            "give the hub a certificate (hub.tls), and use https:// in agent.hub",
        );
    } else {
        report.ok(CHECK, format!("{label} responds"));
    }
    check_difference(report, clock.wall_ms(), response.date);
    check_credential(report, config, &client);
}

/// Cause of a failed connection, by the text of its error.
fn connection_advice(error: &str) -> &'static str {
    let error = error.to_ascii_lowercase();
    if error.contains("certificate") || error.contains("tls") {
        "set agent.ca to the CA certificate of the hub; the name in agent.hub must be in the certificate"
    } else if error.contains("dns") || error.contains("lookup") || error.contains("host not found") {
        "correct the name in agent.hub, or the resolver of this machine"
    } else {
        "start the hub; it listens on 127.0.0.1 only unless hub.listen is set; check firewalls and agent.hub"
    }
}

/// Sends an empty batch with the credential.
fn check_credential(report: &mut Report, config: &AgentConfig, client: &HubClient) {
    const CHECK: &str = "credential";
    let token = config.token.as_ref();
    let configured = token.filter(|token| !token.is_enrollment_token()).map(|token| token.text.clone());
    let secret = configured.or_else(|| load_secret(&config.state).map(|stored| stored.secret));
    let Some(secret) = secret else {
        return match token {
            Some(_) => report.ok(CHECK, "enrollment token; it is exchanged for a secret at the first start"),
            None => report.error(
                CHECK,
                "neither a token nor a secret of an earlier enrollment",
                "create an enrollment token (dashboard: Add host) and set agent.token: file:PATH",
            ),
        };
    };
    let headers = [("Content-Type", "application/json")];
    match client.post("/ingest/metrics", &headers, Some(&secret), b"[]") {
        Ok(HubResponse { status: 200, .. }) => report.ok(CHECK, "accepted by the hub"),
        Ok(response) if matches!(response.status, 401 | 403) => report.error(
            CHECK,
            format!("rejected by the hub: {}", response.error("message")),
            "enroll again with a new enrollment token (dashboard: Add host)",
        ),
        Ok(response) => report.warning(
            CHECK,
            format!("not checked: HTTP {} {}", response.status, response.error("message")),
            "repeat the check later; the log of the hub has the reason",
        ),
        Err(error) => report.warning(CHECK, format!("not checked: {error}"), connection_advice(&error)),
    }
}

/// Runs all collectors once.
pub(super) fn check_collectors(
    report: &mut Report,
    settings: &Settings,
    config: &AgentConfig,
    clock: &Arc<dyn Clock>,
) {
    const CHECK: &str = "collectors";
    if !config.procfs.join("stat").exists() {
        return report.error(
            CHECK,
            format!("{} is not a procfs", config.procfs.display()),
            "mount /proc of the host, and set agent.host_root or agent.procfs",
        );
    }
    let root = LocalRoot::new(&config.procfs, &config.sysfs, &config.rootfs);
    let source: Arc<dyn Source> = Arc::new(TimeoutSource::new(root));
    let set = CollectorSet::new(&config.disabled_collectors, settings.collector_options());
    match collect_once(source, &set, RATE_INTERVAL, clock) {
        Ok(snapshot) => report_collectors(report, &snapshot.errors),
        Err(error) => report.error(
            CHECK,
            format!("cannot start: {error}"),
            "check the limits of the service: TasksMax, MemoryMax, ulimit -u",
        ),
    }
}

fn report_collectors(report: &mut Report, errors: &[CollectorError]) {
    const CHECK: &str = "collectors";
    if errors.is_empty() {
        report.ok(CHECK, "all deliver");
    }
    for CollectorError { collector, message } in errors {
        report.warning(
            CHECK,
            format!("{collector}: {message}"),
            format!("disable it if this machine lacks it: agent.collectors.disabled: [{collector}]"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::CheckStatus::{Error, Ok, Warning};
    use super::*;
    use crate::config::load;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::path::Path;

    fn config(folder: &Path, hub: &str, token: &str) -> AgentConfig {
        let flags = [
            ("data", folder.display().to_string()),
            ("agent.hub", hub.to_owned()),
            ("agent.token", token.to_owned()),
        ];
        load(None, &[], &flags).unwrap().agent_config().unwrap()
    }

    /// Server that answers each request with the next response.
    fn serve(responses: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for response in responses {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4_096]).unwrap();
                stream.write_all(response.as_bytes()).unwrap();
            }
        });
        url
    }

    fn response(status: &str, body: &str, header: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{header}\r\n{body}")
    }

    fn check(token: &str, responses: Vec<String>) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::default();
        let config = config(folder.path(), &serve(responses), token);
        check_hub(&mut report, &config, &perfwatch_model::ManualClock::starting_at(1_800_000_000_000));
        report
    }

    #[test]
    fn unreachable_and_foreign_hubs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::default();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = config(folder.path(), &format!("http://{closed}"), "");
        check_hub(&mut report, &config, &SystemClock::new());
        let (status, text) = report.result_of("hub");
        assert!(status == Error && text.contains("start the hub"), "{text}");
        let report = check("", vec![response("200 OK", "<html>", "")]);
        let (status, text) = report.result_of("hub");
        assert!(status == Error && text.contains("is not a PerfWatch hub"), "{text}");
        for (error, expected) in [
            ("invalid peer certificate: UnknownIssuer", "agent.ca"),
            ("failed to lookup address information", "resolver"),
            ("Connection refused (os error 111)", "start the hub"),
        ] {
            assert!(connection_advice(error).contains(expected), "{error}");
        }
    }

    #[test]
    fn credential_and_clock_are_compared_with_the_hub() {
        let healthy = |date: &str| response("200 OK", "ok\n", date);
        let report = check("", vec![healthy("")]);
        assert_eq!((report.result_of("hub").0, report.result_of("credential").0), (Ok, Error));
        assert_eq!(check("pwe_1", vec![healthy("")]).result_of("credential").0, Ok, "not used up");
        // 1,800,000,000 s is 2027-01-15T08:00:00Z.
        let date = "Date: Fri, 15 Jan 2027 08:10:00 GMT\r\n";
        let report = check("pwa_1", vec![healthy(date), response("200 OK", "{}", "")]);
        assert_eq!((report.result_of("credential").0, report.result_of("clock").0), (Ok, Warning));
        assert!(report.result_of("clock").1.starts_with("10m behind"), "{:?}", report.result_of("clock"));
        let rejection = response("401 Unauthorized", r#"{"error":{"message":"unknown"}}"#, "");
        let (status, text) = check("pwa_1", vec![healthy(""), rejection]).result_of("credential");
        assert!(status == Error && text.contains("unknown; enroll again"), "{text}");
        let busy = response("503 Service Unavailable", "", "");
        assert_eq!(check("pwa_1", vec![healthy(""), busy]).result_of("credential").0, Warning);
    }

    #[test]
    fn full_spool_and_missing_process_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), "http://127.0.0.1:1", "");
        let settings = Settings { data: folder.path().to_owned(), ..Settings::default() };
        let mut report = Report::default();
        check_spool(&mut report, &config);
        check_process(&mut report, &settings, &SystemClock::new());
        assert_eq!((report.result_of("spool").0, report.result_of("process").0), (Ok, Warning));
        std::fs::create_dir_all(config.state.join("spool")).unwrap();
        std::fs::write(config.state.join("spool/1"), vec![1; 3 << 20]).unwrap();
        config.max_spool_bytes = 4 << 20;
        check_spool(&mut report, &config);
        let (status, text) = report.result_of("spool");
        assert!(status == Warning && text.starts_with("75 %"), "{text}");
    }

    #[test]
    fn invalid_settings_are_found() {
        let mut report = Report::default();
        let settings = load(None, &[], &[("agent.interval", "1ms".to_owned())]).unwrap();
        assert!(check_settings(&mut report, &settings).is_none());
        let (status, text) = report.result_of("settings");
        assert!(status == Error && text.contains("agent.interval"), "{text}");
    }

    #[test]
    fn state_of_another_machine_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), "http://127.0.0.1:1", "");
        config.rootfs = folder.path().join("root");
        std::fs::create_dir_all(config.rootfs.join("etc")).unwrap();
        std::fs::create_dir_all(&config.state).unwrap();
        let check = |machine_id: &str| {
            std::fs::write(config.rootfs.join("etc/machine-id"), machine_id).unwrap();
            let source = LocalRoot::new(&config.procfs, &config.sysfs, &config.rootfs);
            let _ = perfwatch_agent::load_host_id(&config.state, &source, false);
            let mut report = Report::default();
            check_machine(&mut report, &config);
            report.errors()
        };
        assert_eq!(check("0123456789abcdef0123456789abcdef"), 0);
        assert_eq!(check("ffffffffffffffff0123456789abcdef"), 1);
    }

    #[test]
    fn failing_collectors_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), "http://127.0.0.1:1", "");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let mut report = Report::default();
        check_collectors(&mut report, &Settings::default(), &config, &clock);
        assert_eq!(report.errors(), 0);
        config.procfs = folder.path().join("empty");
        let mut report = Report::default();
        check_collectors(&mut report, &Settings::default(), &config, &clock);
        let (status, text) = report.result_of("collectors");
        assert!(status == Error && text.contains("is not a procfs"), "{text}");
        let error = CollectorError { collector: "disk".into(), message: "permission denied".into() };
        report_collectors(&mut report, &[error]);
        let (status, text) = report.result_of("collectors");
        assert!(status == Warning && text.contains("agent.collectors.disabled: [disk]"), "{text}");
    }
}
