//! E-mail through an SMTP server (RFC 5321). The mails of an incident form a thread.

use crate::format::{severity_color, truncate};
use crate::http::Http;
use crate::settings::{field, get, get_or, optional, secret};
use lettre::message::{Mailbox, MultiPart, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{SmtpTransport, Transport as _};
use perfwatch_rules::notification::{ChannelKind, ChannelSettings, RenderedNotification, SendError};
use std::time::Duration;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "email",
    label: "E-mail",
    tracks_incidents: false,
    fields: &[
        field("to", "To", "ops@example.org, me@example.org", "One or more, separated by commas"),
        field("from", "From", "PerfWatch <perfwatch@example.org>", ""),
        field("server", "SMTP server", "smtp.example.org", ""),
        optional(field("port", "Port", "587", "587 for STARTTLS, 465 for TLS, 25 without TLS")),
        optional(field("security", "Security", "starttls", "starttls, tls or none")),
        optional(field("user", "User", "perfwatch", "")),
        optional(secret("password", "Password", "", "")),
    ],
};

/// Timeout of an SMTP command.
const SMTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of recipients of a channel.
const MAX_RECIPIENTS: usize = 50;

fn recipients(settings: &ChannelSettings) -> Result<Vec<Mailbox>, String> {
    let addresses = get(settings, "to").split([',', ';']).map(str::trim).filter(|text| !text.is_empty());
    addresses.map(|text| text.parse().map_err(|_| format!("invalid e-mail address {text:?}"))).collect()
}

fn port(settings: &ChannelSettings) -> Result<u16, String> {
    match (get(settings, "port"), get_or(settings, "security", "starttls")) {
        ("", "starttls") => Ok(587),
        ("", "tls") => Ok(465),
        ("", _) => Ok(25),
        (port, _) => port.parse().map_err(|_| "expected a number up to 65535".to_owned()),
    }
}

pub(crate) fn validate(settings: &ChannelSettings) -> Option<(&'static str, String)> {
    match recipients(settings) {
        Err(error) => return Some(("to", error)),
        Ok(recipients) if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS => {
            return Some(("to", format!("expected 1 to {MAX_RECIPIENTS} addresses")));
        }
        Ok(_) => {}
    }
    if get(settings, "from").parse::<Mailbox>().is_err() {
        return Some(("from", "invalid e-mail address".to_owned()));
    }
    let security = get_or(settings, "security", "starttls");
    if !["starttls", "tls", "none"].contains(&security) {
        return Some(("security", "expected starttls, tls or none".to_owned()));
    }
    if security == "none" && !get(settings, "password").is_empty() {
        let is_local = ["localhost", "127.0.0.1", "::1"].contains(&get(settings, "server"));
        if !is_local {
            return Some(("security", "a password requires TLS".to_owned()));
        }
    }
    port(settings).err().map(|error| ("port", error))
}

fn html(rendered: &RenderedNotification<'_>) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let line = |line: &str| match line.trim() {
        url if url.starts_with("http://") || url.starts_with("https://") => {
            format!("<a href=\"{0}\">{0}</a>", escape(url))
        }
        _ => escape(line),
    };
    let lines: Vec<String> = rendered.text.lines().map(line).collect();
    let color = severity_color(rendered);
    format!(
        "<div style=\"border-left:4px solid #{color:06x};padding:4px 12px;font-family:sans-serif\">\
         <h3 style=\"margin:0 0 8px\">{}</h3><pre style=\"font-family:inherit;white-space:pre-wrap;margin:0\">{}</pre></div>",
        escape(&rendered.title),
        lines.join("\n")
    )
}

fn mail(settings: &ChannelSettings, rendered: &RenderedNotification<'_>) -> Result<lettre::Message, String> {
    let from: Mailbox =
        get(settings, "from").parse().map_err(|_| "from: invalid e-mail address".to_owned())?;
    let domain = from.email.domain().to_owned();
    let thread = format!("<{}@{domain}>", rendered.notification.incident);
    let mut builder = lettre::Message::builder()
        .from(from)
        .subject(truncate(&rendered.title, 250))
        .message_id(Some(format!("<{}@{domain}>", rendered.notification.id)))
        .in_reply_to(thread.clone())
        .references(thread)
        .header(header::MIME_VERSION_1_0);
    for recipient in recipients(settings)? {
        builder = builder.to(recipient);
    }
    let body = MultiPart::alternative_plain_html(rendered.text.clone(), html(rendered));
    builder.multipart(body).map_err(|error| error.to_string())
}

pub(crate) fn send(
    _: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let mail = mail(settings, rendered).map_err(SendError::Permanent)?;
    let server = get(settings, "server");
    let parameters =
        || TlsParameters::new(server.to_owned()).map_err(|error| SendError::Permanent(error.to_string()));
    let tls = match get_or(settings, "security", "starttls") {
        "none" => Tls::None,
        "tls" => Tls::Wrapper(parameters()?),
        _ => Tls::Required(parameters()?),
    };
    let mut transport = SmtpTransport::builder_dangerous(server)
        .port(port(settings).map_err(SendError::Permanent)?)
        .tls(tls)
        .timeout(Some(SMTP_TIMEOUT));
    if !get(settings, "user").is_empty() {
        let (user, password) = (get(settings, "user").to_owned(), get(settings, "password").to_owned());
        transport = transport.credentials(Credentials::new(user, password));
    }
    transport.build().send(&mail).map(|_| ()).map_err(|error| {
        let reason = error.to_string();
        // A reply 5yz is permanent (RFC 5321, 4.2.1).
        if error.is_permanent() {
            SendError::Permanent(reason)
        } else {
            SendError::Transient { reason, retry_after: None }
        }
    })
}
