//! Masking of the secret part of a value or argument.

use super::addresses::{address_password, webhook_path};
use super::programs::SecretForm;
use super::secret_names::is_phrase;
use super::secret_text::mask_text;
use super::text_parts::MASK;

/// Masks the password of `user/password@database`.
pub(super) fn mask_login(word: &str) -> String {
    let end = word.rfind('@').unwrap_or(word.len());
    match word[..end].find('/') {
        Some(slash) => format!("{}{MASK}{}", &word[..=slash], &word[end..]),
        None => word.to_owned(),
    }
}

/// Masks the secret part of a value. A value without the expected form is searched like any text.
pub(super) fn mask_form(value: &str, form: SecretForm) -> String {
    let after = |separator: char| {
        let index = value.find(separator).filter(|index| index + separator.len_utf8() < value.len())?;
        let before = mask_text(&value[..index + separator.len_utf8()], true);
        Some(format!("{}{MASK}", before.strip_suffix(MASK).unwrap_or(&before)))
    };
    let masked = match form {
        SecretForm::Whole => Some(MASK.to_owned()),
        SecretForm::Unless(start) => (!value.starts_with(start)).then(|| MASK.to_owned()),
        SecretForm::After(separator) => after(separator),
        SecretForm::AfterOrWhole(separator) => after(separator).or_else(|| Some(MASK.to_owned())),
        SecretForm::BeforeHost => {
            address_password(value).map(|(start, end)| format!("{}{MASK}{}", &value[..start], &value[end..]))
        }
        SecretForm::User => value.split_once(':').and_then(|(user, password)| {
            let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            let is_user = user.chars().all(|c| c.is_alphanumeric() || "_.@\\-+%'\"".contains(c));
            let is_login = is_user && !password.starts_with('/') && !password.is_empty();
            // `+%H:%M` is a format of times.
            let is_format = user.contains('%') && password.starts_with('%');
            (is_login && !is_format && !(is_number(user) && is_number(password)))
                .then(|| format!("{user}:{MASK}"))
        }),
        SecretForm::Assignment => value.contains('=').then(|| MASK.to_owned()),
        SecretForm::Path => {
            webhook_path(value).map(|(start, end)| format!("{}{MASK}{}", &value[..start], &value[end..]))
        }
        SecretForm::Phrase => is_phrase(value).then(|| MASK.to_owned()),
        SecretForm::Nothing => None,
    };
    masked.unwrap_or_else(|| mask_text(value, true))
}

/// Masks the value of `p` in `h=HOST,p=PASSWORD`.
pub(super) fn mask_data_source(word: &str) -> String {
    let parts = word.split(',').map(|part| match part.strip_prefix("p=") {
        Some(password) if !password.is_empty() => format!("p={MASK}"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(",")
}
