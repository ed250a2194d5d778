//! Parser of the headers that reverse proxies add: `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and
//! `Forwarded` (RFC 7239). The parser does not decide whether a header is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Node of a proxy chain, as a forwarding header writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedNode {
    /// Address, without its port.
    Address(IpAddr),
    /// Address that the proxy withholds: `unknown` or `_name` (RFC 7239, 6.2 and 6.3).
    Hidden,
    /// Text that is not a node.
    Malformed,
}

impl ForwardedNode {
    /// Parses `203.0.113.7`, `203.0.113.7:51234`, `2001:db8::1`, `[2001:db8::1]:443`, each also in quotes.
    pub fn parse(text: &str) -> Self {
        let text = unquote(text.trim()).trim();
        if text.eq_ignore_ascii_case("unknown") || is_obfuscated(text) {
            return Self::Hidden;
        }
        parse_address(text).map_or(Self::Malformed, |address| Self::Address(address.to_canonical()))
    }
}

fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// Identifier that replaces an address or a port, such as `_gazonk`.
fn is_obfuscated(text: &str) -> bool {
    text.strip_prefix('_').is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    })
}

fn parse_address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then(|| parse_v6(address))?;
    }
    if text.matches(':').count() > 1 {
        return parse_v6(text);
    }
    let (address, port) = text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port)));
    port.is_none_or(is_port).then(|| address.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?
}

/// IPv6 address; the zone of a link-local address names an interface of the proxy and is dropped.
fn parse_v6(text: &str) -> Option<IpAddr> {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit())
        || text.eq_ignore_ascii_case("unknown")
        || is_obfuscated(text)
}

/// Element of the header `Forwarded`: one proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardedElement<'a> {
    /// Node that made the request to the proxy.
    pub client: Option<&'a str>,
    /// Scheme of the request to the proxy.
    pub proto: Option<&'a str>,
    /// Host of the request to the proxy.
    pub host: Option<&'a str>,
}

/// Elements of a line of the header `Forwarded`, in its order. Unknown parameters are skipped.
pub fn forwarded_elements(line: &str) -> Vec<ForwardedElement<'_>> {
    let elements = split_outside_quotes(line, ',').map(|text| {
        let mut element = ForwardedElement::default();
        for (name, value) in split_outside_quotes(text, ';').filter_map(|pair| pair.split_once('=')) {
            let value = Some(unquote(value.trim()));
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => element.client = value,
                "proto" => element.proto = value,
                "host" => element.host = value,
                _ => {}
            }
        }
        element
    });
    elements.collect()
}

/// Parts of a text between separators that are not inside a quoted string; empty parts are skipped.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(move |c: char| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match c {
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => return !is_quoted && c == separator,
        }
        false
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_parsed_with_port_and_quotes() {
        let address = |text: &str| ForwardedNode::Address(text.parse().unwrap());
        for (text, want) in [
            ("203.0.113.7", address("203.0.113.7")),
            ("203.0.113.7:51234", address("203.0.113.7")),
            (" 203.0.113.7 ", address("203.0.113.7")),
            ("\"203.0.113.7:80\"", address("203.0.113.7")),
            ("2001:db8::1", address("2001:db8::1")),
            ("[2001:db8::1]", address("2001:db8::1")),
            ("[2001:db8::1]:443", address("2001:db8::1")),
            ("\"[2001:db8::1]\"", address("2001:db8::1")),
            ("\"[2001:DB8::1]:_port\"", address("2001:db8::1")),
            ("fe80::1%eth0", address("fe80::1")),
            ("[fe80::1%eth0]:80", address("fe80::1")),
            ("::ffff:203.0.113.7", address("203.0.113.7")),
            ("[::ffff:203.0.113.7]:1", address("203.0.113.7")),
            ("unknown", ForwardedNode::Hidden),
            ("UNKNOWN", ForwardedNode::Hidden),
            ("_hidden", ForwardedNode::Hidden),
            ("\"_SEVKISEK\"", ForwardedNode::Hidden),
            ("", ForwardedNode::Malformed),
            ("_", ForwardedNode::Malformed),
            ("nonsense", ForwardedNode::Malformed),
            ("203.0.113.7:", ForwardedNode::Malformed),
            ("203.0.113.7:99999", ForwardedNode::Malformed),
            ("203.0.113.7:+80", ForwardedNode::Malformed),
            ("203.0.113", ForwardedNode::Malformed),
            ("[203.0.113.7]", ForwardedNode::Malformed),
            ("[2001:db8::1", ForwardedNode::Malformed),
            ("[2001:db8::1]443", ForwardedNode::Malformed),
            ("2001:db8::1]:443", ForwardedNode::Malformed),
        ] {
            assert_eq!(ForwardedNode::parse(text), want, "{text:?}");
        }
    }

    #[test]
    fn forwarded_header_is_split_outside_quotes() {
        let parse = |line| {
            forwarded_elements(line).into_iter().map(|e| (e.client, e.proto, e.host)).collect::<Vec<_>>()
        };
        assert_eq!(
            parse("for=192.0.2.60;proto=http;by=203.0.113.43"),
            [(Some("192.0.2.60"), Some("http"), None)]
        );
        assert_eq!(
            parse("For=\"[2001:db8:cafe::17]:4711\" , for=_hidden;Host=\"x:8443\";PROTO=https"),
            [
                (Some("[2001:db8:cafe::17]:4711"), None, None),
                (Some("_hidden"), Some("https"), Some("x:8443")),
            ]
        );
        assert_eq!(
            parse("for=\"a,b;c\\\"d\", , for=unknown"),
            [(Some("a,b;c\\\"d"), None, None), (Some("unknown"), None, None)]
        );
        assert_eq!(parse("nonsense"), [(None, None, None)]);
        assert_eq!(parse(""), []);
    }
}
