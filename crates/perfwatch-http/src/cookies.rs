//! Cookies of browser sessions and of logins at an identity provider (RFC 6265).
//!
//! Browsers send the cookies of a host name to all of its ports. Names contain the port, so that hubs on one
//! host name do not replace each other's sessions.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use cookie::time::Duration;
use cookie::{Cookie, SameSite};

/// Prefix of the cookie of a browser session.
const SESSION_PREFIX: &str = "perfwatch_session";
/// Prefix of the cookie with the state of a started login at an identity provider.
const LOGIN_STATE_PREFIX: &str = "perfwatch_sso";
/// Maximum number of cookies of other hubs that are read.
const MAX_CANDIDATES: usize = 16;

/// Names and path of the cookies of one hub.
#[derive(Debug, Clone)]
pub struct HubCookies {
    /// Cookie of a browser session.
    pub session: CookieName,
    /// Cookie with the state of a started login at an identity provider.
    pub login_state: CookieName,
}

impl HubCookies {
    /// Cookies of the hub at this port and base path; the base path of the root is empty.
    pub fn new(port: u16, base_path: &str) -> Self {
        let path = if base_path.is_empty() { "/" } else { base_path };
        let name = |prefix: &'static str| CookieName {
            prefix,
            name: format!("{prefix}_{port}"),
            path: path.to_owned(),
        };
        Self { session: name(SESSION_PREFIX), login_state: name(LOGIN_STATE_PREFIX) }
    }
}

/// Name and path of a cookie.
#[derive(Debug, Clone)]
pub struct CookieName {
    prefix: &'static str,
    name: String,
    path: String,
}

impl CookieName {
    /// Values of a request's cookies that may belong to this hub: its name first, then other ports. Several
    /// hubs of one installation may listen on different ports behind a load balancer.
    pub fn values<'a>(&self, headers: &'a HeaderMap) -> Vec<&'a str> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies = lines.flat_map(Cookie::split_parse).filter_map(Result::ok);
        let candidates = cookies.filter(|cookie| self.is_candidate(cookie.name()));
        let mut found: Vec<(bool, &str)> = candidates
            .filter_map(|cookie| Some((cookie.name() != self.name, cookie.value_raw()?)))
            .take(MAX_CANDIDATES)
            .collect();
        found.sort_by_key(|(is_other, _)| *is_other);
        found.into_iter().map(|(_, value)| value).collect()
    }

    fn is_candidate(&self, name: &str) -> bool {
        let port = name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('_'));
        port.is_some_and(|port| port.parse::<u16>().is_ok())
    }

    /// `Set-Cookie` header of an `HttpOnly`, `SameSite=Lax` cookie. An empty value deletes the cookie.
    pub fn set(&self, value: &str, is_tls: bool, max_age_s: u64) -> (HeaderName, HeaderValue) {
        let max_age_s = if value.is_empty() { 0 } else { i64::try_from(max_age_s).unwrap_or(i64::MAX) };
        let cookie = Cookie::build((&*self.name, value))
            .path(&*self.path)
            .http_only(true)
            .same_site(SameSite::Lax)
            .max_age(Duration::seconds(max_age_s));
        let cookie = if is_tls { cookie.secure(true) } else { cookie }.build();
        let value = HeaderValue::try_from(cookie.to_string()).unwrap_or(HeaderValue::from_static(""));
        (header::SET_COOKIE, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_cookie_is_protected_and_named_by_port() {
        let cookie = HubCookies::new(8443, "/perfwatch").session;
        let (name, value) = cookie.set("pws_1", true, 60);
        let text = value.to_str().unwrap();
        assert_eq!(name, header::SET_COOKIE);
        for part in [
            "perfwatch_session_8443=pws_1",
            "HttpOnly",
            "SameSite=Lax",
            "Secure",
            "Path=/perfwatch",
            "Max-Age=60",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(HubCookies::new(80, "").session.set("x", false, 60).1.to_str().unwrap().contains("Path=/;"));
        assert!(!cookie.set("x", false, 60).1.to_str().unwrap().contains("Secure"));
        assert!(cookie.set("", false, 60).1.to_str().unwrap().contains("Max-Age=0"));
    }

    #[test]
    fn cookies_of_own_port_come_first() {
        let cookies = HubCookies::new(8000, "");
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; perfwatch_session_9000=pws_2; broken".parse().unwrap());
        headers
            .append(header::COOKIE, "perfwatch_session_8000=pws_1; perfwatch_sso_8000=x.y".parse().unwrap());
        headers.append(header::COOKIE, "perfwatch_session_x=pws_3; perfwatch_session=pws_4".parse().unwrap());
        assert_eq!(cookies.session.values(&headers), ["pws_1", "pws_2"]);
        assert_eq!(cookies.login_state.values(&headers), ["x.y"]);
        assert!(cookies.session.values(&HeaderMap::new()).is_empty());
    }
}
