//! Hub behind real reverse proxies: the configurations of `docs/PROXIES.md`, and configurations with faults.

use crate::support::{ADMIN, Process, TestHub, eventually};
use crate::tls::{Authority, client};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

const PAGE: &str = include_str!("../../../../docs/PROXIES.md");

/// Loopback address that no other test process uses, so that each proxy has its own port 443.
fn own_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let process = std::process::id() % 60_000;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{number}", 1 + process / 250, process % 250)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Configuration of the page with this name.
fn documented(name: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("<!-- config: {name} -->\n```")).unwrap();
    rest.split_once('\n').unwrap().1.split_once("```").unwrap().0
}

/// Running proxy, with the authority that signed its certificate.
struct Proxy {
    /// `https://ADDRESS`, with the port unless it is 443.
    url: String,
    address: String,
    port: u16,
    authority: Authority,
    _process: Process,
}

impl Proxy {
    /// Starts `nginx`, `haproxy` or `caddy`; the names of the page are replaced by those of the test.
    fn start(program: &str, config: &str, hub: &TestHub, folder: &Path, port: u16) -> Self {
        Self::start_at(program, config, &hub.address, folder, (own_address(), port))
    }

    fn start_at(
        program: &str,
        config: &str,
        hub: &str,
        folder: &Path,
        (address, port): (String, u16),
    ) -> Self {
        let authority = Authority::new();
        let (cert, key) = (folder.join("proxy.pem"), folder.join("proxy.key"));
        authority.issue_for(&[&address], &cert, &key);
        if program == "haproxy" {
            let both = [std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap()].concat();
            std::fs::write(&cert, both).unwrap();
        }
        let url = match port {
            443 => format!("https://{address}"),
            port => format!("https://{address}:{port}"),
        };
        let config = config
            .replace("127.0.0.1:8000", hub)
            .replace("listen 443", &format!("listen {address}:{port}"))
            .replace("bind :443", &format!("bind {address}:{port}"))
            .replace("https://watch.example", &url)
            .replace("/etc/ssl/watch.example.pem", cert.to_str().unwrap())
            .replace("/etc/ssl/watch.example.key", key.to_str().unwrap())
            .replace("watch.example", &address);
        let path = folder.join(format!("{program}.conf"));
        let path_text = path.to_str().unwrap();
        let (binary, config, arguments): (_, _, Vec<&str>) = match program {
            "nginx" => (
                "/usr/sbin/nginx",
                nginx_main(&config, folder),
                vec!["-p", folder.to_str().unwrap(), "-e", "stderr", "-c", path_text],
            ),
            "haproxy" => ("/usr/sbin/haproxy", config, vec!["-db", "-f", path_text]),
            _ => (
                "/usr/bin/caddy",
                format!(
                    "{{\n    admin off\n    auto_https disable_redirects\n    default_bind {address}\n}}\n{config}"
                ),
                vec!["run", "--adapter", "caddyfile", "--config", path_text],
            ),
        };
        std::fs::write(&path, config).unwrap();
        assert!(Path::new(binary).exists(), "{program} is not installed: run scripts/ensure-proxies");
        let home = [("HOME", folder.to_str().unwrap())];
        let process = Process::spawn_with(binary, folder, program, &arguments, &home);
        eventually("the proxy listens", || TcpStream::connect((&*address, port)).is_ok());
        Self { url, address, port, authority, _process: process }
    }

    /// Sends a request with the proxy's origin; returns status, headers and body.
    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        let mut request = request.header("Origin", &self.url).header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = client(&self.authority).run(request.body(body.to_owned()).unwrap()).unwrap();
        let headers = response.headers();
        let header = |name: &str| {
            headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        let (cookie, location) = (header("set-cookie"), header("location"));
        let text = response.body_mut().read_to_string().unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Response { status: response.status().as_u16(), cookie, location, text, body }
    }

    fn log_in(&self, base_path: &str, headers: &[(&str, &str)]) -> Response {
        let body = json!({ "name": ADMIN.0, "password": ADMIN.1 }).to_string();
        self.request("POST", &format!("{base_path}/api/v1/auth/login"), headers, &body)
    }

    /// Codes of the faults that the login page would show.
    fn faults(&self, base_path: &str) -> Vec<Value> {
        let location = format!("{}{base_path}/", self.url);
        let path = format!("{base_path}/api/v1/proxy-check?location={location}");
        let faults = self.request("GET", &path, &[], "").body["faults"].take();
        faults.as_array().unwrap().iter().map(|fault| fault["code"].clone()).collect()
    }

    /// Status line of a WebSocket handshake.
    fn handshake(&self, path: &str, cookie: &str) -> String {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(self.address.clone()).unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect((&*self.address, self.port)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let host = self.url.trim_start_matches("https://");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {}\r\nCookie: {cookie}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.url
        )
        .unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head).into_owned()
    }
}

struct Response {
    status: u16,
    cookie: String,
    location: String,
    text: String,
    body: Value,
}

impl Response {
    fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    /// Name and value of the cookie.
    fn cookie_pair(&self) -> &str {
        self.cookie.split(';').next().unwrap()
    }
}

/// Main configuration of nginx around the documented one.
fn nginx_main(servers: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; user root; pid {folder}/nginx.pid;\n\
         events {{ worker_connections 128; }}\n\
         http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
         fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{servers}\n}}\n"
    )
}

fn start_hub(folder: &Path, variables: &[(&str, &str)]) -> TestHub {
    TestHub::start_with_env(folder, &["hub", "--listen", "127.0.0.1:0"], variables)
}

/// Hub that trusts the proxies of this machine.
fn start_trusting_hub(folder: &Path, public_url: &str) -> TestHub {
    let variables =
        [("PERFWATCH_HUB_TRUSTED_PROXIES", "127.0.0.0/8"), ("PERFWATCH_HUB_PUBLIC_URL", public_url)];
    start_hub(folder, &variables)
}

/// Checks the dashboard, its files, login, cookies, live data and links through a proxy.
fn assert_works(proxy: &Proxy, base_path: &str) {
    let page = proxy.request("GET", &format!("{base_path}/hosts/a"), &[], "");
    assert_eq!(page.status, 200, "{}", page.text);
    if let Some((_, script)) = page.text.split_once("src=\"./assets/") {
        let script = script.split('"').next().unwrap();
        let file = proxy.request("GET", &format!("{base_path}/assets/{script}"), &[], "");
        assert_eq!(file.status, 200, "{}", file.text);
    }
    assert_eq!(proxy.faults(base_path), Vec::<Value>::new());
    let login = proxy.log_in(base_path, &[]);
    assert_eq!(login.status, 200, "{}", login.text);
    let path = if base_path.is_empty() { "/" } else { base_path };
    assert!(login.cookie.contains("; Secure"), "{}", login.cookie);
    assert!(login.cookie.contains(&format!("; Path={path};")), "{}", login.cookie);
    let cookie = [("Cookie", login.cookie_pair())];
    let me = proxy.request("GET", &format!("{base_path}/api/v1/auth/me"), &cookie, "");
    assert_eq!(me.body["name"], ADMIN.0, "{}", me.text);
    let audit = proxy.request("GET", &format!("{base_path}/api/v1/audit?text=login&limit=1"), &cookie, "");
    // The proxy and the test connect from loopback addresses.
    assert!(audit.body["entries"][0]["address"].as_str().unwrap().starts_with("127."), "{}", audit.text);
    let live = proxy.handshake(&format!("{base_path}/api/ws/metrics"), login.cookie_pair());
    assert_eq!(live, "HTTP/1.1 101");
    assert_eq!(proxy.handshake(&format!("{base_path}/api/ws/probe"), ""), "HTTP/1.1 101");
    let script = proxy.request("GET", &format!("{base_path}/install.sh"), &[], "");
    assert!(script.text.contains(&format!("{}{base_path}", proxy.url)), "{}", script.text);
    let docs = proxy.request("GET", &format!("{base_path}/api/docs"), &[], "");
    assert_eq!(docs.location, "docs/", "relative, whatever path a proxy strips");
    assert_eq!(proxy.request("GET", &format!("{base_path}/api/docs/"), &[], "").status, 200);
    // Large batches reach the hub, which rejects this one.
    let batch = "x".repeat(3 << 20);
    let rejected = proxy.request("POST", &format!("{base_path}/ingest/metrics"), &cookie, &batch);
    assert!(rejected.body["error"]["code"].is_string(), "{} {}", rejected.status, rejected.text);
    let system = proxy.request("GET", &format!("{base_path}/api/v1/system"), &cookie, "");
    let faults = system.body["address_faults"].as_array().unwrap().clone();
    assert!(faults.iter().all(|fault| fault["code"] == "local_links"), "{faults:?}");
    let logout = proxy.request("POST", &format!("{base_path}/api/v1/auth/logout"), &cookie, "{}");
    assert_eq!(logout.status, 204, "{}", logout.text);
}

fn root_works(program: &str) {
    for port in [443, free_port()] {
        let folder = tempfile::tempdir().unwrap();
        let hub = start_trusting_hub(folder.path(), "");
        assert_works(&Proxy::start(program, documented(program), &hub, folder.path(), port), "");
    }
}

/// The proxy passes the path unchanged, or strips it by the edit that the page names.
fn path_works(program: &str, (from, to): (&str, &str)) {
    let config = documented(&format!("{program}-path"));
    let stripped = config.replace(from, to);
    assert_ne!(config, stripped);
    for config in [config, &stripped] {
        let folder = tempfile::tempdir().unwrap();
        let address = own_address();
        let hub = start_trusting_hub(folder.path(), &format!("https://{address}/perfwatch/"));
        let proxy = Proxy::start_at(program, config, &hub.address, folder.path(), (address, 443));
        assert_works(&proxy, "/perfwatch");
        let log = hub.process.log();
        assert!(!log.contains("notification links"), "{log}");
    }
}

#[test]
fn nginx_works_at_the_root_on_any_port() {
    root_works("nginx");
}

#[test]
fn nginx_works_below_a_path() {
    path_works("nginx", ("proxy_pass http://127.0.0.1:8000;", "proxy_pass http://127.0.0.1:8000/;"));
}

#[test]
fn haproxy_works_at_the_root_on_any_port() {
    root_works("haproxy");
}

#[test]
fn haproxy_works_below_a_path() {
    let strip = "backend perfwatch\n    http-request replace-path /perfwatch/?(.*) /\\1\n    server";
    path_works("haproxy", ("backend perfwatch\n    server", strip));
}

#[test]
fn caddy_works_at_the_root_on_any_port() {
    root_works("caddy");
}

#[test]
fn caddy_works_below_a_path() {
    path_works("caddy", ("handle /perfwatch*", "handle_path /perfwatch*"));
}

/// TLS server of nginx whose location has these directives.
fn nginx_server(directives: &str) -> String {
    let tls = "listen 443 ssl; ssl_certificate /etc/ssl/watch.example.pem; \
               ssl_certificate_key /etc/ssl/watch.example.key;";
    format!("server {{ {tls} location / {{ proxy_pass http://127.0.0.1:8000; {directives} }} }}")
}

#[test]
fn changed_host_is_named_and_public_files_are_served() {
    let port = free_port();
    for (directives, port) in [
        ("", 443),
        ("", port),
        ("proxy_set_header Host $host;", port),
        ("proxy_set_header Host $host:443;", port),
        ("proxy_set_header Host another.example;", 443),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let hub = start_hub(folder.path(), &[]);
        let proxy = Proxy::start("nginx", &nginx_server(directives), &hub, folder.path(), port);
        for path in ["/", "/icon.svg", "/install.sh", "/healthz", "/api/openapi.json", "/api/docs/"] {
            let response = proxy.request("GET", path, &[], "");
            assert_eq!(response.status, 200, "{directives} {path}: {}", response.text);
        }
        let rejected = proxy.log_in("", &[]);
        assert_eq!((rejected.status, &rejected.body["error"]["code"]), (403, &json!("cross_origin")));
        assert!(rejected.message().contains(&proxy.url), "{}", rejected.text);
        assert!(rejected.message().contains("hub.public_url"), "{}", rejected.text);
        proxy.log_in("", &[]);
        let log = hub.process.log();
        assert_eq!(log.matches("rejected a cross-origin request").count(), 1, "{log}");
        assert!(log.contains(&proxy.url) && log.contains("hub.public_url"), "{log}");
        assert!(proxy.faults("").contains(&json!("host_mismatch")), "{:?}", proxy.faults(""));
        // Browsers with a secure context report that page and URL have one origin.
        assert_eq!(proxy.log_in("", &[("Sec-Fetch-Site", "same-origin")]).status, 200);
        assert_eq!(proxy.log_in("", &[("Sec-Fetch-Site", "same-site")]).status, 403);
    }
}

/// The setting that the rejection names corrects each fault.
#[test]
fn public_url_replaces_a_changed_host() {
    for directives in ["", "proxy_set_header Host $host;", "proxy_set_header Host another.example;"] {
        let folder = tempfile::tempdir().unwrap();
        let (address, port) = (own_address(), free_port());
        let url = format!("https://{address}:{port}");
        let hub = start_hub(folder.path(), &[("PERFWATCH_HUB_PUBLIC_URL", &url)]);
        let config = nginx_server(directives);
        let proxy = Proxy::start_at("nginx", &config, &hub.address, folder.path(), (address, port));
        assert_eq!(proxy.log_in("", &[]).status, 200, "{directives}");
    }
}

#[test]
fn default_port_in_the_host_header_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start_hub(folder.path(), &[]);
    let directives = "proxy_set_header Host $host:443;";
    let proxy = Proxy::start("nginx", &nginx_server(directives), &hub, folder.path(), 443);
    assert_eq!(proxy.log_in("", &[]).status, 200);
}

#[test]
fn missing_upgrade_is_reported_and_live_data_is_polled() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start_trusting_hub(folder.path(), "");
    let directives = "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;";
    let proxy = Proxy::start("nginx", &nginx_server(directives), &hub, folder.path(), 443);
    let login = proxy.log_in("", &[]);
    let cookie = [("Cookie", login.cookie_pair())];
    let is_reported = || {
        let system = proxy.request("GET", "/api/v1/system", &cookie, "");
        system.body["address_faults"]
            .as_array()
            .unwrap()
            .iter()
            .any(|fault| fault["code"] == "upgrade_missing")
    };
    assert!(!is_reported());
    assert_ne!(proxy.handshake("/api/ws/metrics", login.cookie_pair()), "HTTP/1.1 101");
    assert!(is_reported());
    assert_eq!(hub.post_json(&json!({ "host": "polled", "cpu": { "usage": 12.5 } })).body["accepted"], 1);
    let poll = |query: &str| {
        let response = proxy.request("GET", &format!("/api/v1/live?{query}"), &cookie, "");
        assert_eq!(response.status, 200, "{}", response.text);
        response.body["messages"].as_array().unwrap().clone()
    };
    let messages = poll("host=polled&metric=cpu.usage");
    let backfill = &messages[0]["hosts"][0];
    assert_eq!((&messages[0]["type"], &backfill["v"]), (&json!("backfill"), &json!([[1250]])));
    assert_eq!(messages[1]["type"], "incident_counts");
    let since = backfill["t"][0].as_i64().unwrap();
    assert_eq!(poll(&format!("host=polled&since={since}"))[0]["hosts"], json!([]));
    assert_eq!(poll("").len(), 1);
    assert_eq!(proxy.request("GET", "/api/v1/live?host=unknown", &cookie, "").status, 404);
    assert_eq!(proxy.request("GET", "/api/v1/live", &[], "").status, 401);
}

#[test]
fn path_without_public_url_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start_trusting_hub(folder.path(), "");
    let config = documented("nginx-path").replace("8000;", "8000/;");
    let proxy = Proxy::start("nginx", &config, &hub, folder.path(), 443);
    assert_eq!(proxy.faults("/perfwatch"), [json!("base_path_mismatch")]);
    // A proxy that strips the path needs no setting for the files of the dashboard.
    let page = proxy.request("GET", "/perfwatch/hosts/a", &[], "");
    assert!(page.text.contains("<base href=\"../\" />") || page.text.contains("without the dashboard"));
}

/// Logs in with these headers; returns the address in the audit log.
fn audited_address(hub: &TestHub, headers: &[(&str, &str)]) -> String {
    let mut request = ureq::post(hub.url("/api/v1/auth/login")).content_type("application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send(json!({ "name": ADMIN.0, "password": ADMIN.1 }).to_string()).unwrap();
    let audit = hub.get("/api/v1/audit?text=login&limit=1").body;
    audit["entries"][0]["address"].as_str().unwrap().to_owned()
}

#[test]
fn forwarded_addresses_are_understood_from_trusted_proxies() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = start_trusting_hub(folder.path(), "");
    let untrusting = start_hub(other.path(), &[]);
    for (name, value, want) in [
        ("X-Forwarded-For", "203.0.113.7:51234", "203.0.113.7"),
        ("X-Forwarded-For", "[2001:db8::1]:443", "2001:db8::1"),
        ("X-Forwarded-For", "\"[2001:db8::1]\"", "2001:db8::1"),
        ("X-Forwarded-For", " 1.1.1.1 , 203.0.113.7:1 ,127.0.0.9:80", "203.0.113.7"),
        ("X-Forwarded-For", "1.1.1.1, nonsense", "127.0.0.1"),
        ("X-Forwarded-For", "2.2.2.2, nonsense", "127.0.0.1"),
        ("Forwarded", "for=\"[2001:db8:cafe::17]:4711\";proto=https", "2001:db8:cafe::17"),
        ("Forwarded", "For=203.0.113.7:80, for=127.0.0.9", "203.0.113.7"),
        ("Forwarded", "for=_hidden", "127.0.0.1"),
        ("Forwarded", "for=unknown", "127.0.0.1"),
    ] {
        assert_eq!(audited_address(&hub, &[(name, value)]), want, "{name}: {value}");
        assert_eq!(audited_address(&untrusting, &[(name, value)]), "127.0.0.1", "{name}: {value}");
    }
    let log = hub.process.log();
    assert_eq!(log.matches("ignored a malformed forwarded address").count(), 1, "{log}");
    let log = untrusting.process.log();
    assert_eq!(log.matches("ignored forwarding headers").count(), 1, "{log}");
}

#[test]
fn hubs_on_one_host_name_keep_their_sessions() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let hubs = folders.each_ref().map(|folder| start_hub(folder.path(), &[]));
    let cookies = hubs.each_ref().map(|hub| hub.log_in(ADMIN.0, ADMIN.1));
    let port = hubs[0].address.rsplit(':').next().unwrap();
    assert!(cookies[0].starts_with(&format!("perfwatch_session_{port}=")), "{}", cookies[0]);
    // A browser sends both cookies to both hubs.
    let both = cookies.join("; ");
    let me = |hub: &TestHub| hub.browser_request("GET", "/api/v1/auth/me", &both, &Value::Null).status;
    assert_eq!(hubs.each_ref().map(me), [200, 200]);
    assert_eq!(hubs[0].browser_request("POST", "/api/v1/auth/logout", &both, &json!({})).status, 204);
    assert_eq!(hubs.each_ref().map(me), [401, 200]);
}

#[test]
fn local_notification_links_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start_at(folder.path(), "0.0.0.0:0");
    let log = hub.process.log();
    assert!(log.contains("notification links are limited to this machine; set hub.public_url"), "{log}");
    let system = hub.get("/api/v1/system").body;
    assert_eq!(system["address_faults"][0]["code"], "local_links", "{system}");
    assert!(system["notification_base_url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{system}");
}

#[test]
fn hsts_is_sent_over_https_if_configured() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let variables = [("PERFWATCH_HUB_TRUSTED_PROXIES", "127.0.0.1"), ("PERFWATCH_HUB_HSTS", "365d")];
    let hubs = [start_hub(folder.path(), &variables), start_trusting_hub(other.path(), "")];
    let policy = |hub: &TestHub, proto: &str| {
        let response = ureq::get(hub.url("/")).header("X-Forwarded-Proto", proto).call().unwrap();
        response.headers().get("strict-transport-security").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(policy(&hubs[0], "https").as_deref(), Some("max-age=31536000"));
    assert_eq!(policy(&hubs[0], "http"), None);
    assert_eq!(policy(&hubs[1], "https"), None);
}

#[test]
fn websocket_from_another_origin_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start_hub(folder.path(), &[]);
    let handshake = |query: &str, cookie: &str| {
        let mut stream = TcpStream::connect(&hub.address).unwrap();
        let head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://another.example";
        let target = format!("/api/ws/metrics{query} HTTP/1.1\r\nHost: hub");
        write!(stream, "GET {target}\r\nCookie: {cookie}\r\n{head}\r\n\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8_lossy(&status).into_owned()
    };
    let cookie = hub.log_in(ADMIN.0, ADMIN.1);
    let url = hub.websocket_url(&hub.token);
    let (_, token) = url.split_once("?token=").unwrap();
    assert_eq!(handshake("", &cookie), "HTTP/1.1 403");
    assert_eq!(handshake("?token=", &cookie), "HTTP/1.1 401");
    assert_eq!(handshake(&format!("?token={token}"), ""), "HTTP/1.1 101");
}
