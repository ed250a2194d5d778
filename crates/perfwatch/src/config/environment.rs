//! Environment variables with the prefix of the settings: settings, service links and unknown names.

use perfwatch_model::similar_name::similar_name;

/// Prefix of the variables of all settings.
pub(super) const PREFIX: &str = "PERFWATCH_";

/// Names without the prefix of variables that are not settings: the configuration file, and the token of
/// `perfwatch top`.
pub(super) const OTHER_VARIABLES: [&str; 2] = ["CONFIG", "API_TOKEN"];

/// Meaning of a variable with the prefix.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum VariableKind<'a> {
    /// Setting with its dotted key.
    Setting(&'a str),
    /// Variable that Kubernetes or Docker sets for a service or a linked container whose name begins with
    /// `perfwatch`.
    ServiceLink,
    /// Probably a misspelled setting; the variable of the most similar setting.
    Misspelled(String),
    /// Neither a setting nor similar to one; the variable of a setting with the same end, if any.
    Unknown(Option<String>),
}

/// Classifies a variable by its name without the prefix, and by its value.
pub(super) fn classify<'a>(suffix: &str, value: &str, keys: &'a [String]) -> VariableKind<'a> {
    let suffix_of = |key: &String| key.replace('.', "_").to_ascii_uppercase();
    if let Some(key) = keys.iter().find(|key| suffix_of(key) == suffix) {
        // Docker sets NAME=/container/alias for the link of a container such as `perfwatch_agent`.
        let is_link_name = suffix.ends_with("_NAME") && value.starts_with('/');
        return if is_link_name { VariableKind::ServiceLink } else { VariableKind::Setting(key) };
    }
    if is_service_link(suffix, value) {
        return VariableKind::ServiceLink;
    }
    let variable = |suffix: &String| format!("{PREFIX}{suffix}");
    let known: Vec<String> = keys.iter().map(suffix_of).chain(OTHER_VARIABLES.map(str::to_owned)).collect();
    if let Some(name) = similar_name(suffix, known.iter().map(String::as_str)) {
        return VariableKind::Misspelled(format!("{PREFIX}{name}"));
    }
    let end = format!("_{suffix}");
    VariableKind::Unknown(known.iter().find(|name| name.ends_with(&end)).map(variable))
}

/// Returns whether the variable is one of a service link: `…_SERVICE_HOST` with an address, `…_SERVICE_PORT…` with
/// a number, `…_PORT` with a URL, `…_PORT_8000_TCP…` (Kubernetes, Docker), `…_NAME` with a path and `…_ENV_…`
/// (Docker).
fn is_service_link(suffix: &str, value: &str) -> bool {
    let parts: Vec<&str> = suffix.split('_').collect();
    let ends_with = |end: &[&str]| parts.ends_with(end);
    let is_port_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_protocol = |part: &str| matches!(part, "TCP" | "UDP" | "SCTP");
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    // PORT, number, protocol, and an optional detail.
    let has_port_triple =
        parts.windows(3).any(|part| part[0] == "PORT" && is_number(part[1]) && is_protocol(part[2]));
    let has_service_port = parts.windows(2).any(|part| part == ["SERVICE", "PORT"]);
    (ends_with(&["SERVICE", "HOST"]) && value.parse::<std::net::IpAddr>().is_ok())
        || (has_service_port && (is_number(value) || value.is_empty()))
        || (ends_with(&["PORT"]) && is_port_url)
        || has_port_triple
        || (ends_with(&["NAME"]) && value.starts_with('/'))
        || parts.first() == Some(&"ENV")
        || (parts.iter().skip(1).any(|part| *part == "ENV") && parts.contains(&"PERFWATCH"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::config::load::leaf_keys;

    #[test]
    fn variables_are_classified() {
        let keys = leaf_keys(&serde_json::to_value(Settings::default()).unwrap());
        for (suffix, value, expected) in [
            ("HUB_LISTEN", "x", "setting hub.listen"),
            ("AGENT_NAME", "web-1", "setting agent.name"),
            ("AGENT_NAME", "/web/perfwatch_agent", "link"),
            ("PORT", "tcp://10.0.0.1:8000", "link"),
            ("PORT_8000_TCP", "tcp://10.0.0.1:8000", "link"),
            ("PORT_8000_TCP_ADDR", "10.0.0.1", "link"),
            ("PORT_8000_TCP_PORT", "8000", "link"),
            ("PORT_8000_TCP_PROTO", "tcp", "link"),
            ("PORT_8000_TCP_PORT_START", "8000", "link"),
            ("SERVICE_HOST", "10.0.0.1", "link"),
            ("SERVICE_PORT", "8000", "link"),
            ("SERVICE_PORT_HTTP", "8000", "link"),
            ("HUB_SERVICE_HOST", "fd00::1", "link"),
            ("HUB_SERVICE_PORT_HTTP_METRICS", "8000", "link"),
            ("HUB_PORT", "tcp://[fd00::1]:8000", "link"),
            ("HUB_PORT_53_UDP_ADDR", "10.0.0.1", "link"),
            ("MY_POSTGRES_PORT_5432_TCP_PROTO", "tcp", "link"),
            // Services perfwatch-postgres, perfwatch-redis and perfwatch-dashboard, by the example of
            // https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
            ("POSTGRES_SERVICE_HOST", "10.0.0.11", "link"),
            ("POSTGRES_SERVICE_PORT", "5432", "link"),
            ("POSTGRES_PORT", "tcp://10.0.0.11:5432", "link"),
            ("POSTGRES_PORT_5432_TCP", "tcp://10.0.0.11:5432", "link"),
            ("POSTGRES_PORT_5432_TCP_PROTO", "tcp", "link"),
            ("POSTGRES_PORT_5432_TCP_PORT", "5432", "link"),
            ("POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.11", "link"),
            ("HUB_REDIS_PORT", "tcp://10.0.0.12:6379", "link"),
            ("DASHBOARD_SERVICE_PORT_HTTP", "8080", "link"),
            // Values that no service link has.
            ("SERVICE_HOST", "watch.example", "unknown -"),
            ("SERVICE_PORT", "http", "unknown -"),
            ("HUB_PORT", "8000", "unknown -"),
            ("NAME", "/agent/perfwatch", "link"),
            ("ENV_PERFWATCH_HUB_LISTEN", "0.0.0.0:8000", "link"),
            ("HUB_ENV_PERFWATCH_DATA", "/data", "link"),
            ("HUB_LISTN", "x", "misspelled PERFWATCH_HUB_LISTEN"),
            ("HUB_LSITEN", "x", "misspelled PERFWATCH_HUB_LISTEN"),
            ("HUB_PUBLICURL", "x", "misspelled PERFWATCH_HUB_PUBLIC_URL"),
            ("HUB_DISK_BUDGETS", "x", "misspelled PERFWATCH_HUB_DISK_BUDGET"),
            ("DATE", "x", "misspelled PERFWATCH_DATA"),
            ("CONFG", "x", "misspelled PERFWATCH_CONFIG"),
            ("TOKEN", "x", "unknown PERFWATCH_AGENT_TOKEN"),
            ("PORT", "8000", "unknown -"),
            ("VERSION", "1.2", "unknown -"),
            ("IMAGE_TAG", "x", "unknown -"),
        ] {
            let found = match classify(suffix, value, &keys) {
                VariableKind::Setting(key) => format!("setting {key}"),
                VariableKind::ServiceLink => "link".to_owned(),
                VariableKind::Misspelled(name) => format!("misspelled {name}"),
                VariableKind::Unknown(name) => format!("unknown {}", name.unwrap_or("-".to_owned())),
            };
            assert_eq!(found, expected, "{suffix}={value}");
        }
    }
}
