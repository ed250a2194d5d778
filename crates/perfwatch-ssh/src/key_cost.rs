//! Cost of opening a private key, read from its header before any key derivation.
//!
//! The file itself states how expensive its passphrase check is. Without bounds, a key of 400 bytes takes
//! hours or gigabytes.

use data_encoding::BASE64_MIME;
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use russh::keys::ssh_encoding::Decode as _;

/// Maximum number of bcrypt rounds; ssh-keygen uses 16 or 24, and `-a 512` takes seconds.
const MAX_BCRYPT_ROUNDS: u32 = 512;
/// Maximum memory of Argon2 and scrypt; PuTTY uses 8 MiB, OpenSSL 16 MiB.
const MAX_KDF_MEMORY_BYTES: u64 = 64 << 20;
/// Maximum number of bytes that all passes of Argon2 or scrypt write; PuTTY writes 100 to 300 MiB.
const MAX_KDF_WORK_BYTES: u64 = 1 << 30;
/// Maximum parallelism of Argon2; PuTTY uses 1.
const MAX_ARGON2_PARALLELISM: u64 = 16;
/// Maximum number of PBKDF2 iterations; OpenSSL uses 2,048, its users up to a million.
const MAX_PBKDF2_ITERATIONS: u32 = 2_000_000;

const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";

fn too_expensive(parameter: &str, value: impl std::fmt::Display, max: impl std::fmt::Display) -> String {
    format!("private key is too expensive to open: {parameter} {value} exceeds {max}; protect the key again")
}

/// Returns an error if a value exceeds its maximum.
fn limit(parameter: &str, value: u64, max: u64) -> Result<(), String> {
    if value > max { Err(too_expensive(parameter, value, max)) } else { Ok(()) }
}

/// Checks the cost of opening a private key in OpenSSH, PEM or PuTTY format. A text that is no key passes.
///
/// # Errors
/// Returns the parameter that exceeds its maximum.
pub(crate) fn check(text: &str) -> Result<(), String> {
    check_putty(text)?;
    let Some(bytes) = pem_bytes(text) else { return Ok(()) };
    // Independent of the label, which may differ from the content.
    check_openssh(&bytes)?;
    check_pkcs8(&bytes)
}

/// Labels that the decoder knows.
const PEM_LABELS: [&str; 5] = [
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----",
];

/// Content of a PEM block. Finds the same bytes as the decoder, so that no text hides its header.
fn pem_bytes(text: &str) -> Option<Vec<u8>> {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '=');
    let (mut started, mut base64) = (false, String::new());
    for line in text.lines() {
        if started && line.starts_with("-----END ") {
            break;
        }
        if started && line.chars().all(is_base64) {
            base64.push_str(line);
        }
        started |= PEM_LABELS.contains(&line);
    }
    BASE64_MIME.decode(base64.as_bytes()).ok()
}

/// PuTTY format 3 (PuTTY manual, appendix C): lines such as `Argon2-Memory: 8192`, in KiB.
fn check_putty(text: &str) -> Result<(), String> {
    if !text.trim_start().starts_with("PuTTY-User-Key-File-") {
        return Ok(());
    }
    // The largest value counts if a parameter is repeated. A value that is no number fails later.
    let max = |name: &str| -> u64 {
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        values.filter_map(|value| value.parse::<u64>().ok()).max().unwrap_or_default()
    };
    let (memory, passes) = (max("Argon2-Memory").saturating_mul(1_024), max("Argon2-Passes"));
    limit("Argon2-Memory in bytes", memory, MAX_KDF_MEMORY_BYTES)?;
    limit("Argon2-Parallelism", max("Argon2-Parallelism"), MAX_ARGON2_PARALLELISM)?;
    limit("Argon2-Memory × Argon2-Passes in bytes", memory.saturating_mul(passes), MAX_KDF_WORK_BYTES)
}

/// OpenSSH format (PROTOCOL.key): cipher, key derivation and its options precede the keys.
fn check_openssh(bytes: &[u8]) -> Result<(), String> {
    let Some(mut header) = bytes.strip_prefix(OPENSSH_MAGIC) else { return Ok(()) };
    let mut field = || Vec::<u8>::decode(&mut header).ok();
    let (Some(_cipher), Some(kdf), Some(options)) = (field(), field(), field()) else { return Ok(()) };
    if kdf != b"bcrypt" {
        return Ok(());
    }
    let mut options = options.as_slice();
    let (Ok(_salt), Ok(rounds)) = (Vec::<u8>::decode(&mut options), u32::decode(&mut options)) else {
        return Ok(());
    };
    limit("bcrypt rounds", rounds.into(), MAX_BCRYPT_ROUNDS.into())
}

/// Encrypted PKCS #8 (RFC 5958) with PBES2 (RFC 8018).
fn check_pkcs8(bytes: &[u8]) -> Result<(), String> {
    let Ok(info) = EncryptedPrivateKeyInfoRef::try_from(bytes) else { return Ok(()) };
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else { return Ok(()) };
    match &parameters.kdf {
        Kdf::Pbkdf2(parameters) => {
            limit("PBKDF2 iterations", parameters.iteration_count.into(), MAX_PBKDF2_ITERATIONS.into())
        }
        Kdf::Scrypt(parameters) => {
            // RFC 7914, 2: memory is 128 · N · r bytes, and the work is p times that.
            let block_bytes = 128 * u64::from(parameters.block_size);
            let memory = parameters.cost_parameter.saturating_mul(block_bytes);
            let work = memory.saturating_mul(parameters.parallelization.into());
            limit("scrypt memory in bytes", memory, MAX_KDF_MEMORY_BYTES)?;
            limit("scrypt work in bytes", work, MAX_KDF_WORK_BYTES)
        }
        _ => Err(too_expensive("key derivation", parameters.kdf.oid(), "the known ones")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::ssh_encoding::Encode as _;

    fn pem(label: &str, bytes: &[u8]) -> String {
        format!(
            "-----BEGIN {label}-----\n{}-----END {label}-----\n",
            BASE64_MIME.encode(bytes).replace("\r\n", "\n")
        )
    }

    /// Header of an OpenSSH key with a number of bcrypt rounds.
    fn openssh(rounds: u32) -> Vec<u8> {
        let mut options = Vec::new();
        vec![7_u8; 16].encode(&mut options).unwrap();
        rounds.encode(&mut options).unwrap();
        let mut bytes = OPENSSH_MAGIC.to_vec();
        for field in [b"aes256-ctr".to_vec(), b"bcrypt".to_vec(), options, Vec::new()] {
            field.encode(&mut bytes).unwrap();
        }
        bytes
    }

    /// DER value with a length below 65,536.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        let length: &[u8] = match content.len() {
            0..=127 => &length[1..],
            128..=255 => &[0x81, length[1]],
            _ => &[0x82, length[0], length[1]],
        };
        [&[tag], length, content].concat()
    }

    fn integer(value: u64) -> Vec<u8> {
        let bytes = [&[0], &value.to_be_bytes()[..]].concat();
        let leading = bytes.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
        der(0x02, &bytes[leading..])
    }

    /// Encrypted PKCS #8 key with parameters of a key derivation.
    fn pkcs8(kdf_oid: &[u8], parameters: &[Vec<u8>]) -> Vec<u8> {
        let aes256_cbc = der(
            0x30,
            &[der(0x06, &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a]), der(0x04, &[0; 16])]
                .concat(),
        );
        let salted = [vec![der(0x04, &[1; 16])], parameters.to_vec()].concat().concat();
        let kdf = der(0x30, &[der(0x06, kdf_oid), der(0x30, &salted)].concat());
        let pbes2 = der(0x06, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d]);
        let scheme = der(0x30, &[pbes2, der(0x30, &[kdf, aes256_cbc].concat())].concat());
        der(0x30, &[scheme, der(0x04, &[0; 48])].concat())
    }

    const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
    const SCRYPT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];

    fn putty(memory: u64, passes: u64, parallelism: u64) -> String {
        format!(
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: aes256-cbc\nComment: x\nKey-Derivation: Argon2id\n\
             Argon2-Memory: {memory}\nArgon2-Passes: {passes}\nArgon2-Parallelism: {parallelism}\nArgon2-Salt: 00\n"
        )
    }

    /// Finding H3: a key states up to 2³² rounds or gigabytes of memory.
    #[test]
    fn key_derivation_costs_are_bounded() {
        let iterations = |count: u64| pkcs8(PBKDF2, &[integer(count)]);
        let scrypt = |n: u64, r: u64, p: u64| pkcs8(SCRYPT, &[integer(n), integer(r), integer(p)]);
        for (key, parameter) in [
            (pem("OPENSSH PRIVATE KEY", &openssh(u32::MAX)), "bcrypt rounds"),
            (pem("OPENSSH PRIVATE KEY", &openssh(513)), "bcrypt rounds"),
            // The label does not decide which format is checked.
            (pem("ENCRYPTED PRIVATE KEY", &openssh(513)), "bcrypt rounds"),
            (pem("OPENSSH PRIVATE KEY", &iterations(u32::MAX.into())), "PBKDF2 iterations"),
            (pem("ENCRYPTED PRIVATE KEY", &iterations(2_000_001)), "PBKDF2 iterations"),
            (pem("PRIVATE KEY", &iterations(2_000_001)), "PBKDF2 iterations"),
            (pem("ENCRYPTED PRIVATE KEY", &scrypt(1 << 20, 8, 1)), "scrypt memory"),
            (pem("ENCRYPTED PRIVATE KEY", &scrypt(1 << 62, 8, 1)), "scrypt memory"),
            (pem("ENCRYPTED PRIVATE KEY", &scrypt(1 << 14, 8, 1_000)), "scrypt work"),
            // A block before the key does not hide it.
            (
                format!(
                    "-----BEGIN X-----\nAAAA\n-----END X-----\n{}",
                    pem("OPENSSH PRIVATE KEY", &openssh(513))
                ),
                "bcrypt rounds",
            ),
            (putty(4 << 20, 1, 1), "Argon2-Memory"),
            (putty(8_192, u32::MAX.into(), 1), "Argon2-Passes"),
            (putty(8_192, 13, 1_000), "Argon2-Parallelism"),
            (format!("\n {}", putty(u64::MAX, u64::MAX, 1)), "Argon2-Memory"),
            (putty(8_192, 13, 1) + "Argon2-Memory: 4194304\n", "Argon2-Memory"),
        ] {
            let error = check(&key).unwrap_err();
            assert!(error.contains(parameter) && error.contains("too expensive"), "{error}: {key}");
        }
        for key in [
            pem("OPENSSH PRIVATE KEY", &openssh(512)),
            pem("ENCRYPTED PRIVATE KEY", &iterations(1_000_000)),
            pem("ENCRYPTED PRIVATE KEY", &scrypt(1 << 14, 8, 1)),
            putty(8_192, 34, 1),
            "no key".to_owned(),
            pem("OPENSSH PRIVATE KEY", &openssh(u32::MAX)[..60]),
        ] {
            assert_eq!(check(&key), Ok(()), "{key}");
        }
    }
}
