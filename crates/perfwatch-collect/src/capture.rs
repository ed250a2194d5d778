//! Capture: named file contents in one text. Written by `perfwatch capture`, printed by the SSH
//! probe, stored as a test fixture; a capture from a bug report becomes a test.
//!
//! Each entry starts with a header, `=== PATH` or `=== PATH KIND`. A space in a path is written as
//! `\040`, as in proc_pid_mountinfo(5). Kinds: none (text), `hex`, `list` (names in a directory),
//! `count`, `link` (target of a symbolic link), `usage` (five numbers of statvfs), `error` (`denied`, `timed out` or a message). A line
//! of text that starts with `===` after any number of `\` is escaped by a further `\`.
//!
//! Paths that start with `@` describe the capture itself: `@page_size`, `@wall_ms`,
//! `@monotonic_ms`. Four sections combine many small files at lower cost: in `@files`, each line
//! is `PATH:LINE` (the output of `grep '' FILE…`); in `@counts`, `NUMBER PATH`; in `@links`, `PATH -> TARGET`
//! after any other words (the output of `ls -ld LINK…`); in `@statfs`, either
//! `SIZE BLOCKS FREE AVAILABLE INODES FREE MOUNT` of statvfs, `df ` and a line of `df -Pk`,
//! `? MOUNT` before a mount is queried (timed out if no result follows), or `! MOUNT` after a failed
//! query (the mount is omitted). File content inside a section cannot be mistaken for another file.

use crate::source::{FsUsage, Source};
use perfwatch_model::Clock;
use perfwatch_model::limits::{MAX_CAPTURE_BYTES, MAX_CAPTURE_ENTRIES};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
enum Entry {
    Bytes(Vec<u8>),
    Error(String),
}

/// Named file contents, readable as a [`Source`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Capture {
    /// Entries by path and kind (`""`, `list`, `count`, `link`, `usage`).
    entries: BTreeMap<(String, &'static str), Entry>,
}

/// Clock fixed at the time of the capture, as read on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureClock {
    wall_ms: i64,
    monotonic: Duration,
}

impl Clock for CaptureClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms
    }

    fn monotonic(&self) -> Duration {
        self.monotonic
    }
}

/// Error of parsing a capture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("capture, line {line}: {message}")]
pub struct CaptureError {
    /// Line number, starting at 1.
    pub line: usize,
    /// Problem in that line.
    pub message: String,
}

/// Sections that combine many files.
const FILES_SECTION: &str = "@files";
const COUNTS_SECTION: &str = "@counts";
const LINKS_SECTION: &str = "@links";
const STATFS_SECTION: &str = "@statfs";

const ENTRY_KINDS: [&str; 5] = ["", "list", "count", "link", "usage"];

impl Capture {
    /// Parses the text form.
    ///
    /// # Errors
    /// Returns the first invalid line, or the limit that the capture exceeds.
    pub fn parse(bytes: &[u8]) -> Result<Self, CaptureError> {
        let fail = |line, message: &str| Err(CaptureError { line, message: message.to_owned() });
        if bytes.len() > MAX_CAPTURE_BYTES {
            return fail(1, &format!("larger than {} MiB", MAX_CAPTURE_BYTES >> 20));
        }
        let mut capture = Self::default();
        let mut current: Option<(String, String, Vec<u8>, usize)> = None;
        for (index, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
            if let Some(header) = line.strip_prefix(b"=== ") {
                capture.finish_section(current.take())?;
                let Ok(header) = std::str::from_utf8(header) else {
                    return fail(index + 1, "path is not UTF-8");
                };
                let (path, kind) = header.trim_end().split_once(' ').unwrap_or((header.trim_end(), ""));
                if !path.starts_with(['/', '@']) {
                    return fail(index + 1, "invalid path; expected / or @ at the start");
                }
                current = Some((path.replace("\\040", " "), kind.to_owned(), Vec::new(), index + 1));
            } else if let Some((_, _, content, _)) = &mut current {
                let is_escaped = line.first() == Some(&b'\\') && is_header_line(&line[1..]);
                content.extend_from_slice(if is_escaped { &line[1..] } else { line });
            } else if !line.trim_ascii().is_empty() {
                return fail(index + 1, "text before the first '=== PATH' line");
            }
        }
        capture.finish_section(current)?;
        match capture.entries.len() > MAX_CAPTURE_ENTRIES {
            true => fail(1, &format!("too many entries; expected at most {MAX_CAPTURE_ENTRIES}")),
            false => Ok(capture),
        }
    }

    fn finish_section(
        &mut self,
        current: Option<(String, String, Vec<u8>, usize)>,
    ) -> Result<(), CaptureError> {
        let Some((path, kind, content, line)) = current else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&content);
        match kind.as_str() {
            "" if path == FILES_SECTION => self.add_files(&content),
            "" if path == COUNTS_SECTION => self.add_counts(&text),
            "" if path == LINKS_SECTION => self.add_links(&text),
            "" if path == STATFS_SECTION => self.add_mounts(&text),
            _ if self.entries.len() > MAX_CAPTURE_ENTRIES => {}
            "hex" => {
                let Some(bytes) = from_hex(&text) else {
                    return Err(CaptureError { line, message: format!("{path}: not hexadecimal") });
                };
                self.entries.insert((path, ""), Entry::Bytes(bytes));
            }
            kind if kind == "error" || kind.starts_with("error ") => {
                let failed = kind.strip_prefix("error ").unwrap_or_default();
                let failed = ENTRY_KINDS.into_iter().find(|k| *k == failed).unwrap_or_default();
                self.entries.insert((path, failed), Entry::Error(text.trim().to_owned()));
            }
            kind => match ENTRY_KINDS.into_iter().find(|valid| *valid == kind) {
                Some(kind) => {
                    self.entries.insert((path, kind), Entry::Bytes(content));
                }
                None => {
                    return Err(CaptureError { line, message: format!("unknown kind {kind:?}") });
                }
            },
        }
        Ok(())
    }

    fn add_files(&mut self, lines: &[u8]) {
        for line in lines.split_inclusive(|&b| b == b'\n') {
            if self.entries.len() > MAX_CAPTURE_ENTRIES {
                return;
            }
            let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
            // Other lines are ignored: the shell may print messages between the files.
            let Some(path) = std::str::from_utf8(&line[..colon]).ok().filter(|path| path.starts_with('/'))
            else {
                continue;
            };
            let entry = self.entries.entry((path.to_owned(), "")).or_insert_with(|| Entry::Bytes(Vec::new()));
            if let Entry::Bytes(bytes) = entry {
                bytes.extend_from_slice(&line[colon + 1..]);
            }
        }
    }

    fn add_counts(&mut self, lines: &str) {
        for (count, path) in lines.lines().filter_map(|line| line.split_once(' ')).take(MAX_CAPTURE_ENTRIES) {
            if path.starts_with('/') {
                self.entries
                    .insert((path.to_owned(), "count"), Entry::Bytes(format!("{count}\n").into_bytes()));
            }
        }
    }

    fn add_links(&mut self, lines: &str) {
        let link = |line: &str| {
            let (before, target) = line.split_once(" -> ")?;
            let path = before.rsplit(' ').next().filter(|path| path.starts_with('/'))?;
            Some((path.to_owned(), target.to_owned()))
        };
        for (path, target) in lines.lines().filter_map(link).take(MAX_CAPTURE_ENTRIES) {
            self.entries.insert((path, "link"), Entry::Bytes(format!("{target}\n").into_bytes()));
        }
    }

    fn add_mounts(&mut self, lines: &str) {
        for line in lines.lines().take(MAX_CAPTURE_ENTRIES) {
            let (kind, remaining) = line.split_once(' ').unwrap_or_default();
            let (mount, entry) = match kind {
                "?" => (remaining, Some(Entry::Error("timed out".to_owned()))),
                "!" => (remaining, None),
                "df" => match df_usage(remaining) {
                    // The result of statvfs has precedence: it includes inodes.
                    Some((mount, _)) if self.bytes("usage", mount).is_ok() => continue,
                    Some((mount, usage)) => (mount, Some(usage)),
                    None => continue,
                },
                _ => match statfs_usage(line) {
                    Some((mount, usage)) => (mount, Some(usage)),
                    None => continue,
                },
            };
            if mount.starts_with('/') {
                let key = (mount.to_owned(), "usage");
                match entry {
                    Some(entry) => self.entries.insert(key, entry),
                    None => self.entries.remove(&key),
                };
            }
        }
    }

    /// Writes the text form, sorted by path.
    pub fn to_text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for ((path, kind), entry) in &self.entries {
            out.extend_from_slice(format!("=== {}", path.replace(' ', "\\040")).as_bytes());
            match entry {
                Entry::Error(message) => {
                    out.extend_from_slice(
                        format!(" error {kind}\n{message}\n").replace(" \n", "\n").as_bytes(),
                    );
                }
                Entry::Bytes(bytes) if kind.is_empty() && !is_text(bytes) => {
                    out.extend_from_slice(b" hex\n");
                    for chunk in bytes.chunks(40) {
                        out.extend(chunk.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
                        out.push(b'\n');
                    }
                }
                Entry::Bytes(bytes) => {
                    if !kind.is_empty() {
                        out.extend_from_slice(format!(" {kind}").as_bytes());
                    }
                    out.push(b'\n');
                    for line in bytes.split_inclusive(|&b| b == b'\n') {
                        if is_header_line(line) {
                            out.push(b'\\');
                        }
                        out.extend_from_slice(line);
                    }
                    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
                        out.push(b'\n');
                    }
                }
            }
        }
        out
    }

    /// Adds or replaces a text file.
    pub fn insert(&mut self, path: &str, content: &[u8]) {
        self.entries.insert((path.to_owned(), ""), Entry::Bytes(content.to_vec()));
    }

    /// Number in a file or a property of the capture such as `@wall_ms`.
    pub fn number(&self, path: &str) -> Option<i64> {
        self.text("", path).ok()?.trim().parse().ok()
    }

    /// Clocks of the host at the time of the capture.
    pub fn clock(&self) -> CaptureClock {
        let positive = |path| self.number(path).unwrap_or_default().max(0);
        let monotonic = Duration::from_millis(u64::try_from(positive("@monotonic_ms")).unwrap_or_default());
        CaptureClock { wall_ms: positive("@wall_ms"), monotonic }
    }

    fn bytes(&self, kind: &'static str, path: &str) -> io::Result<&[u8]> {
        match self.entries.get(&(path.to_owned(), kind)) {
            Some(Entry::Bytes(bytes)) => Ok(bytes),
            Some(Entry::Error(message)) if message == "denied" => Err(io::ErrorKind::PermissionDenied.into()),
            Some(Entry::Error(message)) if message == "timed out" => Err(io::ErrorKind::TimedOut.into()),
            Some(Entry::Error(message)) => Err(io::Error::other(message.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn text(&self, kind: &'static str, path: &str) -> io::Result<String> {
        self.bytes(kind, path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

fn usage_entry(size: u64, free: u64, available: u64, inodes: u64, inodes_free: u64) -> Entry {
    Entry::Bytes(format!("{size} {free} {available} {inodes} {inodes_free}\n").into_bytes())
}

/// Parses `UNIT BLOCKS FREE AVAILABLE INODES FREE MOUNT` into mount and usage.
fn statfs_usage(line: &str) -> Option<(&str, Entry)> {
    let mut words = line.splitn(7, ' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    let unit = number()?;
    let mut bytes = || number().map(|blocks| blocks.saturating_mul(unit));
    let (size, free, available) = (bytes()?, bytes()?, bytes()?);
    let (inodes, inodes_free) = (number()?, number()?);
    Some((words.next()?, usage_entry(size, free, available, inodes, inodes_free)))
}

/// Parses `DEVICE KIB USED AVAILABLE PERCENT MOUNT`, a line of POSIX `df`, which has no inodes.
fn df_usage(line: &str) -> Option<(&str, Entry)> {
    let percent = line.find("% ")?;
    let mut words = line[..percent].split_ascii_whitespace().rev().skip(1);
    let mut bytes = || words.next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024));
    let (available, used, size) = (bytes()?, bytes()?, bytes()?);
    Some((line[percent + 2..].trim(), usage_entry(size, size.saturating_sub(used), available, 0, 0)))
}

/// Returns whether a line starts with `===` after any number of backslashes and must be escaped.
fn is_header_line(line: &[u8]) -> bool {
    let start = line.iter().position(|&b| b != b'\\').unwrap_or(line.len());
    line[start..].starts_with(b"===")
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| !text.contains(|c: char| c.is_control() && !"\n\t".contains(c)))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

impl Source for Capture {
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        out.extend_from_slice(self.bytes("", path)?);
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        Ok(self.text("list", path)?.lines().map(str::to_owned).collect())
    }

    fn count(&self, path: &str) -> io::Result<u64> {
        self.text("count", path)?.trim().parse().map_err(|_| io::Error::other("not a number"))
    }

    fn link(&self, path: &str) -> io::Result<String> {
        Ok(self.text("link", path)?.trim_end_matches('\n').to_owned())
    }

    fn usage(&self, mount: &Path) -> io::Result<FsUsage> {
        let text = self.text("usage", &mount.to_string_lossy())?;
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [size, free, available, inodes, inodes_free] = numbers[..] else {
            return Err(io::Error::other("expected five numbers"));
        };
        Ok(FsUsage { size, free, available, inodes, inodes_free })
    }

    fn page_size(&self) -> u64 {
        self.number("@page_size").and_then(|size| u64::try_from(size).ok()).filter(|&s| s > 0).unwrap_or(4096)
    }
}

/// Source that records every read of another source, results and errors, into a capture.
pub struct RecordingSource<'a> {
    source: &'a dyn Source,
    capture: Mutex<Capture>,
}

impl<'a> RecordingSource<'a> {
    /// Creates a recorder of reads from `source`.
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source, capture: Mutex::default() }
    }

    /// Returns the capture with the given times of the host.
    pub fn finish(self, wall_ms: i64, monotonic_ms: i64) -> Capture {
        let page_size = self.source.page_size();
        let mut capture = self.capture.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        capture.insert("@page_size", page_size.to_string().as_bytes());
        capture.insert("@wall_ms", wall_ms.to_string().as_bytes());
        capture.insert("@monotonic_ms", monotonic_ms.to_string().as_bytes());
        capture
    }

    fn record_usage(&self, mount: &Path, result: &io::Result<FsUsage>) {
        let text =
            |u: &FsUsage| format!("{} {} {} {} {}", u.size, u.free, u.available, u.inodes, u.inodes_free);
        let mount = mount.to_string_lossy();
        self.record("usage", &mount, result.as_ref().map(|usage| text(usage).into_bytes()));
    }

    fn record(&self, kind: &'static str, path: &str, result: Result<Vec<u8>, &io::Error>) {
        let entry = match result {
            Ok(bytes) => Entry::Bytes(bytes),
            // A path without an entry reads as missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Entry::Error("denied".to_owned())
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Entry::Error("timed out".to_owned()),
            Err(error) => Entry::Error(error.to_string()),
        };
        let mut capture = self.capture.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        capture.entries.insert((path.to_owned(), kind), entry);
    }
}

impl Source for RecordingSource<'_> {
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let result = self.source.read(path, out);
        // Captures are shared in bug reports, so secrets in command lines are masked.
        let masked = |bytes: &[u8]| match path.ends_with("/cmdline") {
            true => perfwatch_redact::mask_secrets(bytes).into_bytes(),
            false => bytes.to_vec(),
        };
        self.record("", path, result.as_ref().map(|()| masked(out)));
        result
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let result = self.source.list(path);
        self.record("list", path, result.as_ref().map(|names| names.join("\n").into_bytes()));
        result
    }

    fn count(&self, path: &str) -> io::Result<u64> {
        let result = self.source.count(path);
        self.record("count", path, result.as_ref().map(|count| count.to_string().into_bytes()));
        result
    }

    fn link(&self, path: &str) -> io::Result<String> {
        let result = self.source.link(path);
        self.record("link", path, result.as_ref().map(|target| target.clone().into_bytes()));
        result
    }

    fn usage(&self, mount: &Path) -> io::Result<FsUsage> {
        let result = self.source.usage(mount);
        self.record_usage(mount, &result);
        result
    }

    fn usages(&self, mounts: &[PathBuf]) -> Vec<io::Result<FsUsage>> {
        let results = self.source.usages(mounts);
        mounts.iter().zip(&results).for_each(|(mount, result)| self.record_usage(mount, result));
        results
    }

    fn page_size(&self) -> u64 {
        self.source.page_size()
    }
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
