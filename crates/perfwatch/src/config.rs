//! Configuration: one file (YAML, JSON or TOML), then environment variables, then flags. Each
//! error names the key and its location.

mod convert;
mod environment;
mod load;
mod settings;
mod values;

pub(crate) use load::config_file;
pub use load::{ConfigError, load, load_with_warnings, parse_text};
#[cfg(feature = "hub")]
pub(crate) use settings::OidcSettings;
pub use settings::{LogFormat, LogSettings, SETTINGS, SettingOrigin, Settings};
pub use values::{Bytes, Duration, Secret};

#[cfg(test)]
mod tests;
