//! File, then environment, then flags, into [`Settings`].

use super::settings::Settings;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Why there are no settings.
#[derive(Debug)]
pub struct ConfigError {
    /// File and line, variable or flag.
    pub location: String,
    /// Dotted; empty where no key is at fault.
    pub key: String,
    /// What is wrong.
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
    place: impl Into<String>,
    key: &str,
    message: impl Into<String>,
) -> Result<T, ConfigError> {
    Err(ConfigError { location: place.into(), key: key.to_owned(), message: message.into() })
}

const PREFIX: &str = "PERFWATCH_";

/// Reads the file (named by flag or `PERFWATCH_CONFIG`; none is fine), then `PERFWATCH_*`,
/// then flags as `(key, value)`.
///
/// # Errors
/// The first thing that is no setting, with its place.
pub fn load(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[(&'static str, String)],
) -> Result<Settings, ConfigError> {
    let named =
        environment.iter().find(|(key, _)| key == "PERFWATCH_CONFIG").map(|(_, path)| PathBuf::from(path));
    let mut tree = match file.map(Path::to_owned).or(named) {
        Some(path) => read_file(&path)?,
        None => Value::Object(Map::new()),
    };
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let keys = leaf_keys(&defaults);
    for (name, text) in environment {
        let Some(rest) = name.strip_prefix(PREFIX).filter(|rest| *rest != "CONFIG") else {
            continue;
        };
        let Some(key) = keys.iter().find(|key| key.replace('.', "_").to_ascii_uppercase() == rest) else {
            return config_error(format!("environment, {name}"), "", "unknown setting; see docs/CONFIG.md");
        };
        apply_override(&mut tree, &defaults, key, text, &format!("environment, {name}"))?;
    }
    for (key, text) in flags {
        apply_override(&mut tree, &defaults, key, text, "command line")?;
    }
    serde_path_to_error::deserialize(tree).or_else(|error| {
        let key = error.path().to_string();
        config_error("settings", &key, error.inner().to_string())
    })
}

/// Dotted keys of all settings. Lists and maps are one setting each.
pub(super) fn leaf_keys(value: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(value, &below, out);
                }
            }
            _ => out.push(path.to_owned()),
        }
    }
    let mut out = Vec::new();
    walk(value, "", &mut out);
    out
}

/// Sets one key from text, and checks it at once, so that the error can name its place.
fn apply_override(
    tree: &mut Value,
    defaults: &Value,
    key: &str,
    text: &str,
    place: &str,
) -> Result<(), ConfigError> {
    let default = key.split('.').try_fold(defaults, |value, part| value.get(part)).unwrap_or(&Value::Null);
    let list = || text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let value = match default {
        Value::Array(_) => list().map(Value::from).collect(),
        Value::Object(_) => {
            let pair = |word: &str| {
                word.split_once('=').map(|(name, value)| (name.trim().to_owned(), Value::from(value.trim())))
            };
            match list().map(pair).collect::<Option<Map<_, _>>>() {
                Some(map) => Value::Object(map),
                None => return config_error(place, key, "expected name=value,name=value"),
            }
        }
        Value::Number(_) => match text.trim().parse::<u64>() {
            Ok(number) => number.into(),
            Err(_) => return config_error(place, key, format!("expected a whole number, found {text:?}")),
        },
        Value::Null if text.is_empty() => Value::Null,
        _ => text.into(),
    };
    let mut alone = Value::Object(Map::new());
    set_key(&mut alone, key, value.clone());
    if let Err(error) = serde_json::from_value::<Settings>(alone) {
        return config_error(place, key, error.to_string());
    }
    set_key(tree, key, value);
    Ok(())
}

fn set_key(tree: &mut Value, key: &str, value: Value) {
    let mut here = tree;
    for part in key.split('.') {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        let Value::Object(map) = here else { return };
        here = map.entry(part).or_insert(Value::Null);
    }
    *here = value;
}

/// A problem with a file's text, before it is known which key it is about.
struct ParseError {
    line: Option<usize>,
    message: String,
}

fn read_file(path: &Path) -> Result<Value, ConfigError> {
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).or_else(|error| config_error(&place, "", error.to_string()))?;
    let kind = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let problem = match kind {
        "yaml" | "yml" => yaml::<Settings>(&text).map(|_| ()),
        "json" => json::<Settings>(&text).map(|_| ()),
        "toml" => from_toml::<Settings>(&text).map(|_| ()),
        _ => {
            return config_error(place, "", "a configuration file ends in .yaml, .yml, .json or .toml");
        }
    };
    let tree = match kind {
        "json" => json::<Value>(&text),
        "toml" => from_toml::<Value>(&text),
        _ => yaml::<Value>(&text),
    };
    // An empty YAML file is an empty configuration.
    let tree = tree.map(|tree| if tree.is_null() { Value::Object(Map::new()) } else { tree });
    match (problem, tree) {
        (Ok(()), Ok(tree)) => Ok(tree),
        (Err(_), Ok(tree)) if tree.as_object().is_some_and(Map::is_empty) => Ok(tree),
        (Err(problem), tree) => {
            // The typed read knows the line, the tree knows the key.
            let typed =
                tree.ok().and_then(|tree| serde_path_to_error::deserialize::<_, Settings>(tree).err());
            let key = typed
                .as_ref()
                .map(|error| error.path().to_string())
                .filter(|path| path != ".")
                .unwrap_or_default();
            let message = typed.map_or(problem.message, |error| error.inner().to_string());
            config_error(
                problem.line.map_or(place.clone(), |line| format!("{place}, line {line}")),
                &key,
                message,
            )
        }
        (Ok(()), Err(problem)) => config_error(place, "", problem.message),
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
