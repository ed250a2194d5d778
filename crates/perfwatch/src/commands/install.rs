//! `perfwatch agent install`: installs the agent as a systemd service. Enrolls first, so that a
//! wrong URL or token fails before files are written. Starts nothing: the command to start the
//! service is printed.

use crate::config::{self, Settings};
use crate::program::Program;
use crate::stdout::write_stdout;
use crate::terminal::printable;
use anyhow::Context as _;
use perfwatch_agent::{
    AgentConfig, AgentToken, HubClient, StoredSecret, host_name, is_unencrypted, load_host_id, load_secret,
    save_secret,
};
use perfwatch_collect::LocalRoot;
use perfwatch_files::Directory;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Systemd unit of the agent.
const UNIT: &str = include_str!("../../../../deploy/systemd/perfwatch-agent.service");
/// Installed path of the CA certificates.
const CA_PATH: &str = "/etc/perfwatch/hub-ca.pem";
/// Maximum length of a token on standard input.
const MAX_TOKEN_BYTES: u64 = 4_096;

/// Flags of `agent install`.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallFlags {
    /// Read the token from standard input, invisible to other users
    #[arg(long)]
    token_stdin: bool,
    /// Install below this directory
    #[arg(long, hide = true, default_value = "/")]
    root: PathBuf,
}

struct InstallPaths {
    program: PathBuf,
    config: PathBuf,
    ca: PathBuf,
    unit: PathBuf,
    data: PathBuf,
}

impl InstallPaths {
    fn new(root: &Path, program: Program) -> Self {
        let file = match program {
            #[cfg(feature = "hub")]
            Program::Full => "perfwatch",
            Program::Agent => "perfwatch-agent",
        };
        let path = |path: &str| root.join(path.trim_start_matches('/'));
        Self {
            program: path("usr/local/bin").join(file),
            config: path("etc/perfwatch/agent.yaml"),
            ca: path(CA_PATH),
            unit: path("etc/systemd/system/perfwatch-agent.service"),
            data: path("var/lib/perfwatch"),
        }
    }
}

/// Enrolls the agent, then writes program, configuration and systemd unit.
pub(crate) fn install(settings: &Settings, flags: &InstallFlags, program: Program) -> anyhow::Result<()> {
    let mut config = settings.agent_config().map_err(anyhow::Error::msg)?;
    if flags.token_stdin {
        let mut text = String::new();
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text).context("standard input")?;
        config.token = Some(AgentToken::new(text.trim().to_owned()));
    }
    config.validate().context("agent")?;
    if is_unencrypted(&config.hub) {
        tracing::warn!("connection to the hub is not encrypted: others can read the token; use https://");
    }
    let paths = InstallPaths::new(&flags.root, program);
    let state = paths.data.join("agent");
    reject_symlinks(&state)?;
    let hub = HubClient::new(&config.hub, config.ca.as_deref())?;
    let name = enroll(&config, &hub, &state)?;
    give_to_service_user(&paths.data)?;
    copy_program(&paths.program)?;
    if let Some(from) = &config.ca {
        let bytes = std::fs::read(from).with_context(|| from.display().to_string())?;
        write_atomic(&paths.ca, &bytes, 0o644)?;
    }
    write_config(&paths.config, settings, config.ca.is_some())?;
    let command = match program {
        #[cfg(feature = "hub")]
        Program::Full => "/usr/local/bin/perfwatch agent",
        Program::Agent => "/usr/local/bin/perfwatch-agent",
    };
    let unit = UNIT.replace("ExecStart=/usr/local/bin/perfwatch-agent", &format!("ExecStart={command}"));
    write_atomic(&paths.unit, unit.as_bytes(), 0o644)?;
    write_stdout(
        format!("{} is enrolled at {}. Start the agent with\n", printable(&name), hub.label()).as_bytes(),
    )?;
    if Path::new("/run/systemd/system").exists() {
        write_stdout(
            "\n    systemctl daemon-reload && systemctl enable --now perfwatch-agent\n\n"
                .to_string()
                .as_bytes(),
        )?;
    } else {
        write_stdout(
            format!(
                "\n    PERFWATCH_CONFIG=/etc/perfwatch/agent.yaml {command}\n\n\
             from the service manager of this system.\n"
            )
            .as_bytes(),
        )?;
    }
    Ok(())
}

/// Stores a secret that the hub accepts; returns the name of the host. A token is not needed for
/// an upgrade, where the stored secret is still valid.
fn enroll(config: &AgentConfig, hub: &HubClient, state: &Path) -> anyhow::Result<String> {
    let root = Path::new("/");
    let source = LocalRoot::new("/proc".as_ref(), "/sys".as_ref(), root);
    let host = load_host_id(state, &source, config.token.is_some())?;
    let name = host_name(config.name.as_deref(), &source, root);
    let previous = load_secret(state);
    let previous = previous.as_ref().map(|stored| stored.secret.as_str());
    let is_enrolled = previous.is_some_and(|secret| is_secret_valid(hub, secret));
    match &config.token {
        _ if is_enrolled => {}
        Some(token) => {
            let stored = if token.is_enrollment_token() {
                StoredSecret::new(hub.enroll(&token.text, host, &name, previous)?, Some(&token.text))
            } else {
                StoredSecret::new(token.text.clone(), None)
            };
            save_secret(state, &stored).with_context(|| state.display().to_string())?;
        }
        None => anyhow::ensure!(
            load_secret(state).is_some(),
            "an enrollment token is required: --token-stdin or --token; create one on the Agents page"
        ),
    }
    Ok(name)
}

/// Checks a secret with an empty batch.
fn is_secret_valid(hub: &HubClient, secret: &str) -> bool {
    let response = hub.post("/ingest/metrics", &[("Content-Type", "application/json")], Some(secret), b"[]");
    response.is_ok_and(|response| response.status == 200)
}

/// Copies the running program, unless it is the installed program.
fn copy_program(to: &Path) -> anyhow::Result<()> {
    let running = std::env::current_exe().context("path of the running program")?;
    if std::fs::canonicalize(to).ok().as_deref() != Some(running.as_path()) {
        let bytes = std::fs::read(&running).with_context(|| running.display().to_string())?;
        write_atomic(to, &bytes, 0o755)?;
    }
    Ok(())
}

/// Writes the configuration, unless the existing file is for the same hub: manual changes remain.
/// A file for another hub is renamed to `.yaml.before`.
fn write_config(path: &Path, settings: &Settings, has_ca: bool) -> anyhow::Result<()> {
    let existing = config::load(Some(path), &[], &[]);
    if existing.is_ok_and(|existing| existing.agent.hub == settings.agent.hub) {
        return Ok(());
    }
    if path.exists() {
        std::fs::rename(path, path.with_extension("yaml.before"))?;
    }
    write_atomic(path, config_text(settings, has_ca.then_some(Path::new(CA_PATH))).as_bytes(), 0o644)
}

/// Writes a file by rename, so that a concurrent reader sees the old or the new content.
fn write_atomic(to: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let write = || {
        Directory::create_public(to.parent().unwrap_or(Path::new("/")))?;
        let (directory, name) = Directory::open_parent(to)?;
        directory.write_with_mode(name, bytes, mode)
    };
    write().with_context(|| to.display().to_string())
}

/// Gives the state written by this command to the owner of the data directory: the service user,
/// if the service ran before.
fn give_to_service_user(data: &Path) -> anyhow::Result<()> {
    let give = || {
        let state = Directory::open(&data.join("agent"))?;
        state.give_to_owner_of(&Directory::open(data)?, ["secret", "host-id", "machine", "lock"])
    };
    give().with_context(|| data.display().to_string())
}

/// Refuses symbolic links in the state directory with a clear message. The writes do not follow them either: the
/// directory may belong to the unprivileged service user.
fn reject_symlinks(state: &Path) -> anyhow::Result<()> {
    for path in ["", "secret", "secret.new", "host-id", "host-id.new", "machine", "machine.new"]
        .map(|name| state.join(name))
    {
        let is_link = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_symlink());
        anyhow::ensure!(!is_link, "{} is a symbolic link; remove it first", path.display());
    }
    Ok(())
}

/// Renders the configuration of the service, without the secret.
fn config_text(settings: &Settings, ca: Option<&Path>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let agent = &settings.agent;
    let mut lines = vec![
        "# Agent configuration; see docs/CONFIG.md. The agent secret is stored in its state directory."
            .to_owned(),
        "data: /var/lib/perfwatch".to_owned(),
        "agent:".to_owned(),
        format!("  hub: {}", quoted(&agent.hub)),
        format!("  interval: {}ms", agent.interval.0.as_millis()),
    ];
    lines.extend(agent.name.as_deref().map(|name| format!("  name: {}", quoted(name))));
    lines.extend(ca.map(|path| format!("  ca: {}", path.display())));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_config_parses() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.agent.hub = "https://hub.example:8000".to_owned();
        settings.agent.name = Some("web \"1\": x".to_owned());
        let path = folder.path().join("agent.yaml");
        write_atomic(&path, config_text(&settings, Some(Path::new("/etc/ca.pem"))).as_bytes(), 0o644)
            .unwrap();
        let read = config::load(Some(&path), &[], &[]).unwrap();
        assert_eq!((read.agent.hub, read.agent.name), (settings.agent.hub, settings.agent.name));
        assert_eq!(read.agent.ca.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert_eq!(read.data, Path::new("/var/lib/perfwatch"));
    }
}
