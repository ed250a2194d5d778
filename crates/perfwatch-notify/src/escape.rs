//! Values of notifications as texts of a service: names of hosts, processes and rules must not become links,
//! mentions or markup there. Links of the hub itself stay links.

use perfwatch_rules::notification::{AlertSummary, Notification};

/// Character without width that separates the parts of a link or mention.
const SEPARATOR: char = '\u{200b}';
/// Kinds that receive structured data for programs.
const MACHINE_KINDS: [&str; 2] = ["webhook", "alertmanager"];

/// Notification whose values are escaped for the texts of a channel kind.
pub(crate) fn escape_values(kind: &str, notification: &Notification) -> Notification {
    if MACHINE_KINDS.contains(&kind) {
        return notification.clone();
    }
    let escape = |text: &str| match kind {
        "discord" => separate(&escape_markdown(text)),
        _ => separate(text),
    };
    let escape_all = |texts: &[String]| texts.iter().map(|text| escape(text)).collect();
    let escape_alert = |alert: &AlertSummary| AlertSummary {
        rule: escape(&alert.rule),
        host: escape(&alert.host),
        instance: escape(&alert.instance),
        summary: escape(&alert.summary),
        // Written by operators, and usually a link.
        runbook: alert.runbook.clone(),
        consumers: escape_all(&alert.consumers),
        movers: escape_all(&alert.movers),
        ..alert.clone()
    };
    Notification {
        subject: escape(&notification.subject),
        alerts: notification.alerts.iter().map(escape_alert).collect(),
        digest: escape_all(&notification.digest),
        ..notification.clone()
    }
}

/// Escapes the characters that Discord interprets as Markdown.
fn escape_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\*_~`|[]>#".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Separates the parts of links and mentions: `https://`, `www.`, `mailto:`, `[text](link)`, `@name`,
/// `<@id>`, and channels and tags of Mattermost, `~name` and `#name`. The text looks the same.
fn separate(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        out.push(c);
        let next = after.chars().next();
        let is_joined = match c {
            ':' => next == Some('/') || has_word_end(&out, "mailto:") || has_word_end(&out, "javascript:"),
            '/' => next == Some('/'),
            '.' => has_word_end(&out, "www."),
            ']' => next.is_some_and(|next| "([:".contains(next)),
            '@' => next.is_some_and(|next| !next.is_whitespace()),
            // Not if the character is escaped.
            '~' | '#' => !has_escape(&out) && next.is_some_and(char::is_alphabetic),
            '<' => next.is_some_and(|next| !next.is_whitespace() && next != '='),
            _ => false,
        };
        if is_joined {
            out.push(SEPARATOR);
        }
        rest = after;
    }
    out
}

/// Returns whether the last character of a text is escaped.
fn has_escape(text: &str) -> bool {
    text.chars().nth_back(1) == Some('\\')
}

/// Returns whether a text ends with a word, whatever its case.
fn has_word_end(text: &str, word: &str) -> bool {
    text.len()
        .checked_sub(word.len())
        .and_then(|start| text.get(start..))
        .is_some_and(|end| end.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_rules::hostile::hostile_notification;
    use perfwatch_rules::incident::NotificationReason;
    use perfwatch_rules::render;

    /// Finding L12: the name of a host became a link or a mention.
    #[test]
    fn names_make_neither_links_nor_mentions() {
        let names = [
            "https://evil.example/login",
            "HTTP://evil.example",
            "[click](https://evil.example)",
            "[click][1]",
            "<https://evil.example|click>",
            "<!channel> <@U123> <#C1>",
            "@everyone @here @channel @all @room",
            "www.evil.example WWW.evil.example",
            "mailto:ceo@evil.example",
            "steam://run javascript:x",
            "<at>everyone</at>",
            "~town-square #urgent",
        ];
        let notification = |name: &str| {
            let mut notification = hostile_notification(NotificationReason::Opened);
            notification.subject = name.to_owned();
            notification.digest = vec![name.to_owned()];
            for alert in &mut notification.alerts {
                for text in [&mut alert.rule, &mut alert.host, &mut alert.instance, &mut alert.summary] {
                    *text = name.to_owned();
                }
                (alert.consumers, alert.movers) = (vec![name.to_owned()], vec![name.to_owned()]);
                alert.runbook = "https://wiki.example/runbook".to_owned();
            }
            notification
        };
        let kinds = crate::CHANNELS.iter().map(|(kind, ..)| kind.name);
        let chats = kinds.filter(|kind| !MACHINE_KINDS.contains(kind));
        for (kind, name) in chats.flat_map(|kind| names.map(|name| (kind, name))) {
            let escaped = escape_values(kind, &notification(name));
            let links =
                [escaped.url.clone(), escaped.alerts[0].url.clone(), escaped.alerts[0].runbook.clone()];
            let mut text = render::render_title(&escaped) + "\n" + &render::render_text(&escaped);
            links.iter().for_each(|link| text = text.replace(link.as_str(), ""));
            let lower = text.to_lowercase().replace(r"\~", "").replace(r"\#", "");
            for part in [
                "://", "www.e", "](", "][", "@e", "@h", "@c", "@a", "@r", "@u", "<@", "<!", "<#", "<h",
                "<at", "mailto:c", "~t", "#u",
            ] {
                assert!(!lower.contains(part), "{kind} {name}: {part} in {text}");
            }
            let visible = escaped.subject.replace([SEPARATOR, '\\'], "");
            assert_eq!(visible, name, "{kind}");
        }
        let escaped = escape_values("discord", &notification("**db_1** `x` ||y|| ~~z~~ # h"));
        assert_eq!(escaped.subject, r"\*\*db\_1\*\* \`x\` \|\|y\|\| \~\~z\~\~ \# h");
        for kind in ["webhook", "alertmanager"] {
            assert_eq!(escape_values(kind, &notification(names[0])), notification(names[0]));
        }
        let plain = notification("web-1.example.org: High CPU usage (above 90 %)");
        assert_eq!(escape_values("teams", &plain).subject, plain.subject);
    }
}
