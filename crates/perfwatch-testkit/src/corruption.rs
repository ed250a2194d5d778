//! Corrupt forms of text that comes from a host.

/// Values that replace words.
const UNEXPECTED_VALUES: [&[u8]; 10] = [
    b"18446744073709551616",
    b"-9223372036854775808",
    b"99999999999999999999999999999999999999999",
    b"1e400",
    b"NaN",
    b"",
    b"\0\xff\xfe",
    b"\n=== /proc/stat\n",
    b"\n=== @end\n",
    b"%n%s\x1b[2J",
];

/// Position, kind and variant of a mutation; any numbers are valid.
pub type Mutation = (usize, usize, usize);

/// Applies mutations: words are replaced, lines deleted or doubled, bytes changed, the end cut off.
pub fn corrupt(text: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut text = text.to_vec();
    for (position, kind, variant) in mutations {
        let start = position % text.len().max(1);
        let line_end =
            text[start..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| start + end);
        let word_end = text[start..line_end].iter().position(u8::is_ascii_whitespace);
        let end = word_end.map_or(line_end, |end| start + end);
        let value = UNEXPECTED_VALUES[variant % UNEXPECTED_VALUES.len()];
        match kind % 6 {
            0 => drop(text.splice(start..end, value.iter().copied())),
            1 => drop(text.splice(start..line_end, std::iter::empty())),
            2 => text.truncate(start),
            3 => {
                let byte = text.get_mut(start);
                byte.into_iter().for_each(|byte| *byte = byte.wrapping_add(variant.to_le_bytes()[0]));
            }
            4 => {
                let line = text[start..line_end].to_vec();
                drop(text.splice(start..start, line));
            }
            _ => drop(text.splice(start..start, value.repeat(variant % 400))),
        }
    }
    text
}
