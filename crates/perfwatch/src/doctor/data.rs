//! Checks of the data directory: existence, rights, owners of its files, free space.

use super::report::Report;
use perfwatch_model::value_format::format_bytes;
use rustix::fs::{Access, StatVfs, access, statvfs};
use rustix::process::geteuid;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Maximum number of files whose owner is checked.
const MAX_FILES: usize = 10_000;
/// Number of free inodes below which files can soon not be created.
const MIN_FREE_INODES: u64 = 1_000;

/// Space that the role needs in the data directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpaceNeeds {
    /// Setting of the limit, for messages.
    pub(super) setting: &'static str,
    /// Maximum size that the data may reach.
    pub(super) limit: u64,
    /// Free space below which the role stops storing.
    pub(super) min_free: u64,
}

/// Checks the data directory; its absence is correct before the first start.
pub(super) fn check_data(report: &mut Report, data: &Path, needs: SpaceNeeds) {
    match std::fs::metadata(data) {
        Ok(metadata) if metadata.is_dir() => {
            check_rights(report, data, &metadata);
            check_owners(report, data, metadata.uid());
            check_space(report, data, size_of(data), needs);
        }
        Ok(_) => report.error(
            "data",
            format!("{} is not a directory", data.display()),
            "choose a directory with --data or PERFWATCH_DATA",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = existing_ancestor(data);
            let is_writable = access(&parent, Access::WRITE_OK | Access::EXEC_OK).is_ok();
            report_absence(report, data, &parent, is_writable);
            check_space(report, &parent, 0, needs);
        }
        Err(error) => report.error(
            "data",
            format!("{}: {error}", data.display()),
            "run doctor as the user of the service, or as root",
        ),
    }
}

fn report_absence(report: &mut Report, data: &Path, parent: &Path, is_writable: bool) {
    let (path, user) = (data.display(), user_name(geteuid().as_raw()));
    if is_writable {
        report.ok("data", format!("{path} is created at the first start"));
    } else {
        report.error(
            "data",
            format!("{path} does not exist, and {user} may not write to {}", parent.display()),
            format!("create it: install -d -m 0700 -o USER {path}; or choose another with --data"),
        );
    }
}

fn check_rights(report: &mut Report, data: &Path, metadata: &Metadata) {
    let path = data.display();
    let (own, owner) = (geteuid().as_raw(), metadata.uid());
    if let Err(error) = access(data, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let advice = match own == owner {
            true => {
                format!("make it writable: chmod u+rwx {path}; check that its file system is not read-only")
            }
            false => format!("run doctor as its owner: sudo -u {} perfwatch doctor", user_name(owner)),
        };
        report.error("data", format!("{path} cannot be written by {}: {error}", user_name(own)), advice);
    } else if metadata.mode() & 0o077 != 0 && metadata.mode() & 0o1000 == 0 {
        report.warning(
            "data",
            format!("{path} is accessible to other users (mode {:04o})", metadata.mode() & 0o7777),
            format!("restrict it: chmod 0700 {path}"),
        );
    } else {
        report.ok("data", format!("{path} belongs to {}", user_name(owner)));
    }
    if own == 0 && owner == 0 {
        report.warning(
            "user",
            "the data belong to root: the service runs with all rights",
            format!("run it as a user without rights, who owns the data: chown -R USER {path}"),
        );
    }
}

/// Files of another owner: a command ran as root, and the service cannot open them.
fn check_owners(report: &mut Report, data: &Path, owner: u32) {
    let mut foreign = Vec::new();
    for_each_file(data, |path, metadata| {
        if metadata.uid() != owner {
            foreign.push(path.to_owned());
        }
    });
    if let Some(first) = foreign.first() {
        report.error(
            "owners",
            format!(
                "{} of the files do not belong to {}, such as {}",
                foreign.len(),
                user_name(owner),
                first.display()
            ),
            format!("give them to the service: chown -hR {} {}", user_name(owner), data.display()),
        );
    }
}

/// Free space for data of the size `used`.
pub(super) fn check_space(report: &mut Report, path: &Path, used: u64, needs: SpaceNeeds) {
    match statvfs(path) {
        Ok(stat) => report_space(report, path, used, needs, &stat),
        Err(error) => report.warning(
            "disk",
            format!("{}: {error}", path.display()),
            "check the mount of the data directory",
        ),
    }
}

fn report_space(report: &mut Report, path: &Path, used: u64, needs: SpaceNeeds, stat: &StatVfs) {
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let SpaceNeeds { setting, limit, min_free } = needs;
    let place = path.display();
    #[expect(clippy::cast_precision_loss, reason = "rounded for display")]
    let bytes = |bytes: u64| format_bytes(bytes as f64);
    let missing = limit.saturating_sub(used);
    if free < min_free {
        report.error(
            "disk",
            format!("{} free in {place}, below the minimum of {}", bytes(free), bytes(min_free)),
            format!("free space, or lower {setting}: nothing is stored until then"),
        );
    } else if free - min_free < missing {
        report.warning(
            "disk",
            format!(
                "{} free in {place}; {setting} allows {}, of which {} are used",
                bytes(free),
                bytes(limit),
                bytes(used)
            ),
            format!("lower {setting}, or enlarge the file system"),
        );
    } else {
        report.ok("disk", format!("{} free in {place}, {} used", bytes(free), bytes(used)));
    }
    if stat.f_files > 0 && stat.f_favail < MIN_FREE_INODES {
        report.error(
            "disk",
            format!("{} inodes free in {place}", stat.f_favail),
            "delete small files, or create the file system with more inodes",
        );
    }
}

/// Nearest directory above a path that exists.
fn existing_ancestor(path: &Path) -> PathBuf {
    let mut ancestors = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    ancestors.find(|path| path.exists()).unwrap_or(Path::new(".")).to_owned()
}

/// Size of all files below a directory.
pub(super) fn size_of(directory: &Path) -> u64 {
    let mut size = 0;
    for_each_file(directory, |_, metadata| size += metadata.blocks() * 512);
    size
}

/// Calls a function for files and directories below a directory, without following links.
fn for_each_file(directory: &Path, mut visit: impl FnMut(&Path, &Metadata)) {
    let (mut pending, mut count) = (vec![directory.to_owned()], 0);
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            count += 1;
            if count > MAX_FILES {
                return;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            visit(&entry.path(), &metadata);
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
}

/// Name of a user of this machine, or its number.
pub(super) fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

#[cfg(test)]
mod tests {
    use super::super::report::CheckStatus::{self, Error, Ok, Warning};
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const NEEDS: SpaceNeeds = SpaceNeeds { setting: "hub.disk_budget", limit: 1 << 20, min_free: 1 << 10 };

    fn check(data: &Path) -> Report {
        let mut report = Report::default();
        check_data(&mut report, data, NEEDS);
        report
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn data_directories_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        let (status, text) = check(&data).result_of("data");
        assert!(status == Ok && text.contains("created at the first start"), "{text}");
        std::fs::create_dir_all(&data).unwrap();
        set_mode(&data, 0o755);
        let (status, text) = check(&data).result_of("data");
        assert!(status == Warning && text.contains("mode 0755"), "{text}");
        set_mode(&data, 0o700);
        assert_eq!(check(&data).result_of("data").0, Ok);
        std::fs::write(data.join("file"), "x").unwrap();
        let (status, text) = check(&data.join("file")).result_of("data");
        assert!(status == Error && text.contains("is not a directory"), "{text}");
        let (status, text) = check(&data.join("file/data")).result_of("data");
        assert!(status == Error && text.contains("as the user of the service"), "{text}");
        let mut report = Report::default();
        report_absence(
            &mut report,
            Path::new("/srv/data"),
            &existing_ancestor(Path::new("/nowhere/data")),
            false,
        );
        let (status, text) = report.result_of("data");
        assert!(status == Error && text.contains("may not write to /;"), "{text}");
    }

    #[test]
    fn files_of_other_owners_are_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("agent")).unwrap();
        std::fs::write(folder.path().join("agent/host-id"), "x").unwrap();
        let uid = std::fs::metadata(folder.path()).unwrap().uid();
        let mut report = Report::default();
        check_owners(&mut report, folder.path(), uid);
        assert_eq!(report.errors(), 0);
        check_owners(&mut report, folder.path(), uid + 1);
        let (status, text) = report.result_of("owners");
        assert!(status == Error && text.starts_with("2 of the files"), "{text}");
    }

    #[test]
    fn lack_of_space_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut stat = statvfs(folder.path()).unwrap();
        (stat.f_frsize, stat.f_files, stat.f_favail) = (1, 1_000_000, 1_000_000);
        let mut check = |free: u64, used: u64, inodes: u64| -> (CheckStatus, String) {
            (stat.f_bavail, stat.f_favail) = (free, inodes);
            let mut report = Report::default();
            report_space(&mut report, folder.path(), used, NEEDS, &stat);
            report.result_of("disk")
        };
        assert_eq!(check((1 << 20) + (1 << 10), 0, 5_000).0, Ok);
        assert_eq!(check(2 << 10, (1 << 20) - (1 << 10), 5_000).0, Ok, "the rest of the budget fits");
        assert_eq!(check(1 << 20, 0, 5_000).0, Warning);
        assert_eq!(check(1_000, 1 << 20, 5_000).0, Error);
        let (status, text) = check(1 << 30, 0, 10);
        assert!(status == Error && text.contains("inodes"), "{text}");
    }
}
