//! Configuration: one file (YAML, JSON or TOML), then the environment, then flags. Each error
//! names the key and where it stands.

mod load;
mod settings;

pub use load::{ConfigError, load};
pub use settings::{Duration, KEYS, LogFormat, LogSettings, Settings};

#[cfg(test)]
mod tests;
