//! Files of the agent and the hub: their modes, and links that another user put in their place.

use crate::support::{AGENT, BINARY, Process, TestHub, eventually, require_root, start_agent};
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

/// User without privileges that owns the state directory.
const USER: u32 = 65_534;

/// Paths below a directory that other users may read, write or enter.
fn shared_paths(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.permissions().mode() & 0o077 != 0 {
            found.push(format!("{} {:o}", path.display(), metadata.permissions().mode()));
        }
        if metadata.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

/// L9: data, keys, spool and state of hub and agent are private, also if they were not before.
#[test]
fn data_of_hub_and_agent_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let agent = start_agent(folder.path(), &hub, "250ms");
    eventually("the agent sends", || hub.get("/api/v1/hosts").body["total"] == 1);
    let directories = [folder.path().join("hub"), folder.path().join("agent")];
    for directory in &directories {
        assert_eq!(shared_paths(directory), Vec::<String>::new());
    }
    agent.kill();
    drop(hub);
    // Installations of earlier versions.
    for path in ["hub", "agent", "agent/agent", "agent/agent/spool"] {
        let path = folder.path().join(path);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for entry in std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_file() {
                std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(0o644)).unwrap();
            }
        }
    }
    let hub = TestHub::start(folder.path());
    let _agent = start_agent(folder.path(), &hub, "250ms");
    eventually("the modes are corrected", || {
        directories.iter().all(|directory| shared_paths(directory).is_empty())
    });
}

/// L9: a token that other users can read on the command line is reported.
#[test]
fn visible_token_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "pwe_1").unwrap();
    for (token, is_reported) in [("pwe_1".to_owned(), true), (format!("file:{}", token.display()), false)] {
        let name = format!("agent-{is_reported}");
        let args = ["agent", "--hub", "http://127.0.0.1:9", "--token", &token];
        let agent = Process::spawn(BINARY, folder.path(), &name, &args);
        eventually("the agent starts", || agent.log().contains("agent started"));
        assert_eq!(agent.log().contains("secret on the command line"), is_reported, "{}", agent.log());
    }
}

/// M9: an agent of root, and `agent install` of root, write through no link in the state directory of an
/// unprivileged user.
#[test]
fn links_in_the_state_directory_do_not_redirect_root() {
    require_root("it writes in a directory of another user");
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let victims = folder.path().join("victims");
    std::fs::create_dir(&victims).unwrap();
    let (data, state) = (folder.path().join("data"), folder.path().join("data/agent"));
    std::fs::create_dir_all(&state).unwrap();
    for name in ["host-id", "host-id.new", "machine", "machine.new", "secret", "secret.new", "lock"] {
        std::fs::write(victims.join(name), "untouched").unwrap();
        symlink(victims.join(name), state.join(name)).unwrap();
        lchown(state.join(name), Some(USER), Some(USER)).unwrap();
    }
    symlink(&victims, state.join("spool")).unwrap();
    for path in [state.join("spool"), data.clone(), state.clone()] {
        lchown(path, Some(USER), Some(USER)).unwrap();
    }
    let is_untouched = || {
        let paths = std::fs::read_dir(&victims).unwrap().map(|entry| entry.unwrap().path());
        let texts: Vec<String> = paths.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        texts.len() == 7 && texts.iter().all(|text| text == "untouched")
    };
    let args = ["agent", "--hub", "http://127.0.0.1:9", "--interval", "250ms"];
    let mut agent = Command::new(BINARY);
    let agent = agent.args(args).env("PERFWATCH_DATA", &data).stderr(std::process::Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    eventually("the host id is stored", || !state.join("host-id").is_symlink());
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(is_untouched());
    agent.kill().unwrap();
    agent.wait().unwrap();
    // The directory itself is a link to a directory of root.
    let hub = TestHub::start(folder.path());
    let created =
        hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, &serde_json::json!({ "name": "x" }));
    let root = folder.path().join("root");
    let installed = root.join("var/lib/perfwatch");
    std::fs::create_dir_all(&installed).unwrap();
    symlink(&victims, installed.join("agent")).unwrap();
    lchown(installed.join("agent"), Some(USER), Some(USER)).unwrap();
    chown(&installed, Some(USER), Some(USER)).unwrap();
    let mut install = Command::new(AGENT);
    let token = created.body["token"].as_str().unwrap();
    install.args(["install", "--hub", &hub.url(""), "--token", token, "--root"]).arg(&root);
    let output = install.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("symbolic link"), "{error}");
    assert!(is_untouched());
}
