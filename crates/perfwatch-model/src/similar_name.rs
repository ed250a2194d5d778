//! The known name that a misspelled one probably means.

/// Most similar of the known names: one that differs in at most two characters, or in one if it is short; otherwise the
/// shortest one with all words of the name (`memory.used_percent` for `memory.percent`).
pub fn similar_name<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    // Lengths bound the work for long names.
    let candidates = known.iter().filter(|known| known.len().abs_diff(name.len()) <= max_distance(known));
    let distances = candidates.map(|known| (edit_distance(name, known), *known));
    let close = distances.filter(|(distance, known)| *distance <= max_distance(known));
    let closest = close.min_by_key(|(distance, _)| *distance).map(|(_, known)| known);
    closest
        .or_else(|| known.into_iter().filter(|known| has_words(known, name)).min_by_key(|known| known.len()))
}

/// Returns whether a name has all words of another, of which there are several.
fn has_words(known: &str, name: &str) -> bool {
    let is_separator = |c| matches!(c, '.' | '_');
    name.contains(is_separator)
        && name.split(is_separator).all(|word| known.split(is_separator).any(|other| other == word))
}

/// Maximum number of differing characters of a misspelled name.
fn max_distance(name: &str) -> usize {
    if name.len() < 8 { 1 } else { 2 }
}

/// Edit distance in which a transposition of neighbors is one edit.
fn edit_distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut distance = substitution.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                distance = distance.min(rows[i - 2][j - 2] + 1);
            }
            row.push(distance);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_names_are_similar() {
        let known = ["cpu.usage", "cpu.user", "load.1m", "memory.used", "memory.used_percent"];
        for (name, expected) in [
            ("cpu.usge", Some("cpu.usage")),
            ("cpu.uasge", Some("cpu.usage")),
            ("cpu_usage", Some("cpu.usage")),
            ("load.2m", Some("load.1m")),
            ("memory.percent", Some("memory.used_percent")),
            ("percent", None),
            ("load.x5", None),
            ("temperature", None),
            ("", None),
        ] {
            assert_eq!(similar_name(name, known), expected, "{name}");
        }
    }
}
