//! Proxy check: compares the address of a page in the browser with the address that the hub sees, and names
//! what a reverse proxy does wrong.

use crate::origin::PageOrigin;
use crate::public_address::{PublicAddress, RequestAddress};
use serde::Serialize;

/// Kind of a fault with the address of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProxyFaultCode {
    /// Requests arrive for another host than that of the page.
    HostMismatch,
    /// The page uses HTTPS, but requests count as HTTP: cookies are not `Secure`.
    ProtoMissing,
    /// The page uses HTTP, but requests count as HTTPS: the browser drops the `Secure` cookie.
    ProtoMismatch,
    /// A proxy that is not trusted sends forwarding headers.
    UntrustedProxy,
    /// The path of the dashboard is not that of the public URL.
    BasePathMismatch,
    /// The public URL is another address than that of the page.
    PublicUrlMismatch,
    /// A proxy removes the `Upgrade` header of WebSocket handshakes.
    UpgradeMissing,
    /// Links in notifications lead to the machine of their reader.
    LocalLinks,
}

/// Consequence of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProxyFaultSeverity {
    /// Possibly intended.
    Info,
    /// Something is wrong or degraded.
    Warning,
    /// Login is not possible.
    Critical,
}

/// Fault with the address of the hub, with its fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProxyFault {
    /// Kind of the fault.
    pub code: ProxyFaultCode,
    /// Consequence of the fault.
    pub severity: ProxyFaultSeverity,
    /// Address that would be right.
    pub expected: String,
    /// Address that the hub sees or uses.
    pub received: String,
    /// What is wrong, and what to change.
    pub message: String,
}

impl ProxyFault {
    /// Fault with the default severity of its code.
    pub fn new(code: ProxyFaultCode, expected: &str, received: &str) -> Self {
        use ProxyFaultCode as Code;
        let message = match code {
            Code::HostMismatch => format!(
                "the page is at {expected}, but requests arrive for {received}; pass the Host header through the \
                 proxy, or set hub.public_url to {expected}"
            ),
            Code::ProtoMissing => format!(
                "the page uses https, but requests arrive as {received}; send X-Forwarded-Proto: https from a \
                 proxy in hub.trusted_proxies"
            ),
            Code::ProtoMismatch => format!(
                "the page uses http, but requests count as {received}: the browser drops the session cookie; open \
                 {expected}, or correct X-Forwarded-Proto of the proxy"
            ),
            Code::UntrustedProxy => format!(
                "forwarding headers of {received} are ignored; add the address of the proxy to hub.trusted_proxies"
            ),
            Code::BasePathMismatch => format!(
                "the dashboard is at the path {expected}, but the hub expects {received}; set the path in \
                 hub.public_url"
            ),
            Code::PublicUrlMismatch => format!(
                "the page is at {expected}, but hub.public_url is {received}; links and single sign-on lead there"
            ),
            Code::UpgradeMissing => {
                "WebSocket handshakes arrive without the headers Upgrade and Connection; pass \
                 both through the proxy"
                    .to_owned()
            }
            Code::LocalLinks => format!(
                "links in notifications lead to {received}, which is the machine of their reader; set \
                 hub.public_url"
            ),
        };
        let severity = match code {
            Code::PublicUrlMismatch => ProxyFaultSeverity::Info,
            Code::ProtoMismatch => ProxyFaultSeverity::Critical,
            _ => ProxyFaultSeverity::Warning,
        };
        Self { code, severity, expected: expected.to_owned(), received: received.to_owned(), message }
    }
}

/// Faults of a request from a page at `location`, its URL up to the base path.
pub fn find_faults(hub: &PublicAddress, request: &RequestAddress, location: Option<&str>) -> Vec<ProxyFault> {
    use ProxyFaultCode as Code;
    let mut faults = Vec::new();
    if request.untrusted_proxy.is_some() {
        faults.push(ProxyFault::new(Code::UntrustedProxy, "", "an unknown proxy"));
    }
    let page = location.and_then(|location| Some((PageOrigin::parse(location)?, base_path_of(location))));
    let Some((page, page_base)) = page else { return faults };
    let scheme = if request.client_addr.is_tls { "https" } else { "http" };
    // Headers that are ignored may have the right values.
    let is_proxy_known = request.untrusted_proxy.is_none();
    let is_host_known = request.hosts.iter().any(|host| page.has_host(host));
    if !is_host_known {
        let host = request.hosts.first().map_or_else(|| "no host".to_owned(), ToString::to_string);
        let mut fault = ProxyFault::new(Code::HostMismatch, &page.to_string(), &host);
        if !request.has_fetch_metadata {
            // The login would be rejected as a request of another site.
            fault.severity = ProxyFaultSeverity::Critical;
        }
        faults.push(fault);
    }
    match (&*page.scheme, scheme) {
        ("https", "http") if is_proxy_known => {
            faults.push(ProxyFault::new(Code::ProtoMissing, "https", scheme));
        }
        ("http", "https") => {
            let public = hub.public_url.as_ref().map(|url| &url.origin).filter(|url| url.scheme == "https");
            let https = public.map_or_else(|| format!("https://{}", page.host), ToString::to_string);
            faults.push(ProxyFault::new(Code::ProtoMismatch, &https, scheme));
        }
        _ => {}
    }
    if page_base != hub.base_path() {
        let slashed = |path: &str| format!("{path}/");
        faults.push(ProxyFault::new(Code::BasePathMismatch, &slashed(&page_base), &slashed(hub.base_path())));
    }
    if let Some(public_url) = &hub.public_url
        && is_host_known
        && !page.is_same(&public_url.origin)
    {
        faults.push(ProxyFault::new(
            Code::PublicUrlMismatch,
            &page.to_string(),
            &public_url.origin.to_string(),
        ));
    }
    faults
}

/// Fault of links in notifications that lead to the machine of their reader.
pub fn local_links(hub: &PublicAddress) -> Option<ProxyFault> {
    let local = ["http://127.", "https://127.", "http://[::1]", "https://[::1]"];
    let base_url = &hub.notification_base_url;
    let is_local = hub.public_url.is_none() && local.iter().any(|prefix| base_url.starts_with(prefix));
    is_local.then(|| ProxyFault::new(ProxyFaultCode::LocalLinks, "", base_url))
}

/// Path of a URL without a slash at its end.
fn base_path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    path.find('/').map_or("", |at| path[at..].trim_end_matches('/')).to_owned()
}

/// Faults of the request of a user, who may also see the address of a proxy that is not trusted.
pub fn find_user_faults(
    hub: &PublicAddress,
    request: &RequestAddress,
    location: Option<&str>,
) -> Vec<ProxyFault> {
    let mut faults = find_faults(hub, request, location);
    if let Some(address) = request.untrusted_proxy {
        faults.retain(|fault| fault.code != ProxyFaultCode::UntrustedProxy);
        faults.push(ProxyFault::new(ProxyFaultCode::UntrustedProxy, "", &address.to_string()));
    }
    let upgrade_missing = || ProxyFault::new(ProxyFaultCode::UpgradeMissing, "Upgrade", "");
    faults.extend(hub.is_upgrade_missing().then(upgrade_missing));
    faults.extend(local_links(hub));
    faults
}

#[cfg(test)]
mod tests {
    use super::ProxyFaultCode::*;
    use super::*;
    use crate::public_address::PublicUrl;
    use axum::http::HeaderMap;
    use ipnet::IpNet;

    fn hub(public_url: Option<&str>, local_url: &str) -> PublicAddress {
        PublicAddress::new(public_url.and_then(PublicUrl::parse), local_url, 8000)
    }

    /// Codes for a page, with the headers of its request through a proxy.
    fn codes(
        public_url: Option<&str>,
        proxies: &[IpNet],
        location: &str,
        headers: &[(&'static str, &str)],
    ) -> Vec<ProxyFaultCode> {
        let hub = hub(public_url, "http://127.0.0.1:8000");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let peer = ("10.0.0.1:1".parse().unwrap(), false);
        let request = hub.read_request(peer, &map, None, proxies);
        find_faults(&hub, &request, Some(location)).into_iter().map(|fault| fault.code).collect()
    }

    #[test]
    fn faults_name_the_fault_of_the_proxy() {
        let plain = (None, vec![]);
        let trusting = (None, vec!["10.0.0.1/32".parse().unwrap()]);
        let public = (Some("https://x/perfwatch/"), trusting.1.clone());
        let https = ("x-forwarded-proto", "https");
        for ((public_url, proxies), location, headers, want) in [
            (&plain, "http://127.0.0.1:8000/", &[("host", "127.0.0.1:8000")][..], vec![]),
            (&plain, "http://[::1]:8000/", &[("host", "[::1]:8000")], vec![]),
            (&plain, "http://x/", &[("host", "127.0.0.1:8000")], vec![HostMismatch]),
            (&plain, "https://x/", &[("host", "x")], vec![ProtoMissing]),
            (&plain, "https://x/", &[("host", "x"), https], vec![UntrustedProxy]),
            (&plain, "https://x:8443/", &[("host", "x"), https], vec![UntrustedProxy, HostMismatch]),
            (&trusting, "https://x/", &[("host", "x"), https], vec![]),
            (&trusting, "https://x/", &[("host", "x:443"), https], vec![]),
            (&trusting, "https://x:8443/", &[("host", "x"), https], vec![HostMismatch]),
            (&trusting, "https://x:8443/", &[("host", "x"), ("x-forwarded-port", "8443"), https], vec![]),
            (&trusting, "https://x/", &[("host", "hub:1"), ("forwarded", "host=x;proto=https")], vec![]),
            (&trusting, "http://x/", &[("host", "x"), https], vec![ProtoMismatch]),
            (&trusting, "https://x/perfwatch/", &[("host", "x"), https], vec![BasePathMismatch]),
            (&public, "https://x/perfwatch/", &[("host", "hub:8000"), https], vec![]),
            (&public, "https://x/", &[("host", "hub:8000"), https], vec![BasePathMismatch]),
            (
                &public,
                "http://10.0.0.9:8000/perfwatch/",
                &[("host", "10.0.0.9:8000")],
                vec![ProtoMismatch, PublicUrlMismatch],
            ),
            // The cookie is `Secure` also if the proxy does not forward the scheme.
            (&public, "https://x/perfwatch/", &[("host", "x")], vec![]),
            (&plain, "nonsense", &[("host", "x")], vec![]),
        ] {
            let found = codes(*public_url, proxies, location, headers);
            assert_eq!(found, want, "{location} {headers:?}");
        }
    }

    #[test]
    fn host_mismatch_is_critical_without_fetch_metadata() {
        let hub = hub(None, "http://127.0.0.1:8000");
        let severity = |headers: &HeaderMap| {
            let request = hub.read_request(("10.0.0.1:1".parse().unwrap(), false), headers, None, &[]);
            find_faults(&hub, &request, Some("http://x/"))[0].severity
        };
        let mut headers = HeaderMap::new();
        assert_eq!(severity(&headers), ProxyFaultSeverity::Critical);
        headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
        assert_eq!(severity(&headers), ProxyFaultSeverity::Warning);
    }

    #[test]
    fn local_links_are_reported_without_a_public_url() {
        for (url, want) in
            [("http://127.0.0.1:8000", true), ("https://[::1]:8000", true), ("http://10.0.0.5:8000", false)]
        {
            assert_eq!(local_links(&hub(None, url)).is_some(), want, "{url}");
            assert_eq!(local_links(&hub(Some("https://watch.example"), url)), None);
        }
    }
}
