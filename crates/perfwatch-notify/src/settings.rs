//! Declaring and reading the settings of a channel.

use perfwatch_rules::notification::{ChannelField, ChannelSettings};

/// Required setting with a single line.
pub(crate) const fn field(
    name: &'static str,
    label: &'static str,
    example: &'static str,
    help: &'static str,
) -> ChannelField {
    ChannelField { name, label, help, example, required: true, secret: false, multiline: false }
}

/// Required setting whose value the API never returns.
pub(crate) const fn secret(
    name: &'static str,
    label: &'static str,
    example: &'static str,
    help: &'static str,
) -> ChannelField {
    ChannelField { secret: true, ..field(name, label, example, help) }
}

/// Makes a setting optional.
pub(crate) const fn optional(field: ChannelField) -> ChannelField {
    ChannelField { required: false, ..field }
}

/// Trimmed value of a setting, empty if it is not set.
pub(crate) fn get<'a>(settings: &'a ChannelSettings, name: &str) -> &'a str {
    settings.get(name).map(|value| value.trim()).unwrap_or_default()
}

/// Trimmed value of a setting, or `default` if it is not set or empty.
pub(crate) fn get_or<'a>(settings: &'a ChannelSettings, name: &str, default: &'a str) -> &'a str {
    Some(get(settings, name)).filter(|value| !value.is_empty()).unwrap_or(default)
}
