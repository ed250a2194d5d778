//! Bounds of templates: nesting before parsing, and the size of each value while rendering.
//!
//! Fuel bounds the number of instructions, but one instruction may double a text: thirty of them take
//! gigabytes. Operations that create values are therefore replaced by functions that count, and each value
//! has a maximum size. The engine has no such limit; its compiled instructions are accessible through its
//! feature `unstable_machinery`.

use crate::template_budget::{Budget, MAX_VALUE_BYTES, too_complex};
use crate::template_namespace::{AttributeAssignment, add_namespace};
use minijinja::machinery::{CodeGenerator, Instruction, Instructions, Token, parse, tokenize};
use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, functions};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum length of a template.
pub(crate) const MAX_TEMPLATE_BYTES: usize = 20_000;
/// Maximum number of tokens per tag.
const MAX_TAG_TOKENS: usize = 400;
/// Maximum number of operators per tag, which the parser nests.
const MAX_TAG_OPERATORS: usize = 80;
/// Maximum depth of nested parentheses, brackets and braces.
const MAX_BRACKET_DEPTH: usize = 32;
/// Maximum depth of nested blocks.
const MAX_BLOCK_DEPTH: usize = 32;
/// Maximum number of `elif` of a template, which the parser nests.
const MAX_ELIFS: usize = 50;
/// Maximum depth of macros and recursive loops.
const MAX_CALL_DEPTH: usize = 32;
/// Maximum of a number that a filter receives, such as a width.
const MAX_FILTER_NUMBER: i64 = 100;
/// Maximum number of instructions per rendering.
const MAX_INSTRUCTIONS: u64 = 100_000;
/// Maximum size of the text outside of tags that a rendering may repeat.
const MAX_REPEATED_BYTES: u64 = 64 << 20;

/// Filters that are not available: their result has any size, whatever their input is.
const REMOVED_FILTERS: [&str; 6] = ["batch", "slice", "format", "pprint", "chain", "zip"];

/// Statements that nest others.
const BLOCKS: [&str; 8] = ["for", "if", "macro", "call", "filter", "with", "block", "autoescape"];

/// Instructions of a template and of its blocks.
pub(crate) struct GuardedTemplate<'s> {
    pub(crate) instructions: Instructions<'s>,
    pub(crate) blocks: BTreeMap<&'s str, Instructions<'s>>,
    assignments: &'s [AttributeAssignment],
    /// Maximum number of instructions to run.
    pub(crate) fuel: u64,
}

/// Returns whether the parser nests a token.
fn is_operator(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(name) => ["is", "not", "in", "if", "and", "or"].contains(name),
        Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => false,
        Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => false,
        Token::Comma | Token::Colon | Token::Assign => false,
        Token::ParenClose | Token::BracketClose | Token::BraceClose => false,
        _ => true,
    }
}

/// Checks a template before it is parsed, without recursion.
fn check_source(source: &str) -> Result<(), Error> {
    if source.len() > MAX_TEMPLATE_BYTES {
        return Err(too_complex(format!("template exceeds {MAX_TEMPLATE_BYTES} bytes")));
    }
    let (mut tag_tokens, mut depth, mut elifs, mut is_tag_start) = (0, 0_usize, 0, false);
    let (mut has_product, mut has_constant, mut is_attribute) = (false, false, false);
    let (mut operators, mut brackets) = (0, 0_usize);
    for token in tokenize(source, false, Default::default()) {
        // The parser reports invalid tokens with their place.
        let Ok((token, _)) = token else { return Ok(()) };
        tag_tokens += 1;
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => {
                (tag_tokens, operators, brackets) = (0, 0, 0);
                (has_product, has_constant) = (false, false);
            }
            Token::Mul => has_product = true,
            Token::Str(_) | Token::String(_) | Token::BracketOpen | Token::BraceOpen | Token::Comma => {
                has_constant = true;
            }
            Token::Pow => return Err(too_complex("the operator ** is not available".to_owned())),
            // A block that calls itself has no limit of recursion.
            Token::Ident("self") if !is_attribute => {
                return Err(too_complex("the variable self is not available".to_owned()));
            }
            Token::Ident("elif") if is_tag_start => elifs += 1,
            // `set` may have an end or not, and nests nothing.
            Token::Ident(name) if is_tag_start && BLOCKS.contains(&name) => depth += 1,
            Token::Ident(name) if is_tag_start && name.starts_with("end") => depth = depth.saturating_sub(1),
            _ => {}
        }
        match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => brackets += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                brackets = brackets.saturating_sub(1);
            }
            _ => {}
        }
        if brackets > MAX_BRACKET_DEPTH {
            return Err(too_complex(format!("more than {MAX_BRACKET_DEPTH} nested brackets")));
        }
        operators += usize::from(is_operator(&token));
        is_tag_start = matches!(token, Token::BlockStart);
        is_attribute = matches!(token, Token::Dot);
        if depth > MAX_BLOCK_DEPTH || elifs > MAX_ELIFS {
            return Err(too_complex(format!(
                "more than {MAX_BLOCK_DEPTH} nested blocks or {MAX_ELIFS} elif"
            )));
        }
        // The compiler computes constant products, which may be texts and lists of any size.
        if has_product && has_constant {
            let advice = "assign the number to a variable first";
            return Err(too_complex(format!("a tag with * contains a text, list or comma; {advice}")));
        }
        if tag_tokens > MAX_TAG_TOKENS || operators > MAX_TAG_OPERATORS {
            let limits = format!("{MAX_TAG_TOKENS} parts or {MAX_TAG_OPERATORS} operators");
            return Err(too_complex(format!("a tag has more than {limits}")));
        }
    }
    Ok(())
}

/// Compiles a template whose operations count their results. The names of its assignments are kept in
/// `assignments`.
///
/// # Errors
/// Returns the error of the parser, or the limit that the template exceeds.
pub(crate) fn compile<'s>(
    source: &'s str,
    assignments: &'s OnceCell<Vec<AttributeAssignment>>,
) -> Result<GuardedTemplate<'s>, Error> {
    check_source(source)?;
    let statements = parse(source, "<string>", Default::default())?;
    let mut generator = CodeGenerator::new("<string>", source);
    generator.compile_stmt(&statements);
    let (mut instructions, mut blocks) = generator.finish();
    let all = || std::iter::once(&instructions).chain(blocks.values());
    let assignments = assignments.get_or_init(|| {
        let found: BTreeSet<_> = all().flat_map(find_assignments).collect();
        found.into_iter().map(|(variable, attribute)| AttributeAssignment::new(variable, attribute)).collect()
    });
    let mut longest = instrument(&mut instructions, assignments)?;
    for block in blocks.values_mut() {
        longest = longest.max(instrument(block, assignments)?);
    }
    let repeats = MAX_REPEATED_BYTES / (longest as u64).max(1);
    Ok(GuardedTemplate { instructions, blocks, assignments, fuel: repeats.min(MAX_INSTRUCTIONS) })
}

/// Variables and attributes that instructions assign.
fn find_assignments<'s>(instructions: &Instructions<'s>) -> Vec<(&'s str, &'s str)> {
    let pairs = (1_u32..).map_while(|index| Some((instructions.get(index - 1)?, instructions.get(index)?)));
    pairs
        .filter_map(|pair| match pair {
            (Instruction::Lookup(variable), Instruction::SetAttr(attribute)) => Some((*variable, *attribute)),
            _ => None,
        })
        .collect()
}

/// Replaces operations that create values by functions of [`add_functions`]; a template cannot name them.
/// Returns the length of the longest text outside of tags.
fn instrument<'s>(
    instructions: &mut Instructions<'s>,
    assignments: &'s [AttributeAssignment],
) -> Result<usize, Error> {
    let (mut index, mut longest) = (0, 0);
    while let Some(instruction) = instructions.get(index).cloned() {
        index += 1;
        let count = |count: usize| {
            u16::try_from(count).map(Some).map_err(|_| too_complex("too many elements".to_owned()))
        };
        let replacement = match instruction {
            Instruction::EmitRaw(text) => {
                longest = longest.max(text.len());
                continue;
            }
            Instruction::Lookup(variable) => {
                let Some(Instruction::SetAttr(attribute)) = instructions.get(index) else { continue };
                let expected = AttributeAssignment::new(variable, attribute);
                let Some(assignment) = assignments.iter().find(|found| **found == expected) else { continue };
                set(instructions, index, Instruction::DiscardTop);
                Instruction::CallFunction(&assignment.function, Some(1))
            }
            Instruction::StringConcat => Instruction::CallFunction("concat ", Some(2)),
            Instruction::Add => Instruction::CallFunction("add ", Some(2)),
            Instruction::Mul => Instruction::CallFunction("multiply ", Some(2)),
            Instruction::Slice => Instruction::CallFunction("slice ", Some(4)),
            Instruction::BuildList(Some(items)) | Instruction::BuildTuple(Some(items)) => {
                Instruction::CallFunction("list ", count(items)?)
            }
            Instruction::BuildMap(pairs) => Instruction::CallFunction("map ", count(pairs * 2)?),
            // The engine divides by the number of arguments.
            Instruction::CallMethod("cycle", Some(1)) => {
                return Err(too_complex("cycle needs a value".to_owned()));
            }
            Instruction::SetAttr(_) => {
                return Err(too_complex("only attributes of variables are assigned".to_owned()));
            }
            Instruction::BuildList(None)
            | Instruction::BuildTuple(None)
            | Instruction::UnpackLists(_)
            | Instruction::Pow => {
                return Err(too_complex("the operators * and ** are not available for calls".to_owned()));
            }
            _ => continue,
        };
        set(instructions, index - 1, replacement);
    }
    Ok(longest)
}

fn set<'s>(instructions: &mut Instructions<'s>, index: u32, replacement: Instruction<'s>) {
    if let Some(instruction) = instructions.get_mut(index) {
        *instruction = replacement;
    }
}

fn defined(value: &Value) -> Result<&Value, Error> {
    if value.is_undefined() { Err(Error::from(ErrorKind::UndefinedError)) } else { Ok(value) }
}

/// Arguments of a function, the named arguments last. The called function checks their names.
fn all_arguments(args: Rest<Value>, named: &Kwargs) -> Vec<Value> {
    let has_named = named.args().next().is_some();
    named.args().for_each(|name| drop(named.get::<Value>(name)));
    args.0.into_iter().chain(has_named.then(|| Value::from(named.clone()))).collect()
}

/// Adds the functions that replace operations of the engine.
fn add_functions(environment: &mut Environment<'_>, budget: &Budget) {
    let counted = budget.clone();
    environment.add_function("concat ", move |a: &Value, b: &Value| {
        counted.count(defined(a)?.clone())?;
        counted.count(defined(b)?.clone())?;
        counted.count(Value::from(format!("{a}{b}")))
    });
    let counted = budget.clone();
    environment.add_function("add ", move |a: &Value, b: &Value| {
        match (i64::try_from(a.clone()), i64::try_from(b.clone())) {
            (Ok(a), Ok(b)) => Ok(Value::from(a.saturating_add(b))),
            _ => {
                counted.count(defined(a)?.clone())?;
                counted.count(defined(b)?.clone())?;
                match (a.as_str(), b.as_str()) {
                    (Some(a), Some(b)) => counted.count(Value::from(format!("{a}{b}"))),
                    _ => match (f64::try_from(a.clone()), f64::try_from(b.clone())) {
                        (Ok(a), Ok(b)) => Ok(Value::from(a + b)),
                        _ => counted.count(a.try_iter()?.chain(b.try_iter()?).collect()),
                    },
                }
            }
        }
    });
    environment.add_function("multiply ", |a: &Value, b: &Value| {
        match (i64::try_from(defined(a)?.clone()), i64::try_from(defined(b)?.clone())) {
            (Ok(a), Ok(b)) => Ok(Value::from(a.saturating_mul(b))),
            _ => Ok(Value::from(f64::try_from(a.clone())? * f64::try_from(b.clone())?)),
        }
    });
    let counted = budget.clone();
    environment.add_function("dict", move |state: &mut State<'_, '_>, args: Rest<Value>, named: Kwargs| {
        let args = all_arguments(args, &named);
        args.iter().try_for_each(|value| counted.count(value.clone()).map(drop))?;
        counted.count(Value::from_function(functions::dict).call(state, &args)?)
    });
    let counted = budget.clone();
    environment.add_function("list ", move |items: Rest<Value>| counted.count(Value::from(items.0)));
    let counted = budget.clone();
    environment.add_function("map ", move |items: Rest<Value>| {
        let pairs = items.0.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        counted.count(Value::from_object(pairs.collect::<BTreeMap<Value, Value>>()))
    });
    let counted = budget.clone();
    environment.add_function("slice ", move |value: &Value, start: Value, stop: Value, step: Value| {
        let value = counted.count(defined(value)?.clone())?;
        counted.count(slice(&value, &start, &stop, &step)?)
    });
}

/// Part of a text or list, as in Python. Only forward.
fn slice(value: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    let number = |value: &Value, default: i64| match value.is_none() {
        true => Ok(default),
        false => i64::try_from(value.clone()),
    };
    let step = usize::try_from(number(step, 1)?).ok().filter(|step| *step > 0);
    let step = step.ok_or_else(|| too_complex("the step of a slice must be positive".to_owned()))?;
    let (start, stop) = (number(start, 0)?, number(stop, i64::MAX)?);
    let range = |len: usize| {
        let index = |at: i64| match usize::try_from(at) {
            Ok(at) => at.min(len),
            Err(_) => len.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX)),
        };
        let start = index(start);
        (start, index(stop).saturating_sub(start))
    };
    if let Some(text) = value.as_str() {
        let (start, len) = range(text.chars().count());
        return Ok(Value::from(text.chars().skip(start).take(len).step_by(step).collect::<String>()));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    let (start, len) = range(items.len());
    Ok(items.into_iter().skip(start).take(len).step_by(step).collect())
}

/// Filters of the engine whose results are counted.
fn builtin_filters() -> Vec<(&'static str, Value)> {
    macro_rules! filters {
        ($($name:ident),*) => { vec![$((stringify!($name), Value::from_function(filters::$name))),*] };
    }
    filters!(
        capitalize, default, dictsort, first, groupby, indent, items, join, last, lines, list, lower, map,
        max, min, reject, rejectattr, replace, reverse, select, selectattr, sort, split, string, sum, title,
        tojson, trim, unique, upper
    )
}

/// Size of the result of a filter that repeats an argument.
fn repeated_bytes(name: &str, args: &[Value]) -> usize {
    let text = |index: usize| args.get(index).map(ToString::to_string).unwrap_or_default();
    match name {
        "replace" => {
            let (value, from, to) = (text(0), text(1), text(2));
            value.len().saturating_add(value.matches(&from).count().saturating_mul(to.len()))
        }
        "join" => {
            let items = args.first().and_then(Value::len).unwrap_or_else(|| text(0).len());
            items.saturating_mul(text(1).len())
        }
        _ => 0,
    }
}

/// Returns whether a filter receives a large number, alone or as a named argument.
fn has_large_number(args: &[Value]) -> bool {
    let is_large =
        |value: &Value| i64::try_from(value.clone()).is_ok_and(|number| number > MAX_FILTER_NUMBER);
    let is_large_in = |value: &Value| {
        value.is_kwargs()
            && value.try_iter().is_ok_and(|mut keys| {
                keys.any(|key| value.get_item(&key).is_ok_and(|value| is_large(&value)))
            })
    };
    args.iter().skip(1).any(|value| value.is_number() && is_large(value) || is_large_in(value))
}

/// Bounds the filters of an environment, and adds the functions of the instrumentation.
pub(crate) fn restrict(environment: &mut Environment<'_>, template: &GuardedTemplate<'_>, budget: &Budget) {
    environment.set_recursion_limit(MAX_CALL_DEPTH);
    REMOVED_FILTERS.into_iter().for_each(|name| environment.remove_filter(name));
    environment.remove_global("debug");
    // The test of the engine divides by zero.
    environment.add_test("divisibleby", |value: i64, by: i64| value.checked_rem(by) == Some(0));
    for (name, filter) in builtin_filters() {
        let budget = budget.clone();
        let call = move |state: &mut State<'_, '_>, args: Rest<Value>, named: Kwargs| {
            let args = all_arguments(args, &named);
            for value in &args {
                budget.count(value.clone())?;
            }
            if repeated_bytes(name, &args) > MAX_VALUE_BYTES || has_large_number(&args) {
                return Err(too_complex(format!("the result of the filter {name} is too large")));
            }
            budget.count(filter.call(state, &args)?)
        };
        if name == "default" {
            environment.add_filter("d", call.clone());
        }
        environment.add_filter(name, call);
    }
    add_functions(environment, budget);
    add_namespace(environment, budget);
    template.assignments.iter().for_each(|assignment| assignment.add_function(environment, budget));
}

#[cfg(test)]
mod tests {
    use crate::template::render;
    use perfwatch_rules::hostile::hostile_notification;
    use perfwatch_rules::incident::NotificationReason;

    /// Finding M6: templates that take gigabytes or the stack. Each ends with an error, on a stack of
    /// 256 KiB.
    #[test]
    fn hostile_templates_are_refused() {
        let doubled = "{% set a = a ~ a %}".repeat(60);
        let templates = [
            format!("{{% set a = 'x' %}}{doubled}{{{{ a|length }}}}"),
            format!("{{% set a = title %}}{}{{{{ a|length }}}}", "{% set a = a + a %}".repeat(60)),
            "{% set n = namespace(a='x') %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}".to_owned(),
            "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('x') }}".to_owned(),
            "{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m('x') }}".to_owned(),
            "{% set n = namespace(a=[]) %}{% for i in range(9000) %}{% set n.a = [n.a] %}{% endfor %}".to_owned(),
            "{% set n = namespace(a=[1]) %}{% for i in range(90) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a == n.a }}".to_owned(),
            "{{ 'x' * 100000000 }}".to_owned(),
            "{{ ('x' * 99999999) ~ ('x' * 99999999) }}".to_owned(),
            "{{ 2 ** 2 ** 2 ** 99 }}".to_owned(),
            "{{ 'x'|indent(1000000000, true) }}".to_owned(),
            "{{ 'x'|indent(width=1000000000) }}".to_owned(),
            "{{ [[[1]]]|tojson(indent=100000000) }}".to_owned(),
            "{{ '%1000000000d'|format(1) }}".to_owned(),
            "{{ [1]|batch(1000000000, 'x') }}".to_owned(),
            "{{ title|replace('', title)|replace('', title) }}".to_owned(),
            "{{ range(99999)|join(title) }}".to_owned(),
            "{{ [range(99999)]|map('join', title)|list }}".to_owned(),
            "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}".to_owned(),
            format!("{{% set x %}}{{% for i in range(99999) %}}{}{{% endfor %}}{{% endset %}}", "y".repeat(19_000)),
            "{% set x %}{% for i in range(99999) %}{{ title }}{% endfor %}{% endset %}".to_owned(),
            "{% for i in range(99999) %}{{ title }}{% endfor %}".to_owned(),
            format!("{{{{ {}1{} }}}}", "(".repeat(9_000), ")".repeat(9_000)),
            format!("{{{{ {}1{} }}}}", "[".repeat(9_000), "]".repeat(9_000)),
            format!("{{{{ {}1 }}}}", "not ".repeat(4_000)),
            format!("{{{{ {}1 }}}}", "-".repeat(9_000)),
            format!("{{{{ a{} }}}}", ".b".repeat(9_000)),
            format!("{{{{ title{} }}}}", "|upper".repeat(3_000)),
            format!("{{{{ title{} }}}}", "~title".repeat(3_000)),
            format!("{{{{ 1{} }}}}", " is odd".repeat(190)),
            format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(1_500)),
            format!("{}{}", "{% if 1 %}".repeat(900), "{% endif %}".repeat(900)),
            format!("{}{}", "{% for i in [1] %}".repeat(600), "{% endfor %}".repeat(600)),
            format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(1_500)),
            "{% for i in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}".to_owned(),
            "{% block a %}{% set a = title %}".to_owned() + &"{% set a = a ~ a %}".repeat(60) + "{% endblock %}",
            "{% set a = title[:] %}{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = n.l + [title[:]] %}{% endfor %}".to_owned(),
            "{% set n = namespace(a=1) %}{% for i in range(9000) %}{% set n.a = namespace(a=n.a) %}{% endfor %}".to_owned(),
            "{% set n = namespace(a=1) %}{% for i in range(9000) %}{% set n.a = dict(a=n.a) %}{% endfor %}".to_owned(),
            format!("{{% set a = 1 %}}{}", "{% set a = dict(a=a) %}".repeat(800)),
            format!("{{% set a = (1,) %}}{}", "{% set a = (a, a) %}".repeat(900)),
            "{% set x = 'x' %}{{ x * 100000000 }}".to_owned(),
            "{% set x = [1] %}{{ x * 100000000 }}".to_owned(),
            "{{ (1, 2) * 50000000 }}".to_owned(),
            "{% block a %}{{ self.a() }}{% endblock %}".to_owned(),
            format!("{{% set {}a{} = 1 %}}", "(".repeat(190), ")".repeat(190)),
            "{% for a in [1] %}{{ loop.cycle() }}{% endfor %}".to_owned(),
            "x".repeat(20_001),
        ];
        let run = move || {
            let notification = hostile_notification(NotificationReason::Opened);
            for template in &templates {
                let start = &template[..template.floor_char_boundary(60)];
                let result = render(template, &notification);
                assert!(result.is_err(), "{start}: {} bytes", result.unwrap().len());
            }
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
    }

    #[test]
    fn honest_templates_keep_their_results() {
        let mut notification = hostile_notification(NotificationReason::Opened);
        notification.subject = "web-1: High CPU usage".to_owned();
        for (template, expected) in [
            (
                "{{ subject[:5] }}|{{ subject[-5:] }}|{{ subject[5:7] }}|{{ [1, 2, 3][1:]|join(',') }}",
                "web-1|usage|: |2,3",
            ),
            (
                "{{ 1 + 2 }} {{ 'a' + 'b' }} {{ 'a' ~ 1 }} {{ ([1] + [2])|length }} {{ 1.5 + 1 }}",
                "3 ab a1 2 2.5",
            ),
            ("{% set x = {'a': 1, 'b': [2, 3]} %}{{ x.a }}{{ x.b[1] }}{{ (1, 2)|last }}", "132"),
            ("{{ alerts|map(attribute='severity')|join(', ') }}", "critical, critical"),
            ("{% for a in alerts %}{{ loop.index }}{% endfor %}{{ alerts|length }}", "122"),
            ("{{ subject|replace('web', 'db')|upper|indent(2) }}", "DB-1: HIGH CPU USAGE"),
            ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('a') }}{{ nothing|default('-') }}", "<a>-"),
            (
                "{{ 5 is divisibleby(0) }} {{ 6 is divisibleby(3) }}{% block a %} b{% endblock %}",
                "False True b",
            ),
            ("{% for a in alerts %}{{ loop.cycle('a', 'b') }}{% endfor %}", "ab"),
            ("{% set x = 1.5 %}{{ (x + 1) * 100 }} {{ 2 * 3 }} {{ alerts|length * 2 }}", "250.0 6 4"),
            (
                "{% set n = namespace(a=0) %}{% for a in alerts %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}",
                "2",
            ),
            ("{{ dict(a=1).a }}{% set n = namespace() %}{% set n.x = {'b': [7]} %}{{ n.x.b[0] }}", "17"),
            ("{% set t %}<{{ severity }}>{% endset %}{{ t }}{{ 'a' in t }}", "<critical>True"),
        ] {
            assert_eq!(render(template, &notification).as_deref(), Ok(expected), "{template}");
        }
    }
}
