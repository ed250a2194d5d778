//! Counts the memory of a JSON body before it is decoded. Two bytes of a body can take more than a hundred
//! bytes of memory, and a compressed body a thousand times less, so that a limit after decoding is too late.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Size of a value in a tree, with the unused capacity of its list.
const VALUE_BYTES: usize = 64;
/// Size of an allocation of a text beside its bytes.
const TEXT_BYTES: usize = 40;
/// Size of the first node of an object, which has space for eleven entries.
const OBJECT_BYTES: usize = 640;
/// Size of an entry of an object whose nodes are half full.
const ENTRY_BYTES: usize = 128;
/// Size of a value of a snapshot with its column, beside the names of its path.
const COLUMN_BYTES: usize = 128;

/// Snapshots of a JSON body, and the memory that they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodyCounts {
    /// Number of snapshots.
    pub snapshots: usize,
    /// Size of the snapshots in memory, and of the largest tree that they are read from.
    pub decoded_bytes: usize,
}

/// Counts the snapshots of a body, a list or a single object, and their memory. Nothing is allocated.
///
/// # Errors
/// Returns the error of the parser if the body is not JSON.
pub fn count_body(body: &[u8]) -> Result<BodyCounts, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut counts = BodyCounts::default();
    let mut largest = 0;
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if is_list {
        deserializer.deserialize_seq(ListVisitor(&mut counts, &mut largest))?;
    } else {
        count_snapshot(&mut deserializer, &mut counts, &mut largest)?;
    }
    deserializer.end()?;
    counts.decoded_bytes += largest;
    Ok(counts)
}

fn count_snapshot<'de, D: Deserializer<'de>>(
    deserializer: D,
    counts: &mut BodyCounts,
    largest: &mut usize,
) -> Result<(), D::Error> {
    let mut snapshot = TreeCounts::default();
    Node { counts: &mut snapshot, path_bytes: 0 }.deserialize(deserializer)?;
    counts.snapshots += 1;
    counts.decoded_bytes = counts.decoded_bytes.saturating_add(snapshot.columns_bytes);
    *largest = snapshot.tree_bytes.max(*largest);
    Ok(())
}

/// Memory of a single snapshot.
#[derive(Default)]
struct TreeCounts {
    /// Size of the tree of JSON values.
    tree_bytes: usize,
    /// Size of the columns, values and process rows that are read from it.
    columns_bytes: usize,
}

struct ListVisitor<'a>(&'a mut BodyCounts, &'a mut usize);

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of snapshots")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(SnapshotSeed(self.0, self.1))?.is_some() {}
        Ok(())
    }
}

struct SnapshotSeed<'a>(&'a mut BodyCounts, &'a mut usize);

impl<'de> DeserializeSeed<'de> for SnapshotSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        count_snapshot(deserializer, self.0, self.1)
    }
}

/// Value at a path.
struct Node<'a> {
    counts: &'a mut TreeCounts,
    /// Length of the names of the path: metric and instance of a column are made of them.
    path_bytes: usize,
}

impl Node<'_> {
    fn add_value(self, text_bytes: usize) {
        self.counts.tree_bytes += VALUE_BYTES + text_bytes;
        self.counts.columns_bytes += COLUMN_BYTES + self.path_bytes + text_bytes;
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.add_value(0);
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.add_value(0);
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.add_value(0);
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.add_value(0);
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.add_value(0);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.add_value(TEXT_BYTES + text.len());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { counts, path_bytes } = self;
        counts.tree_bytes += VALUE_BYTES;
        while list.next_element_seed(Node { counts, path_bytes })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Self { counts, path_bytes } = self;
        counts.tree_bytes += VALUE_BYTES;
        let mut is_empty = true;
        while let Some(key_bytes) = object.next_key_seed(Key)? {
            counts.tree_bytes += ENTRY_BYTES + key_bytes + if is_empty { OBJECT_BYTES } else { 0 };
            is_empty = false;
            object.next_value_seed(Node { counts, path_bytes: path_bytes + key_bytes })?;
        }
        Ok(())
    }
}

/// Length of a key.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<usize, E> {
        Ok(key.len())
    }
}

/// Calls a function for each snapshot of a body, in order; one at a time is in memory. Stops at its first
/// error.
///
/// # Errors
/// Returns the error of the parser if the body is not JSON.
pub fn for_each_snapshot(
    body: &[u8],
    each: &mut dyn FnMut(usize, serde_json::Value),
) -> Result<(), serde_json::Error> {
    struct List<'a>(&'a mut dyn FnMut(usize, serde_json::Value));
    impl<'de> Visitor<'de> for List<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of snapshots")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            let mut index = 0;
            while let Some(value) = list.next_element()? {
                (self.0)(index, value);
                index += 1;
            }
            Ok(())
        }
    }
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        deserializer.deserialize_seq(List(each))?;
        return deserializer.end();
    }
    each(0, serde_json::from_slice(body)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding M2: 788 compressed bytes became 712 MB.
    #[test]
    fn memory_of_a_body_is_counted_before_it_is_decoded() {
        let mib = |body: &str| count_body(body.as_bytes()).unwrap().decoded_bytes >> 20;
        let list = |element: &str| {
            format!("[{}{element}]", format!("{element},").repeat((1 << 20) / (element.len() + 1)))
        };
        // One snapshot of nested lists or objects, and many snapshots.
        for element in ["{\"a\":{\"b\":{}}}", "[]", "0", "{\"a\":0}"] {
            let body = format!("{{\"host\":\"x\",\"y\":{}}}", list(element));
            assert!(mib(&body) >= 20, "{element} {}", mib(&body));
        }
        assert!(mib(&list("{\"a\":0}")) >= 10);
        // The name of an instance is part of each of its columns.
        let long = format!("{{\"{}\":{{{}\"z\":1}}}}", "x".repeat(250), "\"a\":1,".repeat(10_000));
        assert!(count_body(long.as_bytes()).unwrap().decoded_bytes > 250 * 10_000);
        // A usual snapshot takes some kilobytes.
        let usual = "{\"host\":\"web\",\"cpu\":{\"usage\":1.5,\"core\":{\"0\":{\"usage\":2}}}}";
        let counts = count_body(usual.as_bytes()).unwrap();
        assert!(counts.snapshots == 1 && counts.decoded_bytes < 6_000, "{counts:?}");
        assert_eq!(count_body(b" [] ").unwrap(), BodyCounts::default());
        for malformed in ["", "[1", "[1]]", "{\"a\"}", "{} {}"] {
            assert!(count_body(malformed.as_bytes()).is_err(), "{malformed}");
        }
        assert!(count_body("[".repeat(100_000).as_bytes()).is_err(), "nested too deeply");
    }

    #[test]
    fn snapshots_are_read_one_at_a_time() {
        let read = |body: &str| {
            let mut values = Vec::new();
            for_each_snapshot(body.as_bytes(), &mut |index, value| values.push((index, value.to_string())))
                .map(|()| values)
        };
        let expected = vec![(0, "1".to_owned()), (1, "{\"a\":[]}".to_owned())];
        assert_eq!(read(" [1, {\"a\":[]}]").unwrap(), expected);
        assert_eq!(read("{\"a\":1}").unwrap(), [(0, "{\"a\":1}".to_owned())]);
        assert!(read("[1] 2").is_err() && read("").is_err());
    }
}
