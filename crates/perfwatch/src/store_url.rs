//! Address of the store as users write it.

use std::path::PathBuf;

/// Address of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// Data directory of an embedded SQLite database.
    Sqlite(PathBuf),
    /// Connection string of a PostgreSQL database, `postgres://user@host/database`.
    Postgres(String),
}

/// Text that is not the address of a store. Contains only the scheme, because the address may include a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid store {0:?}; expected sqlite:/path/to/directory or postgres://user@host/database")]
pub(crate) struct StoreUrlError(String);

impl std::str::FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
            return Ok(Self::Sqlite(path.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err(StoreUrlError(text.split(':').next().unwrap_or_default().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_urls_are_parsed_without_leaking_passwords() {
        assert_eq!("sqlite:/data/x".parse(), Ok(StoreUrl::Sqlite("/data/x".into())));
        assert_eq!("sqlite:///data/x".parse(), Ok(StoreUrl::Sqlite("/data/x".into())));
        assert!(matches!("postgres://a:b@c/d".parse(), Ok(StoreUrl::Postgres(_))));
        let error = "mysql://root:secret@x/y".parse::<StoreUrl>().unwrap_err().to_string();
        assert!(error.contains("mysql") && !error.contains("secret"), "{error}");
        assert!("sqlite:".parse::<StoreUrl>().is_err());
    }
}
