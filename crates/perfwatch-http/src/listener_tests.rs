//! Connections that never end, one of each kind: the listener closes all of them.

use super::*;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::{any, get, post};
use std::io::{Read as _, Write as _};
use std::net::TcpStream as StdStream;

/// Time limits of the listeners under test.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Time after which a connection counts as never closed.
const MAX_WAIT: Duration = Duration::from_secs(20);
const TIMEOUTS: ConnectionTimeouts =
    ConnectionTimeouts { handshake: TIMEOUT, head: TIMEOUT, body: TIMEOUT, write: TIMEOUT, idle: TIMEOUT };

/// Handler that reads nothing from its WebSocket: only the listener can end it.
async fn silent_websocket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket| while socket.recv().await.is_some() {})
}

fn router() -> Router {
    let large = vec![b'x'; 64 << 20];
    Router::new()
        .route("/", any(async || "ok"))
        .route("/body", post(async |body: String| body.len().to_string()))
        .route("/large", get(async move || large.clone()))
        .route("/ws", any(silent_websocket))
}

/// Listener that serves as long as the returned runtime exists.
fn start(max_connections: usize, tls: Option<TlsFiles>) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = ListenerConfig {
        tls,
        max_connections,
        max_connections_per_address: 100,
        trusted_proxies: Vec::new(),
        timeouts: TIMEOUTS,
        drain_timeout: Duration::ZERO,
        reload: Arc::default(),
    };
    let stop = CancellationToken::new();
    runtime.block_on(async {
        let serving = serve(listener, Listener::Public, router(), config, &stop).unwrap();
        tokio::spawn(async move {
            let _stop = stop;
            serving.await
        });
    });
    (runtime, address)
}

fn connect(address: SocketAddr, request: &[u8]) -> StdStream {
    let mut stream = StdStream::connect(address).unwrap();
    stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
    stream.write_all(request).unwrap();
    stream
}

/// Reads until the listener closes the connection.
fn read_to_end(stream: &mut StdStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the connection stays open"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// H7: every state of a connection has a time limit, and none of them keeps its slot.
#[test]
fn connections_in_every_state_are_closed() {
    let kinds: [(&str, &[u8]); 9] = [
        ("silent", b""),
        ("half of a head", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "),
        ("idle after a response", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("half of a body", b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"),
        ("half of a chunk", b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n1"),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("half of an HTTP/2 preface", b"PRI * HTTP/2.0\r\n"),
        (
            "h2c upgrade",
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
              HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
        ),
        (
            "silent WebSocket",
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        ),
    ];
    let (_runtime, address) = start(kinds.len(), None);
    let mut streams = kinds.map(|(kind, request)| (kind, connect(address, request)));
    for (kind, stream) in &mut streams {
        let response = read_to_end(stream);
        assert!(
            !response.starts_with("HTTP/2") && !response.contains("101 Switching Protocols\r\nupgrade: h2c")
        );
        let has_answer = ["idle after a response", "h2c upgrade"].contains(kind);
        assert_eq!(response.starts_with("HTTP/1.1 200"), has_answer, "{kind}: {response}");
        assert_eq!(response.starts_with("HTTP/1.1 101"), *kind == "silent WebSocket", "{kind}: {response}");
    }
    // The slots are free again.
    let mut next = connect(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(read_to_end(&mut next).starts_with("HTTP/1.1 200"));
}

/// H7: a body of one byte per read does not extend its time limit.
#[test]
fn dripping_bodies_are_closed() {
    let (_runtime, address) = start(1, None);
    let head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    let mut stream = connect(address, head);
    let mut sent = 0;
    while stream.write_all(b"1").is_ok() {
        sent += 1;
        assert!(sent < 1_000, "the connection stays open");
        std::thread::sleep(TIMEOUT / 10);
    }
}

/// H7: a reader that accepts nothing does not keep its connection.
#[test]
fn slow_readers_are_closed() {
    let (_runtime, address) = start(1, None);
    let slow = connect(address, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    let other = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut attempts = 0;
    loop {
        // Rejected while the slow reader has the only slot.
        let mut stream = StdStream::connect(address).unwrap();
        let mut response = String::new();
        if stream.write_all(other).is_ok()
            && stream.read_to_string(&mut response).is_ok()
            && !response.is_empty()
        {
            break;
        }
        attempts += 1;
        assert!(attempts < 500, "the slow reader keeps its connection");
        std::thread::sleep(TIMEOUT / 10);
    }
    drop(slow);
}

fn certificate(folder: &std::path::Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(vec!["watch.example".to_owned()]).unwrap();
    let files = TlsFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// H7: the first byte and the handshake of TLS have a time limit.
#[test]
fn slow_tls_handshakes_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (_runtime, address) = start(3, Some(certificate(folder.path())));
    // A record header that announces a client hello, and a part of it.
    for start in [&b""[..], b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        assert_eq!(read_to_end(&mut connect(address, start)), "");
    }
}

/// L11: a redirect leads to the hub, whatever the request names as its host.
#[test]
fn redirects_lead_to_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::load(&certificate(folder.path())).unwrap();
    let transport =
        Transport { tls: false, local: "127.0.0.1".parse().unwrap(), certificate: Some(certificate) };
    let base = |public_url: Option<&str>, host: &str| {
        let public_url = public_url.and_then(PublicUrl::parse);
        https_base(public_url.as_ref(), &transport, HostPort::parse(host).as_ref())
    };
    for (host, want) in [
        ("watch.example", Some("https://watch.example")),
        ("watch.example:8443", Some("https://watch.example:8443")),
        ("WATCH.example.:8443", Some("https://watch.example:8443")),
        ("127.0.0.1:8000", Some("https://127.0.0.1:8000")),
        ("localhost:8000", Some("https://localhost:8000")),
        ("evil.example", None),
        ("watch.example.evil.example", None),
        ("192.0.2.1", None),
        ("[2001:db8::1]:443", None),
        ("", None),
    ] {
        assert_eq!(base(None, host).as_deref(), want, "{host}");
        let public = base(Some("https://watch.example:8443/perfwatch/"), host);
        assert_eq!(public.as_deref(), Some("https://watch.example:8443/perfwatch"), "{host}");
    }
}
