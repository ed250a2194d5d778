//! Where history is kept, as a user writes it.

use std::path::PathBuf;

/// A store's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder of our own.
    Sqlite(PathBuf),
    /// A connection string, `postgres://user@host/database`.
    Postgres(String),
}

/// Text that is no store's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no store: write sqlite:/path/to/folder or postgres://user@host/database")]
pub struct LocationError(String);

impl std::str::FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
            return Ok(Self::Sqlite(path.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        // A password may be in it: only what stands before the first colon is said again.
        Err(LocationError(text.split(':').next().unwrap_or_default().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!("sqlite:/data/x".parse(), Ok(Location::Sqlite("/data/x".into())));
        assert_eq!("sqlite:///data/x".parse(), Ok(Location::Sqlite("/data/x".into())));
        assert!(matches!("postgres://a:b@c/d".parse(), Ok(Location::Postgres(_))));
        let wrong = "mysql://root:secret@x/y".parse::<Location>().unwrap_err().to_string();
        assert!(wrong.contains("mysql") && !wrong.contains("secret"), "{wrong}");
        assert!("sqlite:".parse::<Location>().is_err());
    }
}
