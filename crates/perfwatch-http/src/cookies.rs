//! Cookies of browser sessions and of logins at an identity provider (RFC 6265).
//!
//! Browsers send the cookies of a host name to all of its ports. Names contain the port, so that hubs on one
//! host name do not replace each other's sessions.

use crate::origin::HostPort;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use cookie::time::Duration;
use cookie::{Cookie, SameSite};

/// Prefix of the cookie of a browser session.
const SESSION_PREFIX: &str = "perfwatch_session";
/// Prefix of the cookie that confirms lasting changes of a session.
const CONFIRMATION_PREFIX: &str = "perfwatch_confirm";
/// Prefix of the cookie with the state of a started login at an identity provider.
const LOGIN_STATE_PREFIX: &str = "perfwatch_sso";
/// Maximum number of cookies of other hubs that are read.
const MAX_CANDIDATES: usize = 16;

/// Names and path of the cookies of one hub.
#[derive(Debug, Clone)]
pub struct HubCookies {
    /// Cookie of a browser session.
    pub session: CookieName,
    /// Cookie that confirms lasting changes of a session.
    pub confirmation: CookieName,
    /// Cookie with the state of a started login at an identity provider.
    pub login_state: CookieName,
}

impl HubCookies {
    /// Cookies of a hub with this port of its public URL, port of its listener, and base path, which is empty
    /// at the root.
    pub fn new(public_port: Option<u16>, local_port: u16, base_path: &str) -> Self {
        let path = if base_path.is_empty() { "/" } else { base_path };
        let name = |prefix| CookieName { prefix, public_port, local_port, path: path.to_owned() };
        Self {
            session: name(SESSION_PREFIX),
            confirmation: name(CONFIRMATION_PREFIX),
            login_state: name(LOGIN_STATE_PREFIX),
        }
    }
}

/// Name and path of a cookie.
#[derive(Debug, Clone)]
pub struct CookieName {
    prefix: &'static str,
    public_port: Option<u16>,
    local_port: u16,
    path: String,
}

impl CookieName {
    /// Name with the port of the public URL, or else of the request or the listener.
    fn name(&self, headers: &HeaderMap) -> String {
        // The headers need no trust: they only choose a name in the caller's own browser.
        let hosts =
            ["x-forwarded-host", "host"].into_iter().filter_map(|name| headers.get(name)?.to_str().ok());
        let ports = hosts.filter_map(|hosts| HostPort::parse(hosts.split(',').next()?)?.port);
        let port = self.public_port.or_else(|| ports.into_iter().next()).unwrap_or(self.local_port);
        format!("{}_{port}", self.prefix)
    }

    /// Values of a request's cookies that may belong to this hub: its name first, then other ports. Several
    /// hubs of one installation may listen on different ports behind a load balancer.
    pub fn values<'a>(&self, headers: &'a HeaderMap) -> Vec<&'a str> {
        let own_name = self.name(headers);
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies = lines.flat_map(Cookie::split_parse).filter_map(Result::ok);
        let candidates = cookies.filter(|cookie| self.is_candidate(cookie.name()));
        let mut found: Vec<(bool, &str)> =
            candidates.filter_map(|cookie| Some((cookie.name() != own_name, cookie.value_raw()?))).collect();
        found.sort_by_key(|(is_other, _)| *is_other);
        found.into_iter().map(|(_, value)| value).take(MAX_CANDIDATES).collect()
    }

    fn is_candidate(&self, name: &str) -> bool {
        let port = name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('_'));
        port.is_some_and(|port| port.parse::<u16>().is_ok())
    }

    /// `Set-Cookie` header of an `HttpOnly`, `SameSite=Lax` cookie for the sender of a request with these
    /// headers. An empty value deletes the cookie.
    pub fn set(
        &self,
        headers: &HeaderMap,
        value: &str,
        is_tls: bool,
        max_age_s: u64,
    ) -> (HeaderName, HeaderValue) {
        let max_age_s = if value.is_empty() { 0 } else { i64::try_from(max_age_s).unwrap_or(i64::MAX) };
        let cookie = Cookie::build((self.name(headers), value))
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
    fn session_cookie_is_protected() {
        let cookie = HubCookies::new(Some(8443), 8000, "/perfwatch").session;
        let set = |value, is_tls| {
            let (name, value) = cookie.set(&HeaderMap::new(), value, is_tls, 60);
            assert_eq!(name, header::SET_COOKIE);
            value.to_str().unwrap().to_owned()
        };
        let text = set("pws_1", true);
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
        assert!(!set("x", false).contains("Secure"));
        assert!(set("", false).contains("Max-Age=0"));
        let root = HubCookies::new(None, 80, "").session.set(&HeaderMap::new(), "x", false, 60).1;
        assert!(root.to_str().unwrap().contains("Path=/;"));
    }

    #[test]
    fn cookie_name_contains_the_port_of_the_browser() {
        let headers = |pairs: &[(&'static str, &str)]| {
            let pairs =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            pairs.collect::<HeaderMap>()
        };
        for (public_port, request, want) in [
            (Some(443), &[("host", "x:8443")][..], "perfwatch_session_443"),
            (None, &[("host", "x:8443")], "perfwatch_session_8443"),
            (None, &[("host", "[::1]:8443")], "perfwatch_session_8443"),
            (None, &[("host", "hub:8000"), ("x-forwarded-host", "x:9443, y:1")], "perfwatch_session_9443"),
            (None, &[("host", "x")], "perfwatch_session_8000"),
            (None, &[], "perfwatch_session_8000"),
        ] {
            let name = HubCookies::new(public_port, 8000, "").session.name(&headers(request));
            assert_eq!(name, want, "{request:?}");
        }
    }

    #[test]
    fn cookies_of_own_port_come_first() {
        let cookies = HubCookies::new(None, 8000, "");
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
