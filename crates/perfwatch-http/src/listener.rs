//! Listener: accepts connections up to the limits, terminates TLS if a certificate is configured, serves
//! HTTP/1.1 with a time limit for each state of a connection, and redirects HTTP requests on the TLS port to
//! `https://`.

use crate::connections::ConnectionLimiter;
use crate::error::ApiError;
use crate::origin::HostPort;
use crate::public_address::PublicUrl;
pub use crate::timed::ConnectionTimeouts;
use crate::timed::{TimedBody, TimedStream};
use crate::tls::Certificate;
pub use crate::tls::{TlsFiles, check_certificate};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use perfwatch_model::limit_table;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

/// Maximum size of a request's head.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Delay after a failed accept: the process may have no file descriptor left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Type of TLS records with a handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: [u8; 1] = [22];

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
    /// Time limits of the states of a connection.
    pub timeouts: ConnectionTimeouts,
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
    /// Address of the hub that the client connected to.
    local: IpAddr,
    /// Certificate of the port; `None` without TLS.
    certificate: Option<Certificate>,
}

/// Kind of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Configured address, with TLS if configured.
    Public,
    /// Loopback address for the embedded agent, without TLS.
    Loopback,
}

/// Parts that all connections of a listener share.
struct Server {
    kind: Listener,
    router: Router,
    certificate: Option<Certificate>,
    limiter: Arc<ConnectionLimiter>,
    timeouts: ConnectionTimeouts,
    /// Cancelled when idle connections must be closed.
    stop: CancellationToken,
}

/// Serves until `stop` is cancelled, then finishes open requests for at most `drain_timeout`.
///
/// # Errors
/// Returns an error if the certificate cannot be loaded.
pub fn serve(
    listener: std::net::TcpListener,
    kind: Listener,
    router: Router,
    config: ListenerConfig,
    stop: &CancellationToken,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + use<>> {
    let certificate = match config.tls {
        Some(files) if kind == Listener::Public => {
            let certificate = Certificate::load(&files)?;
            tokio::spawn(certificate.clone().reload(files, config.reload, stop.clone()));
            Some(certificate)
        }
        _ => None,
    };
    let (max, max_per_address) = (config.max_connections, config.max_connections_per_address);
    let limiter = ConnectionLimiter::new(max, max_per_address, config.trusted_proxies);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (stop, timeouts) = (stop.clone(), config.timeouts);
    let server = Arc::new(Server { kind, router, certificate, limiter, timeouts, stop });
    Ok(accept_connections(listener, server, config.drain_timeout))
}

async fn accept_connections(
    listener: TcpListener,
    server: Arc<Server>,
    drain_timeout: Duration,
) -> io::Result<()> {
    let (tasks, abort) = (TaskTracker::new(), CancellationToken::new());
    let _abort_on_drop = abort.clone().drop_guard();
    loop {
        let accepted = tokio::select! {
            () = server.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, abort) = (server.clone(), abort.clone());
                tasks.spawn(async move {
                    // The method of the token for this has room for two copies of the future.
                    tokio::select! {
                        () = abort.cancelled() => {}
                        () = server.serve_connection(stream, peer) => {}
                    }
                });
            }
            Err(error) => {
                tracing::debug!(error = %error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    // Connections that are still open are aborted by the guard.
    let _ = tokio::time::timeout(drain_timeout, tasks.wait()).await;
    Ok(())
}

impl Server {
    async fn serve_connection(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(permit) = self.limiter.try_acquire(peer.ip()) else { return };
        // Ticks are small writes that must not be delayed (Nagle's algorithm).
        let (Ok(()), Ok(local)) = (stream.set_nodelay(true), stream.local_addr()) else { return };
        let handshake = tokio::time::timeout(self.timeouts.handshake, self.accept_tls(&stream)).await;
        let is_tls = match handshake {
            Ok(Ok(is_tls)) => is_tls,
            Ok(Err(_)) => return,
            Err(_) => return limit_table::HANDSHAKE_TIME.refuse(),
        };
        let stream = TimedStream::new(stream, self.timeouts, permit);
        let tls = is_tls || self.kind == Listener::Loopback;
        let (local, certificate) = (local.ip().to_canonical(), self.certificate.clone());
        let transport = Transport { tls, local, certificate };
        match (&self.certificate, is_tls) {
            (Some(certificate), true) => {
                let acceptor = TlsAcceptor::from(certificate.server_config());
                let handshake = Box::pin(acceptor.accept(stream));
                match tokio::time::timeout(self.timeouts.handshake, handshake).await {
                    Ok(Ok(stream)) => Box::pin(self.serve_http(stream, peer, transport)).await,
                    Ok(Err(error)) => tracing::debug!(%peer, error = %error, "TLS handshake failed"),
                    Err(_) => limit_table::HANDSHAKE_TIME.refuse(),
                }
            }
            // Boxed, as the others: the task would always have room for each of them.
            _ => Box::pin(self.serve_http(stream, peer, transport)).await,
        }
    }

    /// Whether a connection to a port with TLS starts with a TLS handshake.
    async fn accept_tls(&self, stream: &TcpStream) -> io::Result<bool> {
        if self.certificate.is_none() {
            return Ok(false);
        }
        let mut first = [0];
        stream.peek(&mut first).await?;
        Ok(first == TLS_HANDSHAKE)
    }

    /// Serves HTTP/1.1. HTTP/2 has no handler here: its preface is an invalid request line.
    fn serve_http<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        transport: Transport,
    ) -> impl Future<Output = ()> + Send + use<'_, S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let body_timeout = self.timeouts.body;
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(|body| Body::new(TimedBody::new(body, body_timeout)));
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(transport.clone());
            self.router.clone().call(request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.timeouts.head).max_buf_size(MAX_HEAD_BYTES);
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        // Built outside the future, which would have room for its parts, too.
        async move {
            let mut connection = std::pin::pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = self.stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                if error.is_timeout() {
                    limit_table::REQUEST_HEAD_TIME.refuse();
                }
                tracing::debug!(%peer, error = %error, "closed an HTTP connection");
            }
        }
    }
}

/// Redirect of a plain HTTP request to HTTPS; `None` for requests that are served. Health probes are answered without
/// TLS.
pub fn https_redirect(public_url: Option<&PublicUrl>, request: &Request) -> Option<Response> {
    let transport = request.extensions().get::<Transport>().filter(|transport| !transport.tls)?;
    if matches!(request.uri().path(), "/healthz" | "/readyz") {
        return None;
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let host = request.headers().get(header::HOST).and_then(|host| HostPort::parse(host.to_str().ok()?));
    let base = https_base(public_url, transport, host.as_ref());
    Some(match base.and_then(|base| format!("{base}{path}").parse::<Uri>().ok()) {
        Some(location) => Redirect::permanent(&location.to_string()).into_response(),
        None => {
            let message = "this port serves HTTPS; open https:// with the host name of the certificate";
            ApiError::new(StatusCode::BAD_REQUEST, "https_required", message).into_response()
        }
    })
}

/// Address of the hub for a client that named it by `host`: the public URL, or the host if it is that of this
/// hub. A redirect to any other host would send the client wherever the request says.
fn https_base(
    public_url: Option<&PublicUrl>,
    transport: &Transport,
    host: Option<&HostPort>,
) -> Option<String> {
    if let Some(public_url) = public_url {
        return Some(format!("https://{}{}", public_url.origin.host, public_url.base_path));
    }
    let host = host?;
    let address = host.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_local = match address {
        Ok(address) => address.to_canonical() == transport.local,
        Err(_) => host.host == "localhost" && transport.local.is_loopback(),
    };
    let is_certified =
        || transport.certificate.as_ref().is_some_and(|certificate| certificate.names(&host.host));
    (is_local || is_certified()).then(|| format!("https://{host}"))
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
