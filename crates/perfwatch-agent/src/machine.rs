//! Fingerprint of the machine, stored beside the host id. It tells the state directory of a cloned machine
//! from that of its original.

use crate::hub_client::sha256_hex;
use perfwatch_collect::Source;
use perfwatch_files::Directory;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Product UUIDs of firmware that was not personalized.
const PLACEHOLDER_UUIDS: [&str; 3] = [
    "00000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffff",
    "03000200040005000006000700080009",
];

/// Hashes of the identifiers of a machine by name; identifiers that cannot be read are absent. Hashes,
/// because machine-id(5) is confidential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// Reads `/etc/machine-id` and, with enough privileges, the product UUID of the firmware.
    pub(crate) fn read(source: &dyn Source) -> Self {
        let read = |path: &str| {
            let mut bytes = Vec::new();
            source.read(path, &mut bytes).ok()?;
            let digits: String = String::from_utf8_lossy(&bytes).trim().replace('-', "").to_ascii_lowercase();
            let is_valid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            // Empty and "uninitialized" before the first boot of an image (machine-id(5)).
            (is_valid && !PLACEHOLDER_UUIDS.contains(&digits.as_str())).then_some(digits)
        };
        let hash = |name: &str, id: &str| sha256_hex(format!("perfwatch {name} {id}").as_bytes());
        let machine_id = read("/etc/machine-id").map(|id| hash("machine-id", &id));
        let product_uuid =
            read("/sys/class/dmi/id/product_uuid").map(|id| hash("product-uuid", &byte_order_free(&id)));
        let identifiers = [("machine-id", machine_id), ("product-uuid", product_uuid)];
        Self(identifiers.into_iter().filter_map(|(name, id)| Some((name.to_owned(), id?))).collect())
    }

    /// Loads the fingerprint of a state directory; empty if there is none.
    pub(crate) fn load(state: &Path) -> Self {
        let text = Directory::open(state).and_then(|directory| directory.read_to_string(FILE));
        let text = text.unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.trim().split_once(' '));
        Self(pairs.map(|(name, hash)| (name.to_owned(), hash.to_owned())).collect())
    }

    /// Name of an identifier that differs; identifiers that are unknown on one side are not compared.
    pub(crate) fn difference(&self, other: &Self) -> Option<&str> {
        let differs =
            |(name, hash): &(&String, &String)| other.0.get(*name).is_some_and(|other| other != *hash);
        self.0.iter().find(differs).map(|(name, _)| name.as_str())
    }

    /// Stores the fingerprint with the identifiers of `self`, and those of the directory that `self` lacks:
    /// a service without privileges cannot read the product UUID.
    pub(crate) fn save(&self, state: &Path) -> io::Result<()> {
        let stored = Self::load(state);
        let mut merged = stored.clone();
        merged.0.extend(self.0.clone());
        if merged == stored {
            return Ok(());
        }
        let text: String = merged.0.iter().map(|(name, hash)| format!("{name} {hash}\n")).collect();
        Directory::open(state)?.write(FILE, text.as_bytes())
    }
}

/// File of the fingerprint.
const FILE: &str = "machine";

/// Product UUID independent of the byte order of its first three fields, which depends on the kernel.
fn byte_order_free(digits: &str) -> String {
    let byte = |index: usize| digits.get(2 * index..2 * index + 2).unwrap_or_default();
    let swapped: String = [3, 2, 1, 0, 5, 4, 7, 6].into_iter().chain(8..16).map(byte).collect();
    swapped.min(digits.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_collect::LocalRoot;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn fingerprint(machine_id: Option<&str>, product_uuid: Option<&str>) -> Fingerprint {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("etc/machine-id", machine_id), ("sys/class/dmi/id/product_uuid", product_uuid)]
        {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(text) = text {
                std::fs::write(path, text).unwrap();
            }
        }
        let source = LocalRoot::new(&root.path().join("proc"), &root.path().join("sys"), root.path());
        Fingerprint::read(&source)
    }

    #[test]
    fn invalid_identifiers_are_not_compared() {
        for text in [
            "",
            "\n",
            "uninitialized\n",
            "00000000000000000000000000000000\n",
            "0123",
            "x".repeat(32).as_str(),
        ] {
            assert_eq!(fingerprint(Some(text), None), Fingerprint::default(), "{text}");
        }
        let uuid = Some("03000200-0400-0500-0006-000700080009");
        assert_eq!(fingerprint(None, uuid), Fingerprint::default());
        let known = fingerprint(Some(ID), None);
        assert_eq!(known.difference(&fingerprint(Some(""), None)), None);
        assert_eq!(known.difference(&fingerprint(Some(&format!("{}\n", ID.to_uppercase())), None)), None);
        assert_eq!(known.difference(&fingerprint(Some(&ID.replace('0', "1")), None)), Some("machine-id"));
    }

    #[test]
    fn unreadable_identifiers_remain_stored() {
        let state = tempfile::tempdir().unwrap();
        let uuid = "4c4c4544-0042-3510-8052-b4c04f4d5031";
        let swapped = "44454c4c-4200-1035-8052-B4C04F4D5031";
        fingerprint(Some(ID), Some(uuid)).save(state.path()).unwrap();
        fingerprint(Some(ID), None).save(state.path()).unwrap();
        let stored = Fingerprint::load(state.path());
        assert_eq!(stored.difference(&fingerprint(None, Some(swapped))), None);
        assert_eq!(
            stored.difference(&fingerprint(Some(ID), Some(&uuid.replace('8', "9")))),
            Some("product-uuid")
        );
        let text = std::fs::read_to_string(state.path().join(FILE)).unwrap();
        assert!(!text.contains(ID) && text.lines().count() == 2, "{text}");
    }
}
