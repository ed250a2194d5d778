//! TLS between real processes: certificates verified and renewed, HTTP sent on, proxies believed
//! only where they are told of.

use crate::support::{ADMIN, AGENT, Process, TestHub, eventually, now_ms};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// An authority of one's own, as a company has one.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// A certificate for this machine, into the files of a hub.
    fn issue(&self, cert: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let issued = CertificateParams::new(names).unwrap().signed_by(&pair, &self.0).unwrap();
        // The key first: a pair that does not fit is refused, and looked at again.
        std::fs::write(key, pair.serialize_pem()).unwrap();
        std::fs::write(cert, issued.pem()).unwrap();
    }
}

fn client(authority: &Authority) -> ureq::Agent {
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

fn read(answer: &mut ureq::http::Response<ureq::Body>) -> Value {
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

#[test]
fn certificates_are_verified_and_reloaded() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("hub.pem"), folder.path().join("hub.key"));
    let (ours, foreign) = (Authority::new(), Authority::new());
    ours.issue(&cert, &key);
    let told = [
        ("PERFWATCH_HUB_TLS_CERT", cert.to_str().unwrap()),
        ("PERFWATCH_HUB_TLS_KEY", key.to_str().unwrap()),
    ];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &told);
    let url = format!("https://{}", hub.address);
    let post = |client: &ureq::Agent, path: &str, bearer: &str, body: Value| {
        let request = client.post(format!("{url}{path}")).header("Authorization", format!("Bearer {bearer}"));
        let mut answer = request.content_type("application/json").send(body.to_string()).unwrap();
        let cookie = answer.headers().get("set-cookie").map(|set| set.to_str().unwrap().to_owned());
        (read(&mut answer), cookie)
    };
    let trusting = client(&ours);
    let login = json!({ "name": ADMIN.0, "password": ADMIN.1 });
    let signed = post(&trusting, "/api/v1/auth/token", "", login.clone()).0["token"].clone();
    let signed = signed.as_str().unwrap();
    let (_, cookie) = post(&trusting, "/api/v1/auth/login", "", login);
    assert!(cookie.unwrap().ends_with("; Secure"));
    assert!(client(&foreign).get(format!("{url}/healthz")).call().is_err());
    // HTTP to the same port: sent on, but for probes.
    let plain = format!("http://{}", hub.address);
    let sent_on = trusting.get(format!("{plain}/hosts?x=1")).call().unwrap();
    assert_eq!(sent_on.status(), 308);
    assert_eq!(sent_on.headers()["location"], format!("{url}/hosts?x=1"));
    assert_eq!(trusting.get(format!("{plain}/healthz")).call().unwrap().status(), 200);
    assert!(
        trusting.get(format!("{url}/")).call().unwrap().headers().contains_key("strict-transport-security")
    );

    // An agent: with the authority it is let in; with another one it keeps what it has.
    let enrol =
        post(&trusting, "/api/v1/enrollment-tokens", signed, json!({ "name": "x" })).0["token"].clone();
    let enrol = enrol.as_str().unwrap();
    let (good, bad) = (ours.pem(folder.path(), "ours.pem"), foreign.pem(folder.path(), "foreign.pem"));
    let start = |name: &str, ca: &Path| {
        let arguments = [
            "--hub",
            &url,
            "--interval",
            "250ms",
            "--name",
            name,
            "--token",
            enrol,
            "--ca",
            ca.to_str().unwrap(),
        ];
        Process::spawn(AGENT, folder.path(), name, &arguments)
    };
    let wrong = start("wrong", &bad);
    eventually("it says why", || wrong.log().contains("can't reach the hub"));
    assert!(wrong.log().to_lowercase().contains("certificate"), "{}", wrong.log());
    let total = |client: &ureq::Agent| {
        let get =
            client.get(format!("{url}/api/v1/system")).header("Authorization", format!("Bearer {signed}"));
        read(&mut get.call().unwrap())["accepted_snapshots"].as_u64().unwrap()
    };
    let right = start("right", &good);
    eventually("it sends", || total(&trusting) > 3);
    assert!(!right.log().contains("can't reach"), "{}", right.log());
    drop((wrong, right));

    // Renewed, by another authority even: the hub takes it up by itself.
    std::thread::sleep(Duration::from_millis(20));
    foreign.issue(&cert, &key);
    eventually("the new certificate is shown", || {
        client(&foreign).get(format!("{url}/healthz")).call().is_ok()
    });
    assert!(client(&ours).get(format!("{url}/healthz")).call().is_err());
    // A broken one is not taken up.
    std::fs::write(&cert, "half a cert").unwrap();
    eventually("it says so", || hub.process.log().contains("the last one stays"));
    assert!(client(&foreign).get(format!("{url}/healthz")).call().is_ok());
}

#[test]
fn embedded_agent_works_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("hub.pem"), folder.path().join("hub.key"));
    let authority = Authority::new();
    authority.issue(&cert, &key);
    let told = [
        ("PERFWATCH_HUB_TLS_CERT", cert.to_str().unwrap()),
        ("PERFWATCH_HUB_TLS_KEY", key.to_str().unwrap()),
    ];
    let hub =
        TestHub::start_with_env(folder.path(), &["--listen", "127.0.0.1:0", "--interval", "250ms"], &told);
    eventually("its own agent is heard", || hub.process.log().contains("a new host"));
    assert!(!hub.process.log().contains("can't reach"), "{}", hub.process.log());
}

#[test]
fn only_trusted_proxies_set_the_client_address() {
    let folder = tempfile::tempdir().unwrap();
    let told = [("PERFWATCH_HUB_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &told);
    let login = |headers: &[(&str, &str)]| {
        let mut request = ureq::post(hub.url("/api/v1/auth/login")).content_type("application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send(json!({ "name": ADMIN.0, "password": ADMIN.1 }).to_string()).unwrap();
        answer.headers()["set-cookie"].to_str().unwrap().to_owned()
    };
    let of_proxy = [
        ("X-Forwarded-For", "198.51.100.7, 203.0.113.9, 10.1.2.3"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "watch.example"),
        ("Origin", "https://watch.example"),
    ];
    assert!(login(&of_proxy).ends_with("; Secure"));
    let audit = hub.get("/api/v1/audit?text=login&limit=1").body;
    assert_eq!(audit["entries"][0]["address"], "203.0.113.9", "{audit}");
    let other = tempfile::tempdir().unwrap();
    let hub = TestHub::start(other.path());
    let mut request = ureq::post(hub.url("/api/v1/auth/login")).content_type("application/json");
    request = request.header("X-Forwarded-For", "203.0.113.9").header("X-Forwarded-Proto", "https");
    let answer = request.send(json!({ "name": ADMIN.0, "password": ADMIN.1 }).to_string()).unwrap();
    assert!(!answer.headers()["set-cookie"].to_str().unwrap().contains("Secure"));
    assert_eq!(hub.get("/api/v1/audit?text=login&limit=1").body["entries"][0]["address"], "127.0.0.1");
}

#[test]
fn idle_connections_do_not_block_others() {
    let folder = tempfile::tempdir().unwrap();
    let told = [("PERFWATCH_HUB_LIMITS_MAX_CONNECTIONS_PER_ADDRESS", "50")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &told);
    // Slow loris: a request that never ends, on all places that one address has.
    let mut loris: Vec<std::net::TcpStream> =
        (0..60).map(|_| std::net::TcpStream::connect(&hub.address).unwrap()).collect();
    for stream in &mut loris {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    }
    std::thread::sleep(Duration::from_millis(300));
    // From another address of this machine all is well.
    let began = now_ms();
    let other = std::net::SocketAddr::from(([127, 0, 0, 2], 0));
    let socket = socket_from(other, hub.address.parse().unwrap());
    let mut socket = std::io::BufReader::new(socket);
    socket.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && now_ms() - began < 5_000, "{answer}");
    // Those beyond the bound are closed at once, the others when their head took too long.
    let closed = |stream: &mut std::net::TcpStream, wait: Duration| {
        stream.set_read_timeout(Some(wait)).unwrap();
        // A reset is an end too.
        !matches!(stream.read(&mut [0; 512]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let early = loris.iter_mut().filter_map(|s| closed(s, Duration::from_millis(20)).then_some(())).count();
    assert_eq!(early, 10);
    let began = now_ms();
    for stream in &mut loris {
        assert!(closed(stream, Duration::from_secs(45)));
    }
    assert!(now_ms() - began < 45_000);
}

/// A connection from an address of our choice.
fn socket_from(from: std::net::SocketAddr, to: std::net::SocketAddr) -> std::net::TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        let stream = socket.connect(to).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    })
}
