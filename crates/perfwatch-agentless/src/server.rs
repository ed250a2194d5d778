//! A server as people ask for it, and what opens its door.

use perfwatch_model::HumanDuration;
use perfwatch_model::remote_collector::SshAuth;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use uuid::Uuid;

/// Looked at no more often than this; whoever watches sees more.
pub const MIN_INTERVAL: HumanDuration = HumanDuration::from_s(60);
/// And no more rarely.
const MAX_INTERVAL: HumanDuration = HumanDuration::from_s(86_400);
/// A key with all its comments has less.
const MAX_SECRET_BYTES: usize = 32 << 10;

/// When people are told, percent; not where there is no number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Of the processors' time.
    #[serde(default = "default_cpu_threshold")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub cpu: Option<f64>,
    /// Of the memory.
    #[serde(default = "default_memory_threshold")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub memory: Option<f64>,
    /// Of each filesystem.
    #[serde(default = "default_cpu_threshold")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub disk: Option<f64>,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn default_cpu_threshold() -> Option<f64> {
    Some(90.0)
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn default_memory_threshold() -> Option<f64> {
    Some(95.0)
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            cpu: default_cpu_threshold(),
            memory: default_memory_threshold(),
            disk: default_cpu_threshold(),
        }
    }
}

/// By what one enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// A password.
    Password,
    /// A private key.
    Key,
}

/// A host that is looked at over SSH.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Server {
    /// What people call it, and its host.
    pub name: String,
    /// Name or address.
    pub address: String,
    pub port: u16,
    pub user: String,
    pub auth_method: AuthMethod,
    /// Through which other server.
    pub jump: Option<Uuid>,
    /// How often it is looked at.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub interval: HumanDuration,
    pub thresholds: Thresholds,
}

impl Server {
    /// As it is kept.
    pub fn body(&self) -> String {
        // Texts and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What opens a door, as it is sealed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Credentials {
    Password {
        password: String,
    },
    Key {
        key: String,
        #[serde(default)]
        passphrase: Option<String>,
    },
}

impl Credentials {
    pub fn auth_method(&self) -> AuthMethod {
        match self {
            Self::Password { .. } => AuthMethod::Password,
            Self::Key { .. } => AuthMethod::Key,
        }
    }

    pub fn into_ssh_auth(self) -> SshAuth {
        match self {
            Self::Password { password } => SshAuth::Password(password.into()),
            Self::Key { key, passphrase } => {
                SshAuth::Key { key: key.into(), passphrase: passphrase.map(Into::into) }
            }
        }
    }
}

/// How one enters, as people say it; what is not said stays as it is.
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialsRequest {
    /// By a password.
    Password {
        #[cfg_attr(feature = "openapi", schema(format = Password))]
        password: Option<String>,
    },
    /// By a private key in OpenSSH's, PEM's or PuTTY's form.
    Key {
        #[cfg_attr(feature = "openapi", schema(format = Password))]
        key: Option<String>,
        /// What the key is locked with.
        #[cfg_attr(feature = "openapi", schema(format = Password))]
        passphrase: Option<String>,
    },
}

fn default_ssh_port() -> u16 {
    22
}

fn default_interval() -> HumanDuration {
    HumanDuration::from_s(900)
}

/// A server that somebody wants.
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServerRequest {
    /// What people call it, and its host.
    pub name: String,
    /// Name or address.
    pub address: String,
    #[serde(default = "default_ssh_port")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub port: u16,
    pub user: String,
    pub credentials: CredentialsRequest,
    /// Through which other server; its credentials are used there.
    #[serde(default)]
    pub jump: Option<Uuid>,
    /// Of its host.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How often it is looked at: `15m`, at least a minute.
    #[serde(default = "default_interval")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub interval: HumanDuration,
    #[serde(default)]
    pub thresholds: Thresholds,
    /// Whether it is looked at.
    #[serde(default)]
    pub enabled: bool,
    /// Of the server as it was shown, so that nobody's change is lost; the newest without.
    #[serde(default)]
    pub version: Option<i64>,
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

/// A name of DNS, or an address.
fn validate_address(address: &str) -> Option<&'static str> {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if bare.parse::<IpAddr>().is_ok() {
        return None;
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = address.strip_suffix('.').unwrap_or(address);
    let fine = name.len() <= 253 && name.split('.').all(label);
    (!fine).then_some("a name such as db-1.example.org, or an address such as 192.0.2.7")
}

impl ServerRequest {
    /// The record, where it can be one.
    pub fn validate(&self) -> Result<Server, InvalidServer> {
        perfwatch_live::host_registry::validate_host_name(&self.name)
            .map_err(|error| invalid_field("name", error))?;
        let address = self.address.trim();
        if let Some(why) = validate_address(address) {
            return Err(invalid_field("address", why));
        }
        if self.port == 0 {
            return Err(invalid_field("port", "1 to 65535"));
        }
        let user = self.user.trim();
        if user.is_empty() || user.len() > 64 || user.contains(|c: char| c.is_control() || c.is_whitespace())
        {
            return Err(invalid_field("user", "1 to 64 characters, without spaces"));
        }
        if self.interval < MIN_INTERVAL {
            let why = "must be at least 60s; hosts are polled every 5s while their page is open";
            return Err(invalid_field("interval", why));
        }
        if self.interval > MAX_INTERVAL {
            return Err(invalid_field("interval", "must be at most 1d"));
        }
        let Thresholds { cpu, memory, disk } = self.thresholds;
        for (field, value) in [("cpu", cpu), ("memory", memory), ("disk", disk)] {
            if value.is_some_and(|value| !(1.0..=100.0).contains(&value)) {
                return Err(invalid_field(
                    &format!("thresholds.{field}"),
                    "must be between 1 and 100, or null",
                ));
            }
        }
        let login = match &self.credentials {
            CredentialsRequest::Password { password } => {
                if password.as_ref().is_some_and(|text| text.is_empty() || text.len() > 1_024) {
                    return Err(invalid_field("credentials.password", "1 to 1,024 bytes"));
                }
                AuthMethod::Password
            }
            CredentialsRequest::Key { key, passphrase } => {
                let texts = key.iter().chain(passphrase);
                if key.as_ref().is_some_and(String::is_empty)
                    || texts.map(String::len).any(|len| len > MAX_SECRET_BYTES)
                {
                    return Err(invalid_field("credentials.key", "the text of a private key, 32 KB at most"));
                }
                AuthMethod::Key
            }
        };
        Ok(Server {
            name: self.name.trim().to_owned(),
            address: address.trim_matches(['[', ']']).to_owned(),
            port: self.port,
            user: user.to_owned(),
            auth_method: login,
            jump: self.jump,
            interval: self.interval,
            thresholds: self.thresholds,
        })
    }

    /// What opens the door: what is said anew, and what was there before.
    pub fn merge_credentials(&self, before: Option<Credentials>) -> Result<Credentials, InvalidServer> {
        match (&self.credentials, before) {
            (CredentialsRequest::Password { password: Some(password) }, _) => {
                Ok(Credentials::Password { password: password.clone() })
            }
            (CredentialsRequest::Key { key: Some(key), passphrase }, _) => {
                Ok(Credentials::Key { key: key.clone(), passphrase: passphrase.clone() })
            }
            (
                CredentialsRequest::Password { password: None },
                Some(before @ Credentials::Password { .. }),
            ) => Ok(before),
            (
                CredentialsRequest::Key { key: None, passphrase },
                Some(Credentials::Key { key, passphrase: before }),
            ) => Ok(Credentials::Key { key, passphrase: passphrase.clone().or(before) }),
            (CredentialsRequest::Password { .. }, _) => {
                Err(invalid_field("credentials.password", "it is needed"))
            }
            (CredentialsRequest::Key { .. }, _) => Err(invalid_field("credentials.key", "it is needed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(more: &serde_json::Value) -> Result<Server, InvalidServer> {
        let mut wish = serde_json::json!({ "name": "db-1", "address": "192.0.2.7", "user": "watch",
            "credentials": { "kind": "password", "password": "secret" } });
        let fields = more.as_object().unwrap().clone();
        wish.as_object_mut().unwrap().extend(fields);
        serde_json::from_value::<ServerRequest>(wish).unwrap().validate()
    }

    #[test]
    fn request_defaults() {
        let server = wish(&serde_json::json!({})).unwrap();
        assert_eq!((server.port, server.interval), (22, HumanDuration::from_s(900)));
        assert_eq!(server.thresholds, Thresholds { cpu: Some(90.0), memory: Some(95.0), disk: Some(90.0) });
        let none = wish(&serde_json::json!({ "thresholds": { "cpu": null } })).unwrap();
        assert_eq!(none.thresholds, Thresholds { cpu: None, ..Thresholds::default() });
        let six = wish(&serde_json::json!({ "address": "[2001:db8::1]" })).unwrap();
        assert_eq!(six.address, "2001:db8::1");
    }

    #[test]
    fn invalid_fields_are_reported() {
        for (more, field) in [
            (serde_json::json!({ "name": "" }), "name"),
            (serde_json::json!({ "address": "a b" }), "address"),
            (serde_json::json!({ "address": "-o ProxyCommand=x" }), "address"),
            (serde_json::json!({ "address": "" }), "address"),
            (serde_json::json!({ "port": 0 }), "port"),
            (serde_json::json!({ "user": " " }), "user"),
            (serde_json::json!({ "interval": "59s" }), "interval"),
            (serde_json::json!({ "interval": "25h" }), "interval"),
            (serde_json::json!({ "thresholds": { "disk": 101 } }), "thresholds.disk"),
            (
                serde_json::json!({ "credentials": { "kind": "password", "password": "" } }),
                "credentials.password",
            ),
            (serde_json::json!({ "credentials": { "kind": "key", "key": "" } }), "credentials.key"),
        ] {
            let error = wish(&more).unwrap_err();
            assert_eq!(error.field, field, "{more}: {error}");
        }
    }

    #[test]
    fn omitted_secrets_are_kept() {
        let wish = |login: serde_json::Value| -> ServerRequest {
            let wish = serde_json::json!({ "name": "a", "address": "b", "user": "c", "login": login });
            serde_json::from_value(wish).unwrap()
        };
        let before = || Some(Credentials::Key { key: "k".to_owned(), passphrase: Some("p".to_owned()) });
        let same = wish(serde_json::json!({ "kind": "key" })).merge_credentials(before()).ok().unwrap();
        assert!(matches!(same, Credentials::Key { key, passphrase: Some(p) } if key == "k" && p == "p"));
        let other = wish(serde_json::json!({ "kind": "password" }));
        assert!(other.merge_credentials(before()).is_err());
        // A new key is not tried with the old one's passphrase.
        let anew =
            wish(serde_json::json!({ "kind": "key", "key": "n" })).merge_credentials(before()).ok().unwrap();
        assert!(matches!(anew, Credentials::Key { key, passphrase: None } if key == "n"));
    }
}
