//! Size of a range read.

/// Size of a read: an estimate, from the index of the blocks and their column schemas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSize {
    /// Number of rows or buckets.
    pub rows: usize,
    /// Number of values to decode.
    pub cells: usize,
    /// Number of distinct series. Counting stops at the limit.
    pub series: usize,
}
