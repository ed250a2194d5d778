//! Valid and invalid files, environment variables and flags.

use super::load::leaf_keys;
use super::*;
use std::path::Path;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn every_setting_is_documented() {
    let mut keys = leaf_keys(&serde_json::to_value(Settings::default()).unwrap());
    let mut documented: Vec<String> = SETTINGS.iter().map(|(key, _)| (*key).to_owned()).collect();
    keys.sort();
    documented.sort();
    assert_eq!(keys, documented);
}

#[test]
fn valid_files_parse_equally() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid");
    for kind in ["yaml", "json", "toml"] {
        let settings = load(Some(&folder.join(format!("full.{kind}"))), &[], &[]).unwrap();
        assert_eq!(settings.agent.interval.0.as_millis(), 500, "{kind}");
        assert_eq!(settings.agent.name.as_deref(), Some("db-1"), "{kind}");
        assert_eq!(settings.agent.collectors.intervals["filesystem"].0.as_secs(), 60, "{kind}");
        assert_eq!(settings.agent.exclude.interfaces, ["lo"], "{kind}");
        assert_eq!(settings.log.format, LogFormat::Json, "{kind}");
    }
    assert_eq!(load(Some(&folder.join("empty.yaml")), &[], &[]).unwrap(), Settings::default());
}

/// Every file of the directory has an `.expected` file with the start of its error.
#[test]
fn invalid_files_report_key_and_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/invalid");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_none_or(|extension| extension != "expected"));
    files.sort();
    assert!(files.len() >= 8);
    for path in files {
        let expected = std::fs::read_to_string(path.with_added_extension("expected")).unwrap();
        let error = load(Some(&path), &[], &[]).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        let message =
            error.replace(path.parent().unwrap().to_str().unwrap(), "").trim_start_matches('/').to_owned();
        assert!(message.starts_with(expected.trim_end()), "{name}: {message}");
    }
}

#[test]
fn flags_override_environment_and_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid/full.yaml");
    let variables = env(&[
        ("PERFWATCH_AGENT_INTERVAL", "3s"),
        ("PERFWATCH_AGENT_NAME", "123"),
        ("PERFWATCH_AGENT_EXCLUDE_METRICS", "tcp.*, udp.*"),
        ("PERFWATCH_AGENT_COLLECTORS_INTERVALS", "cpu=1s,disk=5s"),
        ("PERFWATCH_AGENT_SPOOL_MAX_SIZE", "9000000"),
        ("HOME", "/x"),
    ]);
    let settings = load(Some(&file), &variables, &[("agent.interval", "4s".to_owned())]).unwrap();
    assert_eq!(settings.agent.interval.0.as_secs(), 4);
    assert_eq!(settings.agent.name.as_deref(), Some("123"));
    assert_eq!(settings.agent.exclude.metrics, ["tcp.*", "udp.*"]);
    assert_eq!(settings.agent.collectors.intervals.len(), 2);
    assert_eq!(settings.agent.spool_max_size, Bytes(9_000_000));
    assert_eq!(load(None, &env(&[("PERFWATCH_HUB_INTERVAL", "")]), &[]).unwrap().hub.interval, None);
}

#[test]
fn invalid_variables_and_flags_are_named() {
    for (variables, flags, expected) in [
        (
            env(&[("PERFWATCH_AGENT_INTERVALL", "1s")]),
            vec![],
            "environment, PERFWATCH_AGENT_INTERVALL: unknown setting",
        ),
        (
            env(&[("PERFWATCH_AGENT_SPOOL_MAX_SIZE", "many")]),
            vec![],
            "environment, PERFWATCH_AGENT_SPOOL_MAX_SIZE: agent.spool_max_size: \
             expected a size such as 64MB, 10GB or bytes",
        ),
        (
            env(&[("PERFWATCH_LOG_FORMAT", "xml")]),
            vec![],
            "environment, PERFWATCH_LOG_FORMAT: log.format: unknown variant `xml`",
        ),
        (
            env(&[("PERFWATCH_AGENT_COLLECTORS_INTERVALS", "cpu")]),
            vec![],
            "environment, PERFWATCH_AGENT_COLLECTORS_INTERVALS: agent.collectors.intervals: \
             expected name=value",
        ),
        (
            vec![],
            vec![("agent.interval", "fast".to_owned())],
            "command line: agent.interval: expected a duration such as 500ms, 2s or 5m",
        ),
        (env(&[("PERFWATCH_CONFIG", "/nowhere.yaml")]), vec![], "/nowhere.yaml: No such file"),
    ] {
        let error = load(None, &variables, &flags).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn empty_and_foreign_variables_are_ignored() {
    let variables = env(&[
        ("PERFWATCH_DATA", ""),
        ("PERFWATCH_CONFIG", ""),
        ("PERFWATCH_AGENT_PROCFS", " "),
        ("PERFWATCH_LOG_LEVEL", ""),
        ("PERFWATCH_AGENT_SPOOL_MAX_SIZE", ""),
        ("PERFWATCH_AGENT_EXCLUDE_METRICS", ""),
        ("PERFWATCH_PORT", "tcp://10.0.0.1:8000"),
        ("PERFWATCH_SERVICE_HOST", "10.0.0.1"),
        ("PERFWATCH_VERSION", "1.2"),
    ]);
    let (settings, warnings) = load_with_warnings(None, &variables, &[]).unwrap();
    let mut expected = Settings::default();
    expected.agent.exclude.metrics.clear();
    // The empty list is set; the other variables are not.
    assert_eq!(settings.sources.keys().collect::<Vec<_>>(), ["agent.exclude.metrics"]);
    expected.sources = settings.sources.clone();
    assert_eq!(settings, expected);
    assert_eq!(warnings, ["PERFWATCH_VERSION: unknown setting; see docs/CONFIG.md"]);
    let error = load(None, &[], &[("data", String::new())]).unwrap_err().to_string();
    assert_eq!(error, "settings: data: must not be empty; expected the path of a directory");
}

#[test]
fn host_root_is_the_default_of_the_host_paths() {
    let paths = |variables: &[(&str, &str)]| {
        let paths = load(None, &env(variables), &[]).unwrap().host_paths();
        [paths.procfs, paths.sysfs, paths.rootfs].map(|path| path.display().to_string())
    };
    assert_eq!(paths(&[]), ["/proc", "/sys", "/"]);
    assert_eq!(paths(&[("PERFWATCH_AGENT_HOST_ROOT", "")]), ["/proc", "/sys", "/"]);
    assert_eq!(paths(&[("PERFWATCH_AGENT_HOST_ROOT", "/host")]), ["/host/proc", "/host/sys", "/host"]);
    assert_eq!(
        paths(&[("PERFWATCH_AGENT_HOST_ROOT", "/host/"), ("PERFWATCH_AGENT_PROCFS", "/proc2")]),
        ["/proc2", "/host/sys", "/host"]
    );
}

#[test]
fn host_root_without_procfs_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    let config = || {
        load(None, &[], &[("agent.host_root", root.clone())])
            .unwrap()
            .agent_config()
            .map(|config| config.procfs)
    };
    let expected =
        format!("agent.host_root: {root}/proc is not a procfs; mount the root directory of the host");
    assert_eq!(config(), Err(expected));
    std::fs::create_dir(folder.path().join("proc")).unwrap();
    std::fs::write(folder.path().join("proc/stat"), "cpu 1\n").unwrap();
    assert_eq!(config(), Ok(folder.path().join("proc")));
}
