//! Values of settings: durations, sizes, secrets.

use perfwatch_model::HumanDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;
use std::time;

/// Duration in the format of [`HumanDuration`]: `500ms`, `2s`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duration(pub time::Duration);

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        Self(time::Duration::from_millis(duration.ms().unsigned_abs()))
    }
}

impl std::str::FromStr for Duration {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        HumanDuration::parse(text).map(Self::from).ok_or(())
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HumanDuration::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        HumanDuration::from_ms(i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)).serialize(serializer)
    }
}

/// Size such as `64MB` or `10GB` (powers of 1024), or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u32); 4] = [("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10)];

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_uppercase().replace("IB", "B");
        let (number, power) = UNITS
            .iter()
            .find_map(|(unit, power)| Some((text.strip_suffix(unit)?.trim(), *power)))
            .unwrap_or((text.strip_suffix('B').unwrap_or(&text), 0));
        number.parse::<u64>().ok()?.checked_mul(1 << power).map(Self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a size such as 64MB, 10GB or bytes")]
        enum SizeText {
            Number(u64),
            Text(String),
        }
        let parsed = match SizeText::deserialize(deserializer)? {
            SizeText::Number(number) => Some(Self(number)),
            SizeText::Text(text) => Self::parse(&text),
        };
        parsed.ok_or_else(|| serde::de::Error::custom("expected a size such as 64MB, 10GB or bytes"))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_exact = |(_, power): &&(&str, u32)| self.0 > 0 && self.0.is_multiple_of(1 << power);
        match UNITS.iter().find(is_exact) {
            Some((unit, power)) => serializer.serialize_str(&format!("{}{unit}", self.0 >> power)),
            None => serializer.serialize_u64(self.0),
        }
    }
}

/// Password, token or key, or `file:PATH` to read it from a file. `Debug` and `Serialize` write
/// `***`, so that it never appears in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Path of the file that contains the secret, if the setting is `file:PATH`.
    pub fn file(&self) -> Option<&Path> {
        self.0.strip_prefix("file:").map(Path::new)
    }

    /// Returns the secret, without line breaks at its end if it is read from a file.
    ///
    /// # Errors
    /// Fails if the file cannot be read or is empty.
    pub fn read(&self) -> Result<String, String> {
        let Some(path) = self.0.strip_prefix("file:") else { return Ok(self.0.clone()) };
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        if text.is_empty() { Err(format!("{path} is empty")) } else { Ok(text) }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Accepts text. The standard error of another type would contain the value.
        struct SecretVisitor;
        impl serde::de::Visitor<'_> for SecretVisitor {
            type Value = Secret;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text in quotation marks")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret(text.to_owned()))
            }

            fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom("expected text in quotation marks, found a boolean"))
            }

            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("expected text in quotation marks, found a number"))
            }

            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Secret, E> {
                self.visit_i64(0)
            }

            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Secret, E> {
                self.visit_i64(0)
            }
        }
        deserializer.deserialize_any(SecretVisitor)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_and_read_from_files() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!((secret.read().unwrap().as_str(), format!("{secret:?}")), ("hunter2", "***".to_owned()));
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "from a file\n").unwrap();
        let read = |text: String| serde_json::from_value::<Secret>(text.into()).unwrap().read();
        assert_eq!(read(format!("file:{}", path.display())).unwrap(), "from a file");
        std::fs::write(&path, "\n").unwrap();
        assert!(read(format!("file:{}", path.display())).unwrap_err().contains("empty"));
        assert!(read("file:/nowhere".to_owned()).unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn sizes_and_durations_round_trip() {
        for (text, bytes) in
            [("64MB", 64 << 20), ("10 GiB", 10 << 30), ("512", 512), ("1kb", 1024), ("7B", 7)]
        {
            assert_eq!(Bytes::parse(text), Some(Bytes(bytes)), "{text}");
        }
        for text in ["", "MB", "1.5GB", "-1", "99999999999TB"] {
            assert_eq!(Bytes::parse(text), None, "{text}");
        }
        assert_eq!(serde_json::to_string(&Bytes(10 << 30)).unwrap(), "\"10GB\"");
        let day: Duration = serde_json::from_str("\"14d\"").unwrap();
        assert_eq!(serde_json::to_string(&day).unwrap(), "\"14d\"");
    }
}
