//! Text of an export: CSV records, and escapes for names that hosts choose.

use perfwatch_model::{Column, MISSING, fixed_point, json};
use perfwatch_tsdb::{Buckets, Table, query};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns whether terminals act on a character, or whether it hides or reorders text: control characters
/// except line breaks and tabs, which quoting handles, and formatting characters of Unicode.
fn is_terminal_code(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Text in which characters that terminals act on are written as JSON escapes, because names are chosen by
/// hosts (CWE-150). In JSON the text keeps its meaning.
pub(crate) fn escape_terminal_codes(text: &str) -> Cow<'_, str> {
    if !text.contains(is_terminal_code) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 32);
    for c in text.chars() {
        if is_terminal_code(c) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Cell that spreadsheets show as text. A cell that begins like a formula gets an apostrophe, because
/// instances contain names that a host chooses (CWE-1236).
fn escape_cell(text: &str) -> Cow<'_, str> {
    // Spreadsheets also evaluate full-width operators, and skip leading spaces, tabs and line breaks.
    const FORMULA_STARTS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    let is_skipped = |c: char| !FORMULA_STARTS.contains(&c) && (c.is_whitespace() || is_terminal_code(c));
    let is_formula = text.trim_start_matches(is_skipped).starts_with(FORMULA_STARTS);
    let text = escape_terminal_codes(text);
    if is_formula { Cow::Owned(format!("'{text}")) } else { text }
}

/// CSV records in memory. Writing to memory cannot fail.
pub(crate) struct CsvText(csv::Writer<Vec<u8>>);

impl Default for CsvText {
    fn default() -> Self {
        Self(csv::Writer::from_writer(Vec::new()))
    }
}

impl CsvText {
    pub(crate) fn write(&mut self, fields: [&str; 6]) {
        let _ = self.0.write_record(fields);
    }

    /// Writes a value with its time, minimum and maximum. Numbers may be negative and are not escaped.
    fn write_value(&mut self, time: &str, column: &Column, [value, min, max]: [&str; 3]) {
        let (metric, instance) = (escape_cell(&column.metric), escape_cell(&column.instance));
        self.write([time, &metric, &instance, value, min, max]);
    }

    pub(crate) fn write_row(&mut self, table: &Table, row: usize) {
        let time = time_text(table.at_ms[row]);
        for (column, values) in table.shape.columns().iter().zip(&table.columns) {
            if values[row] != MISSING {
                let value = scaled_text(values[row], column);
                self.write_value(&time, column, [&value, "", ""]);
            }
        }
    }

    pub(crate) fn write_bucket(&mut self, buckets: &Buckets, row: usize) {
        let time = time_text(buckets.start_ms[row]);
        for (column, values) in buckets.shape.columns().iter().zip(&buckets.columns) {
            let stats = &values.0[row];
            let Some(average) = query::average(stats, column.decimals) else {
                continue;
            };
            let average = format!("{average:.*}", usize::from(column.decimals) + 2);
            let (min, max) = (scaled_text(stats.min, column), scaled_text(stats.max, column));
            self.write_value(&time, column, [&average, &min, &max]);
        }
    }

    pub(crate) fn append_to(self, out: &mut String) {
        out.push_str(&String::from_utf8_lossy(&self.0.into_inner().unwrap_or_default()));
    }
}

fn time_text(at_ms: i64) -> String {
    let mut text = String::new();
    json::write_time(&mut text, at_ms);
    text
}

fn scaled_text(value: i64, column: &Column) -> String {
    let mut text = String::new();
    fixed_point::write_scaled(&mut text, value, column.decimals);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Shape, Snapshot};
    use std::sync::Arc;

    /// Rows of a snapshot at 1 s with a column per instance.
    fn csv_rows(instances: &[&str], values: &[i64]) -> String {
        let column = |instance: &&str| Column {
            metric: "disk.usage".into(),
            dimension: "mount".into(),
            instance: (*instance).into(),
            decimals: 2,
        };
        let snapshot = Snapshot {
            boot: BootId::default(),
            seq: 0,
            at_ms: 1_000,
            interval_ms: 0,
            shape: Arc::new(Shape::new(instances.iter().map(column).collect())),
            values: values.to_vec(),
            processes: vec![],
            facts: None,
            errors: vec![],
        };
        let mut csv = CsvText::default();
        for table in Table::from_snapshots(&[Arc::new(snapshot)]) {
            csv.write_row(&table, 0);
        }
        let mut text = String::new();
        csv.append_to(&mut text);
        text
    }

    #[test]
    fn csv_cells_like_formulas_are_escaped() {
        for (instance, cell) in [
            ("=1+1", "'=1+1"),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            (" =1", "' =1"),
            ("＝1", "'＝1"),
            ("a=1", "a=1"),
            ("'x", "'x"),
        ] {
            let expected = format!("1970-01-01T00:00:01.000Z,disk.usage,{cell},-0.5,,\n");
            assert_eq!(csv_rows(&[instance], &[-50]), expected, "{instance:?}");
        }
    }

    /// Finding L8: names with terminal codes and hidden formulas in an export.
    #[test]
    fn exported_names_have_no_terminal_codes() {
        for (instance, cell) in [
            ("a\u{1b}[2J", "a\\u001b[2J"),
            ("\u{9b}31m", "\\u009b31m"),
            ("a\u{7f}\u{8}b", "a\\u007f\\u0008b"),
            ("\u{202e}gpj.exe", "\\u202egpj.exe"),
            ("\u{200b}=1", "'\\u200b=1"),
            ("\u{feff}+1", "'\\ufeff+1"),
            ("\u{a0}@x", "'\u{a0}@x"),
            ("\u{1b}-1", "'\\u001b-1"),
            ("naïve ☃", "naïve ☃"),
        ] {
            let expected = format!("1970-01-01T00:00:01.000Z,disk.usage,{cell},-0.5,,\n");
            assert_eq!(csv_rows(&[instance], &[-50]), expected, "{instance:?}");
            assert!(!escape_terminal_codes(instance).contains(is_terminal_code), "{instance:?}");
        }
        let json = serde_json::json!({ "name": "a\u{9b}\u{202e}\u{7f}b" });
        let escaped = escape_terminal_codes(&json.to_string()).into_owned();
        assert!(escaped.is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), json);
    }

    #[test]
    fn csv_fields_are_quoted_if_necessary() {
        let instances = ["/", "a,b", "say \"x\"", "two\nlines", " space ", ""];
        assert_eq!(
            csv_rows(&instances, &[1_234, 1, 2, 3, MISSING, 0]),
            "1970-01-01T00:00:01.000Z,disk.usage,/,12.34,,\n\
             1970-01-01T00:00:01.000Z,disk.usage,\"a,b\",0.01,,\n\
             1970-01-01T00:00:01.000Z,disk.usage,\"say \"\"x\"\"\",0.02,,\n\
             1970-01-01T00:00:01.000Z,disk.usage,\"two\nlines\",0.03,,\n\
             1970-01-01T00:00:01.000Z,disk.usage,,0,,\n"
        );
    }
}
