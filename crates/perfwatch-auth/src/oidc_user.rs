//! Settings of an identity provider, and its users: name and role from the claims of the ID token.

use crate::account_name;
use perfwatch_store::accounts::Role;
use serde_json::Value;

/// Identity provider and the mapping of its claims to roles.
#[derive(Clone)]
pub struct OidcConfig {
    /// Issuer URL, as in the discovery document.
    pub issuer: String,
    /// Client ID of the hub.
    pub client_id: String,
    /// Client secret; `None` for a public client.
    pub client_secret: Option<String>,
    /// Label of the sign-in button.
    pub name: String,
    /// Scopes requested in addition to `openid`.
    pub scopes: Vec<String>,
    /// Claim that contains the roles; dots separate nested claims.
    pub role_claim: String,
    /// Claim values mapped to the role admin.
    pub admins: Vec<String>,
    /// Claim values mapped to the role operator.
    pub operators: Vec<String>,
    /// Claim values mapped to the role viewer.
    pub viewers: Vec<String>,
    /// Role of users without a matching value; `None` denies their login.
    pub default_role: Option<Role>,
}

impl std::fmt::Debug for OidcConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OidcConfig({})", self.issuer)
    }
}

/// User as described by the identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcUser {
    /// Stable identifier: issuer and subject.
    pub subject: String,
    /// Proposed account name, normalized to the allowed characters. Another account may have it.
    pub name: String,
    /// Mapped role; `None` if no claim value matches and there is no default.
    pub role: Option<Role>,
    /// Time at which the user authenticated at the provider, seconds since 1970.
    pub auth_time_s: Option<i64>,
}

/// Claim by name; dots separate nested claims, such as `realm_access.roles`.
pub(crate) fn claim<'a>(claims: &'a Value, name: &str) -> &'a Value {
    const NONE: &Value = &Value::Null;
    match claims.get(name) {
        Some(value) => value,
        None => name.split('.').try_fold(claims, |value, part| value.get(part)).unwrap_or(NONE),
    }
}

pub(crate) fn user_from_claims(config: &OidcConfig, claims: &Value) -> Result<OidcUser, String> {
    let text = |name: &str| claims[name].as_str().filter(|text| !text.is_empty());
    let subject = text("sub").ok_or("no subject")?;
    let name = ["preferred_username", "email", "sub"].into_iter().find_map(|claim| {
        text(claim).map(account_name::from_foreign).filter(|name| name.contains(char::is_alphanumeric))
    });
    let name = name.unwrap_or_else(|| "user".to_owned());
    let value = claim(claims, &config.role_claim);
    let values: Vec<&str> = match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => text.split_ascii_whitespace().collect(),
        _ => Vec::new(),
    };
    let any = |mapped: &[String]| mapped.iter().any(|value| values.contains(&value.as_str()));
    let role = if any(&config.admins) {
        Some(Role::Admin)
    } else if any(&config.operators) {
        Some(Role::Operator)
    } else if any(&config.viewers) {
        Some(Role::Viewer)
    } else {
        config.default_role
    };
    let subject = format!("{} {subject}", config.issuer.trim_end_matches('/'));
    Ok(OidcUser { subject, name, role, auth_time_s: claims["auth_time"].as_i64() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn role_claims_may_be_nested() {
        let config = OidcConfig {
            issuer: "https://id.example/".to_owned(),
            client_id: "perfwatch".to_owned(),
            client_secret: None,
            name: "Example".to_owned(),
            scopes: Vec::new(),
            role_claim: "realm_access.roles".to_owned(),
            admins: vec!["sre".to_owned()],
            operators: vec!["ops".to_owned()],
            viewers: vec!["staff".to_owned()],
            default_role: None,
        };
        for (claims, name, role) in [
            (json!({ "sub": "1", "preferred_username": "Åsa Lind" }), "åsa-lind", None),
            (json!({ "sub": "1", "preferred_username": "山田" }), "山田", None),
            (json!({ "sub": "1", "preferred_username": "😀", "email": "mu\u{308}ller@b" }), "müller@b", None),
            (
                json!({ "sub": "1", "email": "A@b.c", "realm_access": { "roles": ["x", "ops"] } }),
                "a@b.c",
                Some(Role::Operator),
            ),
            (json!({ "sub": "1", "realm_access.roles": "staff sre" }), "1", Some(Role::Admin)),
            (json!({ "sub": "1", "realm_access": { "roles": [5, "staff"] } }), "1", Some(Role::Viewer)),
            (json!({ "sub": "1", "realm_access": "sre" }), "1", None),
        ] {
            let found = user_from_claims(&config, &claims).unwrap();
            assert_eq!((found.name.as_str(), found.role), (name, role), "{claims}");
            assert_eq!(found.subject, "https://id.example 1");
        }
        assert!(user_from_claims(&config, &json!({ "email": "a@b.c" })).is_err());
    }
}
