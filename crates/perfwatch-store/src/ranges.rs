//! Which numbers were seen, as ranges: an agent counts up, so a million ticks are one range.

/// A set of numbers that mostly follow one another.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ranges {
    /// First and last of each, ascending, never touching.
    ranges: Vec<(u64, u64)>,
}

/// Beyond this many ranges, the lowest is forgotten.
const MOST: usize = 1024;

impl Ranges {
    /// Adds a number; false if it was there.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let at = self.ranges.partition_point(|&(first, _)| first <= number);
        if at > 0 && self.ranges[at - 1].1 >= number {
            return false;
        }
        let joins_before = at > 0 && self.ranges[at - 1].1.checked_add(1) == Some(number);
        let joins_after = self.ranges.get(at).is_some_and(|&(first, _)| number.checked_add(1) == Some(first));
        match (joins_before, joins_after) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        if self.ranges.len() > MOST {
            self.ranges.remove(0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(numbers in proptest::collection::vec(prop_oneof![0u64..50, Just(u64::MAX), Just(u64::MAX - 1)], 0..200)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), set.insert(number), "{}", number);
            }
            let mut all = Vec::new();
            for (first, last) in &ranges.ranges {
                all.extend(*first..=*last);
            }
            prop_assert_eq!(all, set.into_iter().collect::<Vec<_>>());
        }
    }
}
