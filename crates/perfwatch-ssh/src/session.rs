//! One SSH connection with one channel. Each stage has a timeout; dropping the session closes the
//! connection.

use crate::abortable_stream::AbortableStream;
use crate::connect_trace::{ConnectTrace, failure, failure_from_russh};
use crate::keys::{self, HostKeyVerifier};
use crate::shell::Shell;
use perfwatch_model::OutboundPolicy;
use perfwatch_model::remote_collector::{
    CollectionFailure, CollectionStage, FailureCause, SshAuth, SshTarget,
};
use perfwatch_workers::{WorkKind, WorkRequest, WorkerPool};
use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse as Interactive};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use russh::{MethodKind, MethodSet, Preferred};
use secrecy::ExposeSecret as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Interval of keepalive requests on an idle connection. After three without a response it is closed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Maximum number of addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Maximum number of rounds of a keyboard-interactive login.
const MAX_PROMPT_ROUNDS: usize = 3;
/// Wait for the connection task of the library to report a lost connection.
const CLOSE_DETECTION_DELAY: Duration = Duration::from_millis(50);

/// Byte stream to a server: a TCP connection, or a channel of a jump host.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What connections need from their collector.
#[derive(Clone, Copy)]
pub(crate) struct SessionContext<'a> {
    /// Opens private keys.
    pub(crate) workers: &'a WorkerPool,
    /// Addresses that the hub may connect to. Jump hosts resolve the names behind them.
    pub(crate) policy: &'a OutboundPolicy,
}

/// Authenticated connection to a server.
pub(crate) struct Session {
    handle: Handle<HostKeyVerifier>,
    shell: Option<Shell>,
    /// Ends the connection task when dropped. Must be dropped before `_jump`: the stream of this
    /// connection runs over it.
    _abort: DropGuard,
    /// Connection to the jump host.
    _jump: Option<Box<Self>>,
}

impl Session {
    /// Connects to the target, through its jump hosts if any, and authenticates.
    pub(crate) async fn open(
        target: &SshTarget,
        context: SessionContext<'_>,
        trace: &mut ConnectTrace<'_>,
    ) -> Result<Self, CollectionFailure> {
        let opened = Self::connect(target, context, trace).await;
        opened.map_err(|failure| CollectionFailure {
            server_id: failure.server_id.or(Some(target.server_id)),
            ..failure
        })
    }

    async fn connect(
        target: &SshTarget,
        context: SessionContext<'_>,
        trace: &mut ConnectTrace<'_>,
    ) -> Result<Self, CollectionFailure> {
        let key = load_private_key(target, context.workers).await?;
        let (stream, jump) = open_stream(target, context, trace).await?;
        let handler = HostKeyVerifier::new(target.pinned_host_key.clone());
        let verifier = handler.clone();
        let (config, token) = (Arc::new(client_config(target)), CancellationToken::new());
        let abort = token.clone().drop_guard();
        let limit = trace.timeouts.handshake;
        let mut handle = trace
            .run_stage(CollectionStage::Handshake, limit, async {
                match client::connect_stream(config, AbortableStream::new(stream, token), handler).await {
                    Ok(handle) => Ok((handle, verifier.offered().unwrap_or_default())),
                    Err(_) if verifier.is_mismatch() => Err(host_key_changed(target, verifier.offered())),
                    Err(error) => Err(failure_from_russh(CollectionStage::Handshake, &error)),
                }
            })
            .await
            .map_err(|failure| attribute_to_jump_host(target, failure))?;
        trace.host_keys.extend(verifier.offered().map(|key| (target.server_id, key)));
        let limit = trace.timeouts.authenticate;
        let login = authenticate(&mut handle, target, key, &verifier);
        trace.run_stage(CollectionStage::Authenticate, limit, login).await?;
        Ok(Self { handle, shell: None, _abort: abort, _jump: jump })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Runs the probe and returns its capture.
    pub(crate) async fn run_probe(
        &mut self,
        trace: &mut ConnectTrace<'_>,
    ) -> Result<Vec<u8>, CollectionFailure> {
        let mut shell = match self.shell.take() {
            Some(shell) => shell,
            None => {
                let limit = trace.timeouts.shell;
                trace.run_stage(CollectionStage::Shell, limit, Shell::open(&self.handle)).await?
            }
        };
        let limit = trace.timeouts.read;
        let output = trace
            .run_stage(CollectionStage::Read, limit, async {
                let output = shell.read().await?;
                let detail = format!("{} KB", output.len() >> 10);
                Ok((output, detail))
            })
            .await?;
        // A shell that is not reusable is closed first: a server may allow one channel only.
        self.shell = shell.reusable().await;
        Ok(output)
    }
}

/// Decodes the private key of a target in the worker pool.
async fn load_private_key(
    target: &SshTarget,
    workers: &WorkerPool,
) -> Result<Option<Arc<PrivateKey>>, CollectionFailure> {
    let SshAuth::Key { key, .. } = &target.auth else { return Ok(None) };
    let (principal, input_bytes) = (target.server_id.to_string(), key.expose_secret().len());
    let request = WorkRequest { kind: WorkKind::PrivateKey, principal: &principal, input_bytes };
    let auth = target.auth.clone();
    let failed = |cause, reason| failure(CollectionStage::Authenticate, cause, reason);
    match workers.run(request, move |_| keys::load_private_key(&auth)).await {
        Ok(decoded) => decoded.map_err(|reason| failed(FailureCause::InvalidPrivateKey, reason)),
        // Another attempt may succeed, so that the server is not blocked.
        Err(error) => Err(failed(FailureCause::TimedOut, format!("opening the private key: {error}"))),
    }
}

/// Client configuration with the default algorithms, the pinned host key's algorithm first.
fn client_config(target: &SshTarget) -> client::Config {
    let defaults = Preferred::default();
    let key = keys::preferred_host_key_algorithms(target.pinned_host_key.as_deref(), &defaults.key);
    client::Config {
        preferred: Preferred { key: key.into(), ..defaults },
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: 3,
        inactivity_timeout: Some(4 * KEEPALIVE_INTERVAL),
        nodelay: true,
        window_size: 1 << 20,
        channel_buffer_size: 32,
        ..client::Config::default()
    }
}

/// Adds the jump host to the message if its stream was closed during the handshake.
fn attribute_to_jump_host(target: &SshTarget, failure: CollectionFailure) -> CollectionFailure {
    match &target.jump {
        Some(jump) if failure.cause == FailureCause::ConnectionClosed => {
            CollectionFailure { message: format!("{} (via {})", failure.message, jump.address), ..failure }
        }
        _ => failure,
    }
}

fn host_key_changed(target: &SshTarget, offered: Option<String>) -> CollectionFailure {
    let key = offered.as_deref().unwrap_or_default();
    let pinned = target.pinned_host_key.as_deref().unwrap_or_default();
    let message = format!("host key changed: offered {key}, pinned {pinned}");
    CollectionFailure {
        offered_host_key: offered,
        ..failure(CollectionStage::Handshake, FailureCause::HostKeyChanged, message)
    }
}

/// Opens a stream to the target; returns it with the connection to the jump host, if any.
async fn open_stream(
    target: &SshTarget,
    context: SessionContext<'_>,
    trace: &mut ConnectTrace<'_>,
) -> Result<(Box<dyn Stream>, Option<Box<Session>>), CollectionFailure> {
    let Some(jump) = &target.jump else {
        let limit = trace.timeouts.resolve;
        let resolving = resolve(&target.address, target.port, context.policy);
        let addresses = trace.run_stage(CollectionStage::Resolve, limit, resolving).await?;
        let limit = trace.timeouts.connect;
        let stream = trace.run_stage(CollectionStage::Connect, limit, connect(addresses)).await?;
        return Ok((Box::new(stream), None));
    };
    let name = &jump.address;
    let session = Box::pin(Session::open(jump, context, trace)).await.map_err(|failure| {
        CollectionFailure { message: format!("jump host {name}: {}", failure.message), ..failure }
    })?;
    let limit = trace.timeouts.connect;
    let channel = trace.run_stage(CollectionStage::Connect, limit, async {
        let (address, port) = (target.address.as_str(), target.port.into());
        match session.handle.channel_open_direct_tcpip(address, port, "127.0.0.1", 0).await {
            Ok(channel) => Ok((channel, format!("via {name}"))),
            Err(russh::Error::ChannelOpenFailure(reason)) => Err(failure(
                CollectionStage::Connect,
                FailureCause::Unreachable,
                format!("jump host {name} cannot connect: {reason:?}"),
            )),
            Err(error) => Err(failure_from_russh(CollectionStage::Connect, &error)),
        }
    });
    let stream = channel.await?.into_stream();
    Ok((Box::new(stream), Some(Box::new(session))))
}

/// Addresses of a name that the hub may connect to.
async fn resolve(
    name: &str,
    port: u16,
    policy: &OutboundPolicy,
) -> Result<(Vec<SocketAddr>, String), CollectionFailure> {
    let dns_failure = |reason: String| failure(CollectionStage::Resolve, FailureCause::DnsFailure, reason);
    let resolved = tokio::net::lookup_host((name, port)).await;
    let addresses: Vec<SocketAddr> =
        resolved.map_err(|error| dns_failure(format!("{name}: {error}")))?.take(MAX_ADDRESSES).collect();
    let addresses = policy.filter(addresses).map_err(|refused| {
        failure(CollectionStage::Resolve, FailureCause::Unreachable, format!("{name}: {refused}"))
    })?;
    match addresses.first() {
        Some(first) => {
            let detail = first.ip().to_string();
            Ok((addresses, detail))
        }
        None => Err(dns_failure(format!("{name} has no address"))),
    }
}

async fn connect(addresses: Vec<SocketAddr>) -> Result<(TcpStream, String), CollectionFailure> {
    let unreachable = |reason: String| failure(CollectionStage::Connect, FailureCause::Unreachable, reason);
    let mut last = unreachable("no address".to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Requests and responses are small; delaying them only adds latency.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address.to_string()));
            }
            Err(error) => last = unreachable(format!("{address}: {error}")),
        }
    }
    Err(last)
}

fn format_methods(methods: &MethodSet) -> String {
    let names: Vec<String> = methods.iter().map(String::from).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn authentication_failed(reason: String) -> CollectionFailure {
    failure(CollectionStage::Authenticate, FailureCause::AuthenticationFailed, reason)
}

/// Authenticates once. A rejected password is never retried, nor sent with another method.
async fn authenticate(
    handle: &mut Handle<HostKeyVerifier>,
    target: &SshTarget,
    key: Option<Arc<PrivateKey>>,
    verifier: &HostKeyVerifier,
) -> Result<((), String), CollectionFailure> {
    let user = target.user.as_str();
    // The method "none" lists the available methods and does not count as an attempt.
    let methods = match handle.authenticate_none(user).await {
        Ok(AuthResult::Success) => return Ok(((), format!("{user}, no credential required"))),
        Ok(AuthResult::Failure { remaining_methods, .. })
            if is_connection_lost(handle, verifier, &remaining_methods).await =>
        {
            return Err(connection_ended());
        }
        Ok(AuthResult::Failure { remaining_methods, .. }) => remaining_methods,
        Err(error) => return Err(failure_from_russh(CollectionStage::Authenticate, &error)),
    };
    let is_offered = |method| methods.contains(&method);
    let (method, result) = match (&target.auth, key) {
        (SshAuth::Key { .. }, Some(key)) if is_offered(MethodKind::PublicKey) => {
            let hash = match handle.best_supported_rsa_hash().await {
                Ok(hash) => hash.flatten(),
                Err(error) => return Err(failure_from_russh(CollectionStage::Authenticate, &error)),
            };
            let key = PrivateKeyWithHashAlg::new(key, hash);
            ("key", handle.authenticate_publickey(user, key).await)
        }
        (SshAuth::Password(password), _) if is_offered(MethodKind::Password) => {
            ("password", handle.authenticate_password(user, password.expose_secret()).await)
        }
        (SshAuth::Password(password), _) if is_offered(MethodKind::KeyboardInteractive) => {
            ("password", keyboard_interactive(handle, user, password.expose_secret()).await)
        }
        (auth, _) => {
            let method = if matches!(auth, SshAuth::Key { .. }) { "key" } else { "password" };
            return Err(authentication_failed(format!(
                "{method} authentication is not offered for {user}; available: {}",
                format_methods(&methods)
            )));
        }
    };
    match result {
        Ok(AuthResult::Success) => Ok(((), format!("{user}, by {method}"))),
        Ok(AuthResult::Failure { partial_success: true, remaining_methods }) => {
            Err(authentication_failed(format!(
                "{method} of {user} accepted, but more is required: {}",
                format_methods(&remaining_methods)
            )))
        }
        Ok(AuthResult::Failure { remaining_methods, .. })
            if is_connection_lost(handle, verifier, &remaining_methods).await =>
        {
            Err(connection_ended())
        }
        Ok(AuthResult::Failure { .. }) => Err(authentication_failed(format!("{method} of {user} rejected"))),
        // A disconnect in response to the credential is a rejection.
        Err(_) if verifier.disconnected_by_server() => {
            Err(authentication_failed(format!("server closed the connection after the {method} of {user}")))
        }
        Err(error) => Err(failure_from_russh(CollectionStage::Authenticate, &error)),
    }
}

/// Checks if the connection was lost before the server responded. The library then returns the same
/// result as for a server that offers no method at all.
async fn is_connection_lost(
    handle: &Handle<HostKeyVerifier>,
    verifier: &HostKeyVerifier,
    methods: &MethodSet,
) -> bool {
    if !methods.is_empty() {
        return false;
    }
    // The connection task closes the handle a moment later.
    tokio::time::sleep(CLOSE_DETECTION_DELAY).await;
    handle.is_closed() && !verifier.disconnected_by_server()
}

fn connection_ended() -> CollectionFailure {
    failure(
        CollectionStage::Authenticate,
        FailureCause::ConnectionClosed,
        "connection closed before authentication completed",
    )
}

/// Sends the password in response to the first prompts without echo (RFC 4256). Later prompts, such as
/// for a one-time code, are not answered.
async fn keyboard_interactive(
    handle: &mut Handle<HostKeyVerifier>,
    user: &str,
    password: &str,
) -> Result<AuthResult, russh::Error> {
    let mut response = handle.authenticate_keyboard_interactive_start(user, None).await?;
    let mut password_sent = false;
    for _ in 0..MAX_PROMPT_ROUNDS {
        let prompts = match response {
            Interactive::Success => return Ok(AuthResult::Success),
            Interactive::Failure { remaining_methods, partial_success } => {
                return Ok(AuthResult::Failure { remaining_methods, partial_success });
            }
            Interactive::InfoRequest { prompts, .. } => prompts,
        };
        // Another prompt after the password means that it was rejected.
        if password_sent && !prompts.is_empty() {
            break;
        }
        password_sent |= !prompts.is_empty();
        let answers = prompts.iter().map(|prompt| if prompt.echo { "" } else { password }.to_owned());
        response = handle.authenticate_keyboard_interactive_respond(answers.collect()).await?;
    }
    Ok(AuthResult::Failure { remaining_methods: MethodSet::empty(), partial_success: false })
}
