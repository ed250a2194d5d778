//! Values of server lists in YAML: texts of limited length, and mappings with free names.

use crate::import_entry::MAX_VALUE_BYTES;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::fmt;
use std::marker::PhantomData;

/// Scalar of limited length, with its spelling in the text: `022` and `yes` are passwords.
pub(crate) struct ShortText(pub(crate) String);

impl<'de> Deserialize<'de> for ShortText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl Visitor<'_> for TextVisitor {
            type Value = ShortText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ShortText, E> {
                if text.len() > MAX_VALUE_BYTES {
                    return Err(E::custom(format!("value exceeds {MAX_VALUE_BYTES} bytes")));
                }
                Ok(ShortText(text.to_owned()))
            }
        }

        // A borrowed text is copied after its length was checked.
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Entry of a mapping with a free name.
pub(crate) struct NamedItem<T> {
    pub(crate) name: String,
    /// Line number, from 1.
    pub(crate) line: usize,
    /// `None` for a name without content.
    pub(crate) item: Option<T>,
}

/// Mapping with free names, in the order of the text.
pub(crate) struct NamedItems<T>(pub(crate) Vec<NamedItem<T>>);

impl<'de, T: Deserialize<'de>> NamedItems<T> {
    pub(crate) fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut items = Vec::new();
        while let Some((name, item)) = map.next_entry::<Spanned<ShortText>, Option<T>>()? {
            items.push(NamedItem { line: line_of(name.referenced), name: name.value.0, item });
        }
        Ok(Self(items))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NamedItems<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
            type Value = NamedItems<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping with a name in each line")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                NamedItems::from_map(map)
            }
        }

        deserializer.deserialize_map(ItemsVisitor(PhantomData))
    }
}

/// Line number of a location, from 1.
pub(crate) fn line_of(location: Location) -> usize {
    usize::try_from(location.line()).unwrap_or_default().max(1)
}
