//! Seeded mutations of inputs, without coverage feedback: the same seed gives the same inputs.

/// Numbers at the limits of parsers.
const NUMBERS: [&[u8]; 12] = [
    b"0",
    b"-1",
    b"255",
    b"65536",
    b"4294967295",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"1e400",
    b"0.1",
    b"NaN",
    b"999999999999999999999999999999",
];
/// Bytes with a meaning in many formats.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\n\r\t \"'\\{}[]():,;=%*?!/<>";
/// Maximum number of mutations of one input.
const MAX_MUTATIONS: usize = 12;

/// Generator of inputs.
pub struct Mutator<'a> {
    random: fastrand::Rng,
    inputs: &'a [Vec<u8>],
    dictionary: &'a [&'a str],
    max_len: usize,
}

impl<'a> Mutator<'a> {
    /// Mutates `inputs`, inserts words of `dictionary`, and cuts at `max_len`.
    pub fn new(seed: u64, inputs: &'a [Vec<u8>], dictionary: &'a [&'a str], max_len: usize) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), inputs, dictionary, max_len }
    }

    /// Next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut data = self.random_input().to_vec();
        for _ in 0..self.random.usize(1..=MAX_MUTATIONS) {
            self.mutate(&mut data);
            data.truncate(self.max_len);
        }
        data
    }

    fn random_input(&mut self) -> &'a [u8] {
        if self.inputs.is_empty() { b"" } else { &self.inputs[self.random.usize(..self.inputs.len())] }
    }

    /// Range of at most `max` bytes.
    fn range(&mut self, len: usize, max: usize) -> std::ops::Range<usize> {
        let start = self.random.usize(..=len);
        start..(start + self.random.usize(..=max.min(len - start)))
    }

    fn mutate(&mut self, data: &mut Vec<u8>) {
        let at = self.random.usize(..=data.len());
        match self.random.u8(..10) {
            0 => data.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << self.random.u8(..8)),
            1 => data.get_mut(at).into_iter().for_each(|byte| *byte = self.random.u8(..)),
            2 => data.insert(at, BYTES[self.random.usize(..BYTES.len())]),
            3 => drop(data.drain(self.range(data.len(), 64))),
            4 => {
                let range = self.range(data.len(), 256);
                let part = data[range].repeat(self.random.usize(1..8));
                drop(data.splice(at..at, part));
            }
            5 => {
                let other = self.random_input();
                let part = other[self.range(other.len(), 4_096)].to_vec();
                let replaced = at..(at + self.random.usize(..=part.len())).min(data.len());
                drop(data.splice(replaced, part));
            }
            6 => {
                let number = NUMBERS[self.random.usize(..NUMBERS.len())];
                let is_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
                let end = at + data[at..].iter().take_while(|byte| is_number(byte)).count();
                drop(data.splice(at..end, number.iter().copied()));
            }
            7 if !self.dictionary.is_empty() => {
                let word = self.dictionary[self.random.usize(..self.dictionary.len())];
                drop(data.splice(at..at, word.bytes()));
            }
            8 => data.truncate(at),
            // A short part many times: nesting, and long lists.
            _ => {
                let range = self.range(data.len(), 8);
                let part = data[range].repeat(self.random.usize(1..2_000));
                drop(data.splice(at..at, part));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_a_seed_are_reproducible_and_bounded() {
        let seeds = [b"host: web-1\n".to_vec(), vec![0; 100]];
        let inputs = || {
            let mut mutator = Mutator::new(7, &seeds, &["key:"], 500);
            (0..200).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(), inputs());
        assert!(inputs().iter().all(|input| input.len() <= 500));
        let mut distinct = inputs();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 150, "{}", distinct.len());
    }
}
