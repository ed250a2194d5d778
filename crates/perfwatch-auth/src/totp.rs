//! Two-factor authentication: six-digit codes that change every 30 s (RFC 6238 over HMAC-SHA-1, which
//! every authenticator app supports), each valid for one login, and single-use recovery codes.

use super::secret::{hash_secret, random_bytes};
use data_encoding::HEXLOWER;
use totp_rs::{Builder, Secret, Totp};

/// Number of recovery codes of an account.
const RECOVERY_CODES_LEN: usize = 8;

/// Length of a secret: the output length of HMAC-SHA-1 (RFC 4226, section 4).
pub const KEY_BYTES: usize = 20;

/// Generates a new two-factor secret.
pub fn generate() -> Vec<u8> {
    random_bytes::<KEY_BYTES>().to_vec()
}

/// TOTP generator of a secret; `None` for an invalid secret or account name.
fn totp(secret: &[u8], account: &str) -> Option<Totp> {
    // Defaults: SHA-1, six digits, 30 s, one step of clock drift in both directions.
    let builder = Builder::new().with_secret(Secret::new(secret.into())).with_account_name(account);
    builder.with_issuer(Some("PerfWatch")).build().ok()
}

/// Time step of a valid code; `None` for a wrong, expired or used code.
pub fn verify_code(secret: &[u8], text: &str, now_ms: i64, last_used: i64) -> Option<i64> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let now_s = u64::try_from(now_ms / 1_000).ok()?;
    let step = totp(secret, "account")?.check(&digits, now_s)?;
    i64::try_from(step).ok().filter(|&step| step > last_used)
}

/// Provisioning URI for a QR code, and the secret in base32 for manual entry.
pub fn provisioning_uri(secret: &[u8], account: &str) -> Option<(String, String)> {
    Some((totp(secret, account)?.to_url().ok()?, Secret::new(secret.into()).to_base32()))
}

/// QR code as an SVG path, and its width in modules.
pub fn qr_path(text: &str) -> Option<(String, i32)> {
    let code = qrcodegen::QrCode::encode_text(text, qrcodegen::QrCodeEcc::Medium).ok()?;
    let modules = (0..code.size()).flat_map(|y| (0..code.size()).map(move |x| (x, y)));
    let dark = modules.filter(|&(x, y)| code.get_module(x, y)).map(|(x, y)| format!("M{x} {y}h1v1h-1z"));
    Some((dark.collect(), code.size()))
}

/// Generates recovery codes, and the hashes that are stored of them.
pub fn generate_recovery_codes() -> (Vec<String>, Vec<String>) {
    let codes: Vec<String> = (0..RECOVERY_CODES_LEN)
        .map(|_| {
            let text = HEXLOWER.encode(&random_bytes::<10>());
            format!("{}-{}-{}-{}", &text[..5], &text[5..10], &text[10..15], &text[15..])
        })
        .collect();
    let hashes = codes.iter().map(|code| hash_recovery_code(code)).collect();
    (codes, hashes)
}

/// Hash of a recovery code; case, spaces and hyphens are ignored.
pub fn hash_recovery_code(code: &str) -> String {
    let normalized: String = code.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    HEXLOWER.encode(&hash_secret(&normalized))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B (the last six of its eight digits).
    #[test]
    fn totp_code_is_single_use() {
        let secret = b"12345678901234567890";
        for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(verify_code(secret, code, seconds * 1_000, 0), Some(seconds / 30), "{seconds}");
        }
        let now_ms = 59_000;
        assert_eq!(verify_code(secret, "287 082", now_ms, 0), Some(1), "with a space, as apps display it");
        assert_eq!(verify_code(secret, "287082", now_ms + 30_000, 0), Some(1), "a step later");
        assert_eq!(verify_code(secret, "287082", now_ms, 1), None, "already used");
        assert_eq!(verify_code(secret, "287082", now_ms + 90_000, 0), None, "too old");
        for wrong in ["", "287083", "1287082", "28708a", "+87082"] {
            assert_eq!(verify_code(secret, wrong, now_ms, 0), None, "{wrong}");
        }
    }

    #[test]
    fn qr_and_text_carry_the_same_secret() {
        let (uri, base32) = provisioning_uri(b"12345678901234567890", "alice").unwrap();
        assert_eq!(base32, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert!(uri.starts_with("otpauth://totp/PerfWatch:alice?") && uri.contains(&base32), "{uri}");
        assert!(qr_path(&uri).is_some_and(|(path, size)| path.starts_with("M0 0h1") && size > 20));
    }

    #[test]
    fn recovery_codes_ignore_formatting() {
        let (codes, hashes) = generate_recovery_codes();
        assert_eq!(hashes.len(), 8);
        assert_eq!(
            hash_recovery_code(&format!(" {} ", codes[0].to_uppercase().replace('-', " "))),
            hashes[0]
        );
    }
}
