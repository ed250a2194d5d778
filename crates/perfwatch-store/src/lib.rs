//! What the hub remembers: the [`Store`] port, and the one that keeps everything in memory
//! until history on disk exists.

mod memory;
mod ranges;
mod store;

pub use memory::MemoryStore;
pub use store::{Appended, BoxFuture, HostRecord, Row, Store, StoreError};
