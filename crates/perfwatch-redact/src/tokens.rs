//! Tokens of well-known services and private keys, which are recognized without a name.

use super::text_parts::MASK;

/// Starts of tokens of well-known services, with the minimum number of further characters. The last row
/// has the tokens of this program.
#[rustfmt::skip]
const TOKEN_PREFIXES: &[(&str, usize)] = &[
    ("ghp_", 6), ("gho_", 6), ("ghu_", 6), ("ghs_", 6), ("ghr_", 6), ("github_pat_", 6), ("glpat-", 6),
    ("glrt-", 6), ("gldt-", 6), ("glptt-", 6), ("glcbt-", 6), ("glsoat-", 6), ("gloas-", 6),
    ("xoxa-", 6), ("xoxb-", 6), ("xoxp-", 6), ("xoxr-", 6), ("xoxs-", 6), ("xoxe-", 6), ("xoxe.", 6),
    ("xapp-", 6), ("AKIA", 12), ("ASIA", 12), ("sk-", 16), ("sk_live_", 6), ("rk_live_", 6),
    ("sk_test_", 6), ("rk_test_", 6), ("eyJ", 12), ("npm_", 16), ("pypi-", 16), ("hvs.", 12), ("hvb.", 12),
    ("hvr.", 12), ("AIza", 20), ("ya29.", 12), ("GOCSPX-", 12), ("1//0", 20), ("SG.", 20), ("tskey-", 6),
    ("glsa_", 6), ("hf_", 16), ("dckr_pat_", 6), ("dop_v1_", 6), ("doo_v1_", 6), ("dor_v1_", 6),
    ("shpat_", 6), ("shpss_", 6), ("shpca_", 6), ("whsec_", 6), ("AGE-SECRET-KEY-", 6), ("NRAK-", 12),
    ("PMAK-", 12), ("lin_api_", 12), ("figd_", 12), ("gsk_", 16), ("r8_", 16), ("xkeysib-", 12),
    ("dp.pt.", 12), ("dp.st.", 12), ("dp.ct.", 12), ("sq0csp-", 12), ("sq0atp-", 12), ("atlasv1.", 12),
    ("tfp_", 16), ("nfp_", 16), ("rnd_", 16), ("sntrys_", 12), ("sbp_", 16),
    ("pwa_", 6), ("pwe_", 6), ("pws_", 6), ("pwt_", 6), ("pwu_", 6),
];

/// Starts of tokens that other words can have, too; the further characters are letters and digits.
const SHORT_PREFIXES: &[(&str, usize)] = &[("s.", 24), ("key-", 30)];

/// Start and end of the first line of a private key in PEM format (RFC 7468), and start of the last line.
const PRIVATE_KEY_MARKS: [&str; 3] = ["-----BEGIN ", "PRIVATE KEY-----", "-----END "];

/// Masks tokens with a well-known start, and private keys.
pub(super) fn mask_tokens(text: &str) -> String {
    mask_private_keys(&mask_prefixed_tokens(text))
}

/// Masks private keys from their first line to their last line, or else to the end of the text.
fn mask_private_keys(text: &str) -> String {
    let [begin, begin_end, end] = PRIVATE_KEY_MARKS;
    let mut out = String::with_capacity(text.len());
    let mut remaining = text;
    while let Some(start) = remaining.find(begin).map(|start| start + begin.len()) {
        let (before, key) = remaining.split_at(start);
        out.push_str(before);
        // `RSA PRIVATE KEY-----`
        let line_end = key.find('-').map_or(key.len(), |dashes| dashes + 5);
        if !key.get(..line_end).is_some_and(|line| line.ends_with(begin_end)) {
            remaining = key;
            continue;
        }
        out.push_str(&key[..line_end]);
        out.push_str(MASK);
        remaining = key[line_end..].find(end).map_or("", |last| &key[line_end + last..]);
    }
    out.push_str(remaining);
    out
}

/// Masks tokens with a well-known start.
fn mask_prefixed_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut is_inside_word) = (0, false);
    for (index, character) in text.char_indices() {
        if index < copied {
            continue;
        }
        if !is_inside_word && let Some((prefix, length)) = token_at(&text[index..]) {
            out.push_str(&text[copied..index + prefix]);
            out.push_str(MASK);
            copied = index + length;
        }
        is_inside_word = character.is_alphanumeric();
    }
    out.push_str(&text[copied..]);
    out
}

/// Lengths of the prefix and of the whole token at the start of a text.
fn token_at(text: &str) -> Option<(usize, usize)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let prefixed = TOKEN_PREFIXES.iter().find_map(|&(prefix, min_chars)| {
        let token = text.strip_prefix(prefix)?;
        let length = token.find(|c| !is_token(c)).unwrap_or(token.len());
        (length >= min_chars).then_some((prefix.len(), prefix.len() + length))
    });
    prefixed.or_else(|| {
        SHORT_PREFIXES.iter().find_map(|&(prefix, min_chars)| {
            let token = text.strip_prefix(prefix)?;
            let length = token.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(token.len());
            let has_digit = token[..length].contains(|c: char| c.is_ascii_digit());
            (length >= min_chars && has_digit).then_some((prefix.len(), prefix.len() + length))
        })
    })
}
