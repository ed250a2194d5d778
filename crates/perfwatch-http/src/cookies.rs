//! Cookies of browser sessions and of logins at an identity provider (RFC 6265).

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use cookie::time::Duration;
use cookie::{Cookie, SameSite};

/// Cookie of a browser session.
pub const SESSION_COOKIE: &str = "perfwatch_session";

/// Value of a request's cookie.
pub fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = lines.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == name)?.value_raw()
}

/// `Set-Cookie` header of an `HttpOnly`, `SameSite=Lax` cookie. An empty value deletes the cookie.
pub fn set(name: &str, value: &str, path: &str, is_tls: bool, max_age_s: u64) -> (HeaderName, HeaderValue) {
    let max_age_s = if value.is_empty() { 0 } else { i64::try_from(max_age_s).unwrap_or(i64::MAX) };
    let cookie = Cookie::build((name, value))
        .path(path)
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(Duration::seconds(max_age_s));
    let cookie = if is_tls { cookie.secure(true) } else { cookie }.build();
    let value = HeaderValue::try_from(cookie.to_string()).unwrap_or(HeaderValue::from_static(""));
    (header::SET_COOKIE, value)
}

/// `Set-Cookie` header of a browser session.
pub fn session(value: &str, is_tls: bool, max_age_s: u64) -> (HeaderName, HeaderValue) {
    set(SESSION_COOKIE, value, "/", is_tls, max_age_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_cookie_round_trips_and_is_protected() {
        let (name, value) = session("pws_1", true, 60);
        let text = value.to_str().unwrap();
        assert_eq!(name, header::SET_COOKIE);
        for part in ["perfwatch_session=pws_1", "HttpOnly", "SameSite=Lax", "Secure", "Path=/", "Max-Age=60"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!session("x", false, 60).1.to_str().unwrap().contains("Secure"));
        assert!(session("", false, 60).1.to_str().unwrap().contains("Max-Age=0"));
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; perfwatch_session=pws_1; broken".parse().unwrap());
        headers.append(header::COOKIE, "perfwatch_sso=x.y".parse().unwrap());
        assert_eq!(get(&headers, SESSION_COOKIE), Some("pws_1"));
        assert_eq!(get(&headers, "perfwatch_sso"), Some("x.y"));
        assert_eq!(get(&headers, "session"), None);
    }
}
