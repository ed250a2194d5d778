//! Where history is kept, as a user writes it.

use std::path::PathBuf;

/// A store's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A folder of our own.
    Sqlite(PathBuf),
    /// A connection string, `postgres://user@host/database`.
    Postgres(String),
}

/// Text that is no store's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid store {0:?}; expected sqlite:/path/to/directory or postgres://user@host/database")]
pub struct StoreUrlError(String);

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
        // A password may be in it: only what stands before the first colon is said again.
        Err(StoreUrlError(text.split(':').next().unwrap_or_default().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_urls() {
        assert_eq!("sqlite:/data/x".parse(), Ok(StoreUrl::Sqlite("/data/x".into())));
        assert_eq!("sqlite:///data/x".parse(), Ok(StoreUrl::Sqlite("/data/x".into())));
        assert!(matches!("postgres://a:b@c/d".parse(), Ok(StoreUrl::Postgres(_))));
        let wrong = "mysql://root:secret@x/y".parse::<StoreUrl>().unwrap_err().to_string();
        assert!(wrong.contains("mysql") && !wrong.contains("secret"), "{wrong}");
        assert!("sqlite:".parse::<StoreUrl>().is_err());
    }
}
