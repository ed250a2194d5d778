//! Configuration: one file (YAML, JSON or TOML), then environment variables, then flags. Each
//! error names the key and its location.

mod convert;
mod load;
mod settings;
mod values;

pub use load::{ConfigError, load};
#[cfg(feature = "hub")]
pub(crate) use settings::OidcSettings;
pub use settings::{LogFormat, LogSettings, SETTINGS, Settings};
pub use values::{Bytes, Duration, Secret};

#[cfg(test)]
mod tests;
