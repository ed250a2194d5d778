//! E-mail, by an SMTP server (RFC 5321). The mails of one incident are one thread.

use crate::http::Http;
use crate::{field, get, get_or, optional, secret, truncate};
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
        optional(field("port", "Port", "587", "587 for STARTTLS, 465 for TLS, 25 for neither")),
        optional(field("security", "Security", "starttls", "starttls, tls or none")),
        optional(field("user", "User", "perfwatch", "")),
        optional(secret("password", "Password", "", "")),
    ],
};

const TIMEOUT: Duration = Duration::from_secs(10);

fn recipients(settings: &ChannelSettings) -> Result<Vec<Mailbox>, String> {
    let people = get(settings, "to").split([',', ';']).map(str::trim).filter(|one| !one.is_empty());
    people.map(|one| one.parse().map_err(|_| format!("{one:?} is no e-mail address"))).collect()
}

fn port(settings: &ChannelSettings) -> Result<u16, String> {
    match (get(settings, "port"), get_or(settings, "security", "starttls")) {
        ("", "starttls") => Ok(587),
        ("", "tls") => Ok(465),
        ("", _) => Ok(25),
        (port, _) => port.parse().map_err(|_| "a number up to 65535".to_owned()),
    }
}

pub(crate) fn check(settings: &ChannelSettings) -> Option<(&'static str, String)> {
    match recipients(settings) {
        Err(why) => return Some(("to", why)),
        Ok(people) if people.is_empty() || people.len() > 50 => {
            return Some(("to", "1 to 50 addresses".to_owned()));
        }
        Ok(_) => {}
    }
    if get(settings, "from").parse::<Mailbox>().is_err() {
        return Some(("from", "an e-mail address".to_owned()));
    }
    let security = get_or(settings, "security", "starttls");
    if !["starttls", "tls", "none"].contains(&security) {
        return Some(("security", "starttls, tls or none".to_owned()));
    }
    if security == "none" && !get(settings, "password").is_empty() {
        let own = ["localhost", "127.0.0.1", "::1"].contains(&get(settings, "server"));
        if !own {
            return Some(("security", "a password is not sent without TLS".to_owned()));
        }
    }
    port(settings).err().map(|why| ("port", why))
}

fn html(letter: &RenderedNotification<'_>) -> String {
    let plain = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let line = |line: &str| match line.trim() {
        url if url.starts_with("http://") || url.starts_with("https://") => {
            format!("<a href=\"{0}\">{0}</a>", plain(url))
        }
        _ => plain(line),
    };
    let lines: Vec<String> = letter.text.lines().map(line).collect();
    let color = crate::slack::severity_color(letter);
    format!(
        "<div style=\"border-left:4px solid #{color:06x};padding:4px 12px;font-family:sans-serif\">\
         <h3 style=\"margin:0 0 8px\">{}</h3><pre style=\"font-family:inherit;white-space:pre-wrap;margin:0\">{}</pre></div>",
        plain(&letter.title),
        lines.join("\n")
    )
}

fn mail(settings: &ChannelSettings, letter: &RenderedNotification<'_>) -> Result<lettre::Message, String> {
    let from: Mailbox = get(settings, "from").parse().map_err(|_| "from: no e-mail address".to_owned())?;
    let domain = from.email.domain().to_owned();
    let thread = format!("<{}@{domain}>", letter.notification.incident);
    let mut builder = lettre::Message::builder()
        .from(from)
        .subject(truncate(&letter.title, 250))
        .message_id(Some(format!("<{}@{domain}>", letter.notification.id)))
        .in_reply_to(thread.clone())
        .references(thread)
        .header(header::MIME_VERSION_1_0);
    for one in recipients(settings)? {
        builder = builder.to(one);
    }
    let parts = MultiPart::alternative_plain_html(letter.text.clone(), html(letter));
    builder.multipart(parts).map_err(|error| error.to_string())
}

pub(crate) fn send(
    _: &Http,
    settings: &ChannelSettings,
    letter: &RenderedNotification<'_>,
) -> Result<(), SendError> {
    let permanent = |why: String| SendError::Permanent(why);
    let mail = mail(settings, letter).map_err(permanent)?;
    let server = get(settings, "server");
    let parameters = || TlsParameters::new(server.to_owned()).map_err(|error| permanent(error.to_string()));
    let tls = match get_or(settings, "security", "starttls") {
        "none" => Tls::None,
        "tls" => Tls::Wrapper(parameters()?),
        _ => Tls::Required(parameters()?),
    };
    let mut transport = SmtpTransport::builder_dangerous(server)
        .port(port(settings).map_err(permanent)?)
        .tls(tls)
        .timeout(Some(TIMEOUT));
    if !get(settings, "user").is_empty() {
        let (user, password) = (get(settings, "user").to_owned(), get(settings, "password").to_owned());
        transport = transport.credentials(Credentials::new(user, password));
    }
    transport.build().send(&mail).map(|_| ()).map_err(|error| {
        let why = error.to_string();
        // 5yz: the server will say no each time (RFC 5321, 4.2.1).
        if error.is_permanent() {
            permanent(why)
        } else {
            SendError::Retry { reason: why, retry_after: None }
        }
    })
}
