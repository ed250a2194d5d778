//! Parsers of server lists for the import: ssh_config(5) and CSV (RFC 4180).
//!
//! No library parses the ssh_config, because the text is an upload: `ssh2-config` reads the files that
//! `Include` names and has no line numbers, `russh-config` cannot list the hosts of a text.

use crate::import_entry::{CSV_COLUMNS, MAX_VALUE_BYTES, split_tags};
pub use crate::import_entry::{ImportEntry, MAX_ENTRIES};
use perfwatch_model::glob;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Maximum number of patterns with wildcards or exclusions in an ssh_config. Each is compared with every
/// host.
const MAX_WILDCARD_PATTERNS: usize = 500;
/// Reason why a text cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The header contains an unknown column.
    #[error("line 1: unknown column {0:?}; expected {columns}", columns = CSV_COLUMNS.join(", "))]
    UnknownColumn(String),
    /// The header does not contain the required column.
    #[error("line 1: column \"address\" is missing")]
    MissingAddressColumn,
    /// A row has no address.
    #[error("line {0}: address is missing")]
    MissingAddress(usize),
    /// The text is neither CSV nor YAML.
    #[error("{0}")]
    Malformed(String),
    /// A group of an inventory is its own descendant.
    #[error("line {0}: group {1:?} contains itself")]
    GroupCycle(usize, String),
    /// Hosts repeat the variables and names of their groups too often.
    #[error("variables and groups of all hosts are too large")]
    TooLarge,
    /// The text contains too many servers.
    #[error("too many servers; at most {MAX_ENTRIES} are allowed")]
    TooManyEntries,
    /// The key is stored with each server, and all copies together are too large.
    #[error("credentials: the key is too large for this number of servers")]
    KeyTooLarge,
    /// The ssh_config contains too many patterns.
    #[error("too many patterns with wildcards; at most {MAX_WILDCARD_PATTERNS} are allowed")]
    TooManyPatterns,
    /// A value of the ssh_config is too long.
    #[error("line {0}: value exceeds {MAX_VALUE_BYTES} bytes")]
    ValueTooLong(usize),
}

/// `Host` section of an ssh_config.
struct HostSection<'a> {
    line: usize,
    /// Hosts that are named literally.
    names: Vec<&'a str>,
    /// Patterns with wildcards.
    wildcards: Vec<&'a str>,
    /// Patterns of hosts that the section does not apply to, without `!`.
    exclusions: Vec<&'a str>,
    settings: HashMap<String, &'a str>,
}

impl<'a> HostSection<'a> {
    fn new(line: usize, patterns: impl Iterator<Item = &'a str>) -> Self {
        let (mut names, mut wildcards, mut exclusions) = (Vec::new(), Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern.strip_prefix('!') {
                Some(exclusion) => exclusions.push(exclusion),
                None if pattern.contains(['*', '?']) => wildcards.push(pattern),
                None if pattern.contains('!') => {}
                None => names.push(pattern),
            }
        }
        Self { line, names, wildcards, exclusions, settings: HashMap::new() }
    }

    fn is_excluded(&self, host: &str) -> bool {
        self.exclusions.iter().any(|pattern| glob::matches(pattern, host))
    }

    /// Returns whether a pattern with wildcards matches a host. As in ssh(1), exclusions alone match no
    /// host.
    fn matches_wildcard(&self, host: &str) -> bool {
        self.wildcards.iter().any(|pattern| glob::matches(pattern, host))
    }
}

/// Splits a text into its sections. The first section contains the settings before any `Host`.
fn parse_sections(text: &str) -> Result<Vec<HostSection<'_>>, ImportError> {
    let is_separator = |c: char| c.is_whitespace() || c == '=';
    let mut sections = Vec::new();
    let mut section = HostSection::new(0, std::iter::once("*"));
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(is_separator).unwrap_or((line, ""));
        let value = value.trim_start_matches(is_separator).trim().trim_matches('"');
        let key = key.to_ascii_lowercase();
        let next = match key.as_str() {
            "host" => HostSection::new(index + 1, value.split_whitespace()),
            // Conditions are not evaluated: the section applies to no host.
            "match" => HostSection::new(index + 1, std::iter::empty()),
            "hostname" | "port" | "user" | "proxyjump" => {
                if value.len() > MAX_VALUE_BYTES {
                    return Err(ImportError::ValueTooLong(index + 1));
                }
                section.settings.entry(key).or_insert(value);
                continue;
            }
            _ => continue,
        };
        sections.push(std::mem::replace(&mut section, next));
    }
    sections.push(section);
    Ok(sections)
}

/// Sections by host: those that name a host, and those with wildcards.
struct SectionIndex<'a> {
    sections: Vec<HostSection<'a>>,
    by_name: HashMap<&'a str, Vec<usize>>,
    with_wildcards: Vec<usize>,
}

impl<'a> SectionIndex<'a> {
    fn new(sections: Vec<HostSection<'a>>) -> Result<Self, ImportError> {
        let patterns = |section: &HostSection<'_>| section.wildcards.len() + section.exclusions.len();
        // Without the first section, which is not in the text.
        if sections.iter().skip(1).map(patterns).sum::<usize>() > MAX_WILDCARD_PATTERNS {
            return Err(ImportError::TooManyPatterns);
        }
        let (mut by_name, mut with_wildcards): (HashMap<_, Vec<_>>, _) = (HashMap::new(), Vec::new());
        for (index, section) in sections.iter().enumerate() {
            for name in &section.names {
                by_name.entry(*name).or_default().push(index);
            }
            if !section.wildcards.is_empty() {
                with_wildcards.push(index);
            }
        }
        if by_name.len() > MAX_ENTRIES {
            return Err(ImportError::TooManyEntries);
        }
        Ok(Self { sections, by_name, with_wildcards })
    }

    /// Sections that apply to a host, in the order of the text.
    fn find(&self, host: &str) -> Vec<&HostSection<'a>> {
        let with_wildcards = self.with_wildcards.iter().copied();
        let matching = with_wildcards.filter(|index| self.sections[*index].matches_wildcard(host));
        let named = self.by_name.get(host).into_iter().flatten().copied();
        let indexes: BTreeSet<usize> = matching.chain(named).collect();
        let sections = indexes.into_iter().map(|index| &self.sections[index]);
        sections.filter(|section| !section.is_excluded(host)).collect()
    }
}

/// Name of the jump host in a `ProxyJump` value (`[user@]host[:port]`). Of several, the last is used,
/// which is adjacent to the target.
pub(crate) fn jump_host(proxy_jump: &str) -> Option<String> {
    if proxy_jump.eq_ignore_ascii_case("none") {
        return None;
    }
    let last = proxy_jump.rsplit(',').next()?.trim().trim_start_matches("ssh://");
    let host = last.rsplit('@').next()?;
    Some(host.split(':').next().unwrap_or(host).to_owned())
}

/// Lists the hosts of an ssh_config(5) that are named literally, without wildcards.
///
/// As in ssh(1), the first value of a setting is used if several sections match a host. `Match` and
/// `Include` are ignored.
///
/// # Errors
/// Returns an [`ImportError`] for too many hosts or patterns, and for a value that is too long.
pub fn parse_ssh_config(text: &str) -> Result<Vec<ImportEntry>, ImportError> {
    let index = SectionIndex::new(parse_sections(text)?)?;
    let (mut entries, mut names) = (Vec::new(), HashSet::new());
    for section in &index.sections {
        for name in section.names.iter().copied() {
            if !names.insert(name) {
                continue;
            }
            let matching = index.find(name);
            let setting = |key: &str| matching.iter().find_map(|section| section.settings.get(key).copied());
            entries.push(ImportEntry {
                line: section.line,
                name: name.to_owned(),
                address: setting("hostname").map_or_else(|| name.to_owned(), |host| expand(host, name)),
                port: setting("port").map(str::to_owned),
                user: setting("user").map(str::to_owned),
                jump: setting("proxyjump").and_then(jump_host),
                ..ImportEntry::default()
            });
        }
    }
    Ok(entries)
}

/// Replaces `%h` in a `HostName` by the name of the host. A result above the maximum length of a value is
/// not expanded; no address is that long.
fn expand(host: &str, name: &str) -> String {
    if host.matches("%h").count() * name.len() > MAX_VALUE_BYTES {
        return host.to_owned();
    }
    host.replace("%h", name)
}

/// Delimiters of CSV tables: spreadsheets write the list separator of their language, or tabs.
const CSV_DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// CSV table without byte order mark, with its delimiter and the number of lines before its header.
struct CsvDialect<'a> {
    table: &'a str,
    delimiter: u8,
    skipped_lines: usize,
}

impl<'a> CsvDialect<'a> {
    /// Detects the delimiter: from a `sep=` line, else the character that splits the header into the
    /// most known columns.
    fn detect(text: &'a str) -> Self {
        let text = text.trim_start_matches('\u{feff}');
        let table = text.trim_start_matches(['\r', '\n']);
        let mut skipped_lines = count_line_breaks(&text[..text.len() - table.len()]);
        let (first, rest) = table.split_once('\n').unwrap_or((table, ""));
        let first = first.trim_end_matches('\r').trim_matches('"');
        if let Some([delimiter]) = first.strip_prefix("sep=").map(str::as_bytes) {
            skipped_lines += 1;
            return Self { table: rest, delimiter: *delimiter, skipped_lines };
        }
        let known_columns = |delimiter: &u8| {
            let header = parse_header(&mut reader(table, *delimiter)).unwrap_or_default();
            header.iter().filter(|column| CSV_COLUMNS.contains(&column.as_str())).count()
        };
        // `max_by_key` returns the last maximum: the comma wins if no delimiter fits.
        let delimiter = CSV_DELIMITERS.into_iter().rev().max_by_key(known_columns).unwrap_or(b',');
        Self { table, delimiter, skipped_lines }
    }
}

/// Number of line breaks: LF, CR LF, or CR alone.
fn count_line_breaks(text: &str) -> usize {
    let is_break =
        |(index, c): &(usize, char)| *c == '\n' || (*c == '\r' && !text[index + 1..].starts_with('\n'));
    text.char_indices().filter(is_break).count()
}

/// Line numbers of rows, counted forward from the last row.
#[derive(Default)]
struct LineCounter {
    offset: usize,
    line_breaks: usize,
}

impl LineCounter {
    /// Line number of the row whose record starts at a byte offset. The offset may precede line breaks,
    /// which the CSV reader skips.
    fn row_line(&mut self, table: &str, offset: usize) -> usize {
        let rest = table.get(offset..).unwrap_or_default();
        let start = table.len() - rest.trim_start_matches(['\r', '\n']).len();
        self.line_breaks += count_line_breaks(table.get(self.offset..start).unwrap_or_default());
        self.offset = start;
        self.line_breaks + 1
    }
}

fn reader(table: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    let mut builder = csv::ReaderBuilder::new();
    builder.delimiter(delimiter).flexible(true).has_headers(false).from_reader(table.as_bytes())
}

/// Names of the columns, in lower case.
fn parse_header(reader: &mut csv::Reader<&[u8]>) -> Result<Vec<String>, csv::Error> {
    let mut header = csv::StringRecord::new();
    reader.read_record(&mut header)?;
    let mut columns: Vec<String> = header.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
    // A delimiter at the end of each line makes an empty last column.
    while columns.last().is_some_and(String::is_empty) {
        columns.pop();
    }
    Ok(columns)
}

/// Parses a CSV table. The header names the columns: `address`, and any of `name`, `port`, `user`,
/// `password`, `jump`, `tags` (separated by spaces, commas or semicolons), `interval`. The delimiter is
/// detected from the header.
///
/// # Errors
/// Returns an [`ImportError`] for the first line that is malformed or has no address.
pub fn parse_csv(text: &str) -> Result<Vec<ImportEntry>, ImportError> {
    let malformed = |error: csv::Error| ImportError::Malformed(error.to_string());
    let CsvDialect { table, delimiter, skipped_lines } = CsvDialect::detect(text);
    let mut reader = reader(table, delimiter);
    let columns = parse_header(&mut reader).map_err(malformed)?;
    if let Some(column) = columns.iter().find(|column| !CSV_COLUMNS.contains(&column.as_str())) {
        return Err(ImportError::UnknownColumn(column.clone()));
    }
    if !columns.iter().any(|column| column == "address") {
        return Err(ImportError::MissingAddressColumn);
    }
    // Found once: a header may repeat columns.
    let positions = CSV_COLUMNS.map(|name| columns.iter().position(|column| column == name));
    let (mut entries, mut lines) = (Vec::new(), LineCounter::default());
    for row in reader.records() {
        let row = row.map_err(malformed)?;
        // Spreadsheets write empty rows as delimiters only.
        if row.iter().all(|field| field.trim().is_empty()) {
            continue;
        }
        let offset = row.position().and_then(|position| usize::try_from(position.byte()).ok());
        let line = lines.row_line(table, offset.unwrap_or_default()) + skipped_lines;
        let value = |name: &str| {
            let column = CSV_COLUMNS.iter().position(|column| *column == name)?;
            row.get(positions[column]?).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let address = value("address").ok_or(ImportError::MissingAddress(line))?;
        if entries.len() >= MAX_ENTRIES {
            return Err(ImportError::TooManyEntries);
        }
        let tags = value("tags").unwrap_or_default();
        entries.push(ImportEntry {
            line,
            name: value("name").unwrap_or_else(|| address.clone()),
            address,
            port: value("port"),
            user: value("user"),
            password: value("password"),
            jump: value("jump"),
            tags: split_tags(&tags),
            interval: value("interval"),
            error: None,
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_config_is_parsed_like_ssh() {
        let text = "User default-user\n# comment\nHost web-* !web-9\n  Port 2222\nHost web-1 web-9\n  \
             HostName=10.0.0.%h\n  User \"deploy\"\nHost db\n\tHostName db.example\n\
             \tProxyJump admin@gate:22,web-1\nHost *\n  User late\n  Port 1\nMatch host x\n  Port 7\n";
        let entries = parse_ssh_config(text).unwrap();
        let entry = |line, name: &str, address: &str, port: &str, jump: Option<&str>| ImportEntry {
            line,
            name: name.to_owned(),
            address: address.to_owned(),
            port: Some(port.to_owned()),
            user: Some("default-user".to_owned()),
            jump: jump.map(str::to_owned),
            ..ImportEntry::default()
        };
        assert_eq!(
            entries,
            [
                entry(5, "web-1", "10.0.0.web-1", "2222", None),
                entry(5, "web-9", "10.0.0.web-9", "1", None),
                entry(8, "db", "db.example", "1", Some("web-1")),
            ]
        );
        assert_eq!(parse_ssh_config("garbage\n=\nHost *\n"), Ok(vec![]));
    }

    #[test]
    fn ssh_config_exclusions_alone_match_no_host() {
        let text = "Host db\n  Port 22\nHost !web\n  User admin\nHost * !web\n  User other\n";
        let entries = parse_ssh_config(text).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].user.as_deref(), Some("other"));
    }

    /// Finding H2: few bytes must not cause much work or output.
    #[test]
    fn ssh_config_amplification_is_bounded() {
        let hosts = |count: usize| (0..count).map(|n| format!("Host h{n}\n")).collect::<String>();
        let wildcards = |count: usize| (0..count).map(|n| format!("Host *{n}\n")).collect::<String>();
        for (text, expected) in [
            (hosts(10_000), Ok(10_000)),
            (hosts(10_001), Err(ImportError::TooManyEntries)),
            (format!("Host a\n{}", wildcards(500)), Ok(1)),
            (format!("Host a\n{}", wildcards(501)), Err(ImportError::TooManyPatterns)),
            (format!("Host a {}\n", "!b ".repeat(501)), Err(ImportError::TooManyPatterns)),
            (format!("Host a\nHost *\nUser {}\n", "u".repeat(1_025)), Err(ImportError::ValueTooLong(3))),
            (format!("Host a\nProxyCommand {}\n", "u".repeat(100_000)), Ok(1)),
            (hosts(20_000).replace("\nHost", ""), Err(ImportError::TooManyEntries)),
            ("Host a\n".repeat(37_000), Ok(1)),
        ] {
            let start = text[..text.len().min(40)].to_owned();
            assert_eq!(parse_ssh_config(&text).map(|entries| entries.len()), expected, "{start}");
        }
        let name = "n".repeat(100_000);
        let text = format!("Host {name}\nHostName {}\n", "%h".repeat(500));
        assert_eq!(parse_ssh_config(&text).unwrap()[0].address, "%h".repeat(500));
        let table = format!("address\n{}", "a\n".repeat(10_001));
        assert_eq!(parse_csv(&table), Err(ImportError::TooManyEntries));
    }

    #[test]
    fn csv_columns_are_matched_by_header() {
        let entries = parse_csv(
            "\u{feff}Name,Address,Tags,Password\ndb-1, 192.0.2.1 ,\"env=prod db\",\"a,b\"\n,192.0.2.2\n",
        )
        .unwrap();
        let [first, second] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((first.name.as_str(), first.address.as_str(), first.line), ("db-1", "192.0.2.1", 2));
        assert_eq!(first.tags, ["env=prod", "db"]);
        assert_eq!(first.password.as_deref(), Some("a,b"));
        assert_eq!((second.name.as_str(), second.password.as_deref()), ("192.0.2.2", None));
        for (text, expected) in [
            ("", ImportError::MissingAddressColumn),
            ("name\nx\n", ImportError::MissingAddressColumn),
            ("sep=;\r\naddress;name\r\n\r\n;x\r\n", ImportError::MissingAddress(4)),
            ("address,color\nx,y\n", ImportError::UnknownColumn("color".to_owned())),
            ("address,name\n,x\n", ImportError::MissingAddress(2)),
        ] {
            assert_eq!(parse_csv(text), Err(expected), "{text}");
        }
        let error = ImportError::UnknownColumn("color".to_owned()).to_string();
        assert!(error.starts_with("line 1: unknown column \"color\"; expected name, address,"), "{error}");
    }
    #[test]
    fn csv_dialects_of_spreadsheets_are_detected() {
        let expected = |line| ImportEntry {
            line,
            name: "db, 1".to_owned(),
            address: "192.0.2.1".to_owned(),
            password: Some("a;b\"c\td|e".to_owned()),
            tags: vec!["env=prod".to_owned(), "db".to_owned()],
            ..ImportEntry::default()
        };
        let row = |delimiter: &str| {
            ["\"db, 1\"", "192.0.2.1", "\"a;b\"\"c\td|e\"", "\"env=prod;db\""].join(delimiter)
        };
        for delimiter in [",", ";", "\t", "|"] {
            let header = ["Name", "ADDRESS", " password ", "tags"].join(delimiter);
            let quoted = ["\"name\"", "\"address\"", "\"password\"", "\"tags\""].join(delimiter);
            let row = row(delimiter);
            for (text, line) in [
                (format!("{header}\n{row}\n"), 2),
                (format!("{header}\r\n{row}"), 2),
                (format!("{header}\r{row}\r"), 2),
                (format!("\u{feff}{quoted}\r\n{row}\r\n"), 2),
                (format!("\u{feff}sep={delimiter}\r\n{header}\r\n{row}\r\n"), 3),
                (format!("{header}{delimiter}\n{row}{delimiter}\n{}\n", delimiter.repeat(4)), 2),
            ] {
                assert_eq!(parse_csv(&text), Ok(vec![expected(line)]), "{text:?}");
            }
        }
    }
}
