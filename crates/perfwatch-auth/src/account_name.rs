//! Names of accounts: allowed characters, normalization and comparison.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Maximum length of an account name, in characters.
pub const MAX_NAME_CHARS: usize = 64;
/// Maximum length of an account name in UTF-8.
pub const MAX_NAME_BYTES: usize = 4 * MAX_NAME_CHARS;

/// Stored form of a name: without surrounding spaces, in lower case, composed (Unicode NFC).
pub fn normalize(name: &str) -> String {
    name.trim().nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// Form in which names are compared. Case, compatibility forms and the composition of characters make no
/// difference.
pub fn comparison_key(name: &str) -> String {
    // Lower case after upper case: `ß` and `SS`, `ς` and `σ` become equal.
    let folded = name.trim().nfkc().collect::<String>().to_uppercase().to_lowercase();
    folded.nfkc().collect()
}

/// Returns whether two names are those of one account.
pub fn is_equal(left: &str, right: &str) -> bool {
    left == right || comparison_key(left) == comparison_key(right)
}

fn is_allowed(c: char) -> bool {
    c.is_alphanumeric() || is_combining_mark(c) || "._-@+".contains(c)
}

/// Checks a normalized name; returns the violated rule.
pub fn validate(name: &str) -> Option<String> {
    let is_valid = (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && name.chars().all(is_allowed);
    (!is_valid).then(|| format!("name must have 1 to {MAX_NAME_CHARS} letters, digits or . _ - @ +"))
}

/// Account name for a name of another system. Other characters are replaced.
pub fn from_foreign(name: &str) -> String {
    let replace = |c: char| if is_allowed(c) { c } else { '-' };
    normalize(name).chars().map(replace).take(MAX_NAME_CHARS).collect()
}

/// First of `name`, `name-2`, `name-3`, … that is free; `None` if too many are taken.
pub fn first_free(name: &str, is_taken: impl Fn(&str) -> bool) -> Option<String> {
    /// Maximum number of accounts of one name.
    const MAX_NUMBER: usize = 1_000;
    let numbered = |number: usize| {
        let suffix = format!("-{number}");
        let stem: String = name.chars().take(MAX_NAME_CHARS - suffix.len()).collect();
        stem + &suffix
    };
    let names = std::iter::once(name.to_owned()).chain((2..=MAX_NUMBER).map(numbered));
    names.into_iter().find(|name| !is_taken(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_composition() {
        for (left, right, expected) in [
            ("Müller", "mu\u{308}ller", true),
            ("MÜLLER", "müller", true),
            ("müller", "möller", false),
            ("muller", "müller", false),
            ("STRASSE", "straße", true),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσευς", true),
            ("ａｄｍｉｎ", "admin", true),
            ("山田", "田中", false),
            (" alice ", "ALICE", true),
        ] {
            assert_eq!(is_equal(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn foreign_names_retain_allowed_characters() {
        for (name, expected) in
            [("Åsa Lind", "åsa-lind"), ("山田", "山田"), ("a\u{202e}b", "a-b"), ("नमस्ते", "नमस्ते")]
        {
            assert_eq!(from_foreign(name), expected);
            assert_eq!(validate(&from_foreign(name)), None, "{name}");
        }
        assert!(["", "a b", "a/b", "a\nb"].iter().all(|name| validate(name).is_some()));
        let taken = ["a", "a-2"];
        assert_eq!(first_free("a", |name| taken.contains(&name)).as_deref(), Some("a-3"));
        let long = "ä".repeat(64);
        let free = first_free(&long, |name| name == long).unwrap();
        assert_eq!((free.chars().count(), free.ends_with("-2")), (64, true));
        assert_eq!(first_free("a", |_| true), None);
    }
}
