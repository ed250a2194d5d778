//! Reasons for rejecting a change of settings, and their API errors.

use perfwatch_auth::AuthError;
use perfwatch_http::ApiError;
use perfwatch_store::{CommitError, StoreError};

/// Rejected change of settings. Messages start with the name of the setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A name that is no setting.
    #[error("{0}: unknown setting")]
    Unknown(String),
    /// A value outside of the limits, or a combination that is not possible.
    #[error("{name}: {message}")]
    Invalid {
        /// Name of the setting.
        name: &'static str,
        /// What is accepted.
        message: String,
    },
    /// A collection policy that is not accepted.
    #[error("{field}: {message}")]
    InvalidPolicy {
        /// Path of the field.
        field: String,
        /// What is accepted.
        message: String,
    },
    /// A setting that the configuration of this hub sets.
    #[error("{name}: set as {config_key} in the configuration; remove it there to change it here")]
    Locked {
        /// Name of the setting.
        name: &'static str,
        /// Key in the configuration.
        config_key: &'static str,
    },
    /// The settings changed since the caller read them.
    #[error("modified concurrently; reload and retry")]
    Conflict,
    /// The actor lost the right to the change.
    #[error(transparent)]
    Access(#[from] AuthError),
    /// The store failed or is unavailable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for SettingsError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => Self::Conflict,
            CommitError::Store(error) => Self::Store(error),
        }
    }
}

impl From<SettingsError> for ApiError {
    fn from(error: SettingsError) -> Self {
        let message = error.to_string();
        match error {
            SettingsError::Unknown(_) => Self::unprocessable("unknown_setting", message),
            SettingsError::Invalid { .. } => Self::unprocessable("invalid_setting", message),
            SettingsError::InvalidPolicy { .. } => Self::unprocessable("invalid_collectors", message),
            SettingsError::Locked { .. } => Self::unprocessable("setting_locked", message),
            SettingsError::Conflict => CommitError::Conflict.into(),
            SettingsError::Access(error) => error.into(),
            SettingsError::Store(error) => error.into(),
        }
    }
}
