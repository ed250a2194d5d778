//! Renders user-defined Jinja templates with a notification. Run time and output are limited.

use minijinja::{Environment, UndefinedBehavior};
use perfwatch_rules::notification::Notification;
use perfwatch_rules::render;

/// Maximum number of instructions per rendering.
const MAX_TEMPLATE_INSTRUCTIONS: u64 = 100_000;
/// Maximum length of the output in bytes.
const MAX_TEMPLATE_OUTPUT_BYTES: usize = 200_000;

/// Renders a template. Its variables are the fields of the notification, `title` and `text`.
///
/// # Errors
/// Returns the error of the template engine with its line, or the exceeded limit.
pub(crate) fn render(template: &str, notification: &Notification) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(MAX_TEMPLATE_INSTRUCTIONS));
    // An unknown variable is an error: an empty text would hide a typo.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    let texts = minijinja::context! {
        title => render::render_title(notification),
        text => render::render_text(notification),
    };
    let fields = minijinja::Value::from(minijinja::value::Serde(notification));
    let variables = minijinja::context! { ..texts, ..fields };
    let output = environment.render_str(template, variables).map_err(|error| {
        let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("{}{detail}{line}", error.kind())
    })?;
    if output.len() > MAX_TEMPLATE_OUTPUT_BYTES {
        Err(format!("output exceeds {MAX_TEMPLATE_OUTPUT_BYTES} bytes"))
    } else {
        Ok(output)
    }
}
