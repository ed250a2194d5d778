//! What the hub remembers: the [`Store`] port, and SQLite and PostgreSQL behind it.
//!
//! A store keeps what it is given, durably and at once or not at all; what is given when (seal,
//! roll up, let go) is the hub's. The names of tables, columns and migrations are the same in
//! both databases.

pub mod alerts;
mod append;
mod cells;
mod decode;
mod head;
pub mod jobs;
mod location;
pub mod people;
mod postgres;
mod ranges;
pub mod servers;
pub mod settings;
mod shapes;
mod sqlite;
mod store;

pub use cells::{Cell, Change};
pub use location::{Location, LocationError};
pub use postgres::PostgresStore;
pub use ranges::Ranges;
pub use sqlite::{SqliteOptions, SqliteStore};
pub use store::{
    BlockId, BlockInfo, BoxFuture, CommitError, Content, Dirty, Floors, HeadRow, HostRecord, Piece, Query,
    Reading, Row, Sealed, Seen, Store, StoreError, Usage, Write,
};
