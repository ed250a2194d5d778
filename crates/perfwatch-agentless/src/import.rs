//! Many servers at once, from what people have: an ssh_config(5), or a table as CSV (RFC 4180).

use perfwatch_model::glob;
use std::collections::HashMap;

/// A line of either that names a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportEntry {
    /// In the text, from 1 on.
    pub line: usize,
    pub name: String,
    pub address: String,
    pub port: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    /// The name of the server on the way.
    pub jump: Option<String>,
    pub tags: Vec<String>,
    pub interval: Option<String>,
}

/// Hosts of an ssh_config(5): those that are named, not patterns. Of what several sections say of
/// one, the first counts, as ssh(1) has it. `Match` and `Include` are passed over.
pub fn parse_ssh_config(text: &str) -> Vec<ImportEntry> {
    // Patterns with their settings, in order.
    let mut sections: Vec<(usize, Vec<String>, HashMap<String, String>)> =
        vec![(0, vec!["*".to_owned()], HashMap::new())];
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((line, ""));
        let value =
            value.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim().trim_matches('"');
        match key.to_ascii_lowercase().as_str() {
            "host" => {
                sections.push((
                    at + 1,
                    value.split_whitespace().map(str::to_owned).collect(),
                    HashMap::new(),
                ));
            }
            "match" => sections.push((at + 1, Vec::new(), HashMap::new())),
            key => {
                if let Some((_, _, settings)) = sections.last_mut() {
                    settings.entry(key.to_owned()).or_insert_with(|| value.to_owned());
                }
            }
        }
    }
    let mut found: Vec<ImportEntry> = Vec::new();
    for (line, patterns, _) in &sections {
        for name in patterns.iter().filter(|name| !name.contains(['*', '?', '!'])) {
            if found.iter().any(|known| known.name == *name) {
                continue;
            }
            let fits = |patterns: &[String]| {
                let one = |pattern: &str| glob::matches(pattern, name);
                let not = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(one);
                !not && patterns.iter().any(|pattern| one(pattern))
            };
            let get = |key: &str| {
                let of = sections.iter().filter(|(_, patterns, _)| fits(patterns));
                of.filter_map(|(_, _, settings)| settings.get(key)).next().cloned()
            };
            // `user@host:port`, and of several the last, which is the nearest.
            let jump = get("proxyjump").filter(|jump| !jump.eq_ignore_ascii_case("none"));
            let jump = jump.and_then(|jump| {
                let last = jump.rsplit(',').next()?.trim().trim_start_matches("ssh://").to_owned();
                let host = last.rsplit('@').next()?;
                Some(host.split(':').next().unwrap_or(host).to_owned())
            });
            found.push(ImportEntry {
                line: *line,
                name: name.clone(),
                address: get("hostname").map_or_else(|| name.clone(), |host| host.replace("%h", name)),
                port: get("port"),
                user: get("user"),
                jump,
                ..ImportEntry::default()
            });
        }
    }
    found
}

/// A table whose first line names its columns: `name`, `address`, and any of `port`, `user`,
/// `password`, `jump`, `tags` (with spaces or semicolons between), `interval`.
///
/// # Errors
/// The first line that is none, in words.
pub fn parse_csv(text: &str) -> Result<Vec<ImportEntry>, String> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let heads: Vec<String> = reader
        .headers()
        .map_err(|error| error.to_string())?
        .iter()
        .map(|head| head.trim_start_matches('\u{feff}').to_ascii_lowercase())
        .collect();
    const KNOWN: [&str; 8] = ["name", "address", "port", "user", "password", "jump", "tags", "interval"];
    if let Some(head) = heads.iter().find(|head| !KNOWN.contains(&head.as_str())) {
        return Err(format!("line 1: there is no column {head:?}; those are {}", KNOWN.join(", ")));
    }
    if !heads.iter().any(|head| head == "address") {
        return Err("line 1: the columns must name an address".to_owned());
    }
    let mut found = Vec::new();
    for (at, row) in reader.records().enumerate() {
        let row = row.map_err(|error| error.to_string())?;
        let line =
            row.position().map_or(at + 2, |position| usize::try_from(position.line()).unwrap_or(at + 2));
        let get = |name: &str| {
            let at = heads.iter().position(|head| head == name)?;
            row.get(at).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let address = get("address").ok_or_else(|| format!("line {line}: no address"))?;
        let tags = get("tags").unwrap_or_default();
        found.push(ImportEntry {
            line,
            name: get("name").unwrap_or_else(|| address.clone()),
            address,
            port: get("port"),
            user: get("user"),
            password: get("password"),
            jump: get("jump"),
            tags: tags.split([' ', ';']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            interval: get("interval"),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_config_is_parsed_like_ssh() {
        let found = parse_ssh_config(
            "User nobody-else\n# mine\nHost web-* !web-9\n  Port 2222\nHost web-1 web-9\n  HostName=10.0.0.%h\n  User \"deploy\"\n\
             Host db\n\tHostName db.example\n\tProxyJump admin@gate:22,web-1\nHost *\n  User late\n  Port 1\nMatch host x\n  Port 7\n",
        );
        let shown: Vec<_> = found
            .iter()
            .map(|one| {
                (
                    one.line,
                    one.name.as_str(),
                    one.address.as_str(),
                    one.port.as_deref(),
                    one.user.as_deref(),
                    one.jump.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (5, "web-1", "10.0.0.web-1", Some("2222"), Some("nobody-else"), None),
                (5, "web-9", "10.0.0.web-9", Some("1"), Some("nobody-else"), None),
                (8, "db", "db.example", Some("1"), Some("nobody-else"), Some("web-1")),
            ]
        );
        assert!(parse_ssh_config("garbage\n=\nHost *\n").is_empty());
    }

    #[test]
    fn csv_columns_are_matched_by_header() {
        let found = parse_csv(
            "\u{feff}Name,Address,Tags,Password\ndb-1, 192.0.2.1 ,\"env=prod db\",\"a,b\"\n,192.0.2.2\n",
        )
        .unwrap();
        assert_eq!(
            (found[0].name.as_str(), found[0].address.as_str(), found[0].line),
            ("db-1", "192.0.2.1", 2)
        );
        assert_eq!(
            (found[0].tags.join("+"), found[0].password.as_deref()),
            ("env=prod+db".to_owned(), Some("a,b"))
        );
        assert_eq!((found[1].name.as_str(), found[1].password.as_deref()), ("192.0.2.2", None));
        for (text, word) in
            [("name\nx\n", "address"), ("address,colour\nx,y\n", "colour"), ("address,name\n,x\n", "line 2")]
        {
            assert!(parse_csv(text).unwrap_err().contains(word), "{text}");
        }
    }
}
