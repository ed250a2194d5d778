//! Checks the commands in the documentation: flags and subcommands exist, addresses are routes, and programs are known.
//! `tests/it/documentation.rs` runs the blocks that are marked `sh run`.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

use serde_json::Value;
use std::path::{Path, PathBuf};

/// Other programs that occur in commands.
const PROGRAMS: &[&str] = &[
    "apt-get",
    "base64",
    "cat",
    "docker",
    "echo",
    "grep",
    "head",
    "helm",
    "install",
    "journalctl",
    "kill",
    "kubectl",
    "mkdir",
    "openssl",
    "sh",
    "systemctl",
    "umask",
];
/// Paths of a hub that are not in the API document.
const PUBLIC_PATHS: &[&str] = &["/install.sh", "/metrics", "/docs", "/"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Pages with the text of each code block of a shell.
fn shell_blocks() -> Vec<(String, String)> {
    let root = repository();
    let mut paths = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    paths.extend(pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let mut blocks = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut parts = text.split("\n```").skip(1);
        while let Some(block) = parts.next() {
            let (info, code) = block.split_once('\n').unwrap_or((block, ""));
            if info.split(' ').next() == Some("sh") {
                blocks.push((name.clone(), code.replace("\\\n", " ")));
            }
            parts.next();
        }
    }
    blocks
}

/// Simple commands of a script: splits at separators, subshells and substitutions outside of single quotes.
fn simple_commands(script: &str) -> Vec<String> {
    let mut commands = vec![String::new()];
    let (mut quote, mut chars) = (None, script.chars().peekable());
    while let Some(c) = chars.next() {
        let is_substitution = c == '$' && chars.peek() == Some(&'(');
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            ('#', None) if commands.last().is_some_and(|text| text.ends_with(' ') || text.is_empty()) => {
                while chars.next_if(|c| *c != '\n').is_some() {}
                continue;
            }
            ('|' | ';' | '&' | '\n' | ')' | '(', None) => {
                commands.push(String::new());
                continue;
            }
            _ if is_substitution && quote.is_none() => {
                chars.next();
                commands.push(String::new());
                continue;
            }
            _ => {}
        }
        commands.last_mut().unwrap().push(c);
    }
    commands.iter().map(|command| command.trim().to_owned()).filter(|command| !command.is_empty()).collect()
}

/// Reason why a command cannot work; `None` if it can.
fn problem(command: &str, routes: &[Vec<String>]) -> Option<String> {
    let Some(words) = shlex::split(command) else { return Some("unbalanced quotes".to_owned()) };
    let is_assignment = |word: &&String| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let mut words: Vec<&String> = words.iter().skip_while(is_assignment).collect();
    if words.first().is_some_and(|word| *word == "sudo") {
        words.remove(0);
        // The user of a service.
        let options = if words.first().is_some_and(|word| *word == "-u") { 2 } else { 0 };
        words.drain(..options.min(words.len()));
        // Variables of the command.
        words.drain(..words.iter().take_while(|word| is_assignment(word)).count());
    }
    if let Some(redirection) = words.iter().position(|word| word.starts_with('>') || word.starts_with('<')) {
        words.truncate(redirection);
    }
    let program = words.first()?.as_str();
    match program.rsplit('/').next().unwrap_or(program) {
        "perfwatch" => parse(crate::cli::hub_command(), &words),
        "perfwatch-agent" => parse(crate::cli::agent_command(), &words),
        "make" => {
            let makefile = std::fs::read_to_string(repository().join("Makefile")).unwrap();
            let target = words.get(1).map_or("run", |word| word.as_str());
            (!makefile.contains(&format!("\n{target}:"))).then(|| format!("no target {target}"))
        }
        "curl" | "wget" => {
            words.iter().filter(|word| word.starts_with("http")).find_map(|url| unknown_route(url, routes))
        }
        // A command in a container: `docker compose exec hub perfwatch …`.
        "docker" | "kubectl" if words.contains(&&"exec".to_owned()) => {
            let has = |text: &str| words.iter().any(|word| *word == text);
            if has("compose") && !has("-T") {
                return Some("exec without -T needs a terminal".to_owned());
            }
            let inner = words.iter().skip_while(|word| **word != "exec");
            let inner: Vec<&String> = inner.skip_while(|word| **word != "perfwatch").copied().collect();
            parse(crate::cli::hub_command(), &inner)
        }
        name => {
            let is_known = PROGRAMS.contains(&name) || repository().join(program).is_file();
            (!is_known).then(|| format!("unknown program {name}"))
        }
    }
}

fn parse(command: clap::Command, words: &[&String]) -> Option<String> {
    use clap::error::ErrorKind;
    let error = command.try_get_matches_from(words).err()?;
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    (!is_answer).then(|| error.to_string())
}

fn unknown_route(url: &str, routes: &[Vec<String>]) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let path = rest.find('/').map_or("/", |at| &rest[at..]).split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let matches = |route: &Vec<String>| {
        route.len() == parts.len()
            && route.iter().zip(&parts).all(|(route, part)| route == part || route.starts_with('{'))
    };
    let is_known = PUBLIC_PATHS.contains(&path) || routes.iter().any(matches);
    (!is_known).then(|| format!("no route {path}"))
}

fn routes() -> Vec<Vec<String>> {
    let document = std::fs::read_to_string(repository().join("openapi/perfwatch-v1.json")).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let paths = document["paths"].as_object().unwrap().keys();
    paths.map(|path| path.split('/').map(str::to_owned).collect()).collect()
}

#[test]
fn documented_commands_exist() {
    let (routes, blocks) = (routes(), shell_blocks());
    let mut problems = Vec::new();
    for (page, script) in &blocks {
        for command in simple_commands(script) {
            if let Some(problem) = problem(&command, &routes) {
                problems.push(format!("{page}: {command}: {problem}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(blocks.len() > 20, "only {} blocks", blocks.len());
}

/// Variables of a script: names after `$`.
fn used_variables(script: &str) -> impl Iterator<Item = &str> {
    let names = script.split('$').skip(1).map(|rest| rest.trim_start_matches('{'));
    let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
    names
        .map(move |rest| rest.find(|c| !is_part(c)).map_or(rest, |end| &rest[..end]))
        .filter(|name| !name.is_empty())
}

/// A reader who pastes the commands of a page in their order has every variable.
#[test]
fn documented_variables_are_set() {
    let blocks = shell_blocks();
    let mut problems = Vec::new();
    for (page, script) in &blocks {
        for name in used_variables(script) {
            let is_set = |(other, text): &(String, String)| {
                let assigns = |line: &str| line.trim_start().starts_with(&format!("{name}="));
                other == page && text.split(['\n', ';', ' ']).any(assigns)
            };
            if !blocks.iter().any(is_set) {
                problems.push(format!("{page}: {name} is never set"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(used_variables("echo \"$A\" ${B_C} $(d) $1").collect::<Vec<_>>(), ["A", "B_C"]);
}

#[test]
fn wrong_commands_are_found() {
    let routes = routes();
    for (script, expected) in [
        ("perfwatch user list --hue", "unexpected argument '--hue'"),
        ("echo x | perfwatch usr list", "unrecognized subcommand 'usr'"),
        ("T=$(perfwatch user token)", "required arguments were not provided"),
        ("sudo -u perfwatch perfwatch user lst", "unrecognized subcommand 'lst'"),
        ("perfwatch-agent --store x", "unexpected argument '--store'"),
        ("make everything", "no target everything"),
        ("curl -H 'A: b' 'http://127.0.0.1:8000/api/v1/machines?x=1'", "no route /api/v1/machines"),
        ("frobnicate", "unknown program frobnicate"),
        ("docker compose exec hub perfwatch user list", "exec without -T"),
        ("(wget -O- http://h/x.sh || exit) | sudo A=b sh", "no route /x.sh"),
        ("echo 'a", "unbalanced quotes"),
    ] {
        let found = simple_commands(script).iter().find_map(|command| problem(command, &routes));
        assert!(found.as_ref().is_some_and(|problem| problem.contains(expected)), "{script}: {found:?}");
    }
    let script =
        "A=b sudo perfwatch user list > users.txt # all\ncurl -d '{\"a\": \"|\"}' http://h/api/v1/hosts";
    assert!(simple_commands(script).iter().all(|command| problem(command, &routes).is_none()));
}
