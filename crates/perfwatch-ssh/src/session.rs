//! One connection and the one channel on it: made step by step, each with its deadline, and gone
//! with this value.

use crate::abortable_stream::AbortableStream;
use crate::connect_trace::{ConnectTrace, failure, failure_from_russh};
use crate::keys::{self, HostKeyVerifier};
use crate::shell::Shell;
use perfwatch_model::remote_collector::{
    CollectionFailure, CollectionStage, FailureCause, SshAuth, SshTarget,
};
use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse as Interactive};
use russh::keys::PrivateKeyWithHashAlg;
use russh::{MethodKind, MethodSet, Preferred};
use secrecy::ExposeSecret as _;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A host that says nothing for so long is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Either a TCP connection or one through another host.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection on which we are let in.
pub(crate) struct Session {
    handle: Handle<HostKeyVerifier>,
    shell: Option<Shell>,
    /// Ends the connection's task when this is dropped. Before the way to it.
    _abort: DropGuard,
    /// The connection that this one goes through.
    _jump: Option<Box<Self>>,
}

impl Session {
    /// Connects and logs in.
    pub(crate) async fn open(
        target: &SshTarget,
        way: &mut ConnectTrace<'_>,
    ) -> Result<Self, CollectionFailure> {
        let opened = Self::connect(target, way).await;
        opened.map_err(|failure| CollectionFailure {
            server_id: failure.server_id.or(Some(target.server_id)),
            ..failure
        })
    }

    async fn connect(target: &SshTarget, way: &mut ConnectTrace<'_>) -> Result<Self, CollectionFailure> {
        let key = keys::load_private_key(&target.auth)
            .map_err(|why| failure(CollectionStage::Authenticate, FailureCause::InvalidPrivateKey, why))?;
        let (stream, via) = open_stream(target, way).await?;
        let doorman = HostKeyVerifier::new(target.pinned_host_key.clone());
        let (config, token) = (Arc::new(client_config(target)), CancellationToken::new());
        let cut = token.clone().drop_guard();
        let within = way.deadlines.handshake;
        let seen = doorman.clone();
        let mut handle = way
            .run_stage(CollectionStage::Handshake, within, async {
                match client::connect_stream(config, AbortableStream::new(stream, token), doorman).await {
                    Ok(handle) => Ok((handle, seen.offered().unwrap_or_default())),
                    Err(_) if seen.is_mismatch() => Err(host_key_changed(target, seen.offered())),
                    Err(error) => Err(failure_from_russh(CollectionStage::Handshake, &error)),
                }
            })
            .await
            .map_err(|failure| attribute_to_jump_host(target, failure))?;
        way.keys.extend(seen.offered().map(|key| (target.server_id, key)));
        let within = way.deadlines.login;
        way.run_stage(CollectionStage::Authenticate, within, authenticate(&mut handle, target, key, &seen))
            .await?;
        Ok(Self { handle, shell: None, _abort: cut, _jump: via })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// What the kernel there says now.
    pub(crate) async fn run_probe(
        &mut self,
        way: &mut ConnectTrace<'_>,
    ) -> Result<Vec<u8>, CollectionFailure> {
        let mut shell = match self.shell.take() {
            Some(shell) => shell,
            None => {
                let within = way.deadlines.shell;
                way.run_stage(CollectionStage::Shell, within, Shell::open(&self.handle)).await?
            }
        };
        let within = way.deadlines.read;
        let output = way
            .run_stage(CollectionStage::Read, within, async {
                let output = shell.read().await?;
                let detail = format!("{} KB", output.len() >> 10);
                Ok((output, detail))
            })
            .await?;
        // Where it can't be asked again, the next one is on another channel: never two at a time.
        self.shell = shell.reusable().await;
        Ok(output)
    }
}

/// As much as we offer, and the pinned key's algorithm first.
fn client_config(target: &SshTarget) -> client::Config {
    let all = Preferred::default();
    let key = keys::preferred_host_key_algorithms(target.pinned_host_key.as_deref(), &all.key);
    client::Config {
        preferred: Preferred { key: key.into(), ..all },
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: 3,
        inactivity_timeout: Some(4 * KEEPALIVE_INTERVAL),
        nodelay: true,
        window_size: 1 << 20,
        channel_buffer_size: 32,
        ..client::Config::default()
    }
}

/// Names the host on the way where that is where it ended.
fn attribute_to_jump_host(target: &SshTarget, failure: CollectionFailure) -> CollectionFailure {
    match &target.jump {
        Some(jump) if failure.cause == FailureCause::ConnectionClosed => {
            CollectionFailure { message: format!("{} (via {})", failure.message, jump.address), ..failure }
        }
        _ => failure,
    }
}

fn host_key_changed(target: &SshTarget, shown: Option<String>) -> CollectionFailure {
    let key = shown.clone().unwrap_or_default();
    let pin = target.pinned_host_key.as_deref().unwrap_or_default();
    let message = format!("host key changed: offered {key}, pinned {pin}");
    CollectionFailure {
        offered_host_key: shown,
        ..failure(CollectionStage::Handshake, FailureCause::HostKeyChanged, message)
    }
}

/// A stream to the host, and the connection that it goes through.
async fn open_stream(
    target: &SshTarget,
    way: &mut ConnectTrace<'_>,
) -> Result<(Box<dyn Stream>, Option<Box<Session>>), CollectionFailure> {
    let place = (target.address.clone(), target.port);
    let Some(jump) = &target.jump else {
        let within = way.deadlines.resolve;
        let addresses = way.run_stage(CollectionStage::Resolve, within, resolve(place)).await?;
        let within = way.deadlines.connect;
        let stream = way.run_stage(CollectionStage::Connect, within, connect(addresses)).await?;
        return Ok((Box::new(stream), None));
    };
    let name = jump.address.clone();
    let via = Box::pin(Session::open(jump, way)).await.map_err(|failure| CollectionFailure {
        message: format!("jump host {name}: {}", failure.message),
        ..failure
    })?;
    let within = way.deadlines.connect;
    let channel = way.run_stage(CollectionStage::Connect, within, async {
        let opened = via.handle.channel_open_direct_tcpip(place.0, place.1.into(), "127.0.0.1", 0).await;
        match opened {
            Ok(channel) => Ok((channel, format!("through {name}"))),
            Err(russh::Error::ChannelOpenFailure(why)) => Err(failure(
                CollectionStage::Connect,
                FailureCause::Unreachable,
                format!("jump host {name} cannot connect: {why:?}"),
            )),
            Err(error) => Err(failure_from_russh(CollectionStage::Connect, &error)),
        }
    });
    let stream = channel.await?.into_stream();
    Ok((Box::new(stream), Some(Box::new(via))))
}

async fn resolve(place: (String, u16)) -> Result<(Vec<SocketAddr>, String), CollectionFailure> {
    let name = place.0.clone();
    let unknown = |why: String| failure(CollectionStage::Resolve, FailureCause::DnsFailure, why);
    let found = tokio::net::lookup_host(place).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|error| unknown(format!("{name}: {error}")))?.take(4).collect();
    match addresses.first() {
        Some(first) => {
            let detail = first.ip().to_string();
            Ok((addresses, detail))
        }
        None => Err(unknown(format!("{name} has no address"))),
    }
}

async fn connect(addresses: Vec<SocketAddr>) -> Result<(TcpStream, String), CollectionFailure> {
    let mut last = failure(CollectionStage::Connect, FailureCause::Unreachable, "no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small questions, small answers.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address.to_string()));
            }
            Err(error) => {
                last = failure(
                    CollectionStage::Connect,
                    FailureCause::Unreachable,
                    format!("{address}: {error}"),
                )
            }
        }
    }
    Err(last)
}

fn format_methods(methods: &MethodSet) -> String {
    let mut text = String::new();
    for method in methods.iter() {
        let _ = write!(text, "{}{}", if text.is_empty() { "" } else { ", " }, String::from(method));
    }
    if text.is_empty() { "nothing".to_owned() } else { text }
}

/// Shows who we are, once: a wrong password is not tried again, nor in another way.
async fn authenticate(
    handle: &mut Handle<HostKeyVerifier>,
    target: &SshTarget,
    key: Option<Arc<russh::keys::PrivateKey>>,
    seen: &HostKeyVerifier,
) -> Result<((), String), CollectionFailure> {
    let user = target.user.as_str();
    let refused =
        |why: String| failure(CollectionStage::Authenticate, FailureCause::AuthenticationFailed, why);
    // Asks what the host takes, which is no try.
    let methods = match handle.authenticate_none(user).await {
        Ok(AuthResult::Success) => return Ok(((), format!("{user}, without being asked"))),
        Ok(AuthResult::Failure { remaining_methods, .. })
            if connection_lost(handle, seen, &remaining_methods).await =>
        {
            return Err(connection_ended());
        }
        Ok(AuthResult::Failure { remaining_methods, .. }) => remaining_methods,
        Err(error) => return Err(failure_from_russh(CollectionStage::Authenticate, &error)),
    };
    let takes = |method| methods.contains(&method);
    let (what, result) = match (&target.auth, key) {
        (SshAuth::Key { .. }, Some(key)) if takes(MethodKind::PublicKey) => {
            let hash = match handle.best_supported_rsa_hash().await {
                Ok(hash) => hash.flatten(),
                Err(error) => return Err(failure_from_russh(CollectionStage::Authenticate, &error)),
            };
            let key = PrivateKeyWithHashAlg::new(key, hash);
            ("key", handle.authenticate_publickey(user, key).await)
        }
        (SshAuth::Password(password), _) if takes(MethodKind::Password) => {
            ("password", handle.authenticate_password(user, password.expose_secret()).await)
        }
        (SshAuth::Password(password), _) if takes(MethodKind::KeyboardInteractive) => {
            ("password", keyboard_interactive(handle, user, password.expose_secret()).await)
        }
        (wanted, _) => {
            let what = if matches!(wanted, SshAuth::Key { .. }) { "key" } else { "password" };
            return Err(refused(format!(
                "{user} authentication is not offered for {what}; available: {}",
                format_methods(&methods)
            )));
        }
    };
    match result {
        Ok(AuthResult::Success) => Ok(((), format!("{user}, by {what}"))),
        Ok(AuthResult::Failure { partial_success: true, remaining_methods }) => Err(refused(format!(
            "{user} of {what} accepted, but more is required: {}",
            format_methods(&remaining_methods)
        ))),
        Ok(AuthResult::Failure { remaining_methods, .. })
            if connection_lost(handle, seen, &remaining_methods).await =>
        {
            Err(connection_ended())
        }
        Ok(AuthResult::Failure { .. }) => Err(refused(format!("{user} of {what} rejected"))),
        // Dismissed at this very word: that is an answer, too.
        Err(_) if seen.disconnected_by_server() => {
            Err(refused(format!("server closed the connection after the {user} of {what}")))
        }
        Err(error) => Err(failure_from_russh(CollectionStage::Authenticate, &error)),
    }
}

/// Whether the connection broke before there was an answer: the library then says the same as of a
/// host that lets in by no method at all.
async fn connection_lost(
    handle: &Handle<HostKeyVerifier>,
    seen: &HostKeyVerifier,
    methods: &MethodSet,
) -> bool {
    if !methods.is_empty() {
        return false;
    }
    // Its task says so a moment later.
    tokio::time::sleep(Duration::from_millis(50)).await;
    handle.is_closed() && !seen.disconnected_by_server()
}

fn connection_ended() -> CollectionFailure {
    failure(
        CollectionStage::Authenticate,
        FailureCause::ConnectionClosed,
        "connection closed before authentication completed",
    )
}

/// The password as the answer to the first questions; others are not ours to answer.
async fn keyboard_interactive(
    handle: &mut Handle<HostKeyVerifier>,
    user: &str,
    password: &str,
) -> Result<AuthResult, russh::Error> {
    let mut answer = handle.authenticate_keyboard_interactive_start(user, None).await?;
    let mut said = false;
    for _ in 0..3 {
        let prompts = match answer {
            Interactive::Success => return Ok(AuthResult::Success),
            Interactive::Failure { remaining_methods, partial_success } => {
                return Ok(AuthResult::Failure { remaining_methods, partial_success });
            }
            Interactive::InfoRequest { prompts, .. } => prompts,
        };
        // The same question again means that the answer was wrong.
        if said && !prompts.is_empty() {
            break;
        }
        said |= !prompts.is_empty();
        let answers = prompts.iter().map(|prompt| if prompt.echo { "" } else { password }.to_owned());
        answer = handle.authenticate_keyboard_interactive_respond(answers.collect()).await?;
    }
    Ok(AuthResult::Failure { remaining_methods: MethodSet::empty(), partial_success: false })
}
