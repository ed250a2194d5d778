//! Identifiers: newtypes, so that a host can't be passed where a boot is meant.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A host, for as long as the hub remembers it. UUIDv7 made where the host is first seen
/// (the agent's state folder, or the hub for hosts that only ever post JSON).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(pub Uuid);

/// One run of a kernel: `/proc/sys/kernel/random/boot_id` (random(4)). All zeros when unknown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct BootId(pub Uuid);

impl HostId {
    /// A new identity, ordered by the time of its making.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl BootId {
    /// A boot of our own, for kernels that don't tell theirs.
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

macro_rules! impl_uuid_display {
    ($name:ident) => {
        impl $name {
            /// The 16 bytes.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// From 16 bytes; none from another number of them.
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
