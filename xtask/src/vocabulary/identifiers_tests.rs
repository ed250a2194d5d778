//! Tests of the identifier metrics.

use super::*;
use crate::source::TextFile;

fn workspace(path: &str, text: &str) -> Workspace {
    Workspace { rust: vec![RustFile::new(path, text.to_owned())], ..Workspace::default() }
}

fn texts(measure: &Measure) -> Vec<&str> {
    measure.places.iter().map(|place| place.text.as_str()).collect()
}

#[test]
fn banned_names_are_counted_by_class() {
    let text = "struct Told; struct MadeUp; struct Made; struct SaveWish; struct Watchdog;\n\
        const MOST: u8 = 1; const MOSTLY: u8 = 1; const LOOK_EVERY: u8 = 1; fn f() { MOST }\n\
        fn of() {} fn all_of() { x.all(); of() } let asked_at = \"asked\"; fn isAsked() {} \
            let looking2 = 1; let task = 1;\n";
    let measures = measure_names(&workspace("x.rs", text));
    assert_eq!(texts(&measures[0]), ["Told", "MadeUp", "SaveWish"]);
    assert_eq!(texts(&measures[1]), ["MOST", "LOOK_EVERY", "MOST"]);
    assert_eq!(measures[1].value().to_string(), "2");
    assert_eq!(texts(&measures[2]), ["Told", "SaveWish", "LOOK_EVERY", "asked_at", "isAsked"]);
    assert_eq!(texts(&measures[3]), ["of"]);
}

#[test]
fn web_identifiers_are_counted_outside_strings() {
    let text = "const whole = async (x: string) => 'asked'\nfunction one() { return all }\n\
        const last = list.last\nlet kept = 1\n";
    let web = vec![TextFile { path: "a.ts".to_owned(), text: text.to_owned() }];
    let measures = measure_names(&Workspace { web, ..Workspace::default() });
    assert_eq!(texts(&measures[2]), ["kept"]);
    assert_eq!(texts(&measures[3]), ["whole", "one"]);
}

#[test]
fn bounds_need_a_standard_prefix_or_suffix() {
    let text = "const MAX_ROWS: usize = 1; const PAGE: usize = 1; const RETRY_DELAY: Duration = x;\n\
        const PAUSE: std::time::Duration = x; const KEY: [u8; 4] = x; const NAME: &str = \"\"; \
            const fn f() {} struct S<const N: usize>;\n\
        #[cfg(test)] mod tests { const ROWS_HERE: u8 = 1; }\n";
    assert_eq!(texts(&measure_bounds(&workspace("crates/a/src/lib.rs", text))), ["PAGE", "PAUSE"]);
    assert_eq!(measure_bounds(&workspace("bench/src/main.rs", text)).places.len(), 0);
}

#[test]
fn generic_types_are_counted_if_two_modules_share_them() {
    let mut workspace = workspace("crates/a/src/x.rs", "struct State; enum Kind {} struct Row;");
    for (path, text) in
        [("crates/a/src/y.rs", "pub struct State { a: Row }"), ("crates/b/src/x.rs", "struct Kind;")]
    {
        workspace.rust.push(RustFile::new(path, text.to_owned()));
    }
    assert_eq!(texts(&measure_generic_types(&workspace)), ["State", "State"]);
}

#[test]
fn test_names_are_checked_for_prefix_and_length() {
    let long = "x".repeat(61);
    let text = format!(
        "#[test] fn who_is_it() {{}} #[tokio::test(start_paused = true)] async fn it_works() {{}}\n\
        #[test] #[ignore = \"slow\"] fn {long}() {{}} fn what_else() {{}} #[test] fn all() {{}} \
            #[test] fn item_works() {{}}"
    );
    assert_eq!(texts(&measure_test_names(&workspace("x.rs", &text))), ["who_is_it", "it_works", &long]);
}
