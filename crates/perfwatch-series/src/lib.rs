//! How history is stored: ticks become blocks of columns, blocks roll up into buckets, and a
//! query over a range becomes points. Pure: no file, no database, no clock.
//!
//! The walk: [`table`] (rows in memory) → [`block`] (coded, by [`column`] and [`section`]) →
//! [`rollup`] (minutes and hours) → [`query`] (points for a chart).

pub mod block;
mod bytes;
mod column;
pub mod plan;
pub mod query;
pub mod rollup;
mod section;
pub mod table;
pub mod wanted;

pub use block::{Block, Head, Part, Rows};
pub use bytes::FormatError;
pub use column::Effort;
pub use query::Tier;
pub use rollup::{BucketColumn, Buckets, FIGURES, Figures};
pub use table::Table;
pub use wanted::{Picked, Picker, SeriesName, Wanted};

#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod query_tests;
