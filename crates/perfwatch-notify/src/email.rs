//! E-mail through an SMTP server (RFC 5321). The mails of an incident form a thread.

use crate::format::{TextLimit, severity_color, truncate};
use crate::http::Http;
use crate::settings::{field, get, get_or, optional, secret};
use crate::smtp::{Envelope, Security, SmtpServer};
use lettre::Address;
use lettre::message::{Mailbox, MultiPart, header};
use lettre::transport::smtp::authentication::Credentials;
use perfwatch_rules::notification::{
    ChannelKind, ChannelSettings, Delivery, RecipientState, RenderedNotification, SendError,
};
use std::time::Duration;

pub(crate) const KIND: ChannelKind = ChannelKind {
    name: "email",
    label: "E-mail",
    tracks_incidents: false,
    fields: &[
        field("to", "To", "ops@example.org, me@example.org", "One or more, separated by commas"),
        optional(field(
            "from",
            "From",
            "PerfWatch <perfwatch@example.org>",
            "Empty: sender of the mail server of the hub",
        )),
        optional(field("server", "SMTP server", "smtp.example.org", "Empty: mail server of the hub")),
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
/// Limit of the subject.
const MAX_SUBJECT: TextLimit = TextLimit::Chars(250);

fn recipients(settings: &ChannelSettings) -> Result<Vec<Mailbox>, String> {
    let addresses = get(settings, "to").split([',', ';']).map(str::trim).filter(|text| !text.is_empty());
    addresses.map(|text| text.parse().map_err(|_| format!("invalid e-mail address {text:?}"))).collect()
}

fn security(settings: &ChannelSettings) -> Result<Security, String> {
    match get_or(settings, "security", "starttls") {
        "starttls" => Ok(Security::StartTls),
        "tls" => Ok(Security::Tls),
        "none" => Ok(Security::None),
        _ => Err("expected starttls, tls or none".to_owned()),
    }
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
    // After the settings were completed by the mail server of the hub.
    if let Some(name) = ["server", "from"].into_iter().find(|name| get(settings, name).is_empty()) {
        return Some((name, "required, because the hub has no mail server".to_owned()));
    }
    if get(settings, "from").parse::<Mailbox>().is_err() {
        return Some(("from", "invalid e-mail address".to_owned()));
    }
    let security = match security(settings) {
        Ok(security) => security,
        Err(error) => return Some(("security", error)),
    };
    if security == Security::None && !get(settings, "password").is_empty() {
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

fn raw_header(name: &'static str, value: &str) -> Result<header::HeaderValue, String> {
    let name = header::HeaderName::new_from_ascii(name.to_owned()).map_err(|error| error.to_string())?;
    Ok(header::HeaderValue::new(name, value.to_owned()))
}

/// Address for the envelope: the domain in ASCII (RFC 5891), because few servers support SMTPUTF8.
fn envelope_address(mailbox: &Mailbox) -> Address {
    let address = &mailbox.email;
    match url::Host::parse(address.domain()) {
        Ok(url::Host::Domain(domain)) => {
            Address::new(address.user(), domain).unwrap_or_else(|_| address.clone())
        }
        _ => address.clone(),
    }
}

/// Recipients of this attempt: all, or those that the server deferred before.
fn pending_recipients(
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Vec<Address>, String> {
    let addresses = recipients(settings)?.iter().map(envelope_address).collect();
    let earlier = &rendered.notification.recipients;
    if earlier.is_empty() {
        return Ok(addresses);
    }
    let is_pending = |address: &Address| {
        let address = address.to_string();
        earlier.iter().any(|result| result.state == RecipientState::Deferred && result.recipient == address)
    };
    Ok(addresses.into_iter().filter(is_pending).collect())
}

fn mail(settings: &ChannelSettings, rendered: &RenderedNotification<'_>) -> Result<lettre::Message, String> {
    let from: Mailbox =
        get(settings, "from").parse().map_err(|_| "from: invalid e-mail address".to_owned())?;
    let domain = from.email.domain().to_owned();
    let thread = format!("<{}@{domain}>", rendered.notification.incident);
    let mut builder = lettre::Message::builder()
        .from(from)
        .subject(truncate(&rendered.title, MAX_SUBJECT))
        .message_id(Some(format!("<{}@{domain}>", rendered.notification.id)))
        .in_reply_to(thread.clone())
        .references(thread)
        // Mail servers must not answer with vacation notices (RFC 3834, 5); the second header is the one
        // that Exchange observes.
        .raw_header(raw_header("Auto-Submitted", "auto-generated")?)
        .raw_header(raw_header("X-Auto-Response-Suppress", "All")?)
        .header(header::MIME_VERSION_1_0);
    for recipient in recipients(settings)? {
        builder = builder.to(recipient);
    }
    let body = MultiPart::alternative_plain_html(rendered.text.clone(), html(rendered));
    builder.multipart(body).map_err(|error| error.to_string())
}

pub(crate) fn send(
    http: &Http,
    settings: &ChannelSettings,
    rendered: &RenderedNotification<'_>,
) -> Result<Delivery, SendError> {
    let mail = mail(settings, rendered).map_err(SendError::Permanent)?;
    let from: Mailbox = get(settings, "from")
        .parse()
        .map_err(|_| SendError::Permanent("from: invalid e-mail address".to_owned()))?;
    let to = pending_recipients(settings, rendered).map_err(SendError::Permanent)?;
    if to.is_empty() {
        return Err(SendError::Permanent("the recipients were removed from the channel".to_owned()));
    }
    let (user, password) = (get(settings, "user"), get(settings, "password"));
    let server = SmtpServer {
        host: get(settings, "server"),
        port: port(settings).map_err(SendError::Permanent)?,
        security: security(settings).map_err(SendError::Permanent)?,
        credentials: (!user.is_empty()).then(|| Credentials::new(user.to_owned(), password.to_owned())),
        policy: &http.policy,
        timeout: SMTP_TIMEOUT,
    };
    let envelope = Envelope { from: envelope_address(&from), to: &to, message: &mail.formatted() };
    let mut results = server.send(&envelope)?;
    // Results of earlier attempts that are final.
    let earlier = rendered.notification.recipients.iter();
    results.extend(earlier.filter(|result| result.state != RecipientState::Deferred).cloned());
    Ok(Delivery { recipients: results })
}
