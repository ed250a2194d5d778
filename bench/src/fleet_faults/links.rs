//! Links: relays between two processes that can be cut and restored.

use anyhow::Context as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 16 << 10;
/// Pause after a connection could not be accepted.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// State of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    /// Connections are passed on.
    Open,
    /// Connections are closed, and new ones are refused.
    Refused,
    /// Bytes do not arrive, as if packets were dropped, until the link is open again.
    Silent,
}

/// Process at the far end of a link.
#[derive(Debug, Clone)]
pub(super) enum LinkTarget {
    /// Address and port.
    Tcp(String),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

/// Byte stream of any kind of socket.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Connections to one process, and their common state.
pub(super) struct Link {
    target: LinkTarget,
    state: watch::Sender<LinkState>,
    /// Changes when all connections are closed.
    generation: watch::Sender<u64>,
}

impl Link {
    pub(super) fn new(target: LinkTarget) -> Arc<Self> {
        let (state, generation) = (watch::Sender::new(LinkState::Open), watch::Sender::new(0));
        Arc::new(Self { target, state, generation })
    }

    /// Cuts or restores the link.
    pub(super) fn set(&self, state: LinkState) {
        self.state.send_replace(state);
        if state == LinkState::Refused {
            self.close_connections();
        }
    }

    pub(super) fn close_connections(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Connects to the target. Waits while the link is silent.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn ByteStream>> {
        wait_while_silent(&mut self.state.subscribe()).await;
        if *self.state.borrow() == LinkState::Refused {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let stream: Box<dyn ByteStream> = match &self.target {
            LinkTarget::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            LinkTarget::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        Ok(stream)
    }

    /// Passes bytes on between a client and the target, until one of them or the link closes the connection.
    pub(super) async fn pass(&self, client: TcpStream, target: Box<dyn ByteStream>) {
        let mut generation = self.generation.subscribe();
        if *self.state.borrow() == LinkState::Refused {
            return;
        }
        let ((from_client, to_client), (from_target, to_target)) =
            (tokio::io::split(client), tokio::io::split(target));
        let copies = async {
            tokio::try_join!(
                copy(from_client, to_target, self.state.subscribe()),
                copy(from_target, to_client, self.state.subscribe())
            )
        };
        tokio::select! {
            _ = generation.changed() => {}
            _ = copies => {}
        }
    }
}

async fn wait_while_silent(state: &mut watch::Receiver<LinkState>) {
    // Without a sender there is no link anymore, and its connections end.
    let _ = state.wait_for(|state| *state != LinkState::Silent).await;
}

/// Copies one direction until its end, which is passed on as well.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<LinkState>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        wait_while_silent(&mut state).await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Listener whose connections pass through a link.
pub(super) struct Relay {
    /// Listen address, without a scheme.
    pub(super) address: String,
    pub(super) link: Arc<Link>,
}

impl Relay {
    /// Starts on a free port; ends with the runtime.
    pub(super) async fn start(target: LinkTarget) -> anyhow::Result<Self> {
        let link = Link::new(target);
        let relayed = link.clone();
        let address = listen(move |client| {
            let link = relayed.clone();
            async move {
                if let Ok(target) = link.connect().await {
                    link.pass(client, target).await;
                }
            }
        });
        Ok(Self { address: address.await?, link })
    }
}

/// Handles each connection to a free port in a task; returns the listen address.
pub(super) async fn listen<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> anyhow::Result<String>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((client, _)) => {
                    let _ = client.set_nodelay(true);
                    tokio::spawn(handle(client));
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
            }
        }
    });
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a byte through a relay to a server that returns it.
    async fn echo(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn link_closes_or_delays_connections() {
        let server = listen(async |mut stream: TcpStream| {
            while let Ok(byte) = stream.read_u8().await {
                let _ = stream.write_all(&[byte]).await;
            }
        });
        let relay = Relay::start(LinkTarget::Tcp(server.await.unwrap())).await.unwrap();
        let mut stream = TcpStream::connect(&relay.address).await.unwrap();
        assert_eq!(echo(&mut stream).await.unwrap(), b'x');
        // What is sent while the link is silent arrives later.
        relay.link.set(LinkState::Silent);
        let waiting = tokio::time::timeout(Duration::from_millis(50), echo(&mut stream)).await;
        assert!(waiting.is_err());
        relay.link.set(LinkState::Open);
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        relay.link.set(LinkState::Refused);
        assert!(echo(&mut stream).await.is_err());
        let mut refused = TcpStream::connect(&relay.address).await.unwrap();
        assert!(echo(&mut refused).await.is_err());
        relay.link.set(LinkState::Open);
        let mut stream = TcpStream::connect(&relay.address).await.unwrap();
        assert_eq!(echo(&mut stream).await.unwrap(), b'x');
    }
}
