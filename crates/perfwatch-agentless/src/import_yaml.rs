//! Parser of server lists in YAML: a list of servers, or an inventory of Ansible.

use crate::import::ImportError;
use crate::import_entry::{CSV_COLUMNS, ImportEntry, MAX_ENTRIES, MAX_VALUE_BYTES, split_tags};
use crate::inventory::{Inventory, InventoryGroup};
use crate::yaml_values::{NamedItems, ShortText, line_of};
use serde::de::{
    Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};
use serde_saphyr::Spanned;
use std::fmt;

/// Maximum number of values that aliases (`*name`) repeat.
const MAX_REPEATED_VALUES: usize = 10_000;
/// Maximum depth of lists and mappings; a group in a group takes two levels.
const MAX_DEPTH: usize = 64;

/// Tags as a list, or as a text with separators.
#[derive(Default)]
struct TagList(Vec<String>);

impl<'de> Deserialize<'de> for TagList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TagsVisitor;

        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = TagList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tags")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TagList, E> {
                if text.len() > MAX_VALUE_BYTES {
                    return Err(E::custom(format!("value exceeds {MAX_VALUE_BYTES} bytes")));
                }
                Ok(TagList(split_tags(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<TagList, A::Error> {
                let mut tags = Vec::new();
                while let Some(ShortText(tag)) = items.next_element()? {
                    tags.push(tag);
                }
                Ok(TagList(tags))
            }
        }

        deserializer.deserialize_any(TagsVisitor)
    }
}

/// Server of a list.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServerFields {
    name: Option<ShortText>,
    address: Option<ShortText>,
    port: Option<ShortText>,
    user: Option<ShortText>,
    password: Option<ShortText>,
    jump: Option<ShortText>,
    tags: TagList,
    interval: Option<ShortText>,
}

/// Element of a list: an address alone, or a server.
struct ListedServer(Box<ServerFields>);

impl<'de> Deserialize<'de> for ListedServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ServerVisitor;

        impl<'de> Visitor<'de> for ServerVisitor {
            type Value = ListedServer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an address, or a mapping of {}", CSV_COLUMNS.join(", "))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ListedServer, E> {
                if text.len() > MAX_VALUE_BYTES {
                    return Err(E::custom(format!("value exceeds {MAX_VALUE_BYTES} bytes")));
                }
                let address = Some(ShortText(text.to_owned()));
                Ok(ListedServer(Box::new(ServerFields { address, ..ServerFields::default() })))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListedServer, A::Error> {
                ServerFields::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(ListedServer)
            }
        }

        deserializer.deserialize_any(ServerVisitor)
    }
}

/// Parsed text.
enum YamlDocument {
    List(Vec<Spanned<ListedServer>>),
    Inventory(NamedItems<InventoryGroup>),
}

impl<'de> Deserialize<'de> for YamlDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;

        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = YamlDocument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of servers, or an inventory of Ansible")
            }

            fn visit_unit<E: Error>(self) -> Result<YamlDocument, E> {
                Ok(YamlDocument::List(Vec::new()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<YamlDocument, A::Error> {
                let mut servers = Vec::new();
                while let Some(server) = items.next_element()? {
                    servers.push(server);
                }
                Ok(YamlDocument::List(servers))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<YamlDocument, A::Error> {
                NamedItems::from_map(map).map(YamlDocument::Inventory)
            }
        }

        deserializer.deserialize_any(DocumentVisitor)
    }
}

/// Parses a list of servers, or an inventory of Ansible whose groups become tags.
///
/// An element of a list is an address, or a mapping with the columns of a CSV table. An inventory is a mapping
/// of groups with `hosts`, `children` and `vars`.
///
/// # Errors
/// Returns an [`ImportError`] with the line of the first value that is not accepted, and for too many servers.
pub fn parse_yaml(text: &str) -> Result<Vec<ImportEntry>, ImportError> {
    let options = serde_saphyr::options! {
        // Many hosts may share a list of variables; the limit of repeated values bounds what aliases cost.
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPEATED_VALUES },
        with_snippet: false,
    };
    let document = serde_saphyr::from_str_with_options(text.trim_start_matches('\u{feff}'), options);
    match document.map_err(|error| malformed(&error))? {
        YamlDocument::List(servers) => list_entries(servers),
        YamlDocument::Inventory(groups) => Inventory::new(groups)?.entries(),
    }
}

fn malformed(error: &serde_saphyr::Error) -> ImportError {
    let message = error.without_snippet().to_string();
    let message = message.lines().next().unwrap_or_default();
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    ImportError::Malformed(match error.location() {
        Some(location) => format!("line {}: {message}", line_of(location)),
        None => message.to_owned(),
    })
}

fn list_entries(servers: Vec<Spanned<ListedServer>>) -> Result<Vec<ImportEntry>, ImportError> {
    if servers.len() > MAX_ENTRIES {
        return Err(ImportError::TooManyEntries);
    }
    let to_entry = |server: Spanned<ListedServer>| {
        let line = line_of(server.referenced);
        let fields = *server.value.0;
        let text = |value: Option<ShortText>| value.map(|text| text.0).filter(|text| !text.is_empty());
        let address = text(fields.address).ok_or(ImportError::MissingAddress(line))?;
        Ok(ImportEntry {
            line,
            name: text(fields.name).unwrap_or_else(|| address.clone()),
            address,
            port: text(fields.port),
            user: text(fields.user),
            password: text(fields.password),
            jump: text(fields.jump),
            tags: fields.tags.0,
            interval: text(fields.interval),
            error: None,
        })
    };
    servers.into_iter().map(to_entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn message(text: &str) -> String {
        parse_yaml(text)
            .map(|entries| format!("{} entries", entries.len()))
            .unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn list_has_addresses_and_servers() {
        let text = "\u{feff}# servers\n- 192.0.2.1\n- name: db-1\n  address: 2001:db8::7\n  port: 2222\n  user: 007\n  \
             password: yes\n  jump: gate\n  tags: [env=prod, db]\n  interval: 5m\n\
             - {address: web.example, tags: 'env=lab; web', name: }\n";
        let entry = |line, name: &str, address: &str| ImportEntry {
            line,
            name: name.to_owned(),
            address: address.to_owned(),
            ..ImportEntry::default()
        };
        let tags = |tags: [&str; 2]| tags.map(str::to_owned).to_vec();
        let text_of = |text: &str| Some(text.to_owned());
        assert_eq!(
            parse_yaml(text).unwrap(),
            [
                entry(2, "192.0.2.1", "192.0.2.1"),
                ImportEntry {
                    port: text_of("2222"),
                    user: text_of("007"),
                    password: text_of("yes"),
                    jump: text_of("gate"),
                    tags: tags(["env=prod", "db"]),
                    interval: text_of("5m"),
                    ..entry(3, "db-1", "2001:db8::7")
                },
                ImportEntry { tags: tags(["env=lab", "web"]), ..entry(11, "web.example", "web.example") },
            ]
        );
        for empty in ["", "# nothing\n", "---\n", "[]\n"] {
            assert_eq!(parse_yaml(empty), Ok(vec![]), "{empty:?}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (text, expected) in [
            ("- 192.0.2.1\n- name: x\n", "line 2: address is missing"),
            ("- address: x\n  adress: y\n", "line 2: "),
            ("- address: x\n  port: [1]\n", "line 2: "),
            ("- address: x\n  address: y\n", "line 2: "),
            ("- a\n- [b]\n", "line 2: "),
            ("- 'a\n", "line "),
            ("text", "invalid type: "),
            ("- a\n---\n- b\n", "line "),
            ("all:\n  hosts:\n    - a\n", "line 3: "),
            ("services:\n  web:\n    image: x\n", "line 2: "),
            ("- *a\n", "line 1: "),
        ] {
            let message = message(text);
            assert!(message.starts_with(expected), "{text:?}: {message}");
        }
        let unknown = message("- address: x\n  adress: y\n");
        assert!(unknown.contains("`adress`") && unknown.contains("interval"), "{unknown}");
        let service = message("services:\n  web:\n    image: x\n");
        assert!(service.contains("`web`") && service.contains("children"), "{service}");
    }

    #[test]
    fn repetition_and_depth_are_bounded() {
        let many = |count: usize| {
            (0..count).fold(String::new(), |mut text, n| {
                writeln!(text, "- h{n}").unwrap();
                text
            })
        };
        assert_eq!(message(&many(10_000)), "10000 entries");
        assert_eq!(parse_yaml(&many(10_001)), Err(ImportError::TooManyEntries));
        let long = format!("- address: x\n  user: {}\n", "u".repeat(1_025));
        assert_eq!(message(&long.replace(&"u".repeat(1_025), &"u".repeat(1_024))), "1 entries");
        assert!(
            message(&long).starts_with("line 2: ") && message(&long).contains("1024 bytes"),
            "{}",
            message(&long)
        );
        // Lists of lists, each of which repeats the one before.
        let bomb = (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(), |mut text, n| {
            let aliases = vec![format!("*a{}", n - 1); 8].join(", ");
            writeln!(text, "a{n}: &a{n} [{aliases}]").unwrap();
            text
        });
        assert!(
            message(&format!("all:\n  vars:\n    {}", bomb.trim_end().replace('\n', "\n    ")))
                .contains("alias")
        );
        let repeated = |count: usize| format!("- &a {{address: x}}\n{}", "- *a\n".repeat(count));
        assert_eq!(message(&repeated(2_000)), "2001 entries");
        assert!(message(&repeated(4_000)).contains("alias"), "{}", message(&repeated(4_000)));
        for deep in ["[".repeat(200), "- ".repeat(2_000) + "x", "a:\n".to_owned() + &"{a: ".repeat(100)] {
            assert!(parse_yaml(&deep).is_err());
        }
    }
}
