//! Passwords that a shell script writes to the input of a program (`echo SECRET | passwd --stdin`).

use super::text_parts::{MASK, quoted_range};

/// Programs that read a secret from their input. Other programs say so by an option.
#[rustfmt::skip]
const READERS: &[&str] = &[
    "adcli", "base64", "chgpasswd", "chpasswd", "cryptsetup", "doas", "gocryptfs", "gpg", "gpg2", "htpasswd",
    "kinit", "ldapsearch", "md5sum", "mkpasswd", "mysql_config_editor", "openconnect", "openssl", "openvpn",
    "passwd", "pdbedit", "realm", "sha1sum", "sha256sum", "sha512sum", "smbpasswd", "ssh-add", "su",
    "systemd-creds", "veracrypt", "vncpasswd", "wg", "wpa_passphrase",
];

/// Parts of words that announce a secret in the input (`--password-stdin`, `docker secret create x -`).
const READER_WORDS: &[&str] = &["passwd", "password", "passphrase", "secret", "token", "luks", "unseal"];

/// Programs that print their arguments.
const WRITERS: &[&str] = &["echo", "printf", "yes", "print"];

/// Element of a shell script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element<'a> {
    Word(&'a str),
    Pipe,
    /// End of a command: `;`, `&`, `&&`, `||`.
    End,
    /// `(` or `{`.
    Open,
    /// `)` or `}`.
    Close,
}

/// Maximum number of commands before a pipe that are searched, so that the cost is linear.
const MAX_PIPELINE_COMMANDS: usize = 16;

/// Maximum number of words of a here document, so that the cost is linear.
const MAX_HERE_DOCUMENT_WORDS: usize = 64;

/// Masks the secrets that a script writes to the input of a program.
pub(super) fn mask_pipelines(script: &str) -> String {
    if !script.contains('|') && !script.contains("<<") {
        return script.to_owned();
    }
    let elements = split_elements(script);
    let mut masked = Vec::new();
    let mut command_start = 0;
    for index in 0..=elements.len() {
        if !matches!(elements.get(index), Some((_, Element::Word(_)))) {
            let command = &elements[command_start..index];
            if is_reader(command) {
                find_here_string(command, &mut masked);
                find_here_document(&elements[..index], command_start, &mut masked);
                find_written(&elements[..command_start], &mut masked);
            }
            command_start = index + 1;
        }
    }
    masked.sort_unstable();
    let mut out = String::with_capacity(script.len());
    let mut copied = 0;
    for (start, end) in masked {
        if start >= copied && end > start {
            out.push_str(&script[copied..start]);
            out.push_str(MASK);
            copied = end;
        }
    }
    out.push_str(&script[copied..]);
    out
}

/// Words of a command without the environment variables before its program.
fn command_words<'a>(command: &[(usize, Element<'a>)]) -> Vec<(usize, &'a str)> {
    let words = command.iter().filter_map(|&(start, element)| match element {
        Element::Word(word) => Some((start, word)),
        _ => None,
    });
    words.skip_while(|(_, word)| word.contains('=') && !word.starts_with('-')).collect()
}

fn is_reader(command: &[(usize, Element<'_>)]) -> bool {
    let mut words = command_words(command);
    // The text of a here document is no option.
    let end = words.iter().position(|(_, word)| word.starts_with("<<") && !word.starts_with("<<<"));
    words.truncate(end.unwrap_or(words.len()));
    words.iter().enumerate().any(|(index, (_, word))| {
        let name = word.rsplit('/').next().unwrap_or_default();
        let is_program = READERS.contains(&name);
        let is_sudo = index > 0 && word.starts_with('-') && !word.starts_with("--") && word.contains('S');
        let is_sudo = is_sudo && words.iter().any(|(_, word)| word.ends_with("sudo"));
        is_program || is_sudo || *word == "--stdin" || READER_WORDS.iter().any(|part| word.contains(part))
    }) && !words.first().is_some_and(|(_, word)| ["grep", "sed", "awk", "tee"].contains(word))
}

/// Finds the text of `program <<< text`.
fn find_here_string(command: &[(usize, Element<'_>)], masked: &mut Vec<(usize, usize)>) {
    let words = command_words(command);
    for (index, &(start, word)) in words.iter().enumerate() {
        match word.strip_prefix("<<<") {
            Some("") => masked.extend(words.get(index + 1).map(|&(start, word)| secret_range(start, word))),
            Some(text) => masked.push(secret_range(start + 3, text)),
            None => {}
        }
    }
}

/// Finds the text of `program <<END text END` and of `cat <<END | program text END`. The program starts at an
/// index of the elements.
fn find_here_document(elements: &[(usize, Element<'_>)], program: usize, masked: &mut Vec<(usize, usize)>) {
    let recent = elements.len().saturating_sub(MAX_HERE_DOCUMENT_WORDS);
    let mark = elements[recent..].iter().rposition(|(_, element)| {
        matches!(element, Element::Word(word) if word.starts_with("<<") && !word.starts_with("<<<"))
    });
    let Some((mark, (_, Element::Word(word)))) = mark.map(|mark| (recent + mark, elements[recent + mark]))
    else {
        return;
    };
    let end = word.trim_start_matches(['<', '-', '"', '\'', '\\']).trim_end_matches(['"', '\'']);
    // The name of the program precedes a text after a pipe.
    let text = elements[(mark + 1).max(program + usize::from(mark < program))..].iter();
    let words = text.map_while(|&(start, element)| match element {
        Element::Word(word) if word != end => Some((start, word)),
        _ => None,
    });
    masked.extend(words.map(|(start, word)| secret_range(start, word)));
}

/// Finds the texts that the commands before a pipe print.
fn find_written(before: &[(usize, Element<'_>)], masked: &mut Vec<(usize, usize)>) {
    // Only the elements before a pipe belong to the input.
    let Some(((_, Element::Pipe), mut before)) = before.split_last() else { return };
    // Number of groups whose start is not yet reached.
    let mut depth = 0_usize;
    for _ in 0..MAX_PIPELINE_COMMANDS {
        let start = before.iter().rposition(|(_, element)| !matches!(element, Element::Word(_)));
        find_printed(&before[start.map_or(0, |start| start + 1)..], masked);
        let Some(start) = start else { return };
        match before[start].1 {
            Element::Close => depth += 1,
            Element::Open if depth > 0 => depth -= 1,
            Element::Pipe => {}
            Element::End if depth > 0 => {}
            _ => return,
        }
        before = &before[..start];
    }
}

/// Finds the arguments of `echo` and of similar programs.
fn find_printed(command: &[(usize, Element<'_>)], masked: &mut Vec<(usize, usize)>) {
    let words = command_words(command);
    let Some(writer) =
        words.iter().position(|(_, word)| WRITERS.contains(&word.rsplit('/').next().unwrap_or_default()))
    else {
        return;
    };
    let is_printf = words[writer].1.ends_with("printf");
    for (index, &(start, word)) in words[writer + 1..].iter().enumerate() {
        let is_option = word.starts_with('-') && word.len() <= 3;
        // The secret can be in the format, too.
        let is_format = is_printf && index == 0 && words.len() > writer + 2 && word.contains('%');
        if !is_option && !is_format {
            masked.push(secret_range(start, word));
        }
    }
}

/// Range of the secret in a word: without its quotes, and without the user of `user:password`.
fn secret_range(start: usize, word: &str) -> (usize, usize) {
    let (first, last) = quoted_range(word).unwrap_or((0, word.len()));
    let is_user = |c: char| c.is_alphanumeric() || "._-@$".contains(c);
    let user = word[first..last].find(|c| !is_user(c)).filter(|end| word[first + end..].starts_with(':'));
    (start + first + user.map_or(0, |end| end + 1), start + last)
}

/// Splits a script into words and operators, with the position of each.
fn split_elements(script: &str) -> Vec<(usize, Element<'_>)> {
    let mut elements = Vec::new();
    let mut position = 0;
    // A quote without an end is not searched for again, so that the cost is linear.
    let mut unclosed = String::new();
    while let Some(character) = script[position..].chars().next() {
        let start = position;
        position += character.len_utf8();
        let element = match character {
            '|' if script[position..].starts_with('|') => {
                position += 1;
                Element::End
            }
            '|' => {
                position += usize::from(script[position..].starts_with('&'));
                Element::Pipe
            }
            ';' | '&' => Element::End,
            '(' => Element::Open,
            ')' => Element::Close,
            '{' if script[position..].starts_with(' ') => Element::Open,
            '}' if script[position..].starts_with([' ', '|']) => Element::Close,
            _ if character.is_whitespace() => continue,
            _ => {
                position = word_end(script, start, &mut unclosed);
                Element::Word(&script[start..position])
            }
        };
        elements.push((start, element));
    }
    elements
}

/// End of the word that starts at a position.
fn word_end(script: &str, start: usize, unclosed: &mut String) -> usize {
    let mut end = start;
    while let Some(character) = script[end..].chars().next() {
        // `2>&1` is no end of a command.
        let is_redirection = character == '&' && script[start..end].ends_with('>');
        if character.is_whitespace() || (!is_redirection && "|;&()".contains(character)) {
            break;
        }
        end += character.len_utf8();
        match character {
            '\\' => end += script[end..].chars().next().map_or(0, char::len_utf8),
            '"' | '\'' if !unclosed.contains(character) => match script[end..].find(character) {
                Some(closing) => end += closing + 1,
                None => unclosed.push(character),
            },
            _ => {}
        }
    }
    end
}
