//! Identifiers of hosts and boots as distinct types, so that they cannot be confused.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use uuid::{Builder, Uuid};

/// Stable identifier of a host. The agent generates it into its state folder (UUIDv7); the hub computes it for
/// hosts that scripts create by their name ([`HostId::of_name`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(pub Uuid);

/// Identifier of a kernel's run: `/proc/sys/kernel/random/boot_id` (random(4)). All zeros
/// if unknown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct BootId(pub Uuid);

impl HostId {
    /// Identifier under which the history contains the self-metrics of all hubs, as instances of one host that no
    /// list shows. A UUIDv8 ("perfwatch hub"): no host is created with it.
    pub const HUBS: Self = Self(Uuid::from_u128(0x7065_7266_7761_8463_8068_2068_7562_0000));

    /// Generates an identifier; identifiers sort by creation time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// Identifier of a host that is created by its name only. It is computed from the name, so that hubs that
    /// receive a new name at the same time create one host. `number` counts up where hosts that were renamed
    /// since have the identifiers of lower numbers. A UUIDv8 (RFC 9562, section 5.8): 122 bits of a SHA-256.
    pub fn of_name(name: &str, number: u32) -> Self {
        let hash =
            Sha256::new_with_prefix("perfwatch host").chain_update(number.to_be_bytes()).chain_update(name);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl BootId {
    /// Generates a random identifier, for kernels that do not expose a boot id.
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

macro_rules! impl_uuid_display {
    ($name:ident) => {
        impl $name {
            /// Returns the UUID in network byte order.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// Reads a UUID in network byte order; `None` unless there are exactly 16 bytes.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text.trim()).map(Self)
            }
        }
    };
}
impl_uuid_display!(HostId);
impl_uuid_display!(BootId);

/// Error message for a host name that several hosts have.
pub fn ambiguous_host_name(name: &str, ids: &[HostId]) -> String {
    let ids: Vec<String> = ids.iter().map(HostId::to_string).collect();
    format!("{} hosts are named {name:?}; use one of their ids: {}", ids.len(), ids.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifier_of_a_name_is_fixed() {
        let id = HostId::of_name("web", 0);
        assert_eq!(id.to_string(), "e17e5cef-f518-81b0-8f22-1f02908fb82d");
        assert_eq!((id.0.get_version_num(), id.0.get_variant()), (8, uuid::Variant::RFC4122));
        assert_ne!(id, HostId::of_name("web", 1));
        assert_ne!(id, HostId::of_name("web2", 0));
    }
}
