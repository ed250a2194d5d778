//! Inventories of Ansible in YAML: groups with hosts, children and variables.
//!
//! Templates (`{{ … }}`) are not evaluated, and files beside the inventory are not read.

use crate::import::{ImportEntry, ImportError, MAX_ENTRIES, jump_host};
use crate::yaml_values::{NamedItem, NamedItems, ShortText};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Maximum number of mentions of hosts in all groups; a range mentions many.
const MAX_HOST_MENTIONS: usize = 50_000;
/// Maximum size of all texts of the servers: hosts repeat the variables and names of their groups.
const MAX_ENTRIES_BYTES: usize = 16 << 20;
/// Maximum number of groups of a host that are followed. A host has at most 32 tags, and two groups are no tags:
/// a host of so many groups is invalid.
const MAX_HOST_GROUPS: usize = 35;
/// Group of all hosts.
const ROOT_GROUP: &str = "all";
/// Groups that are no tags.
const IMPLICIT_GROUPS: [&str; 2] = [ROOT_GROUP, "ungrouped"];
/// Connections that are SSH.
const SSH_CONNECTIONS: [&str; 4] = ["ssh", "smart", "paramiko", "paramiko_ssh"];

/// Variables of hosts and groups that are imported. Others are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct InventoryVars {
    #[serde(rename = "ansible_host", alias = "ansible_ssh_host")]
    host: Option<ShortText>,
    #[serde(rename = "ansible_port", alias = "ansible_ssh_port")]
    port: Option<ShortText>,
    #[serde(rename = "ansible_user", alias = "ansible_ssh_user")]
    user: Option<ShortText>,
    #[serde(rename = "ansible_password", alias = "ansible_ssh_pass", alias = "ansible_ssh_password")]
    password: Option<ShortText>,
    #[serde(rename = "ansible_ssh_common_args")]
    ssh_args: Option<ShortText>,
    #[serde(rename = "ansible_connection")]
    connection: Option<ShortText>,
    #[serde(rename = "ansible_group_priority")]
    priority: Option<ShortText>,
}

/// Group of an inventory.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InventoryGroup {
    hosts: Option<NamedItems<InventoryVars>>,
    children: Option<NamedItems<InventoryGroup>>,
    vars: Option<InventoryVars>,
}

struct GroupNode {
    name: String,
    line: usize,
    parents: Vec<usize>,
    vars: Vec<InventoryVars>,
}

struct HostNode {
    name: String,
    line: usize,
    /// Port after the name.
    port: Option<String>,
    groups: Vec<usize>,
    vars: Vec<Arc<InventoryVars>>,
}

/// Groups and hosts, each once, however often the text names them.
#[derive(Default)]
pub(crate) struct Inventory {
    groups: Vec<GroupNode>,
    group_indexes: HashMap<String, usize>,
    hosts: Vec<HostNode>,
    host_indexes: HashMap<String, usize>,
    mentions: usize,
}

impl Inventory {
    pub(crate) fn new(groups: NamedItems<InventoryGroup>) -> Result<Self, ImportError> {
        let mut inventory = Self::default();
        let root = inventory.group_index(ROOT_GROUP, 0);
        for group in groups.0 {
            // The root group may be left out.
            let parent = (group.name != ROOT_GROUP).then_some(root);
            inventory.add_group(group, parent)?;
        }
        Ok(inventory)
    }

    fn group_index(&mut self, name: &str, line: usize) -> usize {
        if let Some(index) = self.group_indexes.get(name) {
            return *index;
        }
        let index = self.groups.len();
        self.groups.push(GroupNode { name: name.to_owned(), line, parents: Vec::new(), vars: Vec::new() });
        self.group_indexes.insert(name.to_owned(), index);
        index
    }

    /// Adds a group with its hosts and children. The depth of the text limits the recursion.
    fn add_group(
        &mut self,
        group: NamedItem<InventoryGroup>,
        parent: Option<usize>,
    ) -> Result<(), ImportError> {
        let index = self.group_index(&group.name, group.line);
        self.groups[index].parents.extend(parent);
        let Some(body) = group.item else { return Ok(()) };
        self.groups[index].vars.extend(body.vars);
        for host in body.hosts.into_iter().flat_map(|hosts| hosts.0) {
            self.add_hosts(host, index)?;
        }
        for child in body.children.into_iter().flat_map(|children| children.0) {
            self.add_group(child, Some(index))?;
        }
        Ok(())
    }

    /// Adds a host, or those of a range, to a group.
    fn add_hosts(&mut self, host: NamedItem<InventoryVars>, group: usize) -> Result<(), ImportError> {
        let names = expand_ranges(&host.name).ok_or(ImportError::TooManyEntries)?;
        self.mentions += names.len();
        if self.mentions > MAX_HOST_MENTIONS {
            return Err(ImportError::TooManyEntries);
        }
        let vars = Arc::new(host.item.unwrap_or_default());
        for name in names {
            let (name, port) = split_port(&name);
            let index = *self.host_indexes.entry(name.to_owned()).or_insert(self.hosts.len());
            if index == self.hosts.len() {
                let (name, line) = (name.to_owned(), host.line);
                self.hosts.push(HostNode { name, line, port: None, groups: Vec::new(), vars: Vec::new() });
            }
            let node = &mut self.hosts[index];
            node.port = port.map(str::to_owned).or(node.port.take());
            node.groups.push(group);
            node.vars.push(vars.clone());
        }
        if self.hosts.len() > MAX_ENTRIES {
            return Err(ImportError::TooManyEntries);
        }
        Ok(())
    }

    /// Groups in an order in which parents come before their children.
    fn sorted_groups(&self) -> Result<Vec<usize>, ImportError> {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.groups.len()];
        let mut open_parents: Vec<usize> = self.groups.iter().map(|group| group.parents.len()).collect();
        for (index, group) in self.groups.iter().enumerate() {
            group.parents.iter().for_each(|parent| children[*parent].push(index));
        }
        let is_root = |index: &usize| open_parents[*index] == 0;
        let mut queue: VecDeque<usize> = (0..self.groups.len()).filter(is_root).collect();
        let mut sorted = Vec::new();
        while let Some(index) = queue.pop_front() {
            sorted.push(index);
            for child in &children[index] {
                open_parents[*child] -= 1;
                if open_parents[*child] == 0 {
                    queue.push_back(*child);
                }
            }
        }
        match (0..self.groups.len()).find(|index| open_parents[*index] > 0) {
            None => Ok(sorted),
            Some(index) => {
                let GroupNode { line, name, .. } = &self.groups[index];
                Err(ImportError::GroupCycle(*line, name.clone()))
            }
        }
    }

    /// Each group with its ancestors, in the order in which their variables apply: a child replaces the values of
    /// its parents, and a higher priority those of its siblings.
    fn lineages(&self) -> Result<(Vec<BTreeSet<usize>>, Vec<usize>), ImportError> {
        let sorted = self.sorted_groups()?;
        let mut depths = vec![0_usize; self.groups.len()];
        let mut lineages = vec![BTreeSet::new(); self.groups.len()];
        for index in &sorted {
            let parents = &self.groups[*index].parents;
            depths[*index] = parents.iter().map(|parent| depths[*parent] + 1).max().unwrap_or(0);
            let mut lineage: BTreeSet<usize> = BTreeSet::from([*index]);
            for parent in parents {
                lineage.extend(lineages[*parent].iter().copied().take(MAX_HOST_GROUPS));
                lineage = lineage.into_iter().take(MAX_HOST_GROUPS).collect();
            }
            lineages[*index] = lineage;
        }
        let priority = |index: usize| {
            let vars = self.groups[index].vars.iter().rev();
            let text = vars.filter_map(|vars| vars.priority.as_ref()).next();
            text.and_then(|text| text.0.parse::<i64>().ok()).unwrap_or(1)
        };
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order
            .sort_by_cached_key(|index| (depths[*index], priority(*index), self.groups[*index].name.clone()));
        let mut ranks = vec![0; order.len()];
        order.iter().enumerate().for_each(|(rank, index)| ranks[*index] = rank);
        Ok((lineages, ranks))
    }

    /// Hosts with the variables and names of their groups.
    pub(crate) fn entries(&self) -> Result<Vec<ImportEntry>, ImportError> {
        let (lineages, ranks) = self.lineages()?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for host in &self.hosts {
            let mut groups = BTreeSet::new();
            for group in &host.groups {
                groups.extend(lineages[*group].iter().copied());
                if groups.len() > MAX_HOST_GROUPS {
                    break;
                }
            }
            let mut groups: Vec<usize> = groups.into_iter().collect();
            groups.sort_by_key(|group| ranks[*group]);
            let entry = self.to_entry(host, &groups);
            bytes += entry.text_bytes();
            if bytes > MAX_ENTRIES_BYTES {
                return Err(ImportError::TooLarge);
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn to_entry(&self, host: &HostNode, groups: &[usize]) -> ImportEntry {
        // The last value counts.
        let vars = |field: fn(&InventoryVars) -> &Option<ShortText>| {
            let of_host = host.vars.iter().rev().map(|vars| field(vars).as_ref());
            let of_groups = groups.iter().rev().flat_map(|group| self.groups[*group].vars.iter().rev());
            let value = of_host.chain(of_groups.map(|vars| field(vars).as_ref())).flatten().next();
            value.map(|text| text.0.clone()).filter(|text| !text.is_empty())
        };
        let ssh_args = vars(|vars| &vars.ssh_args).unwrap_or_default();
        let unsupported =
            vars(|vars| &vars.connection).filter(|name| !SSH_CONNECTIONS.contains(&name.as_str()));
        let error = match unsupported {
            Some(connection) => Some(format!("ansible_connection: {connection:?} is not SSH")),
            None if ssh_args.to_ascii_lowercase().contains("proxycommand") => {
                Some("ansible_ssh_common_args: ProxyCommand is not supported; use ProxyJump".to_owned())
            }
            None => None,
        };
        let names = groups.iter().map(|group| self.groups[*group].name.as_str());
        let mut tags: Vec<String> =
            names.filter(|name| !IMPLICIT_GROUPS.contains(name)).map(str::to_owned).collect();
        tags.sort_unstable();
        ImportEntry {
            line: host.line,
            name: host.name.clone(),
            address: vars(|vars| &vars.host).unwrap_or_else(|| host.name.clone()),
            port: vars(|vars| &vars.port).or_else(|| host.port.clone()),
            user: vars(|vars| &vars.user),
            password: vars(|vars| &vars.password).filter(|text| is_plain_password(text)),
            jump: proxy_jump(&ssh_args),
            tags,
            interval: None,
            error,
        }
    }
}

/// Returns whether a text is a password, neither encrypted by Ansible Vault nor a template.
fn is_plain_password(text: &str) -> bool {
    !text.starts_with("$ANSIBLE_VAULT") && !text.contains("{{")
}

/// Jump host in arguments of ssh(1): `-J gate`, `-o ProxyJump=gate`.
fn proxy_jump(args: &str) -> Option<String> {
    let mut words = args.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    while let Some(word) = words.next() {
        let (flag, rest) = word.split_at_checked(2).unwrap_or((word, ""));
        let mut value = || if rest.is_empty() { words.next() } else { Some(rest) };
        let jump = match flag {
            "-J" => value(),
            "-o" => value().and_then(|option| {
                let (name, value) = option.split_once('=')?;
                name.eq_ignore_ascii_case("proxyjump").then_some(value)
            }),
            _ => None,
        };
        if let Some(jump) = jump {
            return jump_host(jump.trim_matches(['"', '\'']));
        }
    }
    None
}

/// Splits `name:port` and `[address]:port`. An IPv6 address without brackets has no port.
fn split_port(name: &str) -> (&str, Option<&str>) {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match name.rsplit_once(':') {
        Some((host, port)) if is_port(port) && (host.ends_with(']') || !host.contains(':')) => {
            (host.trim_matches(['[', ']']), Some(port))
        }
        _ => (name.trim_matches(['[', ']']), None),
    }
}

/// Names of a pattern such as `web[01:20].example`, at most [`MAX_ENTRIES`]; `None` for more.
fn expand_ranges(pattern: &str) -> Option<Vec<String>> {
    let (mut names, mut rest) = (vec![String::new()], pattern);
    while let Some((start, end)) = find_brackets(rest) {
        let (literal, values) = match range_values(&rest[start + 1..end]) {
            None => (&rest[..=end], vec![String::new()]),
            Some(values) => (&rest[..start], values?),
        };
        if names.len() * values.len() > MAX_ENTRIES {
            return None;
        }
        let extend =
            |name: &String| values.iter().map(move |value| format!("{name}{literal}{value}")).collect();
        names = names.iter().flat_map::<Vec<String>, _>(extend).collect();
        rest = &rest[end + 1..];
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Some(names)
}

fn find_brackets(text: &str) -> Option<(usize, usize)> {
    let start = text.find('[')?;
    Some((start, start + text[start..].find(']')?))
}

/// Values of `from:to` or `from:to:step`, numbers or letters. `None` if the text is no range, and
/// `Some(None)` for too many values.
fn range_values(text: &str) -> Option<Option<Vec<String>>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, step) = match parts.as_slice() {
        [from, to] => (*from, *to, 1),
        [from, to, step] => (*from, *to, step.parse().ok().filter(|step| *step > 0)?),
        _ => return None,
    };
    let letter = |text: &str| {
        let mut bytes = text.bytes();
        bytes.next().filter(|byte| byte.is_ascii_alphabetic() && bytes.next().is_none())
    };
    if let (Some(from), Some(to)) = (letter(from), letter(to)) {
        let is_same_case = from.is_ascii_lowercase() == to.is_ascii_lowercase();
        let values = (from..=to).step_by(step).map(|byte| char::from(byte).to_string());
        return (from <= to && is_same_case).then(|| Some(values.collect()));
    }
    let number =
        |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = (number(from)?, number(to)?);
    if first > last {
        return None;
    }
    let width = if from.starts_with('0') { from.len() } else { 0 };
    let values = (first..=last).step_by(step);
    if values.clone().take(MAX_ENTRIES + 1).count() > MAX_ENTRIES {
        return Some(None);
    }
    Some(Some(values.map(|value| format!("{value:0width$}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import_yaml::parse_yaml;
    use std::fmt::Write as _;

    fn parse(text: &str) -> Vec<ImportEntry> {
        parse_yaml(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn groups_become_tags_and_their_variables_apply() {
        let text = "all:\n  vars: {ansible_user: root, ansible_port: 22, site: {nested: [1, 2]}}\n  hosts:\n    \
             gate:\n      ansible_host: 192.0.2.1\n  children:\n    prod:\n      vars:\n        \
             ansible_user: deploy\n        ansible_ssh_common_args: '-o ConnectTimeout=5 -o ProxyJump=admin@gate:22'\n      \
             children:\n        web:\n          hosts:\n            web-[01:03:2].example:\n            \
             cache:\n              ansible_port: 2200\n        db:\n          vars: {ansible_user: dba, ansible_password: 0123}\n          \
             hosts: {db-1: {ansible_host: 192.0.2.9}}\n    web:\n      vars: {ansible_group_priority: 5, ansible_user: www}\nextra:\n  \
             hosts:\n    cache:\n";
        let entry = |line, name: &str, address: &str, user: &str, port: &str, tags: &[&str]| ImportEntry {
            line,
            name: name.to_owned(),
            address: address.to_owned(),
            user: Some(user.to_owned()),
            port: Some(port.to_owned()),
            jump: (name != "gate").then(|| "gate".to_owned()),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..ImportEntry::default()
        };
        assert_eq!(
            parse(text),
            [
                entry(4, "gate", "192.0.2.1", "root", "22", &[]),
                entry(14, "web-01.example", "web-01.example", "www", "22", &["prod", "web"]),
                entry(14, "web-03.example", "web-03.example", "www", "22", &["prod", "web"]),
                entry(15, "cache", "cache", "www", "2200", &["extra", "prod", "web"]),
                ImportEntry {
                    password: Some("0123".to_owned()),
                    ..entry(19, "db-1", "192.0.2.9", "dba", "22", &["db", "prod"])
                },
            ]
        );
    }

    #[test]
    fn unsupported_connections_and_secrets_are_left_out() {
        let host = |vars: &str| parse(&format!("all: {{hosts: {{x: {{{vars}}}}}}}")).remove(0);
        for (vars, expected) in [
            ("ansible_connection: local", Some("ansible_connection: \"local\" is not SSH")),
            (
                "ansible_ssh_common_args: '-o ProxyCommand=\"ssh -W %h:%p gate\"'",
                Some("ansible_ssh_common_args: ProxyCommand is not supported; use ProxyJump"),
            ),
            ("ansible_connection: ssh", None),
            ("ansible_become_password: x, ansible_ssh_private_key_file: /k", None),
        ] {
            assert_eq!((host(vars).error.as_deref(), host(vars).password), (expected, None), "{vars}");
        }
        let vault = "all:\n  hosts:\n    x:\n      ansible_password: !vault |\n        $ANSIBLE_VAULT;1.1;AES256\n        6162\n";
        assert_eq!(parse(vault)[0].password, None);
        assert_eq!(host("ansible_ssh_pass: '{{ secret }}'").password, None);
        assert_eq!(host("ansible_ssh_pass: yes").password.as_deref(), Some("yes"));
        for (args, expected) in [
            ("-J gate", Some("gate")),
            ("-Jroot@gate:22,inner", Some("inner")),
            ("-C -o proxyjump=gate -q", Some("gate")),
            ("'-oProxyJump=gate'", Some("gate")),
            ("-o User=x", None),
            ("-J", None),
            ("", None),
        ] {
            assert_eq!(proxy_jump(args).as_deref(), expected, "{args}");
        }
    }

    #[test]
    fn names_have_ranges_and_ports() {
        let names = |pattern: &str| expand_ranges(pattern).map(|names| names.join(" "));
        for (pattern, expected) in [
            ("web", Some("web")),
            ("web[1:3]", Some("web1 web2 web3")),
            ("web[08:10].x", Some("web08.x web09.x web10.x")),
            ("db-[a:c]", Some("db-a db-b db-c")),
            ("r[1:2]n[a:b]", Some("r1na r1nb r2na r2nb")),
            ("[2001:db8::1]:22", Some("[2001:db8::1]:22")),
            ("x[3:1]", Some("x[3:1]")),
            ("x[1:3:0]", Some("x[1:3:0]")),
            ("x[a:C]", Some("x[a:C]")),
            ("x]1:2[", Some("x]1:2[")),
            ("x[0:10000]", None),
            ("x[1:101][1:100]", None),
            ("x[0:4294967295]", None),
        ] {
            assert_eq!(names(pattern).as_deref(), expected, "{pattern}");
        }
        for (name, expected) in [
            ("web", ("web", None)),
            ("web:2222", ("web", Some("2222"))),
            ("[2001:db8::1]:22", ("2001:db8::1", Some("22"))),
            ("2001:db8::1", ("2001:db8::1", None)),
            ("web:x", ("web:x", None)),
        ] {
            assert_eq!(split_port(name), expected);
        }
    }

    #[test]
    fn cycles_and_amplification_are_rejected() {
        let cycle = "a:\n  children:\n    b:\nb:\n  children:\n    a:\n";
        assert_eq!(parse_yaml(cycle), Err(ImportError::GroupCycle(1, "a".to_owned())));
        assert!(parse_yaml("all: {children: {all: {children: {all: }}}}").is_err());
        let hosts = |count: usize| {
            format!("all: {{hosts: {{'h[1:{count}]': {{ansible_user: {}}}}}}}", "u".repeat(1_024))
        };
        assert_eq!(parse_yaml(&hosts(10_000)).map(|entries| entries.len()), Ok(10_000));
        assert_eq!(parse_yaml(&hosts(10_001)), Err(ImportError::TooManyEntries));
        let groups = |count: usize, group: &str| {
            (0..count).fold(String::new(), |mut text, n| {
                writeln!(text, "g{n}: {group}").unwrap();
                text
            })
        };
        assert_eq!(parse_yaml(&groups(6, "{hosts: {'h[1:10000]': }}")), Err(ImportError::TooManyEntries));
        assert_eq!(
            parse_yaml(&groups(5, "{hosts: {'h[1:10000]': }}")).map(|entries| entries.len()),
            Ok(10_000)
        );
        let both = hosts(10_000)
            .replace("ansible_user", &format!("ansible_host: {}, ansible_user", "a".repeat(1_000)));
        assert_eq!(parse_yaml(&both), Err(ImportError::TooLarge));
        // A chain of groups: the host has more groups than it can have tags.
        let chain = (0..2_000).fold(String::new(), |mut text, n| {
            writeln!(text, "g{n}: {{children: {{g{}: }}}}", n + 1).unwrap();
            text
        });
        let entries = parse(&format!("{chain}g2000: {{hosts: {{x: }}}}\n"));
        assert!((33..=MAX_HOST_GROUPS).contains(&entries[0].tags.len()));
    }
}
