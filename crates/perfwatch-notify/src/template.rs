//! Words of people's own, in the language of Jinja, with a message in them. Bounded: a template
//! that runs for ever is none.

use minijinja::{Environment, UndefinedBehavior};
use perfwatch_rules::notification::Notification;
use perfwatch_rules::render;

/// Steps of one template.
const TEMPLATE_FUEL: u64 = 100_000;
/// Bytes of what comes out.
const MAX_TEMPLATE_OUTPUT_BYTES: usize = 200_000;

/// What a template may name: all of the message, and the usual title and text.
pub(crate) fn render(template: &str, message: &Notification) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(TEMPLATE_FUEL));
    // A name that is none should be seen before it is missed.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    let own =
        minijinja::context! { title => render::render_title(message), text => render::render_text(message) };
    let all = minijinja::context! { ..own, ..minijinja::Value::from(minijinja::value::Serde(message)) };
    let rendered = environment.render_str(template, all).map_err(|error| {
        let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
        format!("{}{}{line}", error.kind(), error.detail().map(|why| format!(": {why}")).unwrap_or_default())
    })?;
    if rendered.len() > MAX_TEMPLATE_OUTPUT_BYTES {
        Err(format!("more than {MAX_TEMPLATE_OUTPUT_BYTES} bytes come out of it"))
    } else {
        Ok(rendered)
    }
}
