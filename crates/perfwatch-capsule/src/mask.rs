//! Masking of command lines, user names and host names.
//!
//! Names are replaced by numbered names, the same everywhere in a capsule. Secrets in command lines are masked
//! always, because earlier agents may have masked less.

use crate::document::{CapsuleDocument, Masks};
use perfwatch_model::ProcessRow;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Keys of JSON objects whose text is a term of PerfWatch or the name of a program, and no name of a user or host.
const TERMS: [&str; 8] =
    ["kind", "metric", "name", "phase", "resolve_reason", "resource", "severity", "state"];
/// Prefix of the actor of an account in audit entries and timelines.
const ACCOUNT_ACTOR: &str = "user ";

/// Replaces names, and remembers those that it replaced.
pub(crate) struct Masker {
    masks: Masks,
    /// Replacements by name in lower case.
    hosts: BTreeMap<String, String>,
    users: BTreeMap<String, String>,
    /// Ids of the hosts and their replacements.
    host_ids: HashMap<String, String>,
    /// Command lines that were masked already.
    commands: HashMap<Arc<str>, Arc<str>>,
    texts: HashMap<Arc<str>, Arc<str>>,
}

fn numbered(names: &mut BTreeMap<String, String>, name: &str, kind: &str) -> String {
    let next = names.len() + 1;
    names.entry(name.to_lowercase()).or_insert_with(|| format!("{kind}-{next}")).clone()
}

impl Masker {
    /// Masker for hosts with these ids and names, in their order. Command lines contain names of users and hosts:
    /// they are removed as well if those are replaced.
    pub(crate) fn new(masks: Masks, hosts: &[(String, String)]) -> Self {
        let masks = Masks { commands: masks.commands || masks.users || masks.hosts, ..masks };
        let (commands, texts, users) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        let mut masker =
            Self { masks, hosts: BTreeMap::new(), users, host_ids: HashMap::new(), commands, texts };
        for (index, (id, name)) in hosts.iter().enumerate() {
            if masks.hosts {
                numbered(&mut masker.hosts, name, "host");
                masker.host_ids.insert(id.clone(), (index + 1).to_string());
            }
        }
        masker
    }

    fn user(&mut self, name: &str) -> String {
        match self.masks.users && !name.is_empty() {
            true => numbered(&mut self.users, name, "user"),
            false => name.to_owned(),
        }
    }

    /// Actor of an audit entry or of a timeline: `user alice`, `token deploy of alice`, or empty for the hub.
    fn actor(&mut self, actor: &str) -> String {
        let name = actor.strip_prefix(ACCOUNT_ACTOR).unwrap_or(actor);
        if name.is_empty() || !self.masks.users {
            return actor.to_owned();
        }
        format!("{ACCOUNT_ACTOR}{}", self.user(name))
    }

    /// Process with masked secrets and names.
    pub(crate) fn process(&mut self, row: &ProcessRow) -> ProcessRow {
        let command = match self.commands.get(&row.command) {
            _ if self.masks.commands => Arc::from(""),
            Some(command) => command.clone(),
            None => {
                let masked: Arc<str> = perfwatch_redact::mask_secrets(row.command.as_bytes()).into();
                self.commands.insert(row.command.clone(), masked.clone());
                masked
            }
        };
        let user = match self.texts.get(&row.user) {
            Some(user) => user.clone(),
            None => {
                let user: Arc<str> = self.user(&row.user).into();
                self.texts.insert(row.user.clone(), user.clone());
                user
            }
        };
        ProcessRow { command, user, ..row.clone() }
    }

    /// Masks the document. Names are known from all processes, so that this comes last.
    pub(crate) fn document(&mut self, document: &mut CapsuleDocument) {
        document.masked = self.masks;
        document.created_by = self.actor(&document.created_by);
        let hosts = document.hosts.iter_mut();
        let host_values = hosts.flat_map(|host| host.events.iter_mut().chain(&mut host.alerts));
        let incidents = document.incidents.iter_mut();
        let values = incidents.flat_map(|part| std::iter::once(&mut part.incident).chain(&mut part.timeline));
        let mut values: Vec<&mut Value> = host_values.chain(values).collect();
        // Users first, so that all are known when texts are searched.
        values.iter_mut().for_each(|value| self.mask_fields(value));
        values.iter_mut().for_each(|value| self.mask_texts("", value));
        document.title = self.text(&document.title);
        document.note = self.text(&document.note);
        for host in &mut document.hosts {
            for (_, instance, _) in &mut host.series {
                *instance = self.text(instance);
            }
            if self.masks.hosts {
                host.id = self.host_ids.get(&host.id).cloned().unwrap_or_default();
                host.name = self.text(&host.name);
                host.tags.clear();
            }
        }
    }

    /// Masks fields that consist of a name or of a command line.
    fn mask_fields(&mut self, value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| self.mask_fields(value)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), &*value) {
                        ("command", Value::String(command)) => *value = self.command(command).into(),
                        ("user", Value::String(user)) => *value = self.user(user).into(),
                        ("actor" | "by", Value::String(actor)) => *value = self.actor(actor).into(),
                        ("host", Value::String(id)) if self.masks.hosts => {
                            *value = self.host_ids.get(id).cloned().into();
                        }
                        _ => self.mask_fields(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn command(&self, command: &str) -> String {
        if self.masks.commands { String::new() } else { perfwatch_redact::mask_secrets(command.as_bytes()) }
    }

    /// Replaces names inside all texts.
    fn mask_texts(&self, key: &str, value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| self.mask_texts(key, value)),
            Value::Object(fields) => {
                fields.iter_mut().for_each(|(key, value)| self.mask_texts(key, value));
            }
            Value::String(text) if !TERMS.contains(&key) => *text = self.text(text),
            _ => {}
        }
    }

    /// Replaces whole names in a text.
    fn text(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for (name, replacement) in self.hosts.iter().chain(&self.users) {
            masked = replace_name(&masked, name, replacement);
        }
        masked
    }
}

/// Replaces a name in lower case where it is no part of a longer word. `db` is a part of `db-03`, and no part of
/// `db.example.com`.
fn replace_name(text: &str, name: &str, replacement: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let (mut out, mut copied) = (String::new(), 0);
    for (start, found) in lower.match_indices(name) {
        let end = start + found.len();
        let before = text[..start].chars().next_back().is_some_and(is_part);
        let after = text[end..].chars().next().is_some_and(is_part);
        if !before && !after && !name.is_empty() {
            out.push_str(&text[copied..start]);
            out.push_str(replacement);
            copied = end;
        }
    }
    out.push_str(&text[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_as_whole_words() {
        for (text, expected) in [
            ("db: CPU high", "X: CPU high"),
            ("DB and db-03, db_2 and mydb", "X and db-03, db_2 and mydb"),
            ("db.example.com (db)", "X.example.com (X)"),
            ("größe db", "größe X"),
            ("dbdb db", "dbdb X"),
            ("", ""),
        ] {
            assert_eq!(replace_name(text, "db", "X"), expected, "{text}");
        }
    }

    #[test]
    fn replaced_hosts_and_users_imply_removed_commands() {
        for masks in [Masks { users: true, ..Masks::default() }, Masks { hosts: true, ..Masks::default() }] {
            assert!(Masker::new(masks, &[]).masks.commands);
        }
        assert_eq!(Masker::new(Masks::default(), &[]).masks, Masks::default());
    }

    #[test]
    fn secrets_in_commands_are_always_masked() {
        let row = ProcessRow { command: "mysql -psecret --host db".into(), ..ProcessRow::default() };
        let masked = Masker::new(Masks::default(), &[]).process(&row);
        assert!(!masked.command.contains("secret"), "{}", masked.command);
        assert!(masked.command.contains("--host db"), "{}", masked.command);
    }
}
