//! Modes, and links in place of files and directories.

use super::*;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// L9: new directories and files are private, and existing ones are restricted.
#[test]
fn directories_and_files_are_private() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data/agent");
    let directory = Directory::create_private(&path).unwrap();
    directory.write("secret", b"text").unwrap();
    directory.create_new("segment").unwrap();
    directory.open_or_create("lock").unwrap();
    for (path, want) in [
        (root.path().join("data"), 0o700),
        (path.clone(), 0o700),
        (path.join("secret"), 0o600),
        (path.join("segment"), 0o600),
        (path.join("lock"), 0o600),
    ] {
        assert_eq!(mode(&path), want, "{}", path.display());
    }
    set_mode(&path, 0o755);
    set_mode(&path.join("secret"), 0o644);
    let directory = Directory::create_private(&path).unwrap();
    directory.restrict_files(["secret", "missing"]);
    assert_eq!((mode(&path), mode(&path.join("secret"))), (0o700, 0o600));
    // A directory such as /tmp is left alone.
    let shared = root.path().join("tmp");
    std::fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    Directory::create_private(&shared).unwrap();
    assert_eq!(mode(&shared), 0o1777);
}

/// M9: no operation follows a link that has the name of a file.
#[test]
fn links_in_place_of_files_are_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let victim = root.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    set_mode(&victim, 0o644);
    let path = root.path().join("state");
    let directory = Directory::create_private(&path).unwrap();
    for name in ["host-id", "host-id.new", "lock"] {
        symlink(&victim, path.join(name)).unwrap();
    }
    directory.write("host-id", b"new").unwrap();
    assert_eq!(directory.read_to_string("host-id").unwrap(), "new");
    assert!(!path.join("host-id").is_symlink() && !directory.contains("host-id.new"));
    assert!(directory.open_or_create("lock").is_err() && directory.create_new("lock").is_err());
    assert!(directory.open_write("lock").is_err() && directory.read("lock").is_err());
    directory.restrict_files(["lock"]);
    directory.remove("lock").unwrap();
    assert_eq!((std::fs::read_to_string(&victim).unwrap(), mode(&victim)), ("untouched".to_owned(), 0o644));
    // Nor does it wait for the other end of a FIFO.
    rustix::fs::mkfifoat(rustix::fs::CWD, path.join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
    assert!(directory.open_or_create("fifo").is_err());
}

/// M9: a link in place of a directory is removed itself, and so are links below it.
#[test]
fn directories_are_removed_without_following_links() {
    let root = tempfile::tempdir().unwrap();
    let victim = root.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("file"), "untouched").unwrap();
    let path = root.path().join("state");
    let directory = Directory::create_private(&path).unwrap();
    symlink(&victim, path.join("spool")).unwrap();
    directory.remove_directory("spool").unwrap();
    assert!(!path.join("spool").is_symlink());
    std::fs::create_dir_all(path.join("spool/old")).unwrap();
    std::fs::write(path.join("spool/old/segment"), "").unwrap();
    std::fs::write(path.join("spool/segment"), "").unwrap();
    symlink(&victim, path.join("spool/old/link")).unwrap();
    directory.remove_directory("spool").unwrap();
    directory.remove_directory("spool").unwrap();
    assert!(!directory.contains("spool"));
    assert_eq!(std::fs::read_to_string(victim.join("file")).unwrap(), "untouched");
    // A hard link to a file elsewhere is not restricted.
    set_mode(&victim.join("file"), 0o644);
    std::fs::hard_link(victim.join("file"), path.join("agent.yaml")).unwrap();
    directory.restrict_files(["agent.yaml"]);
    assert_eq!(mode(&victim.join("file")), 0o644);
}

/// M9: root follows no link of another user to the directory, and gives its files to their owner.
#[test]
fn root_follows_no_links_of_other_users() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    const USER: u32 = 65_534;
    let root = tempfile::tempdir().unwrap();
    set_mode(root.path(), 0o755);
    let (home, victim) = (root.path().join("home"), root.path().join("victim"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&victim).unwrap();
    chown(&home, Some(USER), Some(USER)).unwrap();
    symlink(&victim, home.join("agent")).unwrap();
    lchown(home.join("agent"), Some(USER), Some(USER)).unwrap();
    for path in [home.join("agent"), home.join("agent/spool"), home.join("agent/../x")] {
        let error = Directory::create_private(&path).unwrap_err();
        assert!(error.to_string().contains("agent is a symbolic link of another user"), "{error}");
        assert!(Directory::open(&path).is_err());
    }
    // Links of root, as those of systemd's DynamicUser, are followed.
    symlink("home", root.path().join("link")).unwrap();
    let directory = Directory::create_private(&root.path().join("link")).unwrap();
    directory.write("secret", b"").unwrap();
    assert_eq!(std::fs::metadata(home.join("secret")).unwrap().uid(), USER);
    assert!(directory.reject_foreign_link("agent").is_err());
    assert!(directory.reject_foreign_link("secret").is_ok() && directory.reject_foreign_link("x").is_ok());
    std::fs::remove_file(home.join("agent")).unwrap();
    let agent = Directory::create_private(&home.join("agent")).unwrap();
    agent.write("host-id", b"").unwrap();
    std::fs::hard_link(victim.join("../link/secret"), home.join("agent/linked")).unwrap();
    agent.give_to_owner_of(&directory, ["host-id", "linked"]).unwrap();
    let owner = |name: &str| std::fs::metadata(home.join(name)).unwrap().uid();
    assert_eq!((owner("agent"), owner("agent/host-id")), (USER, USER));
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
}
