//! TLS between real processes: verified and reloaded certificates, HTTP redirects, trusted proxies.

use crate::support::{ADMIN, AGENT, Process, TestHub, eventually, now_ms};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// Private certificate authority that signs the test certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes the certificate of the authority.
    pub(crate) fn pem(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// Writes a certificate for this machine and its key.
    fn issue(&self, cert: &Path, key: &Path) {
        self.issue_for(&["localhost", "127.0.0.1"], cert, key);
    }

    /// Certificate of the authority.
    pub(crate) fn der(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Writes a certificate for these names and addresses, and its key.
    pub(crate) fn issue_for(&self, names: &[&str], cert: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let issued = CertificateParams::new(names).unwrap().signed_by(&pair, &self.0).unwrap();
        // The hub rejects a pair that does not match, and retries after the next change.
        std::fs::write(key, pair.serialize_pem()).unwrap();
        std::fs::write(cert, issued.pem()).unwrap();
    }
}

pub(crate) fn client(authority: &Authority) -> ureq::Agent {
    let root = Certificate::from_pem(authority.0.pem().as_bytes()).unwrap();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(vec![root])))
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .new_agent()
}

fn read(response: &mut ureq::http::Response<ureq::Body>) -> Value {
    serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
}

#[test]
fn certificates_are_verified_and_reloaded() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("hub.pem"), folder.path().join("hub.key"));
    let (trusted, foreign) = (Authority::new(), Authority::new());
    trusted.issue(&cert, &key);
    let env = [
        ("PERFWATCH_HUB_TLS_CERT", cert.to_str().unwrap()),
        ("PERFWATCH_HUB_TLS_KEY", key.to_str().unwrap()),
    ];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &env);
    let url = format!("https://{}", hub.address);
    let post = |client: &ureq::Agent, path: &str, bearer: &str, body: Value| {
        let request = client.post(format!("{url}{path}")).header("Authorization", format!("Bearer {bearer}"));
        let mut response = request.content_type("application/json").send(body.to_string()).unwrap();
        let cookie = response.headers().get("set-cookie").map(|set| set.to_str().unwrap().to_owned());
        (read(&mut response), cookie)
    };
    let https = client(&trusted);
    let login = json!({ "name": ADMIN.0, "password": ADMIN.1 });
    let (_, cookie) = post(&https, "/api/v1/auth/login", "", login);
    let cookie = cookie.unwrap();
    assert!(cookie.split("; ").any(|attribute| attribute == "Secure"));
    assert!(client(&foreign).get(format!("{url}/healthz")).call().is_err());
    // HTTP to the same port is redirected, except for health checks.
    let plain = format!("http://{}", hub.address);
    let redirect = https.get(format!("{plain}/hosts?x=1")).call().unwrap();
    assert_eq!(redirect.status(), 308);
    assert_eq!(redirect.headers()["location"], format!("{url}/hosts?x=1"));
    assert_eq!(https.get(format!("{plain}/healthz")).call().unwrap().status(), 200);

    // An agent enrolls if it trusts the CA.
    let session = cookie.split(';').next().unwrap();
    let request = https.post(format!("{url}/api/v1/enrollment-tokens")).content_type("application/json");
    let request = request.header("Cookie", session).header("Origin", &url);
    let token = read(&mut request.send(json!({ "name": "x" }).to_string()).unwrap())["token"].clone();
    let token = token.as_str().unwrap();
    let (trusted_ca, foreign_ca) =
        (trusted.pem(folder.path(), "trusted.pem"), foreign.pem(folder.path(), "foreign.pem"));
    let start = |name: &str, ca: &Path| {
        let arguments = [
            "--hub",
            &url,
            "--interval",
            "250ms",
            "--name",
            name,
            "--token",
            token,
            "--ca",
            ca.to_str().unwrap(),
        ];
        Process::spawn(AGENT, folder.path(), name, &arguments)
    };
    let untrusting = start("untrusting", &foreign_ca);
    eventually("the agent logs the error", || untrusting.log().contains("hub unreachable"));
    assert!(untrusting.log().to_lowercase().contains("certificate"), "{}", untrusting.log());
    let total = |client: &ureq::Agent| {
        let get = client.get(format!("{url}/api/v1/system")).header("Cookie", session);
        read(&mut get.call().unwrap())["accepted_snapshots"].as_u64().unwrap()
    };
    let trusting = start("trusting", &trusted_ca);
    eventually("the agent sends", || total(&https) > 3);
    assert!(!trusting.log().contains("hub unreachable"), "{}", trusting.log());
    drop((untrusting, trusting));

    // A renewed certificate is loaded without a restart.
    // Elapsed time, so that the new files have another modification time.
    std::thread::sleep(Duration::from_millis(20));
    foreign.issue(&cert, &key);
    eventually("the new certificate is used", || {
        client(&foreign).get(format!("{url}/healthz")).call().is_ok()
    });
    assert!(client(&trusted).get(format!("{url}/healthz")).call().is_err());
    // An invalid certificate is ignored.
    std::fs::write(&cert, "half a cert").unwrap();
    eventually("the hub logs the error", || hub.process.log().contains("keeping the current one"));
    assert!(client(&foreign).get(format!("{url}/healthz")).call().is_ok());
}

#[test]
fn embedded_agent_works_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("hub.pem"), folder.path().join("hub.key"));
    let authority = Authority::new();
    authority.issue(&cert, &key);
    let env = [
        ("PERFWATCH_HUB_TLS_CERT", cert.to_str().unwrap()),
        ("PERFWATCH_HUB_TLS_KEY", key.to_str().unwrap()),
    ];
    let hub =
        TestHub::start_with_env(folder.path(), &["--listen", "127.0.0.1:0", "--interval", "250ms"], &env);
    eventually("the embedded agent sends", || hub.process.log().contains("host registered"));
    assert!(!hub.process.log().contains("hub unreachable"), "{}", hub.process.log());
}

#[test]
fn only_trusted_proxies_set_the_client_address() {
    let folder = tempfile::tempdir().unwrap();
    let env = [("PERFWATCH_HUB_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &env);
    let login = |headers: &[(&str, &str)]| {
        let mut request = ureq::post(hub.url("/api/v1/auth/login")).content_type("application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send(json!({ "name": ADMIN.0, "password": ADMIN.1 }).to_string()).unwrap();
        response.headers()["set-cookie"].to_str().unwrap().to_owned()
    };
    let proxy_headers = [
        ("X-Forwarded-For", "198.51.100.7, 203.0.113.9, 10.1.2.3"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "watch.example"),
        ("Origin", "https://watch.example"),
    ];
    assert!(login(&proxy_headers).split("; ").any(|attribute| attribute == "Secure"));
    let audit = hub.get("/api/v1/audit?text=login&limit=1").body;
    assert_eq!(audit["entries"][0]["address"], "203.0.113.9", "{audit}");
    let other = tempfile::tempdir().unwrap();
    let hub = TestHub::start(other.path());
    let mut request = ureq::post(hub.url("/api/v1/auth/login")).content_type("application/json");
    request = request.header("X-Forwarded-For", "203.0.113.9").header("X-Forwarded-Proto", "https");
    let response = request.send(json!({ "name": ADMIN.0, "password": ADMIN.1 }).to_string()).unwrap();
    assert!(!response.headers()["set-cookie"].to_str().unwrap().contains("Secure"));
    assert_eq!(hub.get("/api/v1/audit?text=login&limit=1").body["entries"][0]["address"], "127.0.0.1");
}

#[test]
fn idle_connections_do_not_block_others() {
    let folder = tempfile::tempdir().unwrap();
    let env = [("PERFWATCH_HUB_LIMITS_MAX_CONNECTIONS_PER_ADDRESS", "50")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &env);
    // Slowloris attack: incomplete requests on all connections that an address may open.
    let mut attackers: Vec<std::net::TcpStream> =
        (0..60).map(|_| std::net::TcpStream::connect(&hub.address).unwrap()).collect();
    for stream in &mut attackers {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    }
    // The ten connections above the limit are closed at once.
    let is_closed = |stream: &mut std::net::TcpStream, wait: Duration| {
        stream.set_read_timeout(Some(wait)).unwrap();
        // A reset also ends the connection.
        !matches!(stream.read(&mut [0; 512]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let mut rejected = 0;
    eventually("the connections above the limit are closed", || {
        let read_timeout = Duration::from_millis(20);
        rejected = attackers.iter_mut().filter_map(|s| is_closed(s, read_timeout).then_some(())).count();
        rejected >= 10
    });
    assert_eq!(rejected, 10);
    // Another address is not affected.
    let started = now_ms();
    let other_address = std::net::SocketAddr::from(([127, 0, 0, 2], 0));
    let socket = connect_from(other_address, hub.address.parse().unwrap());
    let mut socket = std::io::BufReader::new(socket);
    socket.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && now_ms() - started < 5_000, "{response}");
    // The other connections are closed after the header timeout.
    let started = now_ms();
    for stream in &mut attackers {
        assert!(is_closed(stream, Duration::from_secs(45)));
    }
    assert!(now_ms() - started < 45_000);
}

/// Connects from the given local address.
fn connect_from(from: std::net::SocketAddr, to: std::net::SocketAddr) -> std::net::TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        let stream = socket.connect(to).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    })
}
