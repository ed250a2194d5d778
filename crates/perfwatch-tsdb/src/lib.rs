//! Time-series storage: snapshots become blocks of columns, blocks are rolled up into buckets, and
//! a query over a range becomes points. Pure: no file, no database, no clock.
//!
//! Data flow: [`table`] (rows in memory) → [`block`] (encoded by `column` and `section`) →
//! [`rollup`] (minutes and hours) → [`query`] (points for a chart). Rows that are not in a block yet, and those of the
//! last minutes, are in memory as [`row_chunk`]s.

pub mod block;
mod bytes;
mod column;
pub mod fill;
pub mod plan;
mod process_values;
pub mod projection;
pub mod query;
pub mod rollup;
pub mod row_chunk;
mod section;
pub mod table;

pub use block::{Block, BlockHeader, BlockPart, RowKind};
pub use bytes::{FormatError, write_varint, write_zigzag};
pub use column::CompressionLevel;
pub use projection::{ColumnProjection, Projection, Projector, SeriesCounter, SeriesGroup, SeriesSelector};
pub use query::Tier;
pub use rollup::{BUCKET_STATS_LEN, BucketColumn, BucketStats, Buckets};
pub use row_chunk::{DecodedRows, EncodedRow, RowEncoder, RowKey, decode_rows};
pub use table::Table;

#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod query_tests;
#[cfg(test)]
mod row_chunk_tests;
