//! One connection and the one channel on it: made step by step, each with its deadline, and gone
//! with this value.

use crate::cut::Cut;
use crate::keys::{self, Doorman};
use crate::shell::Shell;
use crate::way::{Way, broken, fail};
use perfwatch_model::remote::{Cause, Failure, Login, Stage, Target};
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
const ALIVE_EVERY: Duration = Duration::from_secs(20);

/// Either a TCP connection or one through another host.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection on which we are let in.
pub(crate) struct Session {
    handle: Handle<Doorman>,
    shell: Option<Shell>,
    /// Ends the connection's task when this is dropped. Before the way to it.
    _cut: DropGuard,
    /// The connection that this one goes through.
    _via: Option<Box<Self>>,
}

impl Session {
    /// Connects and logs in.
    pub(crate) async fn open(target: &Target, way: &mut Way<'_>) -> Result<Self, Failure> {
        let opened = Self::enter(target, way).await;
        opened.map_err(|failure| Failure { server: failure.server.or(Some(target.server)), ..failure })
    }

    async fn enter(target: &Target, way: &mut Way<'_>) -> Result<Self, Failure> {
        let key = keys::own(&target.login).map_err(|why| fail(Stage::Login, Cause::UnusableKey, why))?;
        let (stream, via) = reach(target, way).await?;
        let doorman = Doorman::new(target.pin.clone());
        let (config, token) = (Arc::new(config(target)), CancellationToken::new());
        let cut = token.clone().drop_guard();
        let within = way.deadlines.handshake;
        let seen = doorman.clone();
        let mut handle = way
            .step(Stage::Handshake, within, async {
                match client::connect_stream(config, Cut::new(stream, token), doorman).await {
                    Ok(handle) => Ok((handle, seen.shown().unwrap_or_default())),
                    Err(_) if seen.refused() => Err(changed(target, seen.shown())),
                    Err(error) => Err(broken(Stage::Handshake, &error)),
                }
            })
            .await
            .map_err(|failure| through(target, failure))?;
        way.keys.extend(seen.shown().map(|key| (target.server, key)));
        let within = way.deadlines.login;
        way.step(Stage::Login, within, login(&mut handle, target, key, &seen)).await?;
        Ok(Self { handle, shell: None, _cut: cut, _via: via })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// What the kernel there says now.
    pub(crate) async fn capture(&mut self, way: &mut Way<'_>) -> Result<Vec<u8>, Failure> {
        let mut shell = match self.shell.take() {
            Some(shell) => shell,
            None => {
                let within = way.deadlines.shell;
                way.step(Stage::Shell, within, Shell::open(&self.handle)).await?
            }
        };
        let within = way.deadlines.read;
        let output = way
            .step(Stage::Read, within, async {
                let output = shell.read().await?;
                let detail = format!("{} KB", output.len() >> 10);
                Ok((output, detail))
            })
            .await?;
        // Where it can't be asked again, the next one is on another channel: never two at a time.
        self.shell = shell.again().await;
        Ok(output)
    }
}

/// As much as we offer, and the pinned key's algorithm first.
fn config(target: &Target) -> client::Config {
    let all = Preferred::default();
    let key = keys::preferred(target.pin.as_deref(), &all.key);
    client::Config {
        preferred: Preferred { key: key.into(), ..all },
        keepalive_interval: Some(ALIVE_EVERY),
        keepalive_max: 3,
        inactivity_timeout: Some(4 * ALIVE_EVERY),
        nodelay: true,
        window_size: 1 << 20,
        channel_buffer_size: 32,
        ..client::Config::default()
    }
}

/// Names the host on the way where that is where it ended.
fn through(target: &Target, failure: Failure) -> Failure {
    match &target.jump {
        Some(jump) if failure.cause == Cause::Closed => {
            Failure { message: format!("{} (through {})", failure.message, jump.address), ..failure }
        }
        _ => failure,
    }
}

fn changed(target: &Target, shown: Option<String>) -> Failure {
    let key = shown.clone().unwrap_or_default();
    let pin = target.pin.as_deref().unwrap_or_default();
    let message = format!("the host shows another key than before: {key}, not {pin}");
    Failure { shown_key: shown, ..fail(Stage::Handshake, Cause::HostKeyChanged, message) }
}

/// A stream to the host, and the connection that it goes through.
async fn reach(
    target: &Target,
    way: &mut Way<'_>,
) -> Result<(Box<dyn Stream>, Option<Box<Session>>), Failure> {
    let place = (target.address.clone(), target.port);
    let Some(jump) = &target.jump else {
        let within = way.deadlines.resolve;
        let addresses = way.step(Stage::Resolve, within, resolve(place)).await?;
        let within = way.deadlines.connect;
        let stream = way.step(Stage::Connect, within, connect(addresses)).await?;
        return Ok((Box::new(stream), None));
    };
    let name = jump.address.clone();
    let via = Box::pin(Session::open(jump, way)).await.map_err(|failure| Failure {
        message: format!("on the way, at {name}: {}", failure.message),
        ..failure
    })?;
    let within = way.deadlines.connect;
    let channel = way.step(Stage::Connect, within, async {
        let opened = via.handle.channel_open_direct_tcpip(place.0, place.1.into(), "127.0.0.1", 0).await;
        match opened {
            Ok(channel) => Ok((channel, format!("through {name}"))),
            Err(russh::Error::ChannelOpenFailure(why)) => {
                Err(fail(Stage::Connect, Cause::Unreachable, format!("{name} does not get there: {why:?}")))
            }
            Err(error) => Err(broken(Stage::Connect, &error)),
        }
    });
    let stream = channel.await?.into_stream();
    Ok((Box::new(stream), Some(Box::new(via))))
}

async fn resolve(place: (String, u16)) -> Result<(Vec<SocketAddr>, String), Failure> {
    let name = place.0.clone();
    let unknown = |why: String| fail(Stage::Resolve, Cause::UnknownName, why);
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

async fn connect(addresses: Vec<SocketAddr>) -> Result<(TcpStream, String), Failure> {
    let mut last = fail(Stage::Connect, Cause::Unreachable, "no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small questions, small answers.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address.to_string()));
            }
            Err(error) => last = fail(Stage::Connect, Cause::Unreachable, format!("{address}: {error}")),
        }
    }
    Err(last)
}

fn listed(methods: &MethodSet) -> String {
    let mut text = String::new();
    for method in methods.iter() {
        let _ = write!(text, "{}{}", if text.is_empty() { "" } else { ", " }, String::from(method));
    }
    if text.is_empty() { "nothing".to_owned() } else { text }
}

/// Shows who we are, once: a wrong password is not tried again, nor in another way.
async fn login(
    handle: &mut Handle<Doorman>,
    target: &Target,
    key: Option<Arc<russh::keys::PrivateKey>>,
    seen: &Doorman,
) -> Result<((), String), Failure> {
    let user = target.user.as_str();
    let refused = |why: String| fail(Stage::Login, Cause::LoginRefused, why);
    // Asks what the host takes, which is no try.
    let methods = match handle.authenticate_none(user).await {
        Ok(AuthResult::Success) => return Ok(((), format!("{user}, without being asked"))),
        Ok(AuthResult::Failure { remaining_methods, .. })
            if broke(handle, seen, &remaining_methods).await =>
        {
            return Err(ended());
        }
        Ok(AuthResult::Failure { remaining_methods, .. }) => remaining_methods,
        Err(error) => return Err(broken(Stage::Login, &error)),
    };
    let takes = |method| methods.contains(&method);
    let (what, result) = match (&target.login, key) {
        (Login::Key { .. }, Some(key)) if takes(MethodKind::PublicKey) => {
            let hash = match handle.best_supported_rsa_hash().await {
                Ok(hash) => hash.flatten(),
                Err(error) => return Err(broken(Stage::Login, &error)),
            };
            let key = PrivateKeyWithHashAlg::new(key, hash);
            ("key", handle.authenticate_publickey(user, key).await)
        }
        (Login::Password(password), _) if takes(MethodKind::Password) => {
            ("password", handle.authenticate_password(user, password.expose_secret()).await)
        }
        (Login::Password(password), _) if takes(MethodKind::KeyboardInteractive) => {
            ("password", ask(handle, user, password.expose_secret()).await)
        }
        (wanted, _) => {
            let what = if matches!(wanted, Login::Key { .. }) { "key" } else { "password" };
            return Err(refused(format!("it lets {user} in by no {what}; it takes {}", listed(&methods))));
        }
    };
    match result {
        Ok(AuthResult::Success) => Ok(((), format!("{user}, by {what}"))),
        Ok(AuthResult::Failure { partial_success: true, remaining_methods }) => Err(refused(format!(
            "it takes {user}'s {what}, but asks for more: {}",
            listed(&remaining_methods)
        ))),
        Ok(AuthResult::Failure { remaining_methods, .. })
            if broke(handle, seen, &remaining_methods).await =>
        {
            Err(ended())
        }
        Ok(AuthResult::Failure { .. }) => Err(refused(format!("it does not take {user}'s {what}"))),
        // Dismissed at this very word: that is an answer, too.
        Err(_) if seen.dismissed() => {
            Err(refused(format!("it ended the connection when it saw {user}'s {what}")))
        }
        Err(error) => Err(broken(Stage::Login, &error)),
    }
}

/// Whether the connection broke before there was an answer: the library then says the same as of a
/// host that lets in by no method at all.
async fn broke(handle: &Handle<Doorman>, seen: &Doorman, methods: &MethodSet) -> bool {
    if !methods.is_empty() {
        return false;
    }
    // Its task says so a moment later.
    tokio::time::sleep(Duration::from_millis(50)).await;
    handle.is_closed() && !seen.dismissed()
}

fn ended() -> Failure {
    fail(Stage::Login, Cause::Closed, "the connection ended before it was let in")
}

/// The password as the answer to the first questions; others are not ours to answer.
async fn ask(handle: &mut Handle<Doorman>, user: &str, password: &str) -> Result<AuthResult, russh::Error> {
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
