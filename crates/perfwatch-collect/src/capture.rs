//! A capture: named file contents in one text, `=== /proc/stat` before each. Written by
//! `perfwatch capture`, printed by the SSH probe, stored as fixture: a user's bug report
//! becomes a test by copying a file in.
//!
//! A head is `=== PATH` or `=== PATH KIND`; spaces in a path stand as `\040`, as in
//! proc_pid_mountinfo(5). Kinds: none (text), `hex`, `list` (names of a folder), `count`,
//! `usage` (five numbers of statvfs), `error` (`denied` or a message). Before a line of text that
//! itself starts with `===` (after any number of `\`) stands one `\` more. Paths that start with
//! `@` are about the capture itself: `@page_size`, `@wall_ms`, `@monotonic_ms`.

use crate::source::{FsUsage, Source};
use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

/// Captures larger than this are refused: 5,000 processes take about 8 MB.
const CAPTURE_BYTES: usize = 64 << 20;

#[derive(Debug, Clone, PartialEq)]
enum Entry {
    Bytes(Vec<u8>),
    Error(String),
}

/// Named contents, readable as a [`Source`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Capture {
    /// By kind (`""`, `list`, `count`, `usage`) and path.
    entries: BTreeMap<(String, &'static str), Entry>,
}

/// Why a text is no capture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("capture, line {line}: {message}")]
pub struct CaptureError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

const KINDS: [&str; 4] = ["", "list", "count", "usage"];

impl Capture {
    /// Reads the text form.
    ///
    /// # Errors
    /// The first line that does not belong into a capture.
    pub fn parse(bytes: &[u8]) -> Result<Self, CaptureError> {
        let fail = |line, message: &str| Err(CaptureError { line, message: message.to_owned() });
        if bytes.len() > CAPTURE_BYTES {
            return fail(1, "larger than 64 MiB");
        }
        let mut capture = Self::default();
        let mut current: Option<(String, String, Vec<u8>, usize)> = None;
        for (index, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
            if let Some(head) = line.strip_prefix(b"=== ") {
                capture.close(current.take())?;
                let Ok(head) = std::str::from_utf8(head) else {
                    return fail(index + 1, "the path is not UTF-8");
                };
                let (path, kind) = head.trim_end().split_once(' ').unwrap_or((head.trim_end(), ""));
                if !path.starts_with(['/', '@']) {
                    return fail(index + 1, "a path starts with / or @");
                }
                current = Some((path.replace("\\040", " "), kind.to_owned(), Vec::new(), index + 1));
            } else if let Some((_, _, content, _)) = &mut current {
                let escaped = line.first() == Some(&b'\\') && is_head_like(&line[1..]);
                content.extend_from_slice(if escaped { &line[1..] } else { line });
            } else if !line.trim_ascii().is_empty() {
                return fail(index + 1, "text before the first '=== PATH' line");
            }
        }
        capture.close(current)?;
        Ok(capture)
    }

    fn close(&mut self, current: Option<(String, String, Vec<u8>, usize)>) -> Result<(), CaptureError> {
        let Some((path, kind, content, line)) = current else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&content);
        match kind.as_str() {
            "hex" => {
                let Some(bytes) = from_hex(&text) else {
                    return Err(CaptureError { line, message: format!("{path}: not hexadecimal") });
                };
                self.entries.insert((path, ""), Entry::Bytes(bytes));
            }
            kind if kind == "error" || kind.starts_with("error ") => {
                let verb = kind.strip_prefix("error ").unwrap_or_default();
                let verb = KINDS.into_iter().find(|k| *k == verb).unwrap_or_default();
                self.entries.insert((path, verb), Entry::Error(text.trim().to_owned()));
            }
            kind => match KINDS.into_iter().find(|known| *known == kind) {
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

    /// Writes the text form, in the order of the paths.
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
                        if is_head_like(line) {
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

    /// Adds or replaces a file.
    pub fn insert(&mut self, path: &str, content: &[u8]) {
        self.entries.insert((path.to_owned(), ""), Entry::Bytes(content.to_vec()));
    }

    /// A number about the capture itself, such as `@wall_ms`.
    pub fn number(&self, path: &str) -> Option<i64> {
        self.text("", path).ok()?.trim().parse().ok()
    }

    fn bytes(&self, kind: &'static str, path: &str) -> io::Result<&[u8]> {
        match self.entries.get(&(path.to_owned(), kind)) {
            Some(Entry::Bytes(bytes)) => Ok(bytes),
            Some(Entry::Error(why)) if why == "denied" => Err(io::ErrorKind::PermissionDenied.into()),
            Some(Entry::Error(why)) => Err(io::Error::other(why.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn text(&self, kind: &'static str, path: &str) -> io::Result<String> {
        self.bytes(kind, path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// `===` after any number of backslashes: such a line is escaped by one more.
fn is_head_like(line: &[u8]) -> bool {
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

    fn usage(&self, mount: &str) -> io::Result<FsUsage> {
        let text = self.text("usage", mount)?;
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

/// Notes all that collectors ask of another source, answers and refusals alike.
pub struct Recorder<'a> {
    source: &'a dyn Source,
    capture: Mutex<Capture>,
}

impl<'a> Recorder<'a> {
    /// Listens to `source`.
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source, capture: Mutex::default() }
    }

    /// What was asked, with the moment it was asked at.
    pub fn finish(self, wall_ms: i64, monotonic_ms: i64) -> Capture {
        let page_size = self.source.page_size();
        let mut capture = self.capture.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        capture.insert("@page_size", page_size.to_string().as_bytes());
        capture.insert("@wall_ms", wall_ms.to_string().as_bytes());
        capture.insert("@monotonic_ms", monotonic_ms.to_string().as_bytes());
        capture
    }

    fn note(&self, kind: &'static str, path: &str, answer: Result<Vec<u8>, &io::Error>) {
        let entry = match answer {
            Ok(bytes) => Entry::Bytes(bytes),
            // What is missing in the capture is missing for its reader.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Entry::Error("denied".to_owned())
            }
            Err(error) => Entry::Error(error.to_string()),
        };
        let mut capture = self.capture.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        capture.entries.insert((path.to_owned(), kind), entry);
    }
}

impl Source for Recorder<'_> {
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let result = self.source.read(path, out);
        // A capture is made to be sent to others: command lines go without their secrets.
        let shown = |bytes: &[u8]| match path.ends_with("/cmdline") {
            true => crate::linux::secrets::masked(bytes).into_bytes(),
            false => bytes.to_vec(),
        };
        self.note("", path, result.as_ref().map(|()| shown(out)));
        result
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let result = self.source.list(path);
        self.note("list", path, result.as_ref().map(|names| names.join("\n").into_bytes()));
        result
    }

    fn count(&self, path: &str) -> io::Result<u64> {
        let result = self.source.count(path);
        self.note("count", path, result.as_ref().map(|count| count.to_string().into_bytes()));
        result
    }

    fn usage(&self, mount: &str) -> io::Result<FsUsage> {
        let result = self.source.usage(mount);
        let text =
            |u: &FsUsage| format!("{} {} {} {} {}", u.size, u.free, u.available, u.inodes, u.inodes_free);
        self.note("usage", mount, result.as_ref().map(|usage| text(usage).into_bytes()));
        result
    }

    fn page_size(&self) -> u64 {
        self.source.page_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_kind() {
        let capture = Capture::parse(
            b"=== /proc/stat\ncpu 1\n\\=== not a head\n=== /proc/1/cmdline hex\n6100\n=== /sys/block list\nsda\nvda\n\
              === /proc/1/fd count\n7\n=== /mnt/a\\040b usage\n9 8 7 6 5\n=== /proc/1/io error\ndenied\n=== @page_size\n65536\n",
        )
        .unwrap();
        let mut out = Vec::new();
        capture.read("/proc/stat", &mut out).unwrap();
        assert_eq!(out, b"cpu 1\n=== not a head\n");
        capture.read("/proc/1/cmdline", &mut out).unwrap();
        assert_eq!(out, b"a\0");
        assert_eq!(capture.list("/sys/block").unwrap(), ["sda", "vda"]);
        assert_eq!(capture.count("/proc/1/fd").unwrap(), 7);
        assert_eq!(capture.usage("/mnt/a b").unwrap().available, 7);
        assert_eq!(capture.read("/proc/1/io", &mut out).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(capture.read("/nothing", &mut out).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(capture.page_size(), 65536);
        assert_eq!(Capture::parse(&capture.to_text()).unwrap(), capture);
    }

    #[test]
    fn says_where_a_text_is_no_capture() {
        for (text, line) in
            [("hello\n", 1), ("=== proc/stat\n", 1), ("=== /a\nx\n=== /b odd\n", 3), ("=== /a hex\nxyz\n", 1)]
        {
            assert_eq!(Capture::parse(text.as_bytes()).unwrap_err().line, line, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Capture::parse(&bytes);
        }

        #[test]
        fn what_is_written_reads_back(path in "/[a-z ]{1,9}", text in "(\\\\{0,2}={0,4} ?[a-z\\x00-\\x1f]{0,5}\n){0,6}") {
            let mut capture = Capture::default();
            capture.insert(&path, text.as_bytes());
            prop_assert_eq!(Capture::parse(&capture.to_text()).unwrap(), capture);
        }
    }
}
