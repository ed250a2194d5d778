//! Listener: accepts connections up to the limits, terminates TLS if a certificate is configured, and
//! redirects HTTP requests on the TLS port to `https://`.

use axum::Extension;
use axum::extract::Request;
use axum::http::{Uri, header};
use axum::middleware::{AddExtension, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ipnet::IpNet;
use perfwatch_auth::login_throttle::address_group;
use perfwatch_model::limit_table;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

/// Time limit for the head of a request, including the idle time of a kept-alive connection.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for the first byte of a connection and for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a request's head.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Interval at which the certificate files are checked for changes.
const CERTIFICATE_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// PEM files of a TLS certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate with its intermediate certificates.
    pub cert: PathBuf,
    /// Private key of the certificate.
    pub key: PathBuf,
}

/// Settings of a listener.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Certificate and key; without them the listener serves plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Maximum number of open connections.
    pub max_connections: usize,
    /// Maximum number of open connections of one address.
    pub max_connections_per_address: usize,
    /// Proxies that are exempt from the limit per address.
    pub trusted_proxies: Vec<IpNet>,
    /// Time limit for open requests after the stop.
    pub drain_timeout: Duration,
    /// Notified to load the certificate again, also if its files seem unchanged.
    pub reload: Arc<Notify>,
}

/// Connection of a request, as a request extension.
#[derive(Clone)]
pub struct Transport {
    /// Whether the connection counts as encrypted; the loopback listener does.
    pub tls: bool,
    /// Released when the connection is closed.
    _permit: Arc<ConnectionPermit>,
}

/// Limits the number of open connections, in total and per address.
struct ConnectionLimiter {
    max: usize,
    max_per_address: usize,
    /// Trusted proxies are exempt from the limit per address.
    proxies: Vec<IpNet>,
    /// Open connections: total, and by address group.
    counts: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// Slot of one open connection.
struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
}

impl ConnectionLimiter {
    fn try_acquire(self: &Arc<Self>, address: IpAddr) -> Option<Arc<ConnectionPermit>> {
        let is_proxy = self.proxies.iter().any(|net| net.contains(&address.to_canonical()));
        let address = address_group(address.to_canonical());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.1.get(&address).copied().unwrap_or_default();
        if of_address >= self.max_per_address && !is_proxy {
            limit_table::CONNECTIONS_PER_ADDRESS.refuse();
            return None;
        }
        if counts.0 >= self.max {
            limit_table::CONNECTIONS.refuse();
            return None;
        }
        counts.0 += 1;
        counts.1.insert(address, of_address + 1);
        Some(Arc::new(ConnectionPermit { limiter: self.clone(), address }))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.limiter.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0 -= 1;
        let of_address = counts.1.get(&self.address).copied().unwrap_or_default();
        if of_address > 1 {
            counts.1.insert(self.address, of_address - 1);
        } else {
            counts.1.remove(&self.address);
        }
    }
}

/// Acceptor of a listener: limits, TLS handshake, and the [`Transport`] extension.
#[derive(Clone)]
struct ConnectionAcceptor {
    listener: Listener,
    limiter: Arc<ConnectionLimiter>,
    tls: Option<RustlsAcceptor>,
}

impl<S: Send + 'static> Accept<TcpStream, S> for ConnectionAcceptor {
    type Stream = Either<TlsStream<TcpStream>, TcpStream>;
    type Service = AddExtension<S, Transport>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        use tower_layer::Layer as _;
        let acceptor = self.clone();
        Box::pin(async move {
            let Some(permit) = acceptor.limiter.try_acquire(stream.peer_addr()?.ip()) else {
                return Err(io::Error::other("too many connections"));
            };
            // Ticks are small writes that must not be delayed (Nagle's algorithm).
            stream.set_nodelay(true)?;
            let transport = |tls| Extension(Transport { tls, _permit: permit });
            let Some(tls_acceptor) = acceptor.tls else {
                let is_trusted = acceptor.listener == Listener::Loopback;
                return Ok((Either::Right(stream), transport(is_trusted).layer(service)));
            };
            let mut first = [0];
            let peeked = tokio::time::timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await;
            peeked.map_err(|_| io::ErrorKind::TimedOut)??;
            // TLS record of type handshake (RFC 8446, 5.1).
            if first == [22] {
                let (stream, service) = tls_acceptor.accept(stream, service).await?;
                Ok((Either::Left(stream), transport(true).layer(service)))
            } else {
                Ok((Either::Right(stream), transport(false).layer(service)))
            }
        })
    }
}

fn certificate_error(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Reads certificate and key.
///
/// # Errors
/// Returns an error that names the file if a file is missing or invalid, or the key does not match.
fn load_certificate(files: &TlsFiles) -> io::Result<Arc<ServerConfig>> {
    let certificates = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| certificate_error(&files.cert, &error))?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| certificate_error(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| certificate_error(&files.cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Modification times of certificate and key; `None` if a file is missing.
fn certificate_mtime(files: &TlsFiles) -> Option<(SystemTime, SystemTime)> {
    let mtime = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    Some((mtime(&files.cert)?, mtime(&files.key)?))
}

/// Reloads the certificate when its files change.
async fn reload_certificates(
    config: RustlsConfig,
    files: TlsFiles,
    reload: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut loaded = certificate_mtime(&files);
    let mut ticks = tokio::time::interval(CERTIFICATE_POLL_INTERVAL);
    loop {
        let is_requested = tokio::select! {
            () = stop.cancelled() => return,
            () = reload.notified() => true,
            _ = ticks.tick() => false,
        };
        let current = certificate_mtime(&files);
        if !is_requested && (current.is_none() || current == loaded) {
            continue;
        }
        loaded = current;
        match load_certificate(&files) {
            Ok(server_config) => {
                config.reload_from_config(server_config);
                tracing::info!(path = %files.cert.display(), "TLS certificate reloaded");
            }
            // The file may be incomplete; the next change triggers another attempt.
            Err(error) => {
                tracing::warn!(error = %error, "failed to load the TLS certificate; keeping the current one");
            }
        }
    }
}

/// Kind of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Configured address, with TLS if configured.
    Public,
    /// Loopback address for the embedded agent, without TLS.
    Loopback,
}

/// Serves until `stop` is cancelled, then finishes open requests for at most `drain_timeout`.
///
/// # Errors
/// Returns an error if the certificate cannot be loaded.
pub fn serve(
    listener: std::net::TcpListener,
    kind: Listener,
    router: axum::Router,
    config: ListenerConfig,
    stop: &CancellationToken,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + use<>> {
    let tls = match config.tls {
        Some(files) if kind == Listener::Public => {
            let tls = RustlsConfig::from_config(load_certificate(&files)?);
            tokio::spawn(reload_certificates(tls.clone(), files, config.reload, stop.clone()));
            Some(RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_TIMEOUT))
        }
        _ => None,
    };
    let limiter = Arc::new(ConnectionLimiter {
        max: config.max_connections,
        max_per_address: config.max_connections_per_address,
        proxies: config.trusted_proxies,
        counts: Mutex::default(),
    });
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    let mut server = Server::<SocketAddr>::from_listener(TcpListener::from_std(listener)?)
        .handle(handle.clone())
        .acceptor(ConnectionAcceptor { listener: kind, limiter, tls });
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    *server.http_builder() = builder;
    let stop = stop.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        handle.graceful_shutdown(Some(config.drain_timeout));
    });
    Ok(server.serve(router.into_make_service_with_connect_info::<SocketAddr>()))
}

/// Redirects plain HTTP requests to HTTPS. Health probes are answered without TLS.
pub async fn redirect_to_https(request: Request, next: Next) -> Response {
    let is_plain = request.extensions().get::<Transport>().is_some_and(|transport| !transport.tls);
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    if !is_plain || is_probe {
        return next.run(request).await;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    match format!("https://{host}{path}").parse::<Uri>() {
        Ok(location) => Redirect::permanent(&location.to_string()).into_response(),
        Err(_) => axum::http::StatusCode::BAD_REQUEST.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_address_limit_is_enforced() {
        let limiter = Arc::new(ConnectionLimiter {
            max: 5,
            max_per_address: 2,
            proxies: vec!["10.0.0.0/8".parse().unwrap()],
            counts: Mutex::default(),
        });
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = limiter.try_acquire(address("192.0.2.1"));
        let second = limiter.try_acquire(address("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(limiter.try_acquire(address("192.0.2.1")).is_none());
        let proxied: Vec<_> = (0..4).map(|_| limiter.try_acquire(address("10.0.0.1"))).collect();
        assert_eq!(proxied.iter().filter(|permit| permit.is_some()).count(), 3, "total limit");
        drop((first, second, proxied));
        assert!(limiter.try_acquire(address("192.0.2.1")).is_some());
        assert_eq!(limiter.counts.lock().unwrap().0, 0);
        assert!(limiter.counts.lock().unwrap().1.is_empty());
    }
}
