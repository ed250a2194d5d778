//! Private files of the agent and the hub. Their directories may belong to an unprivileged service user, while
//! `agent install` and other commands run as root: a symbolic link of that user must not redirect the writes.
//!
//! A [`Directory`] is opened once, component by component, and all files are opened relative to its descriptor
//! without following links. New directories have the mode 0700 and new files 0600.

mod walk;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat, statat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// Mode of private directories.
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
/// Mode of private files.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Mode of directories of system files.
const PUBLIC_DIRECTORY: Mode = Mode::from_bits_retain(0o755);
/// Rights of the group and of all other users.
const SHARED: Mode = Mode::RWXG.union(Mode::RWXO);

/// Open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// User and group that own a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Directory {
    /// Opens a directory, and creates it if it is missing. Only the user of this process has access to it; an
    /// existing directory is restricted.
    ///
    /// # Errors
    /// Fails if the path is no directory, contains a link of another user (for root), or cannot be created.
    pub fn create_private(path: &Path) -> io::Result<Self> {
        let directory = Self::open_with(path, Some(PRIVATE_DIRECTORY))?;
        directory.restrict();
        Ok(directory)
    }

    /// Opens a directory of system files, and creates it readable by all users if it is missing.
    ///
    /// # Errors
    /// Fails as [`Directory::create_private`] does.
    pub fn create_public(path: &Path) -> io::Result<Self> {
        Self::open_with(path, Some(PUBLIC_DIRECTORY))
    }

    /// Opens an existing directory.
    ///
    /// # Errors
    /// Fails if the directory does not exist, or as [`Directory::create_private`] does.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, None)
    }

    fn open_with(path: &Path, create_mode: Option<Mode>) -> io::Result<Self> {
        let fd = walk::open_directory(path, create_mode)?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens the directory of a file; returns it with the name of the file.
    ///
    /// # Errors
    /// Fails if the path has no file name that is UTF-8, or as [`Directory::open`] does.
    pub fn open_parent(path: &Path) -> io::Result<(Self, &str)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name =
            name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok((Self::open(parent.unwrap_or(Path::new(".")))?, name))
    }

    /// Path by which the directory was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Restricts the directory and its files to their owner, if this process owns them. A failure is ignored:
    /// the directory may be read-only. Directories such as `/tmp` keep their mode.
    fn restrict(&self) {
        let Ok(stat) = fstat(&self.fd) else { return };
        let is_own = stat.st_uid == rustix::process::geteuid().as_raw();
        let mode = Mode::from_raw_mode(stat.st_mode);
        if is_own && mode.intersects(SHARED) && !mode.contains(Mode::SVTX) {
            let _ = fchmod(&self.fd, PRIVATE_DIRECTORY);
        }
    }

    /// Restricts existing files with these names to their owner, if this process owns them.
    pub fn restrict_files<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            let Ok(file) = self.open_file(name, OFlags::RDONLY) else { continue };
            let Ok(stat) = fstat(&file) else { continue };
            let is_own = stat.st_uid == rustix::process::geteuid().as_raw();
            // A hard link may be to a file elsewhere, which another user chose.
            let is_linked = stat.st_nlink > 1;
            if is_own && !is_linked && Mode::from_raw_mode(stat.st_mode).intersects(SHARED) {
                let _ = fchmod(&file, PRIVATE_FILE);
            }
        }
    }

    /// Opens a regular file without following a link.
    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Opening a FIFO must not wait for its other end.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&self.fd, name, flags, PRIVATE_FILE)?;
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other(format!("{name} is not a regular file")));
        }
        Ok(File::from(fd))
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Fails if there is no regular file of this name.
    pub fn open_read(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::RDONLY)
    }

    /// Opens a file for writing; its content stays.
    ///
    /// # Errors
    /// Fails if there is no regular file of this name.
    pub fn open_write(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::RDWR)
    }

    /// Opens a file for writing, and creates it if it is missing; its content stays. For lock files and markers.
    ///
    /// # Errors
    /// Fails if the name belongs to something else than a regular file.
    pub fn open_or_create(&self, name: &str) -> io::Result<File> {
        match self.open_write(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.create_new(name) {
                // Another process created it at the same time.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.open_write(name),
                result => result,
            },
            result => result,
        }
    }

    /// Creates a file that only the user of this process can read.
    ///
    /// # Errors
    /// Fails if the name exists, also as a link.
    pub fn create_own(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Creates a file that only the owner of the directory can read.
    ///
    /// # Errors
    /// Fails if the name exists, also as a link.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        let file = self.create_own(name)?;
        if let Some(owner) = self.foreign_owner()? {
            give(&file, owner);
        }
        Ok(file)
    }

    /// Owner of the directory, if this process is root and the directory belongs to another user: files that root
    /// creates there belong to that user, whose service reads them.
    fn foreign_owner(&self) -> io::Result<Option<Owner>> {
        let stat = fstat(&self.fd)?;
        let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
        Ok(Some(owner).filter(|owner| owner.uid != 0 && rustix::process::geteuid().is_root()))
    }

    /// Replaces a private file: a crash leaves the old or the new content.
    ///
    /// # Errors
    /// Fails if the directory is not writable.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write_with_mode(name, bytes, PRIVATE_FILE.as_raw_mode())
    }

    /// Replaces a file with this mode.
    ///
    /// # Errors
    /// Fails if the directory is not writable.
    pub fn write_with_mode(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let temporary = format!("{name}.new");
        // The remains of a crash, or a link that another user prepared.
        self.remove(&temporary)?;
        let mut file = self.create_new(&temporary)?;
        file.write_all(bytes)?;
        fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        self.rename(&temporary, name)
    }

    /// Reads a text file.
    ///
    /// # Errors
    /// Fails if there is no regular file of this name, or it is not UTF-8.
    pub fn read_to_string(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        self.open_read(name)?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Fails if there is no regular file of this name.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_read(name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns whether a file, a directory or a link has this name.
    pub fn contains(&self, name: &str) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Names of the directory's entries that are UTF-8.
    ///
    /// # Errors
    /// Fails if the directory cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            names.extend(
                entry
                    .file_name()
                    .to_str()
                    .ok()
                    .filter(|name| !matches!(*name, "." | ".."))
                    .map(str::to_owned),
            );
        }
        Ok(names)
    }

    /// Removes a file, or a link without its target. A missing file is not an error.
    ///
    /// # Errors
    /// Fails if the directory is not writable, or the name is a directory.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a directory with its files and directories, and without following links: a link with this name is
    /// removed itself. A missing directory is not an error.
    ///
    /// # Errors
    /// Fails if an entry cannot be removed.
    pub fn remove_directory(&self, name: &str) -> io::Result<()> {
        walk::remove_tree(self.fd.as_fd(), name.as_ref(), 0)
    }

    /// Renames a file within the directory.
    ///
    /// # Errors
    /// Fails if the file is missing or the directory is not writable.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Gives what root owns, this directory and files with these names, to the owner of another directory. Other
    /// entries stay: their user may have linked them to files of others.
    ///
    /// # Errors
    /// Fails if the owner cannot be read.
    pub fn give_to_owner_of<'a>(
        &self,
        parent: &Self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<()> {
        let Some(owner) = parent.foreign_owner()? else { return Ok(()) };
        for name in names {
            let Ok(file) = self.open_read(name) else { continue };
            if fstat(&file).is_ok_and(|stat| stat.st_uid == 0 && stat.st_nlink == 1) {
                give(&file, owner);
            }
        }
        if fstat(&self.fd)?.st_uid == 0 {
            give(&self.fd, owner);
        }
        Ok(())
    }

    /// Refuses a name that is a link of another user, if this process is root. For files that a library opens by
    /// their path.
    ///
    /// # Errors
    /// Fails if there is such a link.
    pub fn reject_foreign_link(&self, name: &str) -> io::Result<()> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                walk::check_link(self.fd.as_fd(), name.as_ref())
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Changes the owner. A failure is ignored: containers may lack the capability.
fn give(file: impl std::os::fd::AsFd, owner: Owner) {
    let _ = fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
}

#[cfg(test)]
mod tests;
