//! Identifiers of hosts and boots as distinct types, so that they cannot be confused.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// Stable identifier of a host (UUIDv7). The agent generates it into its state folder; the hub
/// generates it for hosts that only post JSON.
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
