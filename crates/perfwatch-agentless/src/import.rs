//! Parsers of server lists for the import: ssh_config(5) and CSV (RFC 4180).
//!
//! No library parses the ssh_config, because the text is an upload: `ssh2-config` reads the files that
//! `Include` names and has no line numbers, `russh-config` cannot list the hosts of a text.

use perfwatch_model::glob;
use std::collections::{HashMap, HashSet};

/// Columns of a CSV import.
const CSV_COLUMNS: [&str; 8] = ["name", "address", "port", "user", "password", "jump", "tags", "interval"];

/// Server in an imported text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportEntry {
    /// Line number in the text, from 1.
    pub line: usize,
    /// Display name of the server.
    pub name: String,
    /// DNS name or IP address.
    pub address: String,
    /// TCP port, not validated.
    pub port: Option<String>,
    /// Login name on the server.
    pub user: Option<String>,
    /// Password of the login; only in CSV.
    pub password: Option<String>,
    /// Name of the server that is used as jump host.
    pub jump: Option<String>,
    /// Tags of the host.
    pub tags: Vec<String>,
    /// Collection interval, not validated.
    pub interval: Option<String>,
}

/// Reason why a CSV text cannot be imported.
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
    /// The text is not CSV.
    #[error("{0}")]
    Malformed(String),
}

/// `Host` section of an ssh_config.
struct HostSection {
    line: usize,
    patterns: Vec<String>,
    settings: HashMap<String, String>,
}

impl HostSection {
    fn new(line: usize, patterns: Vec<String>) -> Self {
        Self { line, patterns, settings: HashMap::new() }
    }

    /// Returns whether the section applies to a host. As in ssh(1), exclusions alone match no host.
    fn matches(&self, host: &str) -> bool {
        let patterns = || self.patterns.iter().map(String::as_str);
        patterns().any(|pattern| !pattern.starts_with('!')) && glob::matches_list(patterns(), host)
    }
}

/// Splits a text into its sections. The first section contains the settings before any `Host`.
fn parse_sections(text: &str) -> Vec<HostSection> {
    let is_separator = |c: char| c.is_whitespace() || c == '=';
    let mut sections = Vec::new();
    let mut section = HostSection::new(0, vec!["*".to_owned()]);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(is_separator).unwrap_or((line, ""));
        let value = value.trim_start_matches(is_separator).trim().trim_matches('"');
        let key = key.to_ascii_lowercase();
        let patterns = match key.as_str() {
            "host" => value.split_whitespace().map(str::to_owned).collect(),
            // Conditions are not evaluated: the section applies to no host.
            "match" => Vec::new(),
            _ => {
                section.settings.entry(key).or_insert_with(|| value.to_owned());
                continue;
            }
        };
        sections.push(std::mem::replace(&mut section, HostSection::new(index + 1, patterns)));
    }
    sections.push(section);
    sections
}

/// Name of the jump host in a `ProxyJump` value (`[user@]host[:port]`). Of several, the last is used,
/// which is adjacent to the target.
fn jump_host(proxy_jump: &str) -> Option<String> {
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
pub fn parse_ssh_config(text: &str) -> Vec<ImportEntry> {
    let sections = parse_sections(text);
    let (mut entries, mut names) = (Vec::new(), HashSet::new());
    for section in &sections {
        for name in section.patterns.iter().filter(|name| !name.contains(['*', '?', '!'])) {
            if !names.insert(name) {
                continue;
            }
            let setting = |key: &str| {
                let mut matching = sections.iter().filter(|section| section.matches(name));
                matching.find_map(|section| section.settings.get(key)).cloned()
            };
            entries.push(ImportEntry {
                line: section.line,
                name: name.clone(),
                address: setting("hostname").map_or_else(|| name.clone(), |host| host.replace("%h", name)),
                port: setting("port"),
                user: setting("user"),
                jump: setting("proxyjump").as_deref().and_then(jump_host),
                ..ImportEntry::default()
            });
        }
    }
    entries
}

/// Parses a CSV table. The header names the columns: `address`, and any of `name`, `port`, `user`,
/// `password`, `jump`, `tags` (separated by spaces or semicolons), `interval`.
///
/// # Errors
/// Returns an [`ImportError`] for the first line that is malformed or has no address.
pub fn parse_csv(text: &str) -> Result<Vec<ImportEntry>, ImportError> {
    let malformed = |error: csv::Error| ImportError::Malformed(error.to_string());
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let columns: Vec<String> = reader
        .headers()
        .map_err(malformed)?
        .iter()
        .map(|column| column.trim_start_matches('\u{feff}').to_ascii_lowercase())
        .collect();
    if let Some(column) = columns.iter().find(|column| !CSV_COLUMNS.contains(&column.as_str())) {
        return Err(ImportError::UnknownColumn(column.clone()));
    }
    if !columns.iter().any(|column| column == "address") {
        return Err(ImportError::MissingAddressColumn);
    }
    let mut entries = Vec::new();
    for (index, row) in reader.records().enumerate() {
        let row = row.map_err(malformed)?;
        let line = row.position().and_then(|position| usize::try_from(position.line()).ok());
        let line = line.unwrap_or(index + 2);
        let value = |name: &str| {
            let index = columns.iter().position(|column| column == name)?;
            row.get(index).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let address = value("address").ok_or(ImportError::MissingAddress(line))?;
        let tags = value("tags").unwrap_or_default();
        entries.push(ImportEntry {
            line,
            name: value("name").unwrap_or_else(|| address.clone()),
            address,
            port: value("port"),
            user: value("user"),
            password: value("password"),
            jump: value("jump"),
            tags: tags.split([' ', ';']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            interval: value("interval"),
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
        let entries: Vec<ImportEntry> = parse_ssh_config(text);
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
        assert!(parse_ssh_config("garbage\n=\nHost *\n").is_empty());
    }

    #[test]
    fn ssh_config_exclusions_alone_match_no_host() {
        let entries =
            parse_ssh_config("Host db\n  Port 22\nHost !web\n  User admin\nHost * !web\n  User other\n");
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].user.as_deref(), Some("other"));
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
            ("name\nx\n", ImportError::MissingAddressColumn),
            ("address,color\nx,y\n", ImportError::UnknownColumn("color".to_owned())),
            ("address,name\n,x\n", ImportError::MissingAddress(2)),
        ] {
            assert_eq!(parse_csv(text), Err(expected), "{text}");
        }
        let error = ImportError::UnknownColumn("color".to_owned()).to_string();
        assert!(error.starts_with("line 1: unknown column \"color\"; expected name, address,"), "{error}");
    }
}
