//! Hostile operator: an API token that may edit servers and rules.

use super::attack::{Attack, Attacker};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::io::Read as _;
use std::net::TcpListener;
use std::time::Duration;

/// Size of an imported text.
const IMPORT_BYTES: usize = 40_000;

pub(crate) const ATTACKS: &[Attack] = &[
    ("operator: imports with costly patterns", costly_imports),
    ("operator: imports that hold the lock", large_imports),
    ("operator: private keys with extreme costs", costly_keys),
    ("operator: templates that explode", exploding_templates),
    ("operator: connection tests that hang", hanging_tests),
    ("operator: moving jump servers", moving_jumps),
    ("operator: rule imports", rule_imports),
];

fn import(attacker: &Attacker, http: &ureq::Agent, format: &str, text: &str) -> String {
    let body = json!({ "format": format, "text": text, "user": "x", "dry_run": true,
        "credentials": { "kind": "password", "password": "x" } });
    attacker.send_json(http, ("POST", "/api/v1/servers/import"), &attacker.operator, &body)
}

fn costly_imports(attacker: &Attacker, attack: &'static str) {
    let name = "a".repeat(IMPORT_BYTES / 2);
    let texts = [
        format!("Host {name}\nHost {}b\n", "*a".repeat(IMPORT_BYTES / 4)),
        format!("Host {name}\nHost {}b\n", "*?a".repeat(IMPORT_BYTES / 6)),
        format!("Host {}\n  HostName {}\n", "a".repeat(2_000), "%h".repeat(IMPORT_BYTES / 2)),
        format!(
            "Host {}\n  HostName {}\n",
            (0..5_000).map(|n| format!("h{n} ")).collect::<String>(),
            "x".repeat(IMPORT_BYTES / 4)
        ),
        (0..2_000).map(|n| format!("Host h{n} *{n}*\n  User u{n}\n")).collect(),
    ];
    let groups =
        |n: usize| format!("g{n}: {{hosts: {{'h[1:10000]': {{ansible_user: {}}}}}}}\n", "u".repeat(1_000));
    let inventories = [
        (0..5).map(groups).collect::<String>(),
        (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
            format!("{text}a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 8].join(", "))
        }),
    ];
    attacker.repeat(attack, |http, number| {
        let number = number as usize;
        match texts.get(number % (texts.len() + inventories.len())) {
            Some(text) => import(attacker, http, "ssh_config", text),
            None => import(attacker, http, "yaml", &inventories[number % inventories.len()]),
        }
    });
}

fn large_imports(attacker: &Attacker, attack: &'static str) {
    let rows: String = (0..5_000).map(|n| format!("host{n},192.0.2.1,host{}\n", n / 2)).collect();
    let text = format!("name,address,jump\n{rows}");
    attacker.repeat(attack, |http, _| import(attacker, http, "csv", &text));
}

/// Encrypted OpenSSH key (PROTOCOL.key) with a number of rounds.
fn openssh_key(rounds: u32) -> String {
    let string =
        |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes(), bytes].concat();
    let options = [string(&[7; 16]), rounds.to_be_bytes().to_vec()].concat();
    let bytes = [
        b"openssh-key-v1\0".to_vec(),
        string(b"aes256-ctr"),
        string(b"bcrypt"),
        string(&options),
        1_u32.to_be_bytes().to_vec(),
        string(&[string(b"ssh-ed25519"), string(&[9; 32])].concat()),
        string(&[3; 144]),
    ]
    .concat();
    format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
        BASE64_STANDARD.encode(bytes)
    )
}

fn putty_key() -> String {
    "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: aes256-cbc\nComment: x\nPublic-Lines: 2\n\
     AAAAC3NzaC1lZDI1NTE5AAAAIAkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ\nCQkJ\nKey-Derivation: Argon2id\n\
     Argon2-Memory: 4194304\nArgon2-Passes: 1000\nArgon2-Parallelism: 1\n\
     Argon2-Salt: 00112233445566778899aabbccddeeff\nPrivate-Lines: 1\n\
     AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n\
     Private-MAC: 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
        .to_owned()
}

fn server(name: &str, address: &str, port: u16, credentials: &Value) -> Value {
    json!({ "name": name, "address": address, "port": port, "user": "x", "credentials": credentials,
        "interval": "1d", "enabled": false })
}

fn test_server(attacker: &Attacker, http: &ureq::Agent, server: &Value) -> String {
    let body = json!({ "server": server });
    attacker.send_json(http, ("POST", "/api/v1/servers/test"), &attacker.operator, &body)
}

fn costly_keys(attacker: &Attacker, attack: &'static str) {
    let keys = [openssh_key(u32::MAX), putty_key(), openssh_key(1_000_000)];
    attacker.repeat(attack, |http, number| {
        let key = &keys[number as usize % keys.len()];
        let credentials = json!({ "kind": "key", "key": key, "passphrase": "guess" });
        let body = server(&format!("key-{number}"), "127.0.0.1", 9, &credentials);
        if number % 2 == 0 {
            return attacker.send_json(http, ("POST", "/api/v1/servers"), &attacker.operator, &body);
        }
        test_server(attacker, http, &body)
    });
}

fn exploding_templates(attacker: &Attacker, attack: &'static str) {
    let templates = [
        "{% set a = 'x' * 100000 %}{{ (a ~ a) * 100000 }}".to_owned(),
        "{{ range(100000)|map('string')|join('x' * 10000) }}".to_owned(),
        format!("{{{{ {}1{} }}}}", "(".repeat(9_000), ")".repeat(9_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(4_500)),
    ];
    attacker.repeat(attack, |http, number| {
        let settings =
            json!({ "url": "http://127.0.0.1:9/", "body": templates[number as usize % templates.len()] });
        let body = json!({ "channel": { "name": "x", "kind": "webhook", "settings": settings } });
        let route = if number % 2 == 0 { "/api/v1/channels/test" } else { "/api/v1/channels/preview" };
        attacker.send_json(http, ("POST", route), &attacker.operator, &body)
    });
}

/// Listener that accepts, reads, and never answers. Returns its port.
fn silent_listener() -> u16 {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return 9 };
    let port = listener.local_addr().map_or(9, |address| address.port());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Ends when the hub closes the connection, or with this process.
            std::thread::spawn(move || std::io::copy(&mut stream.by_ref(), &mut std::io::sink()));
        }
    });
    port
}

fn hanging_tests(attacker: &Attacker, attack: &'static str) {
    let port = silent_listener();
    std::thread::scope(|scope| {
        for thread in 0..10 {
            scope.spawn(move || {
                attacker.repeat(attack, |http, number| {
                    let credentials = json!({ "kind": "password", "password": "x" });
                    let name = format!("test-{thread}-{number}");
                    test_server(attacker, http, &server(&name, "127.0.0.1", port, &credentials))
                });
            });
        }
    });
}

fn moving_jumps(attacker: &Attacker, attack: &'static str) {
    let port = silent_listener();
    let http = Attacker::http();
    let credentials = json!({ "kind": "password", "password": "x" });
    let create = |name: &str, jump: Option<&str>| {
        let mut body = server(name, "127.0.0.1", 9, &credentials);
        body["jump"] = json!(jump);
        let request = http.post(format!("{}/api/v1/servers", attacker.url));
        let request = request.header("Authorization", &attacker.operator).content_type("application/json");
        let text = request.send(body.to_string()).ok()?.body_mut().read_to_string().ok()?;
        let created: Value = serde_json::from_str(&text).ok()?;
        created["id"].as_str().map(str::to_owned)
    };
    let create_until_over = |name: &str, jump: Option<&str>| {
        while !attacker.is_over() {
            if let Some(id) = create(name, jump) {
                return Some(id);
            }
            attacker.count(attack, "not created".to_owned());
            std::thread::sleep(Duration::from_secs(1));
        }
        None
    };
    let Some(jump) = create_until_over("jump", None) else { return };
    let Some(behind) = create_until_over("behind", Some(&jump)) else { return };
    attacker.repeat(attack, |http, number| {
        let path = format!("/api/v1/servers/{jump}");
        let moved = server(
            "jump",
            "127.0.0.1",
            if number % 2 == 0 { port } else { 9 },
            &json!({ "kind": "password" }),
        );
        let outcome = attacker.send_json(http, ("PUT", &path), &attacker.operator, &moved);
        attacker.count("operator: collections through moved jump servers", {
            let path = format!("/api/v1/servers/{behind}/collect");
            attacker.send_json(http, ("POST", &path), &attacker.operator, &json!({}))
        });
        outcome
    });
}

fn rule_imports(attacker: &Attacker, attack: &'static str) {
    let rule = |name: &str| {
        format!("- name: {name}\n  condition: {{ kind: threshold, metric: cpu.usage, threshold: 1 }}\n")
    };
    let texts = [
        format!("rules:\n{}", (0..2_000).map(|n| rule(&format!("r{n}"))).collect::<String>()),
        format!(
            "a: &a [x]\n{}rules: []\n",
            (0..30).map(|n| format!("b{n}: &b{n} [*a, *a, *a]\n")).collect::<String>()
        ),
        format!("rules: {}", "[".repeat(100_000)),
        format!("rules:\n- name: {}\n", "x".repeat(200_000)),
    ];
    attacker.repeat(attack, |http, number| {
        let text = texts[number as usize % texts.len()].as_bytes();
        let route = ("POST", "/api/v1/rules/import");
        attacker.send(http, route, &attacker.operator, ("application/yaml", ""), text)
    });
}
