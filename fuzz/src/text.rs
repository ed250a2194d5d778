//! Patterns, headers of proxies, and expressions of time, series and formulas.

use crate::ingest::NOW_MS;
use crate::{MemoryBound, Target};
use ipnet::IpNet;
use perfwatch_auth::client_addr::ForwardedHeaders;
use perfwatch_auth::forwarded::{ForwardedNode, forwarded_elements};
use perfwatch_auth::{ClientAddr, account_name};
use perfwatch_http::origin::{HostPort, PageOrigin};
use perfwatch_http::params;
use perfwatch_http::public_address::PublicUrl;
use perfwatch_model::{HumanDuration, SeriesSelector, glob, time_expression};
use perfwatch_query::formula::Formula;

const SMALL: MemoryBound = MemoryBound { fixed_bytes: 128 << 10, per_byte: 32 };

pub(crate) const GLOB: Target = Target {
    name: "glob",
    run: match_glob,
    seeds: || {
        ["veth*\nveth12", "a*b*c\na-b-b-c", "*?b?*\naabc", "!eth9,eth*\neth1", "**a**é\nbabé"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec()
    },
    dictionary: &["*", "?", "!", ",", "*?*?", "é", "\n"],
    max_len: 512,
    memory: SMALL,
};

pub(crate) const HEADERS: Target = Target {
    name: "headers",
    run: headers,
    seeds: || {
        [
            "203.0.113.7:51234, [2001:db8::1]:443, 10.0.0.2",
            "for=\"[2001:db8:cafe::17]:4711\";proto=https;host=\"a;b\", for=10.0.0.2;proto=http",
            "https://watch.example:8443/path",
            "[fe80::1%eth0]:80",
            "unknown, _gazonk:_port",
            "Watch.Example.:65535",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "for=", "proto=", "host=", "\"", "\\", ";", ",", "[", "]", "::", "://", "_", "unknown", "%",
    ],
    max_len: 4 << 10,
    memory: SMALL,
};

pub(crate) const EXPRESSIONS: Target = Target {
    name: "expressions",
    run: expressions,
    seeds: || {
        [
            "now-1h",
            "2026-11-21T10:00:00Z",
            "1d12h",
            "1795263132344",
            "network.rx_bytes{eth*}",
            "cpu.*",
            "alice@example.org",
            "Name\u{301}",
            "environment=production",
            "A / B * (100 - -A) + .5",
            "web-1\t019aa3b0-0000-7000-8000-000000000001",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "now",
        "-",
        "+",
        "h",
        "d",
        "ms",
        "{",
        "}",
        "*",
        "9223372036854775807",
        "T",
        "Z",
        "\u{301}",
        "A",
        "(",
        ")",
        "/",
        ".",
    ],
    max_len: 1 << 10,
    memory: SMALL,
};

/// Reference implementation: a table of the matched prefixes.
fn matches_by_table(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for expected in pattern {
        let previous = row.clone();
        row[0] = previous[0] && expected == '*';
        for end in 1..row.len() {
            row[end] = match expected {
                '*' => previous[end] || row[end - 1],
                '?' => previous[end - 1],
                expected => previous[end - 1] && text[end - 1] == expected,
            };
        }
    }
    row[text.len()]
}

fn match_glob(data: &[u8]) -> bool {
    let Ok(input) = std::str::from_utf8(data) else { return false };
    let (pattern, text) = input.split_once('\n').unwrap_or((input, ""));
    assert_eq!(glob::matches(pattern, text), matches_by_table(pattern, text), "{pattern:?} on {text:?}");
    let excluded = pattern.split(',').map(str::trim).filter_map(|pattern| pattern.strip_prefix('!'));
    let is_excluded =
        excluded.filter(|pattern| !pattern.is_empty()).any(|pattern| glob::matches(pattern, text));
    assert!(!(is_excluded && glob::matches_list(pattern.split(','), text)), "an exclusion wins");
    true
}

fn headers(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    if let ForwardedNode::Address(address) = ForwardedNode::parse(text) {
        assert_eq!(ForwardedNode::parse(&address.to_string()), ForwardedNode::Address(address));
    }
    for element in forwarded_elements(text) {
        for part in [element.client, element.proto, element.host].into_iter().flatten() {
            assert!(text.contains(part));
        }
    }
    let peer = ([10, 0, 0, 1], 1).into();
    let proxies: [IpNet; 1] = [IpNet::new_assert([10, 0, 0, 0].into(), 8)];
    let headers =
        ForwardedHeaders { forwarded_for: vec![text], forwarded_proto: Some(text), forwarded: vec![text] };
    let trusted = ClientAddr::from_request(peer, false, &headers, &proxies);
    assert!(trusted.malformed_node.is_none_or(|node| text.contains(node)));
    let untrusted = ClientAddr::from_request(peer, false, &headers, &[]);
    assert_eq!((untrusted.client_addr.address, untrusted.client_addr.is_tls), (peer.ip(), false));
    if let Some(host) = HostPort::parse(text) {
        assert_eq!(HostPort::parse(&host.to_string()), Some(host));
    }
    if let Some(origin) = PageOrigin::parse(text) {
        assert!(origin.has_host(&origin.host) && origin.is_same(&origin));
    }
    if let Some(url) = PublicUrl::parse(text) {
        assert_eq!(PublicUrl::parse(&url.to_string()), Some(url));
    }
    true
}

fn expressions(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let _ = time_expression::parse(text, NOW_MS);
    let _ = params::range(Some(text), Some(text), NOW_MS);
    let _ = params::parse_host_cursor(text);
    if let Ok(label) = params::validate_label(text) {
        assert!(!label.is_empty() && !label.contains(char::is_control));
    }
    if let Some(duration) = HumanDuration::parse(text) {
        assert_eq!(HumanDuration::parse(&duration.to_string()), Some(duration));
    }
    let _ = SeriesSelector::parse(text).matches("network.rx_bytes", "eth0");
    if account_name::validate(text).is_none() {
        let normalized = account_name::normalize(text);
        assert!(account_name::is_equal(text, &normalized), "{text:?} {normalized:?}");
        assert_eq!(account_name::normalize(&normalized), normalized);
    }
    if let Ok(formula) = Formula::parse(text, &["A", "B"]) {
        let value = formula.evaluate(|query| [1.5, 0.0][query]);
        assert!(value.is_nan() || value.is_finite(), "{text:?} is {value}");
    }
    let foreign = account_name::from_foreign(text);
    assert!(foreign.is_empty() || account_name::validate(&foreign).is_none(), "{foreign:?}");
    true
}
