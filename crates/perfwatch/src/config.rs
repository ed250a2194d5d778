//! Configuration: one file (YAML, JSON or TOML), then the environment, then flags. Each error
//! names the key and where it stands.

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
