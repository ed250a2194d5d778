//! Words of people's own, in the language of Jinja, with a message in them. Bounded: a template
//! that runs for ever is none.

use minijinja::{Environment, UndefinedBehavior};
use perfwatch_alert::deliver::Message;
use perfwatch_alert::words;

/// Steps of one template.
const FUEL: u64 = 100_000;
/// Bytes of what comes out.
const MOST: usize = 200_000;

/// What a template may name: all of the message, and the usual title and text.
pub(crate) fn render(template: &str, message: &Message) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    // A name that is none should be seen before it is missed.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    let own = minijinja::context! { title => words::title(message), text => words::text(message) };
    let all = minijinja::context! { ..own, ..minijinja::Value::from(minijinja::value::Serde(message)) };
    let rendered = environment.render_str(template, all).map_err(|error| {
        let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
        format!("{}{}{line}", error.kind(), error.detail().map(|why| format!(": {why}")).unwrap_or_default())
    })?;
    if rendered.len() > MOST { Err(format!("more than {MOST} bytes come out of it")) } else { Ok(rendered) }
}
