//! Renders user-defined Jinja templates with a notification. Run time and output are limited.

use crate::json_body;
use crate::template_budget::Budget;
use crate::template_guard::{self, GuardedTemplate};
use minijinja::machinery::{eval, make_string_output};
use minijinja::{AutoEscape, Environment, Error, Output, State, UndefinedBehavior, Value};
use perfwatch_rules::hostile::hostile_notification;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::Notification;
use perfwatch_rules::render;
use std::borrow::Cow;
use std::cell::OnceCell;

/// Maximum length of the output in bytes.
const MAX_TEMPLATE_OUTPUT_BYTES: usize = 200_000;

/// Treatment of inserted values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueEscape {
    /// Values are inserted unchanged.
    None,
    /// Values are escaped for their place in a JSON text.
    Json,
    /// Characters with a meaning in HTML and XML are escaped.
    Html,
    /// Values are percent-encoded.
    Form,
}

/// Function that writes a value to the output.
type FormatFn = fn(&mut Output<'_>, &mut State<'_, '_>, &Value) -> Result<(), Error>;

/// Body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestBody {
    Json(String),
    Text(String),
}

/// Renders a template. Its variables are the fields of the notification, `title` and `text`.
///
/// # Errors
/// Returns the error of the template engine with its line, or the exceeded limit.
pub(crate) fn render(template: &str, notification: &Notification) -> Result<String, String> {
    render_escaped(template, notification, ValueEscape::None)
}

/// Text in the form of URLs and HTML forms.
fn urlencode(value: &Value) -> Value {
    let encoded: String = url::form_urlencoded::byte_serialize(value.to_string().as_bytes()).collect();
    // Valid in a path too, where a plus is a plus.
    Value::from_safe_string(encoded.replace('+', "%20"))
}

/// Formatter of the template engine that percent-encodes values.
fn write_form(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let value = if value.is_safe() { value.clone() } else { urlencode(value) };
    write!(out, "{value}").map_err(Error::from)
}

/// Notification without the characters that mark values in JSON bodies.
fn without_marks(notification: &Notification) -> Cow<'_, Notification> {
    let json = serde_json::to_string(notification).unwrap_or_default();
    if !json.contains(json_body::is_mark) {
        return Cow::Borrowed(notification);
    }
    let cleaned = serde_json::from_str(&json.replace(json_body::is_mark, "\u{fffd}"));
    cleaned.map_or(Cow::Borrowed(notification), Cow::Owned)
}

fn render_escaped(
    template: &str,
    notification: &Notification,
    escape: ValueEscape,
) -> Result<String, String> {
    let describe = |error: &Error| {
        let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("{}{detail}{line}", error.kind())
    };
    let assignments = OnceCell::new();
    let guarded = template_guard::compile(template, &assignments).map_err(|error| describe(&error))?;
    let (mut environment, budget) = (Environment::new(), Budget::new());
    environment.set_fuel(Some(guarded.fuel));
    template_guard::restrict(&mut environment, &guarded, &budget);
    // An unknown variable is an error: an empty text would hide a typo.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("urlencode", urlencode);
    let (auto_escape, write): (_, FormatFn) = match escape {
        ValueEscape::None => (AutoEscape::None, minijinja::escape_formatter),
        ValueEscape::Json => (AutoEscape::Custom(json_body::ESCAPE_MODE.into()), json_body::write_marked),
        ValueEscape::Html => (AutoEscape::Html, minijinja::escape_formatter),
        ValueEscape::Form => (AutoEscape::Custom("form".into()), write_form),
    };
    environment.set_formatter(move |out, state, value| write(out, state, &budget.count(value.clone())?));
    let notification = &without_marks(notification);
    let texts = minijinja::context! {
        title => render::render_title(notification),
        text => render::render_text(notification),
    };
    let fields = Value::from(minijinja::value::Serde(notification));
    let variables = minijinja::context! { ..texts, ..fields };
    let mut output = String::new();
    let GuardedTemplate { instructions, blocks, .. } = &guarded;
    let mut writer = make_string_output(&mut output);
    eval(&environment, instructions, variables, blocks, &mut writer, auto_escape)
        .map_err(|error| describe(&error))?;
    let output = if escape == ValueEscape::Json { json_body::insert_values(&output) } else { output };
    if output.len() > MAX_TEMPLATE_OUTPUT_BYTES {
        Err(format!("output exceeds {MAX_TEMPLATE_OUTPUT_BYTES} bytes"))
    } else {
        Ok(output)
    }
}

/// Type and subtype of a content type, in lower case.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Treatment of values in a body that is not JSON.
fn text_escape(content_type: &str) -> ValueEscape {
    match media_type(content_type).as_str() {
        "application/x-www-form-urlencoded" => ValueEscape::Form,
        "text/html" | "text/xml" | "application/xml" => ValueEscape::Html,
        media_type if media_type.ends_with("+xml") => ValueEscape::Html,
        _ => ValueEscape::None,
    }
}

/// Returns whether the body of a template has to be JSON: its content type, or its first character, says
/// so.
fn must_be_json(template: &str, content_type: &str) -> bool {
    let media_type = media_type(content_type);
    let starts_json = template.starts_with(['{', '['])
        && !["{{", "{%", "{#"].iter().any(|start| template.starts_with(start));
    match media_type.as_str() {
        "" => starts_json,
        "application/json" | "text/json" => true,
        media_type => media_type.ends_with("+json"),
    }
}

/// Renders the body of a request. Values are escaped in JSON, forms, HTML and XML; in other bodies the
/// template applies a filter such as `urlencode` or `escape`.
///
/// # Errors
/// Returns the error of the template engine, or the place where a body that has to be JSON is not.
pub(crate) fn render_body(
    template: &str,
    content_type: &str,
    notification: &Notification,
) -> Result<RequestBody, String> {
    let template = template.trim();
    let json = render_escaped(template, notification, ValueEscape::Json)?;
    match json_body::validate(&json) {
        Ok(()) => Ok(RequestBody::Json(json)),
        Err(error) if must_be_json(template, content_type) => Err(error),
        Err(_) => render_escaped(template, notification, text_escape(content_type)).map(RequestBody::Text),
    }
}

/// Notifications with hostile text, for each kind of content.
pub(crate) fn hostile_notifications() -> Vec<Notification> {
    let opened = hostile_notification(NotificationReason::Opened);
    let digest = Notification { digest: vec![opened.subject.clone()], alerts: vec![], ..opened.clone() };
    vec![opened, hostile_notification(NotificationReason::Resolved), digest]
}

/// Tries the body of a request with hostile text.
///
/// # Errors
/// Returns the error of [`render_body`], or that the form of the body depends on its values.
pub(crate) fn validate_body(template: &str, content_type: &str) -> Result<(), String> {
    let plain = Notification {
        subject: "web-1: High CPU usage".to_owned(),
        alerts: vec![],
        ..hostile_notification(NotificationReason::Test)
    };
    let is_json = |body: &RequestBody| matches!(body, RequestBody::Json(_));
    let expects_json = is_json(&render_body(template, content_type, &plain)?);
    for notification in hostile_notifications() {
        let body = render_body(template, content_type, &notification)
            .map_err(|error| format!("with quotes, backslashes and line breaks in names, {error}"))?;
        if expects_json && !is_json(&body) {
            return Err("with quotes, backslashes and line breaks in names, the body is not JSON; insert \
                        values without the filter safe"
                .to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn hostile() -> Notification {
        hostile_notification(NotificationReason::Opened)
    }

    #[test]
    fn json_bodies_escape_values_where_they_are_inserted() {
        let title = render::render_title(&hostile()).replace(json_body::is_mark, "\u{fffd}");
        for (template, pointer, expected) in [
            ("{\"text\": \"{{ title }}\"}", "/text", title.clone()),
            ("{\"text\": {{ title }}}", "/text", title.clone()),
            ("{\"text\": {{ title|tojson }}}", "/text", title.clone()),
            ("{\"text\": \"a \\\" {{ title }} b\"}", "/text", format!("a \" {title} b")),
            ("{\"{{ severity }}\": {\"n\": {{ alerts|length }}}}", "/critical/n", "2".into()),
            ("{\"n\": \"{{ alerts|length }}\"}", "/n", "2".into()),
            ("{\"ok\": {{ subject == title }}}", "/ok", "false".into()),
            ("{\"at\": {{ none }}}", "/at", "null".into()),
            (
                "{\"a\": {{ [subject, 1] }}}",
                "/a/0",
                hostile().subject.replace(json_body::is_mark, "\u{fffd}"),
            ),
            (
                "[{% for a in alerts %}\"{{ a.severity }}\"{% if not loop.last %},{% endif %}{% endfor %}]",
                "/1",
                "critical".into(),
            ),
            ("{% set t = title ~ '!' %}{\"t\": \"{{ t }}\"}", "/t", format!("{title}!")),
            (
                "{% macro m(x) %}<{{ x }}>{% endmacro %}{\"t\": \"{{ m(title) }}\"}",
                "/t",
                format!("<{title}>"),
            ),
            ("{\"t\": \"{{ severity|upper }}\"}", "/t", "CRITICAL".into()),
        ] {
            assert_eq!(validate_body(template, ""), Ok(()), "{template}");
            let RequestBody::Json(body) = render_body(template, "", &hostile()).unwrap() else {
                panic!("{template}")
            };
            let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} {body}"));
            let value = body.pointer(pointer).unwrap_or_else(|| panic!("{template} {body}"));
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(value, expected, "{template}");
        }
    }

    #[test]
    fn bodies_in_other_forms_use_filters() {
        let text = |template, content_type| match render_body(template, content_type, &hostile()) {
            Ok(RequestBody::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text("{{ severity }}: \"x\"", ""), "critical: \"x\"");
        for (template, content_type) in [
            ("title={{ title|urlencode }}&x=1", "text/plain"),
            ("title={{ title|urlencode }}&x=1", "application/x-www-form-urlencoded"),
            ("title={{ title }}&x=1", "application/x-www-form-urlencoded; charset=utf-8"),
        ] {
            let form = text(template, content_type);
            let pairs: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).collect();
            assert_eq!((pairs.len(), &*pairs[1].0), (2, "x"));
            assert!(pairs[0].1.contains("\"double\"") && pairs[0].1.contains("a=1&b=2"), "{form}");
        }
        for (template, content_type) in [
            ("<t>{{ title }}</t>", "application/xml"),
            ("<t>{{ title|escape }}</t>", "text/xml"),
            ("<t>{{ title|escape }}</t>", ""),
        ] {
            let xml = text(template, content_type);
            assert!(xml.contains("&lt;b&gt;&amp;amp;&lt;") && !xml.contains("<b>"), "{xml}");
        }
        // Text that contains JSON is text.
        assert!(text("{{ title }} {\"a\": 1}", "text/plain").contains("\"double\""));
    }

    #[test]
    fn invalid_bodies_name_the_place() {
        for (template, content_type, expected) in [
            ("{\"text\": \"{{ title|safe }}\"}", "", "with quotes, backslashes and line breaks in names"),
            ("{\"text\": \"{{ title|tojson }}\"}", "", "line 1 column 12"),
            ("{\"text\": {{ title }}", "", "EOF"),
            ("{\"text\": {{ title }},}", "", "line 1 column 41, near"),
            ("hello {{ title }}", "application/json", "starts with \"hello"),
            ("hello {{ title }}", "application/vnd.x+json; charset=utf-8", "not JSON"),
            ("{\n\"a\": x {{ title }}}", "", "near \"\\\"a\\\": x"),
            ("{\"t\": {{ nothing }}}", "", "undefined"),
            ("{\"t\": {{ title }", "", "line 1"),
        ] {
            let error = validate_body(template, content_type).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }
}
