//! Opens a directory component by component.

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, mkdirat, openat, readlinkat, statat, unlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path};

/// Maximum number of symbolic links of a path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Opens a directory; missing directories are created with the mode. Root follows only links of root, in directories
/// of root: with any other link, the user of that directory would choose the target.
pub(crate) fn open_directory(path: &Path, create_mode: Option<Mode>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open_root = || openat(CWD, "/", flags, Mode::empty());
    let path = std::path::absolute(path)?;
    let mut names = VecDeque::new();
    prepend(&mut names, &path);
    let (mut directory, mut links) = (open_root()?, 0);
    while let Some(name) = names.pop_front() {
        match openat(&directory, &name, flags, Mode::empty()) {
            Ok(next) => directory = next,
            Err(Errno::NOENT) if create_mode.is_some() => {
                let mode = create_mode.unwrap_or(Mode::RWXU);
                match mkdirat(&directory, &name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                directory = openat(&directory, &name, flags, Mode::empty())?;
                if mode != Mode::RWXU {
                    // The umask of `install.sh` must not make system directories private.
                    let opened = openat(&directory, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                    rustix::fs::fchmod(opened, mode)?;
                }
            }
            Err(error @ (Errno::LOOP | Errno::NOTDIR)) => {
                let Ok(target) = readlinkat(&directory, &name, Vec::new()) else { return Err(error.into()) };
                check_link(directory.as_fd(), &name)?;
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = OsString::from_vec(target.into_bytes());
                if Path::new(&target).is_absolute() {
                    directory = open_root()?;
                }
                prepend(&mut names, Path::new(&target));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(&directory, ".", flags, Mode::empty())?)
}

/// Maximum depth of a directory that is removed.
const MAX_REMOVED_DEPTH: usize = 16;

/// Removes an entry of a directory with everything below it, relative to descriptors: a link that another
/// user puts in its place is not followed.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EPERM on file systems that follow POSIX (unlink(2)).
        Err(Errno::ISDIR | Errno::PERM) if depth < MAX_REMOVED_DEPTH => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            remove_tree(directory.as_fd(), name, depth + 1)?;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Inserts the components of a path before the others.
fn prepend(names: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => names.push_front(name.to_owned()),
            Component::ParentDir => names.push_front("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

/// Refuses a link if this process is root and the link, or the directory that contains it, belongs to another user.
pub(crate) fn check_link(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let link = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if link.st_uid == 0 && fstat(directory)?.st_uid == 0 {
        return Ok(());
    }
    let message = format!("{} is a symbolic link of another user; remove it first", name.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}
