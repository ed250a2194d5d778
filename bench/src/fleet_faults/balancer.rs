//! TCP balancer: new connections go to the ready hubs in turn. It knows nothing of HTTP except its own
//! readiness check.

use super::links::{Link, listen};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Time between two readiness checks of a hub.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Timeout of a readiness check and of a connection to a hub.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Failed checks in a row after which a hub receives no new connections.
const MAX_FAILED_CHECKS: usize = 2;
/// Each check has its own connection: an open one would keep a hub that drains.
const CHECK_REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
const READY_RESPONSE: &[u8] = b"HTTP/1.1 200";

/// Hub behind the balancer.
struct Backend {
    link: Arc<Link>,
    is_ready: AtomicBool,
}

/// Running balancer; ends with the runtime.
pub(super) struct Balancer {
    /// Listen address, without a scheme.
    pub(super) address: String,
}

impl Balancer {
    /// Starts on a free port. Balancers differ in what they do with the connections of a hub that is not
    /// ready: with `closes_connections` they end, otherwise they stay.
    pub(super) async fn start(links: Vec<Arc<Link>>, closes_connections: bool) -> anyhow::Result<Self> {
        let to_backend = |link| Arc::new(Backend { link, is_ready: AtomicBool::new(false) });
        let backends: Arc<[Arc<Backend>]> = links.into_iter().map(to_backend).collect();
        for backend in backends.iter() {
            tokio::spawn(check(backend.clone(), closes_connections));
        }
        let next = AtomicUsize::new(0);
        let address = listen(move |client| {
            let first = next.fetch_add(1, Ordering::Relaxed);
            balance(client, backends.clone(), first)
        });
        Ok(Self { address: address.await? })
    }
}

/// Passes a connection to the first ready hub that accepts it, from `first` on.
async fn balance(client: TcpStream, backends: Arc<[Arc<Backend>]>, first: usize) {
    let count = backends.len();
    for backend in (0..count).map(|offset| &backends[(first + offset) % count]) {
        if !backend.is_ready.load(Ordering::Relaxed) {
            continue;
        }
        if let Ok(Ok(hub)) = tokio::time::timeout(CHECK_TIMEOUT, backend.link.connect()).await {
            return backend.link.pass(client, hub).await;
        }
    }
}

/// Checks the readiness of a hub.
async fn check(backend: Arc<Backend>, closes_connections: bool) {
    let mut failed_checks = MAX_FAILED_CHECKS;
    loop {
        let result = tokio::time::timeout(CHECK_TIMEOUT, is_ready(&backend.link)).await;
        failed_checks = if matches!(result, Ok(Ok(true))) { 0 } else { failed_checks + 1 };
        let is_ready = failed_checks < MAX_FAILED_CHECKS;
        let was_ready = backend.is_ready.swap(is_ready, Ordering::Relaxed);
        if was_ready && !is_ready && closes_connections {
            backend.link.close_connections();
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

async fn is_ready(link: &Link) -> io::Result<bool> {
    let mut hub = link.connect().await?;
    hub.write_all(CHECK_REQUEST).await?;
    let mut response = [0; READY_RESPONSE.len()];
    hub.read_exact(&mut response).await?;
    Ok(response == READY_RESPONSE)
}
