//! A server as people ask for it, and what opens its door.

use crate::error::ApiError;
use perfwatch_model::Span;
use perfwatch_model::remote::Login;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;
use uuid::Uuid;

/// Looked at no more often than this; whoever watches sees more.
pub(crate) const LEAST_INTERVAL: Span = Span::from_s(60);
/// And no more rarely.
const MOST_INTERVAL: Span = Span::from_s(86_400);
/// A key with all its comments has less.
const SECRET_BYTES: usize = 32 << 10;

/// When people are told, percent; not where there is no number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Thresholds {
    /// Of the processors' time.
    #[serde(default = "ninety")]
    #[schema(minimum = 1, maximum = 100)]
    pub(crate) cpu: Option<f64>,
    /// Of the memory.
    #[serde(default = "ninety_five")]
    #[schema(minimum = 1, maximum = 100)]
    pub(crate) memory: Option<f64>,
    /// Of each filesystem.
    #[serde(default = "ninety")]
    #[schema(minimum = 1, maximum = 100)]
    pub(crate) disk: Option<f64>,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn ninety() -> Option<f64> {
    Some(90.0)
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn ninety_five() -> Option<f64> {
    Some(95.0)
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { cpu: ninety(), memory: ninety_five(), disk: ninety() }
    }
}

/// By what one enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoginKind {
    /// A password.
    Password,
    /// A private key.
    Key,
}

/// A host that is looked at over SSH.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Server {
    /// What people call it, and its host.
    pub(crate) name: String,
    /// Name or address.
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) login: LoginKind,
    /// Through which other server.
    pub(crate) jump: Option<Uuid>,
    /// How often it is looked at.
    #[schema(value_type = String)]
    pub(crate) interval: Span,
    pub(crate) thresholds: Thresholds,
}

impl Server {
    /// As it is kept.
    pub(crate) fn body(&self) -> String {
        // Texts and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What opens a door, as it is sealed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Credentials {
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
    pub(crate) fn kind(&self) -> LoginKind {
        match self {
            Self::Password { .. } => LoginKind::Password,
            Self::Key { .. } => LoginKind::Key,
        }
    }

    pub(crate) fn login(self) -> Login {
        match self {
            Self::Password { password } => Login::Password(password.into()),
            Self::Key { key, passphrase } => {
                Login::Key { key: key.into(), passphrase: passphrase.map(Into::into) }
            }
        }
    }
}

/// How one enters, as people say it; what is not said stays as it is.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum LoginWish {
    /// By a password.
    Password {
        #[schema(format = Password)]
        password: Option<String>,
    },
    /// By a private key in OpenSSH's, PEM's or PuTTY's form.
    Key {
        #[schema(format = Password)]
        key: Option<String>,
        /// What the key is locked with.
        #[schema(format = Password)]
        passphrase: Option<String>,
    },
}

fn ssh_port() -> u16 {
    22
}

fn a_quarter() -> Span {
    Span::from_s(900)
}

/// A server that somebody wants.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerWish {
    /// What people call it, and its host.
    pub(crate) name: String,
    /// Name or address.
    pub(crate) address: String,
    #[serde(default = "ssh_port")]
    #[schema(minimum = 1)]
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) login: LoginWish,
    /// Through which other server; its credentials are used there.
    #[serde(default)]
    pub(crate) jump: Option<Uuid>,
    /// Of its host.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// How often it is looked at: `15m`, at least a minute.
    #[serde(default = "a_quarter")]
    #[schema(value_type = String)]
    pub(crate) interval: Span,
    #[serde(default)]
    pub(crate) thresholds: Thresholds,
    /// Whether it is looked at.
    #[serde(default)]
    pub(crate) enabled: bool,
    /// Of the server as it was shown, so that nobody's change is lost; the newest without.
    #[serde(default)]
    pub(crate) version: Option<i64>,
}

fn invalid(field: &str, why: impl std::fmt::Display) -> ApiError {
    ApiError::unprocessable("invalid_server", format!("{field}: {why}"))
}

/// A name of DNS, or an address.
fn address_problem(address: &str) -> Option<&'static str> {
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

impl ServerWish {
    /// The record, where it can be one.
    pub(crate) fn checked(&self) -> Result<Server, ApiError> {
        crate::fleet::check_name(&self.name).map_err(|error| invalid("name", error))?;
        let address = self.address.trim();
        if let Some(why) = address_problem(address) {
            return Err(invalid("address", why));
        }
        if self.port == 0 {
            return Err(invalid("port", "1 to 65535"));
        }
        let user = self.user.trim();
        if user.is_empty() || user.len() > 64 || user.contains(|c: char| c.is_control() || c.is_whitespace())
        {
            return Err(invalid("user", "1 to 64 characters, without spaces"));
        }
        if self.interval < LEAST_INTERVAL {
            let why =
                "at least 60 s; while somebody watches the host, it is looked at every few seconds anyway";
            return Err(invalid("interval", why));
        }
        if self.interval > MOST_INTERVAL {
            return Err(invalid("interval", "a day at most"));
        }
        let Thresholds { cpu, memory, disk } = self.thresholds;
        for (field, value) in [("cpu", cpu), ("memory", memory), ("disk", disk)] {
            if value.is_some_and(|value| !(1.0..=100.0).contains(&value)) {
                return Err(invalid(&format!("thresholds.{field}"), "1 to 100 percent, or none"));
            }
        }
        let login = match &self.login {
            LoginWish::Password { password } => {
                if password.as_ref().is_some_and(|text| text.is_empty() || text.len() > 1_024) {
                    return Err(invalid("login.password", "1 to 1,024 bytes"));
                }
                LoginKind::Password
            }
            LoginWish::Key { key, passphrase } => {
                let texts = key.iter().chain(passphrase);
                if key.as_ref().is_some_and(String::is_empty)
                    || texts.map(String::len).any(|len| len > SECRET_BYTES)
                {
                    return Err(invalid("login.key", "the text of a private key, 32 KB at most"));
                }
                LoginKind::Key
            }
        };
        Ok(Server {
            name: self.name.trim().to_owned(),
            address: address.trim_matches(['[', ']']).to_owned(),
            port: self.port,
            user: user.to_owned(),
            login,
            jump: self.jump,
            interval: self.interval,
            thresholds: self.thresholds,
        })
    }

    /// What opens the door: what is said anew, and what was there before.
    pub(crate) fn credentials(&self, before: Option<Credentials>) -> Result<Credentials, ApiError> {
        match (&self.login, before) {
            (LoginWish::Password { password: Some(password) }, _) => {
                Ok(Credentials::Password { password: password.clone() })
            }
            (LoginWish::Key { key: Some(key), passphrase }, _) => {
                Ok(Credentials::Key { key: key.clone(), passphrase: passphrase.clone() })
            }
            (LoginWish::Password { password: None }, Some(before @ Credentials::Password { .. })) => {
                Ok(before)
            }
            (
                LoginWish::Key { key: None, passphrase },
                Some(Credentials::Key { key, passphrase: before }),
            ) => Ok(Credentials::Key { key, passphrase: passphrase.clone().or(before) }),
            (LoginWish::Password { .. }, _) => Err(invalid("login.password", "it is needed")),
            (LoginWish::Key { .. }, _) => Err(invalid("login.key", "it is needed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(more: &serde_json::Value) -> Result<Server, ApiError> {
        let mut wish = serde_json::json!({ "name": "db-1", "address": "192.0.2.7", "user": "watch",
            "login": { "kind": "password", "password": "secret" } });
        let fields = more.as_object().unwrap().clone();
        wish.as_object_mut().unwrap().extend(fields);
        serde_json::from_value::<ServerWish>(wish).unwrap().checked()
    }

    #[test]
    fn what_is_not_said_is_as_people_expect() {
        let server = wish(&serde_json::json!({})).unwrap();
        assert_eq!((server.port, server.interval), (22, Span::from_s(900)));
        assert_eq!(server.thresholds, Thresholds { cpu: Some(90.0), memory: Some(95.0), disk: Some(90.0) });
        let none = wish(&serde_json::json!({ "thresholds": { "cpu": null } })).unwrap();
        assert_eq!(none.thresholds, Thresholds { cpu: None, ..Thresholds::default() });
        let six = wish(&serde_json::json!({ "address": "[2001:db8::1]" })).unwrap();
        assert_eq!(six.address, "2001:db8::1");
    }

    #[test]
    fn what_can_not_be_is_said_by_its_field() {
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
            (serde_json::json!({ "login": { "kind": "password", "password": "" } }), "login.password"),
            (serde_json::json!({ "login": { "kind": "key", "key": "" } }), "login.key"),
        ] {
            let error = wish(&more).unwrap_err();
            assert!(error.message().starts_with(&format!("{field}: ")), "{more}: {}", error.message());
        }
    }

    #[test]
    fn secrets_stay_unless_others_are_said() {
        let wish = |login: serde_json::Value| -> ServerWish {
            let wish = serde_json::json!({ "name": "a", "address": "b", "user": "c", "login": login });
            serde_json::from_value(wish).unwrap()
        };
        let before = || Some(Credentials::Key { key: "k".to_owned(), passphrase: Some("p".to_owned()) });
        let same = wish(serde_json::json!({ "kind": "key" })).credentials(before()).ok().unwrap();
        assert!(matches!(same, Credentials::Key { key, passphrase: Some(p) } if key == "k" && p == "p"));
        let other = wish(serde_json::json!({ "kind": "password" }));
        assert!(other.credentials(before()).is_err());
        // A new key is not tried with the old one's passphrase.
        let anew = wish(serde_json::json!({ "kind": "key", "key": "n" })).credentials(before()).ok().unwrap();
        assert!(matches!(anew, Credentials::Key { key, passphrase: None } if key == "n"));
    }
}
