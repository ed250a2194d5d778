//! Texts of operators and administrators: configuration, imports, private keys, templates, rules.

use crate::{MemoryBound, Target};
use perfwatch_agentless::import::{ImportEntry, MAX_ENTRIES, parse_csv, parse_ssh_config};
use perfwatch_agentless::import_yaml::parse_yaml;
use perfwatch_model::BootId;
use perfwatch_notify::ChannelNotifier;
use perfwatch_rules::builtin_rules::builtin_rules;
use perfwatch_rules::hostile::hostile_notification;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::{ChannelSettings, Notifier as _};
use perfwatch_rules::rule::Rule;
use perfwatch_rules::silence::Silence;
use std::sync::LazyLock;

pub(crate) const CONFIGURATION: Target = Target {
    name: "configuration",
    run: configuration,
    seeds: || {
        [
            "yhub:\n  listen: \"[::]:8000\"\n  tls: { cert: /a, key: /b }\n  trusted_proxies: [10.0.0.0/8]\n",
            "yagent:\n  interval: 2s\n  tags: [environment=production]\n  collectors: { disabled: [tcp] }\n",
            "ydata: /var/lib/perfwatch\nhub:\n  retention: { raw: 3d, minute: 90d }\n  disk_budget: 10GB\n",
            "tdata = \"/srv\"\n[hub]\nlisten = \"127.0.0.1:80\"\n[hub.limits]\nagent_requests_per_second = 5\n",
            "j{\"data\":\"/srv\",\"hub\":{\"oidc\":{\"issuer\":\"https://id.example\",\"client_id\":\"x\"}}}",
            "ya: &a [1]\nb: [*a, *a]\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "hub:\n  ",
        "agent:\n  ",
        ": ",
        "- ",
        "&a ",
        "*a",
        "<<: ",
        "{",
        "[",
        "!!binary ",
        "|\n",
        "---\n",
    ],
    max_len: 16 << 10,
    memory: MemoryBound { fixed_bytes: 1 << 20, per_byte: 200 },
};

pub(crate) const SSH_CONFIG: Target = Target {
    name: "ssh_config",
    run: ssh_config,
    seeds: || {
        [
            "User deploy\nHost web-* !web-9\n  Port 2222\nHost web-1 web-9\n  HostName=10.0.0.%h\nMatch all\n",
            "Host db\n\tHostName db.example\n\tProxyJump admin@gate:22,web-1\nHost *\n  User \"late\"\n",
            "# comment\nHost *?*?b a?b !c\nInclude ~/.ssh/other\nHost x\n  ProxyJump none\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "\nHost ",
        "\nMatch ",
        " HostName ",
        "%h",
        "*",
        "?",
        "!",
        "ProxyJump ",
        "Port ",
        "=",
        "\"",
        "#",
    ],
    max_len: 8 << 10,
    // Every host of a list repeats the settings of its section.
    memory: MemoryBound { fixed_bytes: 1 << 20, per_byte: 100 },
};

pub(crate) const CSV: Target = Target {
    name: "csv",
    run: csv,
    seeds: || {
        [
            "\u{feff}Name,Address,Tags,Password\ndb-1, 192.0.2.1 ,\"env=prod db\",\"a,b\"\n,192.0.2.2\n",
            "sep=;\r\naddress;name;port;user;jump;interval\r\nx;y;22;root;gate;60s\r\n;;;;;\r\n",
            "address\tname\ra\tb\r",
            "\"name\"|\"address\"\n\"a\"\"b\"|\"c\nd\"\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "address", "name", "password", "\"", "\"\"", ",", ";", "\t", "|", "\r\n", "sep=", "\u{feff}",
    ],
    max_len: 64 << 10,
    memory: MemoryBound { fixed_bytes: 256 << 10, per_byte: 100 },
};

pub(crate) const SERVERS_YAML: Target = Target {
    name: "servers_yaml",
    run: servers_yaml,
    seeds: || {
        [
            "- 192.0.2.1\n- {name: db-1, address: \"2001:db8::7\", port: 22, user: 007, password: yes}\n",
            "- &a\n  address: x\n  tags: [env=prod, db]\n  jump: gate\n  interval: 5m\n- *a\n- <<: *a\n  name: y\n",
            "all:\n  vars: {ansible_user: root}\n  hosts:\n    web[01:20:2].x:\n  children:\n    db:\n      hosts:\n        \
             d: {ansible_host: 192.0.2.9, ansible_ssh_pass: '{{ x }}'}\n",
            "g:\n  children: {h: {vars: {ansible_ssh_common_args: -J gate}}}\nh:\n  hosts: {'x[a:c]:22': }\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "\n- ",
        "\n  ",
        "hosts: ",
        "children: ",
        "vars: ",
        "ansible_host: ",
        "ansible_connection: ",
        "address: ",
        "[1:9999]",
        "&a ",
        "*a",
        "<<: *a",
        "{",
        "!vault |\n",
    ],
    max_len: 8 << 10,
    // A range of a few bytes has as many hosts as a hub can have.
    memory: MemoryBound { fixed_bytes: 64 << 20, per_byte: 200 },
};

pub(crate) const PRIVATE_KEY: Target = Target {
    name: "private_key",
    run: private_key,
    seeds: || {
        [
            include_str!("../seeds/ed25519.key"),
            include_str!("../seeds/ed25519-encrypted.key"),
            include_str!("../seeds/ecdsa.key"),
            include_str!("../seeds/ecdsa.pem"),
            include_str!("../seeds/ecdsa-encrypted.pem"),
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "-----END OPENSSH PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
        "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00000000000000000000000000000000\n\n",
        "PuTTY-User-Key-File-3: ssh-ed25519\n",
        "Encryption: aes256-cbc\n",
        "Key-Derivation: Argon2id\nArgon2-Memory: 4194304\nArgon2-Passes: 4294967295\n",
    ],
    max_len: 16 << 10,
    memory: MemoryBound { fixed_bytes: 1 << 20, per_byte: 100 },
};

pub(crate) const TEMPLATE: Target = Target {
    name: "template",
    run: template,
    seeds: || {
        [
            "{{ severity|upper }}: {{ title }}\n{{ text }}",
            "{\"text\": \"{{ title }}\", \"n\": {{ alerts|length }}}",
            "{% for a in alerts %}{{ a.host }}{% if not loop.last %}, {% endif %}{% endfor %}",
            "{% set t = title ~ '!' %}{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(t)|tojson }}",
            "title={{ title|urlencode }}&x={{ alerts|map(attribute='rule')|join(',') }}",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "for x in alerts",
        "endfor",
        "if ",
        "endif",
        "|tojson",
        "|join('')",
        "range(9)",
        "|map('upper')",
        "loop.index",
        " ~ ",
        "[",
        "(",
        "title",
        "|replace('a', title)",
    ],
    max_len: 4 << 10,
    // The output of an expression is bounded only when the whole text is rendered.
    memory: MemoryBound { fixed_bytes: 4 << 20, per_byte: 200 },
};

pub(crate) const RULE: Target = Target {
    name: "rule",
    run: rule,
    seeds: rule_seeds,
    dictionary: &[
        "kind: ",
        "threshold: ",
        "for: ",
        "1e308",
        "-0.0",
        ".inf",
        ".nan",
        "window: ",
        "metric: cpu.usage",
        "tags: [",
        "weekly: ",
        "starts: ",
        "group_by: ",
    ],
    max_len: 8 << 10,
    memory: MemoryBound { fixed_bytes: 1 << 20, per_byte: 200 },
};

fn configuration(data: &[u8]) -> bool {
    let Some((format, text)) = data.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let extension = match format {
        b'j' => "json",
        b't' => "toml",
        _ => "yaml",
    };
    let Ok(settings) = perfwatch::config::parse_text("fuzz", extension, text) else { return false };
    let json = serde_json::to_string(&settings).expect("settings are JSON");
    let again = perfwatch::config::parse_text("fuzz", "json", &json).expect("written settings are settings");
    assert_eq!(serde_json::to_string(&again).ok(), Some(json));
    true
}

fn ssh_config(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(entries) = parse_ssh_config(text) else { return false };
    let lines = text.lines().count();
    for entry in &entries {
        assert!((1..=lines).contains(&entry.line) && !entry.name.is_empty());
        assert!(!entry.name.contains(['*', '?', '!']));
    }
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), entries.len(), "each host is listed once");
    !entries.is_empty()
}

fn csv(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(entries) = parse_csv(text) else { return false };
    // The name of a server without one is its address.
    assert!(entries.iter().map(ImportEntry::text_bytes).sum::<usize>() <= 2 * text.len());
    let lines = text.split(['\n', '\r']).count();
    assert!(entries.iter().all(|entry| (1..=lines).contains(&entry.line) && !entry.address.is_empty()));
    assert!(entries.windows(2).all(|pair| pair[0].line <= pair[1].line));
    true
}

fn servers_yaml(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(entries) = parse_yaml(text) else { return false };
    assert!(entries.len() <= MAX_ENTRIES);
    assert!(entries.iter().map(ImportEntry::text_bytes).sum::<usize>() <= 32 << 20);
    let lines = text.split(['\n', '\r']).count();
    assert!(entries.iter().all(|entry| (1..=lines).contains(&entry.line)));
    true
}

fn private_key(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    perfwatch_ssh::can_open_private_key(text, None)
}

/// Nesting of templates under test: deeper templates need the stack of the hub's workers.
const MAX_TEMPLATE_NESTING: usize = 40;

fn template(data: &[u8]) -> bool {
    static NOTIFIER: LazyLock<ChannelNotifier> = LazyLock::new(ChannelNotifier::new);
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let openers = ["(", "[", "{", "not", "-", "if", "for", "~", "else"];
    if openers.iter().map(|opener| text.matches(opener).count()).sum::<usize>() > MAX_TEMPLATE_NESTING {
        return false;
    }
    let rendered = NOTIFIER.render(text, &hostile_notification(NotificationReason::Opened));
    if let Ok(rendered) = &rendered {
        assert!(rendered.len() <= 200_000, "{}", rendered.len());
    }
    let mut settings = ChannelSettings::new();
    settings.insert("url".to_owned(), "https://hook.example/".to_owned());
    settings.insert("body".to_owned(), text.to_owned());
    let _ = NOTIFIER.validate("webhook", &settings);
    rendered.is_ok()
}

fn rule_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = builtin_rules()
        .iter()
        .filter_map(|rule| serde_saphyr::to_string(rule).ok())
        .map(String::into_bytes)
        .collect();
    let silence = "comment: x\nstarts_ms: 0\nends_ms: null\nmatchers: []\n\
        weekly: {days: [monday], from: 22:00, to: 06:00, timezone: Europe/Berlin}\n";
    seeds.push(silence.as_bytes().to_vec());
    seeds
}

fn rule(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut is_accepted = false;
    if let Ok(rule) = serde_saphyr::from_str::<Rule>(text)
        && rule.validate().is_ok()
    {
        is_accepted = true;
        let json = serde_json::to_string(&rule).expect("a rule is JSON");
        assert_eq!(serde_json::from_str::<Rule>(&json).expect("a stored rule can be read"), rule);
        let yaml = serde_saphyr::to_string(&rule).expect("a rule is YAML");
        assert_eq!(serde_saphyr::from_str::<Rule>(&yaml).expect("an exported rule can be imported"), rule);
        for value in [None, Some(0.0), Some(f64::MAX), Some(-1.5)] {
            rule.condition.threshold().evaluate(value);
        }
        let _ = (rule.lookback(), rule.condition.selector());
        let _ = rule.hosts.matches(BootId::default().0, &["environment=production".to_owned()]);
    }
    if let Ok(silence) = serde_saphyr::from_str::<Silence>(text) {
        let valid = silence.weekly.as_ref().is_none_or(|weekly| weekly.validate().is_none());
        for now_ms in [0, crate::ingest::NOW_MS, i64::MAX] {
            let _ = valid && silence.is_active(now_ms);
        }
        is_accepted |= valid;
    }
    is_accepted
}
