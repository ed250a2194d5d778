//! Requests that create or replace a server, and their validation.

use crate::credentials::Credentials;
use crate::server::{AuthMethod, Server, Thresholds};
use perfwatch_live::host_registry::validate_host_name;
use perfwatch_model::HumanDuration;
use perfwatch_model::printable::is_hidden;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::IpAddr;
use uuid::Uuid;

/// Minimum interval of scheduled collections. On-demand polling is more frequent.
pub const MIN_INTERVAL: HumanDuration = HumanDuration::from_s(60);
/// Maximum interval of scheduled collections.
const MAX_INTERVAL: HumanDuration = HumanDuration::from_s(86_400);
/// Maximum length of a password.
const MAX_PASSWORD_BYTES: usize = 1_024;
/// Maximum length of a private key or passphrase. Key files with comments are shorter.
const MAX_SECRET_BYTES: usize = 32 << 10;
/// Maximum length of a login name.
const MAX_USER_BYTES: usize = 64;

/// Passwords of servers behind a changed server, by id. `None` deletes the stored password.
pub type DependentPasswords = HashMap<Uuid, Option<String>>;

/// Credentials of a server. Omitted secrets keep their stored value.
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialsRequest {
    /// Password or keyboard-interactive login.
    Password {
        /// Password, 1 to 1,024 bytes; the stored one if omitted.
        #[cfg_attr(feature = "openapi", schema(format = Password))]
        password: Option<String>,
    },
    /// Private key in OpenSSH, PEM or PuTTY format.
    Key {
        /// Text of the key file, at most 32 KiB; the stored one if omitted.
        #[cfg_attr(feature = "openapi", schema(format = Password))]
        key: Option<String>,
        /// Passphrase of an encrypted key.
        #[cfg_attr(feature = "openapi", schema(format = Password))]
        passphrase: Option<String>,
    },
}

impl CredentialsRequest {
    /// Credentials of a request that must contain a password or key.
    ///
    /// # Errors
    /// Returns the field of a missing or invalid secret.
    pub fn into_credentials(self) -> Result<Credentials, InvalidServer> {
        validate_credentials(&self)?;
        match self {
            Self::Password { password: Some(password) } => Ok(Credentials::Password { password }),
            Self::Key { key: Some(key), passphrase } => Ok(Credentials::Key { key, passphrase }),
            Self::Password { .. } => Err(invalid_field("credentials.password", "required")),
            Self::Key { .. } => Err(invalid_field("credentials.key", "required")),
        }
    }

    /// Returns whether the request contains a new password or key.
    pub fn has_secret(&self) -> bool {
        matches!(self, Self::Password { password: Some(_) } | Self::Key { key: Some(_), .. })
    }
}

fn default_ssh_port() -> u16 {
    22
}

fn default_interval() -> HumanDuration {
    HumanDuration::from_s(900)
}

/// Configuration and credentials of a server to create or replace.
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServerRequest {
    /// Display name of the server and its host.
    pub name: String,
    /// DNS name or IP address.
    pub address: String,
    /// TCP port of the SSH service.
    #[serde(default = "default_ssh_port")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub port: u16,
    /// Login name on the server.
    pub user: String,
    /// Credentials of the login.
    pub credentials: CredentialsRequest,
    /// Server that is used as jump host, with its own credentials.
    #[serde(default)]
    pub jump: Option<Uuid>,
    /// Tags of the host.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Interval of scheduled collections, for example `15m`; 60s to 1d.
    #[serde(default = "default_interval")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub interval: HumanDuration,
    /// Alert thresholds of the host.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// Whether the server is collected on its schedule; true by default.
    #[serde(default = "perfwatch_model::default_true")]
    pub enabled: bool,
    /// Version that the change is based on; a conflict if the server has another. The current version if
    /// omitted.
    #[serde(default)]
    pub version: Option<i64>,
    /// Passwords of servers behind this one, by id, if its address, port or jump host changes: they are
    /// bound to the former path. `null` deletes a stored password.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::HashMap<String, Option<String>>))]
    pub passwords: DependentPasswords,
}

/// Server request that violates a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidServer {
    /// Path of the field, such as `credentials.password`.
    pub field: String,
    /// Rule that is violated.
    pub reason: String,
}

fn invalid_field(field: &str, reason: impl std::fmt::Display) -> InvalidServer {
    InvalidServer { field: field.to_owned(), reason: reason.to_string() }
}

/// Accepts a DNS name or an IP address, an IPv6 address also in brackets.
fn validate_address(address: &str) -> Result<(), InvalidServer> {
    let without_brackets = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    if without_brackets.unwrap_or(address).parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = address.strip_suffix('.').unwrap_or(address);
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(());
    }
    let reason = "must be a name such as db-1.example.org, or an address such as 192.0.2.7";
    Err(invalid_field("address", reason))
}

fn validate_user(user: &str) -> Result<(), InvalidServer> {
    let is_forbidden = |c: char| is_hidden(c) || c.is_whitespace();
    if user.is_empty() || user.len() > MAX_USER_BYTES || user.contains(is_forbidden) {
        return Err(invalid_field("user", "must be 1 to 64 characters, without spaces"));
    }
    Ok(())
}

fn validate_interval(interval: HumanDuration) -> Result<(), InvalidServer> {
    if interval < MIN_INTERVAL {
        let reason = "must be at least 60s; hosts are polled every 5s while their page is open";
        return Err(invalid_field("interval", reason));
    }
    if interval > MAX_INTERVAL {
        return Err(invalid_field("interval", "must be at most 1d"));
    }
    Ok(())
}

fn validate_thresholds(thresholds: &Thresholds) -> Result<(), InvalidServer> {
    let Thresholds { cpu, memory, disk } = *thresholds;
    for (field, value) in [("cpu", cpu), ("memory", memory), ("disk", disk)] {
        if value.is_some_and(|value| !(1.0..=100.0).contains(&value)) {
            let field = format!("thresholds.{field}");
            return Err(invalid_field(&field, "must be between 1 and 100, or null"));
        }
    }
    Ok(())
}

/// Validates a password that is entered in a field of a request.
///
/// # Errors
/// Returns the field if the password is empty or too long.
pub fn validate_password(field: &str, password: &str) -> Result<(), InvalidServer> {
    if (1..=MAX_PASSWORD_BYTES).contains(&password.len()) {
        return Ok(());
    }
    Err(invalid_field(field, "must be 1 to 1,024 bytes"))
}

fn validate_credentials(credentials: &CredentialsRequest) -> Result<AuthMethod, InvalidServer> {
    match credentials {
        CredentialsRequest::Password { password } => {
            if let Some(password) = password {
                validate_password("credentials.password", password)?;
            }
            Ok(AuthMethod::Password)
        }
        CredentialsRequest::Key { key, passphrase } => {
            let is_too_long = key.iter().chain(passphrase).any(|text| text.len() > MAX_SECRET_BYTES);
            if is_too_long || key.as_ref().is_some_and(String::is_empty) {
                let reason = "must be the text of a private key, at most 32 KiB";
                return Err(invalid_field("credentials.key", reason));
            }
            Ok(AuthMethod::Key)
        }
    }
}

impl ServerRequest {
    /// Validates the request and returns the configuration to store.
    ///
    /// # Errors
    /// Returns the first field that violates a rule.
    pub fn validate(&self) -> Result<Server, InvalidServer> {
        validate_host_name(&self.name).map_err(|error| invalid_field("name", error))?;
        let (address, user) = (self.address.trim(), self.user.trim());
        validate_address(address)?;
        if self.port == 0 {
            return Err(invalid_field("port", "must be between 1 and 65535"));
        }
        validate_user(user)?;
        validate_interval(self.interval)?;
        validate_thresholds(&self.thresholds)?;
        for password in self.passwords.values().flatten() {
            validate_password("passwords", password)?;
        }
        Ok(Server {
            name: self.name.trim().to_owned(),
            address: address.trim_matches(['[', ']']).to_owned(),
            port: self.port,
            user: user.to_owned(),
            auth_method: validate_credentials(&self.credentials)?,
            jump: self.jump,
            interval: self.interval,
            thresholds: self.thresholds,
        })
    }

    /// Combines the credentials of the request with the stored credentials.
    ///
    /// # Errors
    /// Returns the field of a secret that is neither in the request nor stored.
    pub fn merge_credentials(&self, existing: Option<Credentials>) -> Result<Credentials, InvalidServer> {
        match (&self.credentials, existing) {
            (CredentialsRequest::Password { password: Some(password) }, _) => {
                Ok(Credentials::Password { password: password.clone() })
            }
            (CredentialsRequest::Key { key: Some(key), passphrase }, _) => {
                Ok(Credentials::Key { key: key.clone(), passphrase: passphrase.clone() })
            }
            (
                CredentialsRequest::Password { password: None },
                Some(existing @ Credentials::Password { .. }),
            ) => Ok(existing),
            (
                CredentialsRequest::Key { key: None, passphrase },
                Some(Credentials::Key { key, passphrase: existing }),
            ) => Ok(Credentials::Key { key, passphrase: passphrase.clone().or(existing) }),
            (CredentialsRequest::Password { .. }, _) => {
                Err(invalid_field("credentials.password", "required"))
            }
            (CredentialsRequest::Key { .. }, _) => Err(invalid_field("credentials.key", "required")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn validate(fields: &Value) -> Result<Server, InvalidServer> {
        let mut request = json!({ "name": "db-1", "address": "192.0.2.7", "user": "watch",
            "credentials": { "kind": "password", "password": "secret" } });
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value::<ServerRequest>(request).unwrap().validate()
    }

    #[test]
    fn request_defaults() {
        let server = validate(&json!({})).unwrap();
        assert_eq!((server.port, server.interval), (22, HumanDuration::from_s(900)));
        assert_eq!(server.thresholds, Thresholds { cpu: Some(90.0), memory: Some(95.0), disk: Some(90.0) });
        let without_cpu = validate(&json!({ "thresholds": { "cpu": null } })).unwrap();
        assert_eq!(without_cpu.thresholds, Thresholds { cpu: None, ..Thresholds::default() });
        let ipv6 = validate(&json!({ "address": "[2001:db8::1]" })).unwrap();
        assert_eq!(ipv6.address, "2001:db8::1");
    }

    #[test]
    fn invalid_fields_are_reported() {
        for (fields, field) in [
            (json!({ "name": "" }), "name"),
            (json!({ "address": "a b" }), "address"),
            (json!({ "address": "-o ProxyCommand=x" }), "address"),
            (json!({ "address": "" }), "address"),
            (json!({ "port": 0 }), "port"),
            (json!({ "user": " " }), "user"),
            (json!({ "interval": "59s" }), "interval"),
            (json!({ "interval": "25h" }), "interval"),
            (json!({ "thresholds": { "disk": 101 } }), "thresholds.disk"),
            (json!({ "credentials": { "kind": "password", "password": "" } }), "credentials.password"),
            (json!({ "credentials": { "kind": "key", "key": "" } }), "credentials.key"),
        ] {
            let error = validate(&fields).unwrap_err();
            assert_eq!(error.field, field, "{fields}: {error}");
        }
    }

    #[test]
    fn omitted_secrets_retain_their_value() {
        let request = |credentials: Value| -> ServerRequest {
            let request = json!({ "name": "a", "address": "b", "user": "c", "credentials": credentials });
            serde_json::from_value(request).unwrap()
        };
        let existing = || Some(Credentials::Key { key: "k".to_owned(), passphrase: Some("p".to_owned()) });
        let merge = |credentials| request(credentials).merge_credentials(existing());
        let unchanged = merge(json!({ "kind": "key" })).ok().unwrap();
        assert!(matches!(unchanged, Credentials::Key { key, passphrase: Some(p) } if key == "k" && p == "p"));
        let error = merge(json!({ "kind": "password" })).err().unwrap();
        assert_eq!(error.to_string(), "credentials.password: required");
        // A new key is not combined with the passphrase of the old key.
        let replaced = merge(json!({ "kind": "key", "key": "n" })).ok().unwrap();
        assert!(matches!(replaced, Credentials::Key { key, passphrase: None } if key == "n"));
    }
}
