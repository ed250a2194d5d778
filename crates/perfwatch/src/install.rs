//! `perfwatch agent install`: makes this machine's agent a service. It lets the agent in first,
//! so that what is wrong is said at once; then it writes files. It runs nothing: starting the
//! service is the caller's, who is told how.

use crate::cli::Program;
use crate::config::Settings;
use anyhow::Context as _;
use perfwatch_agent::{ENROLLMENT_TOKEN_PREFIX, HubClient, host_id, host_name, load_secret, save_secret};
use perfwatch_collect::LocalRoot;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

/// How the service is run.
const UNIT: &str = include_str!("../../../deploy/systemd/perfwatch-agent.service");
/// More than any token.
const TOKEN_BYTES: u64 = 4_096;

/// What a service needs to know.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallFlags {
    /// Reads the token from standard input, where no other user sees it
    #[arg(long)]
    token_stdin: bool,
    /// Installs below this folder
    #[arg(long, hide = true, default_value = "/")]
    root: PathBuf,
}

struct InstallPaths {
    program: PathBuf,
    config: PathBuf,
    authorities: PathBuf,
    unit: PathBuf,
    data: PathBuf,
}

/// Installs it.
#[expect(clippy::print_stdout, reason = "what a person at the terminal waits for")]
pub(crate) fn install(settings: &Settings, flags: &InstallFlags, program: Program) -> anyhow::Result<()> {
    let mut config = settings.agent_config().map_err(anyhow::Error::msg)?;
    if flags.token_stdin {
        let mut text = String::new();
        std::io::stdin().take(TOKEN_BYTES).read_to_string(&mut text).context("standard input")?;
        config.token = Some(text.trim().to_owned());
    }
    config.validate().context("agent")?;
    let at = |path: &str| flags.root.join(path);
    let (file, run) = match program {
        #[cfg(feature = "hub")]
        Program::Full => ("perfwatch", "/usr/local/bin/perfwatch agent"),
        Program::Agent => ("perfwatch-agent", "/usr/local/bin/perfwatch-agent"),
    };
    let places = InstallPaths {
        program: at("usr/local/bin").join(file),
        config: at("etc/perfwatch/agent.yaml"),
        authorities: at("etc/perfwatch/hub-ca.pem"),
        unit: at("etc/systemd/system/perfwatch-agent.service"),
        data: at("var/lib/perfwatch"),
    };
    let state = places.data.join("agent");
    reject_symlinks(&state)?;
    let (host, source) = (host_id(&state), LocalRoot::new("/proc".as_ref(), "/sys".as_ref(), "/".as_ref()));
    let name = host_name(config.name.as_deref(), &source);
    let hub = HubClient::new(&config.hub, config.ca.as_deref())?;
    // An upgrade: a secret that is good needs no token.
    let good = load_secret(&state).is_some_and(|secret| is_secret_valid(&hub, &secret));
    match &config.token {
        _ if good => {}
        Some(token) if token.starts_with(ENROLLMENT_TOKEN_PREFIX) => {
            let secret = hub.enroll(token, host, &name)?;
            save_secret(&state, &secret).with_context(|| state.display().to_string())?;
        }
        Some(secret) => save_secret(&state, secret).with_context(|| state.display().to_string())?,
        None => anyhow::ensure!(
            load_secret(&state).is_some(),
            "an enrollment token is required: --token-stdin or --token; create one on the Agents page"
        ),
    }
    chown_to_service_user(&places.data)?;
    copy_program(&places.program)?;
    let authorities = match &config.ca {
        None => None,
        Some(from) => {
            write_atomic(
                &places.authorities,
                &std::fs::read(from).with_context(|| from.display().to_string())?,
            )?;
            Some(Path::new("/etc/perfwatch/hub-ca.pem"))
        }
    };
    // What somebody set by hand stays, where it is for this hub.
    let there = crate::config::load(Some(&places.config), &[], &[]);
    if !there.is_ok_and(|there| there.agent_config.hub == settings.agent_config.hub) {
        if places.config.exists() {
            std::fs::rename(&places.config, places.config.with_extension("yaml.before"))?;
        }
        write_atomic(&places.config, settings_file(settings, authorities).as_bytes())?;
    }
    let unit = UNIT.replace("ExecStart=/usr/local/bin/perfwatch-agent", &format!("ExecStart={run}"));
    write_atomic(&places.unit, unit.as_bytes())?;
    println!("{name} is enrolled at {}. Start the agent with", hub.base());
    if Path::new("/run/systemd/system").exists() {
        println!("\n    systemctl daemon-reload && systemctl enable --now perfwatch-agent\n");
    } else {
        println!(
            "\n    PERFWATCH_CONFIG=/etc/perfwatch/agent.yaml {run}\n\nfrom this system's own way to run services."
        );
    }
    Ok(())
}

/// Whether the hub takes it.
fn is_secret_valid(hub: &HubClient, secret: &str) -> bool {
    let nothing = hub.post("/ingest/metrics", &[("Content-Type", "application/json")], Some(secret), b"[]");
    nothing.is_ok_and(|answer| answer.status == 200)
}

/// Puts this program in its place.
fn copy_program(to: &Path) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("this program's own file")?;
    if std::fs::canonicalize(to).ok().as_deref() != Some(own.as_path()) {
        let bytes = std::fs::read(&own).with_context(|| own.display().to_string())?;
        write_atomic(to, &bytes)?;
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// In one step, so that who reads it meanwhile gets the old or the new one whole.
fn write_atomic(to: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let context = || to.display().to_string();
    if let Some(folder) = to.parent().filter(|folder| !folder.exists()) {
        std::fs::create_dir_all(folder).with_context(context)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).with_context(context)?;
    }
    let fresh = to.with_extension("new");
    std::fs::write(&fresh, bytes).with_context(context)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o644)).with_context(context)?;
    std::fs::rename(&fresh, to).with_context(context)
}

/// Where a service ran before, what is written here belongs to its user as the rest does.
fn chown_to_service_user(data: &Path) -> anyhow::Result<()> {
    let owner = std::fs::metadata(data).with_context(|| data.display().to_string())?;
    let agent = data.join("agent");
    for path in [agent.clone(), agent.join("secret"), agent.join("host-id")] {
        if path.exists() {
            lchown(&path, Some(owner.uid()), Some(owner.gid()))
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// The folder may belong to the agent's own user, who must not point us elsewhere.
fn reject_symlinks(state: &Path) -> anyhow::Result<()> {
    for path in [state.to_owned(), state.join("secret"), state.join("secret.new"), state.join("host-id")] {
        let link = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_symlink());
        anyhow::ensure!(!link, "{} is a symbolic link; remove it first", path.display());
    }
    Ok(())
}

/// What the service is told: no secret stands in it.
fn settings_file(settings: &Settings, authorities: Option<&Path>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut lines = vec![
        "# Agent configuration; see docs/CONFIG.md. The agent secret is stored in its state directory."
            .to_owned(),
        "data: /var/lib/perfwatch".to_owned(),
        "agent:".to_owned(),
        format!("  hub: {}", quoted(&settings.agent_config.hub)),
        format!("  interval: {}ms", settings.agent_config.interval.0.as_millis()),
    ];
    lines.extend(settings.agent_config.name.as_deref().map(|name| format!("  name: {}", quoted(name))));
    lines.extend(authorities.map(|path| format!("  ca: {}", path.display())));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_config_parses() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.agent_config.hub = "https://hub.example:8000".to_owned();
        settings.agent_config.name = Some("web \"1\": x".to_owned());
        let path = folder.path().join("agent.yaml");
        write_atomic(&path, settings_file(&settings, Some(Path::new("/etc/ca.pem"))).as_bytes()).unwrap();
        let read = crate::config::load(Some(&path), &[], &[]).unwrap();
        assert_eq!(
            (read.agent_config.hub, read.agent_config.name),
            (settings.agent_config.hub, settings.agent_config.name)
        );
        assert_eq!(read.agent_config.ca.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert_eq!(read.data, Path::new("/var/lib/perfwatch"));
    }
}
