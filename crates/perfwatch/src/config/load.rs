//! Merges file, environment variables and flags into [`Settings`].

use super::environment::{OTHER_VARIABLES, PREFIX, VariableKind, classify};
use super::settings::{SettingOrigin, Settings};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Invalid configuration, with its location.
#[derive(Debug)]
pub struct ConfigError {
    /// File and line, environment variable or `command line`.
    pub location: String,
    /// Dotted key; empty if the error is not about one key.
    pub key: String,
    /// Cause and expected value.
    pub message: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        write!(f, "{}: {key}{}", self.location, self.message)
    }
}

impl std::error::Error for ConfigError {}

fn config_error<T>(
    location: impl Into<String>,
    key: &str,
    message: impl Into<String>,
) -> Result<T, ConfigError> {
    Err(ConfigError { location: location.into(), key: key.to_owned(), message: message.into() })
}

/// Reads the settings as [`load_with_warnings`], without the warnings.
///
/// # Errors
/// Returns the first unknown key or invalid value, with its location.
pub fn load(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[(&'static str, String)],
) -> Result<Settings, ConfigError> {
    load_with_warnings(file, environment, flags).map(|(settings, _)| settings)
}

/// Path of the configuration file: from the flag or `PERFWATCH_CONFIG`.
pub(crate) fn config_file(file: Option<&Path>, environment: &[(String, String)]) -> Option<PathBuf> {
    let config = environment.iter().find(|(key, path)| key == "PERFWATCH_CONFIG" && !path.trim().is_empty());
    file.map(Path::to_owned).or_else(|| config.map(|(_, path)| PathBuf::from(path)))
}

/// Reads the file (from the flag or `PERFWATCH_CONFIG`, optional), then `PERFWATCH_*` variables,
/// then flags as `(key, value)`. Later sources override earlier sources. Returns the settings, and a warning
/// for each variable that is no setting.
///
/// An empty variable clears a list, a map or an optional setting; otherwise it is the same as an absent
/// variable. Variables of service links are ignored.
///
/// # Errors
/// Returns the first unknown key or invalid value, with its location.
pub fn load_with_warnings(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[(&'static str, String)],
) -> Result<(Settings, Vec<String>), ConfigError> {
    let mut warnings = Vec::new();
    let mut tree = match config_file(file, environment) {
        Some(path) => read_file(&path)?,
        None => Value::Object(Map::new()),
    };
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let keys = leaf_keys(&defaults);
    let in_file = leaf_keys(&tree).into_iter().filter(|key| !key.is_empty());
    let mut sources: BTreeMap<String, SettingOrigin> =
        in_file.map(|key| (key, SettingOrigin::File)).collect();
    for (name, text) in environment {
        let Some(suffix) = name.strip_prefix(PREFIX).filter(|suffix| !OTHER_VARIABLES.contains(suffix))
        else {
            continue;
        };
        let location = format!("environment, {name}");
        match classify(suffix, text, &keys) {
            VariableKind::Setting(key) if text.trim().is_empty() && !can_be_empty(&defaults, key) => {}
            VariableKind::Setting(key) => {
                apply_override(&mut tree, &defaults, key, text, &location)?;
                sources.insert(key.to_owned(), SettingOrigin::Environment);
            }
            VariableKind::ServiceLink => {}
            VariableKind::Misspelled(known) => {
                return config_error(location, "", format!("unknown setting; did you mean {known}?"));
            }
            VariableKind::Unknown(None) => {
                warnings.push(format!("{name}: unknown setting; see docs/CONFIG.md"));
            }
            VariableKind::Unknown(Some(known)) => {
                warnings.push(format!("{name}: unknown setting; did you mean {known}?"));
            }
        }
    }
    for (key, text) in flags {
        apply_override(&mut tree, &defaults, key, text, "command line")?;
        sources.insert((*key).to_owned(), SettingOrigin::CommandLine);
    }
    let mut settings: Settings = serde_path_to_error::deserialize(tree).or_else(|error| {
        let key = error.path().to_string();
        config_error("settings", &key, error.inner().to_string())
    })?;
    settings.sources = sources;
    // An empty path would be the current directory.
    let agent = &settings.agent;
    let paths = [
        ("data", &settings.data),
        ("agent.procfs", &agent.procfs),
        ("agent.sysfs", &agent.sysfs),
        ("agent.rootfs", &agent.rootfs),
    ];
    match paths.iter().find(|(_, path)| path.as_os_str().is_empty()) {
        Some((key, _)) => {
            config_error("settings", key, "must not be empty; expected the path of a directory")
        }
        None => Ok((settings, warnings)),
    }
}

/// Returns whether the setting is a list, a map or optional.
fn can_be_empty(defaults: &Value, key: &str) -> bool {
    let default = key.split('.').try_fold(defaults, |value, part| value.get(part));
    matches!(default, None | Some(Value::Array(_) | Value::Object(_) | Value::Null))
}

/// Returns the dotted keys of all settings. A list or a map is one setting.
pub(super) fn leaf_keys(value: &Value) -> Vec<String> {
    fn collect_keys(value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    collect_keys(value, &child, out);
                }
            }
            _ => out.push(path.to_owned()),
        }
    }
    let mut out = Vec::new();
    collect_keys(value, "", &mut out);
    out
}

/// Sets one key from text and validates it at once, so that the error can name its location.
fn apply_override(
    tree: &mut Value,
    defaults: &Value,
    key: &str,
    text: &str,
    location: &str,
) -> Result<(), ConfigError> {
    let default = key.split('.').try_fold(defaults, |value, part| value.get(part)).unwrap_or(&Value::Null);
    let list = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let value = match default {
        Value::Array(_) => list().map(Value::from).collect(),
        Value::Object(_) => {
            let pair = |item: &str| {
                item.split_once('=').map(|(name, value)| (name.trim().to_owned(), Value::from(value.trim())))
            };
            match list().map(pair).collect::<Option<Map<_, _>>>() {
                Some(map) => Value::Object(map),
                None => return config_error(location, key, "expected name=value,name=value"),
            }
        }
        Value::Number(_) => match text.trim().parse::<u64>() {
            Ok(number) => number.into(),
            Err(_) => return config_error(location, key, format!("expected a whole number, found {text:?}")),
        },
        Value::Null if text.is_empty() => Value::Null,
        _ => text.into(),
    };
    let mut single = Value::Object(Map::new());
    set_key(&mut single, key, value.clone());
    if let Err(error) = serde_json::from_value::<Settings>(single) {
        return config_error(location, key, error.to_string());
    }
    set_key(tree, key, value);
    Ok(())
}

fn set_key(tree: &mut Value, key: &str, value: Value) {
    let mut node = tree;
    for part in key.split('.') {
        if !node.is_object() {
            *node = Value::Object(Map::new());
        }
        let Value::Object(map) = node else { return };
        node = map.entry(part).or_insert(Value::Null);
    }
    *node = value;
}

/// Parse error of a file, before its key is known.
struct ParseError {
    line: Option<usize>,
    message: String,
}

/// Settings of the text of a configuration file, by the extension of its name.
///
/// # Errors
/// Returns the first unknown key or invalid value, with its line after `location`.
pub fn parse_text(location: &str, extension: &str, text: &str) -> Result<Settings, ConfigError> {
    let tree = parse_tree(location, extension, text)?;
    serde_path_to_error::deserialize(tree)
        .or_else(|error| config_error(location, &error.path().to_string(), error.inner().to_string()))
}

fn read_file(path: &Path) -> Result<Value, ConfigError> {
    let location = path.display().to_string();
    let text =
        std::fs::read_to_string(path).or_else(|error| config_error(&location, "", error.to_string()))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    parse_tree(&location, extension, &text)
}

fn parse_tree(location: &str, extension: &str, text: &str) -> Result<Value, ConfigError> {
    let checked = match extension {
        "yaml" | "yml" => yaml::<Settings>(text).map(|_| ()),
        "json" => json::<Settings>(text).map(|_| ()),
        "toml" => from_toml::<Settings>(text).map(|_| ()),
        _ => {
            return config_error(location, "", "a configuration file ends in .yaml, .yml, .json or .toml");
        }
    };
    let tree = match extension {
        "json" => json::<Value>(text),
        "toml" => from_toml::<Value>(text),
        _ => yaml::<Value>(text),
    };
    // An empty YAML file is an empty configuration.
    let tree = tree.map(|tree| if tree.is_null() { Value::Object(Map::new()) } else { tree });
    match (checked, tree) {
        (Ok(()), Ok(tree)) => Ok(tree),
        (Err(_), Ok(tree)) if tree.as_object().is_some_and(Map::is_empty) => Ok(tree),
        (Err(error), tree) => {
            // The typed parser reports the line, the tree reports the key.
            let typed =
                tree.ok().and_then(|tree| serde_path_to_error::deserialize::<_, Settings>(tree).err());
            let key = typed
                .as_ref()
                .map(|error| error.path().to_string())
                .filter(|path| path != ".")
                .unwrap_or_default();
            let message = typed.map_or(error.message, |error| error.inner().to_string());
            config_error(
                error.line.map_or(location.to_owned(), |line| format!("{location}, line {line}")),
                &key,
                message,
            )
        }
        (Ok(()), Err(error)) => config_error(location, "", error.message),
    }
}

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ParseError> {
    serde_saphyr::from_str(text).map_err(|error| ParseError {
        line: error.location().map(|location| usize::try_from(location.line()).unwrap_or_default()),
        message: first_line(&error.to_string()),
    })
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ParseError> {
    serde_json::from_str(text)
        .map_err(|error| ParseError { line: Some(error.line()), message: error.to_string() })
}

fn from_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ParseError> {
    toml::from_str(text).map_err(|error| ParseError {
        line: error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
        message: error.message().to_owned(),
    })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
