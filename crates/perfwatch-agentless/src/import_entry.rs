//! Server in an imported text, whatever the format, and the limits of such texts.

/// Maximum number of servers in a text, that of a hub.
pub const MAX_ENTRIES: usize = 10_000;
/// Maximum length of a value in an ssh_config or YAML. A value applies to any number of hosts.
pub(crate) const MAX_VALUE_BYTES: usize = 1_024;

/// Columns of a CSV import.
pub(crate) const CSV_COLUMNS: [&str; 8] =
    ["name", "address", "port", "user", "password", "jump", "tags", "interval"];

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
    /// Password of the login; not in an ssh_config.
    pub password: Option<String>,
    /// Name of the server that is used as jump host.
    pub jump: Option<String>,
    /// Tags of the host.
    pub tags: Vec<String>,
    /// Collection interval, not validated.
    pub interval: Option<String>,
    /// Reason why the server cannot be collected over SSH.
    pub error: Option<String>,
}

impl ImportEntry {
    /// Size of all texts.
    pub fn text_bytes(&self) -> usize {
        let optional = [&self.port, &self.user, &self.password, &self.jump, &self.interval, &self.error];
        let optional = optional.into_iter().flatten().map(String::len);
        let tags = self.tags.iter().map(String::len);
        self.name.len() + self.address.len() + optional.chain(tags).sum::<usize>()
    }
}

/// Tags that are separated by spaces, commas or semicolons.
pub(crate) fn split_tags(tags: &str) -> Vec<String> {
    tags.split([' ', ',', ';']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}
