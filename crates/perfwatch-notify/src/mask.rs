//! Removes the secrets of a channel from texts, by value and in every form in which servers and
//! libraries repeat them.

use crate::settings::get;
use data_encoding::BASE64_NOPAD;
use perfwatch_rules::notification::{ChannelKind, ChannelSettings};
use std::collections::HashSet;
use std::fmt::Write as _;

/// Replacement of a secret.
const MASK: &str = "…";
/// Minimum length of a secret that is masked inside of words: a shorter text occurs there by chance.
const MIN_SECRET_LEN: usize = 4;
/// Minimum length of an encoded form that is masked.
const MIN_ENCODED_LEN: usize = 6;
/// Minimum length of a token of which a part is masked, too: servers shorten paths in their errors.
const MIN_CUT_TOKEN_LEN: usize = 12;
/// Minimum length of the start of a token that is masked.
const MIN_TOKEN_START_LEN: usize = 8;
/// Parts of webhook URLs that are the same for all users of a service, and words of error messages.
const PUBLIC_WORDS: [&str; 24] = [
    "alert",
    "alerts",
    "api",
    "bot",
    "channels",
    "hook",
    "hooks",
    "http",
    "https",
    "incoming",
    "integrations",
    "invoke",
    "manual",
    "message",
    "messages",
    "notify",
    "paths",
    "send",
    "services",
    "test",
    "triggers",
    "webhook",
    "webhooks",
    "workflows",
];

/// Length of a text from which it may have been cut inside of a secret.
const MIN_CUT_TEXT_BYTES: usize = 16_000;

/// Texts that are replaced: the secret settings of a channel in all their forms.
#[derive(Default)]
pub(crate) struct Masker {
    /// Longest first, so that a secret is replaced before a part of it.
    needles: Vec<String>,
    /// Secrets that are replaced only as whole words.
    words: Vec<String>,
    /// Secrets of which the start is replaced, too.
    tokens: Vec<String>,
}

impl Masker {
    /// Masker for the settings of a channel.
    pub(crate) fn new(kind: &ChannelKind, settings: &ChannelSettings) -> Self {
        let mut secrets = Secrets::default();
        for field in kind.fields {
            let value = get(settings, field.name);
            // The topic of ntfy is its password: whoever knows it reads the notifications.
            let is_secret = field.secret || field.name == "topic";
            match url::Url::parse(value) {
                Ok(url) if url.has_host() => secrets.add_url(&url, value, is_secret),
                _ if is_secret => secrets.add_value(value),
                _ => {}
            }
        }
        let user = get(settings, "user");
        if !user.is_empty() && !get(settings, "password").is_empty() {
            let password = get(settings, "password");
            secrets.add_encoded(&format!("{user}:{password}"));
            // As in the SMTP command AUTH PLAIN (RFC 4616).
            secrets.add_encoded(&format!("\0{user}\0{password}"));
        }
        secrets.into_masker()
    }

    /// Text with all secrets replaced by an ellipsis, in upper and lower case.
    pub(crate) fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for needle in &self.needles {
            text = replace_matches(&text, needle, needle.len());
        }
        for token in &self.tokens {
            text = replace_matches(&text, token, token.floor_char_boundary(MIN_TOKEN_START_LEN));
        }
        self.words.iter().fold(text, |text, word| replace_word(&text, word))
    }

    /// Masks a text that may have been cut: a long text loses its end, which may be a part of a secret.
    pub(crate) fn mask_cut(&self, text: &str) -> String {
        let mut masked = self.mask(text);
        if text.len() >= MIN_CUT_TEXT_BYTES {
            let longest = self.needles.first().map_or(0, String::len);
            masked.truncate(masked.floor_char_boundary(masked.len().saturating_sub(longest)));
        }
        masked
    }
}

/// Replaces occurrences of a secret, of which at least the first `min_len` bytes must match.
fn replace_matches(text: &str, secret: &str, min_len: usize) -> String {
    let (lower_text, lower_secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let Some(start) = lower_secret.get(..min_len).filter(|start| !start.is_empty()) else {
        return text.to_owned();
    };
    let (mut out, mut end) = (String::new(), 0);
    while let Some(index) = lower_text[end..].find(start).map(|index| end + index) {
        out.push_str(&text[end..index]);
        out.push_str(MASK);
        let is_equal = |(a, b): &((usize, char), char)| a.1 == *b;
        let matching = lower_text[index..].char_indices().zip(lower_secret.chars()).take_while(is_equal);
        end = index + matching.last().map_or(min_len, |((offset, c), _)| offset + c.len_utf8());
    }
    out + &text[end..]
}

/// Replaces occurrences of a word that are not part of a longer word.
fn replace_word(text: &str, word: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(index) = rest.find(word) {
        let (before, after) = (&rest[..index], &rest[index + word.len()..]);
        let is_inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let last = before.chars().next_back().or_else(|| out.chars().next_back());
        out.push_str(before);
        out.push_str(if is_inside(last) || is_inside(after.chars().next()) { word } else { MASK });
        rest = after;
    }
    out + rest
}

#[derive(Default)]
struct Secrets {
    needles: HashSet<String>,
    words: HashSet<String>,
    tokens: HashSet<String>,
}

impl Secrets {
    fn into_masker(self) -> Masker {
        let by_length = |texts: HashSet<String>| {
            let mut texts: Vec<String> = texts.into_iter().collect();
            texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            texts
        };
        Masker {
            needles: by_length(self.needles),
            words: by_length(self.words),
            tokens: by_length(self.tokens),
        }
    }

    /// Adds a secret with its encodings. A value such as `Bearer abc` consists of several secrets, and
    /// `Basic …` contains user and password.
    fn add_value(&mut self, value: &str) {
        self.add_encoded(value);
        for part in value.split_whitespace().filter(|part| !is_scheme(part)) {
            self.add_token(part);
            self.add_halves(part);
            let decoded = BASE64_NOPAD.decode(part.trim_end_matches('=').as_bytes()).unwrap_or_default();
            if let Ok(decoded) = String::from_utf8(decoded)
                && decoded.contains(':')
            {
                self.add_encoded(&decoded);
                self.add_halves(&decoded);
            }
        }
    }

    /// Adds a secret of which servers may repeat a part.
    fn add_token(&mut self, token: &str) {
        self.add_encoded(token);
        for text in [token.to_owned(), percent_decode(token)] {
            if text.len() >= MIN_CUT_TOKEN_LEN {
                self.tokens.insert(text);
            }
        }
    }

    /// Adds the second half of `user:password` or of a bot token.
    fn add_halves(&mut self, text: &str) {
        if let Some((_, secret)) = text.split_once(':') {
            self.add_token(secret);
        }
    }

    /// Adds a text and the forms in which it is encoded.
    fn add_encoded(&mut self, text: &str) {
        let decoded = percent_decode(text);
        for text in [text, &decoded] {
            self.add(text, MIN_SECRET_LEN);
            for encoded in encoded_forms(text) {
                if encoded != text {
                    self.add(&encoded, MIN_ENCODED_LEN);
                }
            }
        }
    }

    fn add(&mut self, text: &str, min_len: usize) {
        if text.len() >= min_len {
            self.needles.insert(text.to_owned());
        } else if text.len() >= 2 && min_len == MIN_SECRET_LEN {
            self.words.insert(text.to_owned());
        }
    }

    /// Adds the parts of a URL that contain credentials. Host and port are not masked: they tell which
    /// server failed.
    fn add_url(&mut self, url: &url::Url, value: &str, is_secret: bool) {
        let (user, password) = (url.username(), url.password().unwrap_or_default());
        if !password.is_empty() {
            self.add_encoded(password);
            self.add_encoded(&format!("{}:{}", percent_decode(user), percent_decode(password)));
        }
        if is_secret {
            if !user.is_empty() {
                self.add_encoded(user);
            }
            self.add_encoded(value);
            self.add_encoded(url.as_str());
            // The root path alone is no secret.
            let path = url.path();
            if path.len() > 2 {
                self.add_encoded(path);
                // A path of one segment is added with the segments.
                if path.trim_matches('/').contains('/') {
                    self.add_encoded(path.trim_matches('/'));
                }
            }
            for segment in url.path_segments().into_iter().flatten() {
                self.add_part(segment);
            }
            if let Some(fragment) = url.fragment() {
                self.add_part(fragment);
            }
        }
        if let Some(query) = url.query() {
            self.add_encoded(query);
            for (_, value) in url.query_pairs() {
                self.add_part(&value);
            }
            for pair in query.split('&') {
                self.add_part(pair.split_once('=').map_or(pair, |(_, value)| value));
            }
        }
    }

    /// Adds a part of a URL, and its parts: `a.b:c` may be repeated as `b`.
    fn add_part(&mut self, part: &str) {
        let is_public = |text: &str| PUBLIC_WORDS.contains(&text.to_ascii_lowercase().as_str());
        if part.len() >= MIN_SECRET_LEN && !is_public(part) {
            self.add_token(part);
        }
    }
}

/// Returns true for the name of an authentication scheme, which is not a secret.
fn is_scheme(text: &str) -> bool {
    ["basic", "bearer", "token", "geniekey", "apikey", "digest"].contains(&text.to_ascii_lowercase().as_str())
}

fn encoded_forms(text: &str) -> Vec<String> {
    let json = serde_json::to_string(text).unwrap_or_default();
    let json = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or_default();
    let html = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let mut forms = vec![
        percent_encode(text, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
        // As in a path, where more characters are allowed.
        percent_encode(text, |byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte)),
        form,
        json.to_owned(),
        json.replace('/', "\\/"),
        html.replace('\'', "&#39;"),
        html.replace('\'', "&#x27;").replace('/', "&#x2F;"),
        html,
        text.bytes().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    ];
    forms.extend(base64_forms(text.as_bytes()));
    forms
}

fn percent_encode(text: &str, is_literal: impl Fn(u8) -> bool) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if is_literal(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |index: usize| bytes.get(index).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut index) = (Vec::with_capacity(bytes.len()), 0);
    while index < bytes.len() {
        match (bytes[index], hex(index + 1), hex(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                index += 3;
            }
            (byte, ..) => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Characters that bytes contribute to base64 text at each of the three alignments, in the standard
/// and the URL alphabet. They occur in the encoding of any text that contains the bytes, such as
/// `user:password`.
fn base64_forms(bytes: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for offset in 0..3 {
        let padded: Vec<u8> = std::iter::repeat_n(0, offset).chain(bytes.iter().copied()).collect();
        let encoded = BASE64_NOPAD.encode(&padded);
        // The first and the last character also contain bits of the neighbors.
        let (first, end) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
        let inner = encoded.get(first..end).unwrap_or_default().to_owned();
        // At the end of the encoded text, the last character and the padding belong to the bytes.
        let last = encoded.get(first..).unwrap_or_default().to_owned();
        let padding = "=".repeat((3 - padded.len() % 3) % 3);
        for form in [format!("{last}{padding}"), last, inner] {
            forms.push(form.replace('+', "-").replace('/', "_"));
            forms.push(form);
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{email, slack, telegram, webhook};
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    fn masker(kind: &ChannelKind, pairs: &[(&str, &str)]) -> Masker {
        let settings = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Masker::new(kind, &settings.collect())
    }

    #[test]
    fn url_secrets_are_masked_in_every_form() {
        let url = "https://joe:pa%24s@hook.example:8443/services/T0KEN%2Fx/B0123?key=s3cr%20et&v=1#frag-ment";
        let masker = masker(&slack::KIND, &[("url", url)]);
        for (text, expected) in [
            ("HTTP 404 /services/T0KEN%2Fx/B0123 not found", "HTTP 404 … not found"),
            ("no services/T0KEN%2Fx/B0123", "no …"),
            ("no hook T0KEN/x here", "no hook … here"),
            ("no hook T0KEN%2fx here", "no hook … here"),
            ("channel B0123 is archived", "channel … is archived"),
            ("{\"path\":\"\\/services\\/T0KEN%2Fx\\/B0123\"}", "{\"path\":\"…\"}"),
            ("key \"s3cr et\", s3cr%20et, s3cr+et", "key \"…\", …, …"),
            ("login pa$s or pa%24s", "login … or …"),
            ("connection to hook.example:8443 refused", "connection to hook.example:8443 refused"),
            ("internal services unavailable", "internal services unavailable"),
            ("#frag-ment", "#…"),
            (url, "…"),
        ] {
            assert_eq!(masker.mask(text), expected, "{text}");
        }
        let basic = STANDARD.encode("joe:pa$s");
        assert_eq!(masker.mask(&format!("bad login {basic}")), "bad login …");
    }

    #[test]
    fn secret_values_are_masked_inside_encodings() {
        let webhook = masker(
            &webhook::KIND,
            &[
                ("url", "https://h.example"),
                ("authorization", "Bearer aa+bb/cc\"dd"),
                ("secret", "k\u{e4}y&<1>"),
            ],
        );
        for text in [
            "aa+bb/cc\"dd".to_owned(),
            "aa%2Bbb%2Fcc%22dd".to_owned(),
            "aa%2bbb%2fcc%22dd".to_owned(),
            "aa+bb/cc\\\"dd".to_owned(),
            "aa+bb/cc&quot;dd".to_owned(),
            "Bearer aa+bb/cc\"dd".to_owned(),
            "k\u{e4}y&amp;&lt;1&gt;".to_owned(),
            "k%C3%A4y%26%3C1%3E".to_owned(),
        ] {
            let masked = webhook.mask(&format!("<{text}>"));
            assert_eq!(masked, "<…>", "{text}");
        }
        let email = masker(&email::KIND, &[("user", "mailer"), ("password", "hunter22/ü")]);
        for plain in ["mailer:hunter22/ü", "\0mailer\0hunter22/ü", "hunter22/ü", "ab\0hunter22/ü!"] {
            for encoded in [STANDARD.encode(plain), URL_SAFE_NO_PAD.encode(plain)] {
                let masked = email.mask(&encoded);
                let visible: String = masked.chars().filter(|c| *c != '…').collect();
                // What remains are characters that encode the text around the password.
                assert!(masked.contains(MASK) && !visible.contains("HVudGVy"), "{plain:?}: {masked}");
                assert!(visible.len() <= 18, "{plain:?}: {masked}");
            }
        }
    }

    #[test]
    fn words_of_messages_stay_readable() {
        let masker = masker(&webhook::KIND, &[("url", "http://h.example/hook")]);
        let text = "HTTP 404 no webhook here, see the API";
        assert_eq!(masker.mask(text), text);
        assert_eq!(masker.mask("no route /hook"), "no route …");
    }

    #[test]
    fn parts_of_credentials_are_masked() {
        let basic = format!("Basic {}", STANDARD.encode("joe:hunter22"));
        let masker = masker(&webhook::KIND, &[("url", "https://h.example"), ("authorization", &basic)]);
        assert_eq!(masker.mask("joe has password hunter22"), "joe has password …");
        assert_eq!(masker.mask(&format!("Authorization: {basic}")), "Authorization: …");
        let telegram = self::masker(&telegram::KIND, &[("token", "123456:AAbbCC"), ("chat", "42")]);
        assert_eq!(telegram.mask("bot123456:AAbbCC, 123456%3AAAbbCC, AAbbCC"), "bot…, …, …");
    }

    #[test]
    fn cut_secrets_and_other_cases_are_masked() {
        let url = "https://h.example/services/T00000000/B00000000/XyzzyXyzzyXyzzy0123?sig=a%2Fbcdefghijklmno";
        let masker = masker(&slack::KIND, &[("url", url)]);
        for (text, expected) in [
            ("no route /SERVICES/t00000000/b00000000/xyzzyxyzzyxyzzy0123", "no route …"),
            ("unknown token XyzzyXyzzyXy...", "unknown token ……"),
            ("unknown token XyzzyXyzzy", "unknown token …"),
            ("signature a/bcdefghij is wrong", "signature … is wrong"),
            ("Xyzzy is a word", "Xyzzy is a word"),
        ] {
            assert_eq!(masker.mask(text).replace("...", "…"), expected, "{text}");
        }
    }

    #[test]
    fn short_secrets_are_masked_as_words() {
        let masker = masker(&telegram::KIND, &[("token", "1:a"), ("chat", "42")]);
        assert_eq!(masker.mask("bot1:a, bot 1:a: 11:a 42"), "bot1:a, bot …: 11:a 42");
    }
}
