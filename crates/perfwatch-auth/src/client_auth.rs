//! Authentication of the hub as a client at the token endpoint of an identity provider.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use url::form_urlencoded;

/// Authentication of the client at the token endpoint (OpenID Connect Core 1.0, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// `client_secret_basic`: header `Authorization`.
    Basic,
    /// `client_secret_post`: form fields.
    Post,
    /// `none`: public client.
    Public,
}

impl ClientAuth {
    /// Method for a client with or without a secret, of the methods that the provider states. A provider that
    /// states none supports `client_secret_basic` (OpenID Connect Discovery 1.0, section 3).
    ///
    /// # Errors
    /// Returns a message if the provider supports none of the methods.
    pub(crate) fn select(stated: Option<&[String]>, has_secret: bool) -> Result<Self, String> {
        let stated = stated.filter(|list| !list.is_empty());
        let supports = |method: &str| stated.is_none_or(|list| list.iter().any(|name| name == method));
        match has_secret {
            false => Ok(Self::Public),
            true if supports("client_secret_basic") => Ok(Self::Basic),
            true if supports("client_secret_post") => Ok(Self::Post),
            true if supports("none") => Ok(Self::Public),
            true => Err(format!(
                "token endpoint supports only {}; expected client_secret_basic or client_secret_post",
                stated.unwrap_or_default().join(", ")
            )),
        }
    }
}

/// Value of the header `Authorization` for a client. Id and secret are encoded as form fields first
/// (RFC 6749, section 2.3.1).
pub(crate) fn basic_credentials(client_id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", encode(client_id), encode(secret))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_authentication_follows_the_provider() {
        for (stated, has_secret, expected) in [
            (None, true, Some(ClientAuth::Basic)),
            (Some(&[][..]), true, Some(ClientAuth::Basic)),
            (Some(&["client_secret_basic"]), true, Some(ClientAuth::Basic)),
            (Some(&["client_secret_post"]), true, Some(ClientAuth::Post)),
            (Some(&["client_secret_post", "client_secret_basic"]), true, Some(ClientAuth::Basic)),
            (Some(&["private_key_jwt", "client_secret_post"]), true, Some(ClientAuth::Post)),
            (Some(&["none"]), true, Some(ClientAuth::Public)),
            (Some(&["private_key_jwt"]), true, None),
            (Some(&["client_secret_basic"]), false, Some(ClientAuth::Public)),
        ] {
            let stated: Option<Vec<String>> =
                stated.map(|list| list.iter().map(|&method: &&str| method.to_owned()).collect());
            assert_eq!(ClientAuth::select(stated.as_deref(), has_secret).ok(), expected, "{stated:?}");
        }
        // `perf%3Awatch:a+b%2F%25%C3%BC%2B%3D`
        let expected = "Basic cGVyZiUzQXdhdGNoOmErYiUyRiUyNSVDMyVCQyUyQiUzRA==";
        assert_eq!(basic_credentials("perf:watch", "a b/%ü+="), expected);
    }
}
