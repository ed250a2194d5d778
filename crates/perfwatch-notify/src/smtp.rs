//! SMTP session (RFC 5321) with a result per recipient, and advice for wrong connection settings.

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use perfwatch_model::OutboundPolicy;
use perfwatch_rules::notification::{RecipientResult, RecipientState, SendError};
use std::error::Error as _;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

/// Use of TLS on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// TLS after the command STARTTLS.
    StartTls,
    /// TLS from the start.
    Tls,
    /// No TLS.
    None,
}

/// Server and login of a channel.
pub(crate) struct SmtpServer<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) security: Security,
    pub(crate) credentials: Option<Credentials>,
    /// Addresses that may be reached.
    pub(crate) policy: &'a OutboundPolicy,
    /// Timeout of connecting and of each command.
    pub(crate) timeout: Duration,
}

/// Mail with its envelope.
pub(crate) struct Envelope<'a> {
    pub(crate) from: Address,
    pub(crate) to: &'a [Address],
    pub(crate) message: &'a [u8],
}

/// Step of a session, which determines the meaning of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    StartTls,
    Login,
    Transfer,
}

/// Reply or error as text: `550 no such user`.
fn error_text(error: &Error) -> String {
    match (error.status(), error.source()) {
        (Some(code), Some(text)) => format!("{code} {text}"),
        (Some(code), None) => code.to_string(),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

/// Error of the operating system or of TLS that caused an SMTP error.
fn io_error(error: &Error) -> Option<&std::io::Error> {
    let mut source = error.source();
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        source = current.source();
    }
    None
}

fn tls_error(error: &Error) -> Option<&rustls::Error> {
    let mut source = error.source();
    while let Some(current) = source {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let inner = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(tls);
        }
        source = current.source();
    }
    None
}

impl SmtpServer<'_> {
    /// Sends a mail. Returns the results of all recipients if at least one of them was accepted or
    /// deferred.
    ///
    /// # Errors
    /// Returns [`SendError::Permanent`] if the server refuses the mail or every recipient,
    /// [`SendError::Transient`] if the server is unavailable or defers every recipient.
    pub(crate) fn send(&self, envelope: &Envelope<'_>) -> Result<Vec<RecipientResult>, SendError> {
        let mut connection = self.connect()?;
        let result = self.transfer(&mut connection, envelope);
        // The mail was accepted or not; the reply to QUIT does not change that.
        connection.abort();
        result
    }

    fn connect(&self) -> Result<SmtpConnection, SendError> {
        let hello = ClientId::default();
        let tls = match self.security {
            Security::None => None,
            Security::StartTls | Security::Tls => Some(
                TlsParameters::new(self.host.to_owned())
                    .map_err(|error| SendError::Permanent(format!("server: {}", error_text(&error))))?,
            ),
        };
        let wrapper = tls.as_ref().filter(|_| self.security == Security::Tls);
        let addresses = self.resolve()?;
        let connected = SmtpConnection::connect(&addresses[..], Some(self.timeout), &hello, wrapper, None);
        let mut connection = connected.map_err(|error| self.failure(&error, Step::Connect))?;
        if let Some(tls) = tls.as_ref().filter(|_| self.security == Security::StartTls) {
            if !connection.can_starttls() {
                connection.abort();
                return Err(SendError::Transient {
                    reason: format!(
                        "the server does not offer STARTTLS on port {}; if it expects TLS from the start \
                         (usually port 465), set security to tls; use none only in a trusted network",
                        self.port
                    ),
                    retry_after: None,
                });
            }
            connection.starttls(tls, &hello).map_err(|error| self.failure(&error, Step::StartTls))?;
        }
        if let Some(credentials) = &self.credentials {
            let login = connection.auth(DEFAULT_MECHANISMS, credentials);
            if let Err(error) = login {
                connection.abort();
                return Err(self.failure(&error, Step::Login));
            }
        }
        Ok(connection)
    }

    /// Addresses of the server that may be reached. The connection is made to these, so that the name is
    /// not resolved again.
    fn resolve(&self) -> Result<Vec<SocketAddr>, SendError> {
        let transient = |reason| SendError::Transient { reason, retry_after: None };
        let resolved = (self.host, self.port).to_socket_addrs().map_err(|error| {
            let Self { host, port, .. } = self;
            transient(format!("cannot connect to {host}:{port}: {error}; check server and port"))
        })?;
        self.policy.filter(resolved.collect()).map_err(|error| SendError::Permanent(error.to_string()))
    }

    fn transfer(
        &self,
        connection: &mut SmtpConnection,
        envelope: &Envelope<'_>,
    ) -> Result<Vec<RecipientResult>, SendError> {
        let fail = |error: Error| self.failure(&error, Step::Transfer);
        let is_utf8_supported = connection.server_info().supports_feature(Extension::SmtpUtfEight);
        let is_sendable = |address: &Address| is_utf8_supported || is_ascii(address);
        let needs_utf8 = std::iter::once(&envelope.from).chain(envelope.to).any(|address| !is_ascii(address));
        let mut parameters = Vec::new();
        if needs_utf8 && is_utf8_supported {
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if connection.server_info().supports_feature(Extension::EightBitMime) && !envelope.message.is_ascii()
        {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        connection.command(Mail::new(Some(envelope.from.clone()), parameters)).map_err(fail)?;
        let mut results = Vec::new();
        for address in envelope.to {
            let (state, reason) = if is_sendable(address) {
                match connection.command(Rcpt::new(address.clone(), Vec::new())) {
                    Ok(_) => (RecipientState::Sent, String::new()),
                    Err(error) if error.is_permanent() => (RecipientState::Refused, error_text(&error)),
                    Err(error) if error.is_transient() => (RecipientState::Deferred, error_text(&error)),
                    Err(error) => return Err(fail(error)),
                }
            } else {
                let reason = "the server does not accept addresses with such characters (SMTPUTF8)";
                (RecipientState::Refused, reason.to_owned())
            };
            results.push(RecipientResult { recipient: address.to_string(), state, reason });
        }
        let has = |state: RecipientState| results.iter().any(|result| result.state == state);
        if has(RecipientState::Sent) {
            connection.command(Data).map_err(fail)?;
            connection.message(envelope.message).map_err(fail)?;
        } else if !has(RecipientState::Refused) {
            return Err(SendError::Transient { reason: reasons(&results), retry_after: None });
        } else if !has(RecipientState::Deferred) {
            return Err(SendError::Permanent(reasons(&results)));
        }
        Ok(results)
    }

    fn failure(&self, error: &Error, step: Step) -> SendError {
        let reason = self.describe(error, step);
        // A reply 5yz is permanent (RFC 5321, 4.2.1).
        if error.is_permanent() {
            SendError::Permanent(reason)
        } else {
            SendError::Transient { reason, retry_after: None }
        }
    }

    /// Error with advice on the setting that may cause it.
    fn describe(&self, error: &Error, step: Step) -> String {
        let Self { host, port, security, timeout, .. } = self;
        let text = error_text(error);
        if error.status().is_some() {
            let advice = match (step, security) {
                (Step::Login, _) => "; check user and password",
                // RFC 3207, 4: the server requires STARTTLS.
                (Step::Transfer, Security::None) if text.starts_with("530") => "; set security to starttls",
                _ => "",
            };
            return format!("{text}{advice}");
        }
        if let Some(error) = tls_error(error) {
            return match error {
                rustls::Error::InvalidCertificate(_) => format!(
                    "the certificate of {host} is not valid: {error}; the server setting must be a name in \
                     the certificate, issued by an authority that this machine trusts"
                ),
                rustls::Error::AlertReceived(_) => format!("TLS with {host} failed: {error}"),
                _ => format!("port {port} does not speak TLS from the start; {}", self.plain_advice()),
            };
        }
        let kind = io_error(error).map(std::io::Error::kind);
        let is_timeout = matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        let seconds = timeout.as_secs();
        // The kind of a connection that was not established differs from that of a read timeout.
        let is_connected = !error.to_string().starts_with("Connection error");
        match (step, security) {
            (Step::Connect, _) if !is_connected && is_timeout => {
                format!("no connection to {host}:{port} within {seconds} s; check server, port and firewall")
            }
            (Step::Connect, _) if !is_connected => {
                format!("cannot connect to {host}:{port}: {text}; check server and port")
            }
            (Step::Connect, Security::Tls) if is_timeout => format!(
                "no TLS answer from {host}:{port} within {seconds} s; if the port does not speak TLS from the \
                 start, {}",
                self.plain_advice()
            ),
            (Step::Connect, Security::Tls) => format!(
                "{host}:{port} closed the connection during the TLS handshake; if the port does not speak TLS \
                 from the start, {}",
                self.plain_advice()
            ),
            (Step::Connect, _) if is_timeout => format!(
                "no greeting from {host}:{port} within {seconds} s; if the port expects TLS from the start \
                 (usually 465), set security to tls"
            ),
            (Step::Connect, _) => format!(
                "{host}:{port} does not answer like an SMTP server ({text}); if the port expects TLS from the \
                 start (usually 465), set security to tls"
            ),
            (Step::Login, _) if error.is_client() => format!(
                "{host}:{port} offers no login; remove user and password, or set security to starttls or tls"
            ),
            _ if is_timeout => format!("no reply from {host}:{port} within {seconds} s"),
            _ => format!("connection to {host}:{port} failed: {text}"),
        }
    }

    /// Settings for a port that does not speak TLS from the start.
    fn plain_advice(&self) -> &'static str {
        match self.security {
            Security::Tls => "set security to starttls (usually port 587), or none in a trusted network",
            Security::StartTls | Security::None => "check the port",
        }
    }
}

fn is_ascii(address: &Address) -> bool {
    address.user().is_ascii() && address.domain().is_ascii()
}

/// Reasons of recipients that were not accepted.
fn reasons(results: &[RecipientResult]) -> String {
    let lines: Vec<String> =
        results.iter().map(|result| format!("{}: {}", result.recipient, result.reason)).collect();
    lines.join("; ")
}
