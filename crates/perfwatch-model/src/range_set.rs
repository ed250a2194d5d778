//! Set of integers as ranges. Sequence numbers of an agent ascend, so a million snapshots are one range.

/// A set of integers, efficient if most of them are consecutive.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RangeSet {
    /// First and last number of each range; ascending and not adjacent.
    ranges: Vec<(u64, u64)>,
}

/// Maximum number of ranges; the lowest ranges above it are dropped.
const MAX_RANGES: usize = 1024;

impl RangeSet {
    /// Adds a number; false if the set contained it.
    pub fn insert(&mut self, number: u64) -> bool {
        let at = self.ranges.partition_point(|&(first, _)| first <= number);
        if at > 0 && self.ranges[at - 1].1 >= number {
            return false;
        }
        let extends_previous = at > 0 && self.ranges[at - 1].1.checked_add(1) == Some(number);
        let extends_next =
            self.ranges.get(at).is_some_and(|&(first, _)| number.checked_add(1) == Some(first));
        match (extends_previous, extends_next) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        if self.ranges.len() > MAX_RANGES {
            self.ranges.remove(0);
        }
        true
    }

    /// Returns whether the set contains a number.
    pub fn contains(&self, number: u64) -> bool {
        let at = self.ranges.partition_point(|&(first, _)| first <= number);
        at > 0 && self.ranges[at - 1].1 >= number
    }

    /// Adds all numbers of another set.
    pub fn extend(&mut self, other: &Self) {
        let mut all: Vec<(u64, u64)> = self.ranges.iter().chain(&other.ranges).copied().collect();
        all.sort_unstable();
        self.ranges.clear();
        for (first, last) in all {
            match self.ranges.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => self.ranges.push((first, last)),
            }
        }
        let excess = self.ranges.len().saturating_sub(MAX_RANGES);
        self.ranges.drain(..excess);
    }

    /// Formats the set as text: `3-9 12-12`.
    pub fn to_text(&self) -> String {
        let texts: Vec<String> = self.ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        texts.join(" ")
    }

    /// Parses the format of [`RangeSet::to_text`]; invalid ranges are ignored.
    pub fn from_text(text: &str) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let mut ranges = Self::default();
        ranges.extend(&Self { ranges: text.split(' ').filter_map(range).filter(|(a, b)| a <= b).collect() });
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn numbers_below_60(ranges: &RangeSet) -> Vec<u64> {
        (0..60).filter(|n| ranges.contains(*n)).collect()
    }

    /// Small numbers, and the numbers at the upper bound.
    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..50, Just(u64::MAX), Just(u64::MAX - 1)]
    }

    proptest! {
        #[test]
        fn range_set_behaves_like_a_set(numbers in proptest::collection::vec(numbers(), 0..200)) {
            let (mut ranges, mut set) = (RangeSet::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), set.insert(number), "{}", number);
            }
            let mut all = Vec::new();
            for (first, last) in &ranges.ranges {
                all.extend(*first..=*last);
            }
            prop_assert_eq!(&all, &set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(&RangeSet::from_text(&ranges.to_text()), &ranges);
            prop_assert!(!set.contains(&25) || ranges.contains(25));
            let mut both = RangeSet::default();
            numbers_below_60(&ranges).iter().rev().for_each(|n| { both.insert(n.wrapping_add(3)); });
            let mut sum = both.clone();
            sum.extend(&ranges);
            for n in 0..60 {
                prop_assert_eq!(sum.contains(n), ranges.contains(n) || both.contains(n));
            }
        }
    }
}
