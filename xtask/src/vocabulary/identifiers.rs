//! Identifier metrics: banned names I1 to I4, bounds I5, generic types I6, and test names T1.

use super::measure::{Finding, Measure, Unit};
use super::text::is_listed;
use crate::lexer::{TokenKind, token_text};
use crate::script::{ScriptKind, ScriptToken, web_parts};
use crate::source::{RustFile, Workspace};
use std::collections::{BTreeMap, HashMap};

/// Types of I1; `*` matches any prefix, `+` an upper-case continuation.
const TYPES: &str = "\
    Told Heard Hears Asked Ask Looked Look Looks LookJson LookRow LookPage LooksJson Seen Known *Wish \
    Made+ Who What Why Whom Turn Hand Hands Doer Doorman Door Room Rooms Place Places Stretch Figure \
    Figures Letter Notice Watch Watches Watching Watcher Track Carried Recall Manner HungUp Fullest \
    Latest Noun Cell Cells Counted Texts Guarded Every Patience Moment Quiet Joins Mover Consumer Way \
    Cut Picked Picker Wanted Beat Vault People Person Persons Everyone *Problem Tries Kept Held Taken \
    Found Joined Busy Recording Board LiveIncident Piece Take Walk Planned";
const CONSTANT_PREFIXES: &str =
    "MOST LEAST LONGEST SHORTEST OLDEST LARGEST PATIENCE REST LASTS APART AT_ONCE LATELY";
const CONSTANT_SUFFIXES: &str = "_EVERY _LASTS _MOST _LEAST _AT_ONCE";
const WORDS: &str = "\
    told tell heard hear hears asked ask asks said say says looks looked looking look stand stands \
    standing doer wish wishes whom whose who why anew calm rhythm patience hurry replan unplan unplanned \
    figure figures stretch hushed loud deaf troubled reseal resealed unseal nobody somebody everyone \
    everybody stranger people person kept keeper ours theirs mine lately";
const FUNCTIONS: &str = "\
    of one all show shown seen told say said again own whole yes over then like did is has round work go \
    calm judge hear look want wanted wants take takes taken tidy made gone held hold keep know known \
    want warm cool until with within by at last lasts wrong right plain broken broke busy changed \
    checked ended fits fresh gives moves moved moving resting settle speak ease sees usual";
const BOUND_PREFIXES: &str = "MAX MIN";
const BOUND_SUFFIXES: &str =
    "INTERVAL TIMEOUT TTL DELAY BACKOFF RETENTION PERIOD BYTES MS S PERCENT CAPACITY LEN ROWS VERSION";
const BOUND_TYPES: &str = "u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize Duration";
const GENERIC_TYPES: &str =
    "State Kind Inner Shared Counts Outcome Entry Part Source Options Context Row Error Config";
const TEST_PREFIXES: &str = "who what whom whose where how it those one of in as all never";
/// Characters of a test name above which T1 counts it.
const MAX_TEST_NAME_LEN: usize = 60;

const TEST_KIT: &str = "crates/perfwatch-testkit";

/// Identifier with its place in a Rust or web source.
struct Name<'a> {
    file: &'a str,
    line: usize,
    text: &'a str,
    is_function: bool,
}

fn rust_names(file: &RustFile) -> impl Iterator<Item = Name<'_>> {
    let idents = file.code.iter().enumerate().filter(|(_, token)| token.kind == TokenKind::Ident);
    idents.map(|(index, token)| Name {
        file: &file.path,
        line: token.line,
        text: token_text(&file.text, token),
        is_function: index > 0 && file.code_text(index - 1) == "fn",
    })
}

fn web_names<'a>(path: &'a str, tokens: &[ScriptToken<'a>]) -> Vec<Name<'a>> {
    let idents = tokens.iter().enumerate().filter(|(_, token)| token.kind == ScriptKind::Ident);
    let name = |(index, token): (usize, &ScriptToken<'a>)| Name {
        file: path,
        line: token.line,
        text: token.text,
        is_function: is_web_function(tokens, index),
    };
    idents.map(name).collect()
}

/// `function name`, or `const name =` before an arrow function.
fn is_web_function(tokens: &[ScriptToken<'_>], index: usize) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    match index.checked_sub(1).map(text) {
        Some("function") => true,
        Some("const") if text(index + 1) == "=" => {
            let start = index + 2 + usize::from(text(index + 2) == "async");
            let mut depth = 0_usize;
            let mut at = start;
            while at < tokens.len() {
                match text(at) {
                    "(" => depth += 1,
                    ")" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            let is_arrow = text(at) == "=" && text(at + 1) == ">";
            is_arrow || (text(start) == "(" && text(at) == ":")
        }
        _ => false,
    }
}

/// True if a type name matches a pattern of `TYPES`.
pub(crate) fn is_banned_type(name: &str) -> bool {
    TYPES.split_ascii_whitespace().any(|pattern| {
        if let Some(suffix) = pattern.strip_prefix('*') {
            name.ends_with(suffix)
        } else if let Some(prefix) = pattern.strip_suffix('+') {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
        } else {
            name == pattern
        }
    })
}

fn is_banned_constant(name: &str) -> bool {
    let starts =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    CONSTANT_PREFIXES.split_ascii_whitespace().any(starts)
        || CONSTANT_SUFFIXES.split_ascii_whitespace().any(|suffix| name.ends_with(suffix))
}

/// Words of an identifier: split at underscores and between lower and upper case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut previous = '_';
    for letter in name.chars() {
        if letter == '_' || (previous.is_ascii_lowercase() && letter.is_ascii_uppercase()) {
            parts.push(String::new());
        }
        if letter != '_'
            && let Some(part) = parts.last_mut()
        {
            part.push(letter.to_ascii_lowercase());
        }
        previous = letter;
    }
    parts
}

/// True if a word of I3 is part of the identifier.
pub(crate) fn has_banned_part(name: &str) -> bool {
    parts(name).iter().any(|part| is_listed(WORDS, part))
}

/// True if a name is banned by I1 to I4; I4 applies to functions only.
fn classify(name: &str) -> [bool; 4] {
    [is_banned_type(name), is_banned_constant(name), has_banned_part(name), is_listed(FUNCTIONS, name)]
}

/// Measures I1 to I4 over the identifiers of Rust and web sources.
pub(crate) fn measure_names(workspace: &Workspace) -> Vec<Measure> {
    let mut places: [Vec<Finding>; 4] = Default::default();
    let mut classes: HashMap<String, [bool; 4]> = HashMap::new();
    let mut check = |name: &Name<'_>| {
        let mut class = match classes.get(name.text) {
            Some(class) => *class,
            None => *classes.entry(name.text.to_owned()).or_insert(classify(name.text)),
        };
        class[3] &= name.is_function;
        for (places, _) in places.iter_mut().zip(class).filter(|(_, hit)| *hit) {
            places.push(Finding::new(name.file, name.line, name.text));
        }
    };
    for file in &workspace.rust {
        rust_names(file).for_each(|name| check(&name));
    }
    for file in &workspace.web {
        let parts = web_parts(&file.path, &file.text);
        web_names(&file.path, &parts.script).iter().for_each(&mut check);
        web_names(&file.path, &parts.expressions).iter().for_each(&mut check);
    }
    let [i1, i2, i3, i4] = places;
    vec![
        Measure::new("I1", Unit::Count, i1),
        Measure::new("I2", Unit::Names, i2),
        Measure::new("I3", Unit::Count, i3),
        Measure::new("I4", Unit::Count, i4),
    ]
}

fn is_bound_name(name: &str) -> bool {
    let starts =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    let ends =
        |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'));
    BOUND_PREFIXES.split_ascii_whitespace().any(starts) || BOUND_SUFFIXES.split_ascii_whitespace().any(ends)
}

/// Constants of an integer or `Duration` type in product code whose name is not a bound.
fn bounds(file: &RustFile) -> Vec<Finding> {
    let is_crate = file.path.starts_with("crates/") && file.path.contains("/src/");
    let is_product = is_crate && !file.is_test && file.crate_dir() != TEST_KIT;
    let mut places = Vec::new();
    for index in (0..file.code.len()).filter(|index| is_product && !file.in_test[*index]) {
        // `const fn`, `*const T`, and const generics have no colon behind the name.
        if file.code_text(index) != "const" || file.code_text(index + 2) != ":" {
            continue;
        }
        let end =
            (index + 3..file.code.len()).find(|at| matches!(file.code_text(*at), "=" | ">" | "," | ";"));
        let end = end.unwrap_or(index + 3);
        let is_array = file.code_text(index + 3) == "[";
        let is_item = matches!(file.code_text(end), "=" | ";") && !is_array;
        let name = file.code_text(index + 1);
        if is_item && is_listed(BOUND_TYPES, file.code_text(end - 1)) && name != "_" && !is_bound_name(name) {
            places.push(Finding::new(&file.path, file.line(index), name));
        }
    }
    places
}

/// Measures I5: bounds without a standard prefix or suffix.
pub(crate) fn measure_bounds(workspace: &Workspace) -> Measure {
    Measure::new("I5", Unit::Count, workspace.rust.iter().flat_map(bounds).collect())
}

/// Measures I6: definitions of generic type names that several modules of a crate share.
pub(crate) fn measure_generic_types(workspace: &Workspace) -> Measure {
    let mut definitions: BTreeMap<(&str, &str), Vec<Finding>> = BTreeMap::new();
    for file in workspace.rust.iter().filter(|file| file.path.starts_with("crates/")) {
        for index in 1..file.code.len() {
            let name = file.code_text(index);
            let is_type = is_listed("struct enum union trait", file.code_text(index - 1));
            if is_type && is_listed(GENERIC_TYPES, name) {
                let place = Finding::new(&file.path, file.line(index), name);
                definitions.entry((file.crate_dir(), name)).or_default().push(place);
            }
        }
    }
    let shared =
        definitions.into_values().filter(|places| places.iter().any(|place| place.file != places[0].file));
    Measure::new("I6", Unit::Count, shared.flatten().collect())
}

fn is_test_attribute(file: &RustFile, index: usize) -> bool {
    file.code_matches(index, &["#", "[", "test", "]"])
        || file.code_matches(index, &["#", "[", "tokio", ":", ":", "test"])
}

/// Name of the function behind the attributes at `index`, with its token index.
fn attributed_function(file: &RustFile, mut index: usize) -> Option<usize> {
    while file.code_text(index) == "#" {
        index = file.after_group(index + 1);
    }
    let end = (index..index + 4).find(|at| file.code_text(*at) == "fn")?;
    Some(end + 1)
}

/// Measures T1: names of test functions.
pub(crate) fn measure_test_names(workspace: &Workspace) -> Measure {
    let mut places = Vec::new();
    for file in &workspace.rust {
        for index in (0..file.code.len()).filter(|index| is_test_attribute(file, *index)) {
            let Some(at) = attributed_function(file, index) else { continue };
            let name = file.code_text(at);
            let first = name.split('_').next().unwrap_or_default();
            let is_vague = name.contains('_') && is_listed(TEST_PREFIXES, first);
            if is_vague || name.len() > MAX_TEST_NAME_LEN {
                places.push(Finding::new(&file.path, file.line(at), name));
            }
        }
    }
    Measure::new("T1", Unit::Count, places)
}

#[cfg(test)]
#[path = "identifiers_tests.rs"]
mod tests;
