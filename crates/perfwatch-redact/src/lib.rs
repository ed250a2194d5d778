//! Command lines of processes with secrets masked, for snapshots and captures.
//!
//! Masking knows the names of secrets, the forms of secrets inside a text, and programs with options such
//! as `mysql -pSECRET`. It prefers to mask too much over showing a secret.

mod addresses;
mod forms;
mod pipelines;
mod programs;
mod secret_names;
mod secret_text;
mod statements;
mod text_parts;
mod tokens;

use addresses::is_webhook;
use forms::{mask_data_source, mask_form, mask_login};
use perfwatch_model::limits::MAX_COMMAND_CHARS;
use pipelines::mask_pipelines;
use programs::{Program, SecretArgument, SecretForm, SecretOption, ValuePosition, find_program};
use secret_names::{NameKind, classify, is_key_header};
use secret_text::mask_text;
use text_parts::{MASK, is_name_character};

/// Maximum length of an argument that is searched for secrets. Only the first [`MAX_COMMAND_CHARS`] of the
/// result are used, but the end of a URL decides whether its start contains a password.
const MAX_ARGUMENT_BYTES: usize = 64 << 10;

/// Long options whose value names a host or user, which can be called like a program
/// (`docker run --name mongo -p 27017:27017`).
const NAMING_OPTIONS: &[&str] =
    &["--name", "--hostname", "--host", "-h", "--network", "--network-alias", "--net", "--link"];

/// Separators between a name and its value, the longest first.
const SEPARATORS: &[&str] = &["=>", ":=", "=", ":"];

/// Options of a single dash that are no cluster of letters.
const WORD_OPTIONS: &[&str] = &["-pass", "-passphrase", "-passwd", "-password", "-passwords"];

/// Words before the name of a setting, whose value is the next word.
const SETTERS: &[&str] = &["set", "--set", "config", "--global"];

/// Options of Windows with a secret in the next argument.
const SLASH_OPTIONS: &[&str] = &["/pass", "/passwd", "/password", "/pwd"];

/// Maximum number of command lines inside each other (`sh -c "sh -c '…'"`).
const MAX_NESTED_SCRIPTS: usize = 4;

/// Joins the arguments of `/proc/PID/cmdline` with spaces, without masking.
pub fn unmasked(cmdline: &[u8]) -> String {
    truncate(&split_arguments(cmdline).collect::<Vec<_>>().join(" "))
}

/// Joins the arguments of `/proc/PID/cmdline` with spaces and replaces secrets by `***`.
pub fn mask_secrets(cmdline: &[u8]) -> String {
    let mut masker = Masker::default();
    let mut out = String::new();
    for (index, argument) in split_arguments(cmdline).enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push_str(&masker.mask_argument(&argument, index == 0));
        // The remaining arguments are cut off. The comparison counts bytes, at most four per character.
        if out.len() > MAX_COMMAND_CHARS * 4 {
            break;
        }
    }
    truncate(&out)
}

fn split_arguments(cmdline: &[u8]) -> impl Iterator<Item = String> {
    let arguments = cmdline.split(|&byte| byte == 0).map(|argument| {
        let argument = &argument[..argument.len().min(MAX_ARGUMENT_BYTES)];
        String::from_utf8_lossy(argument).trim().replace(|c: char| c.is_control(), " ")
    });
    arguments.filter(|argument| !argument.trim().is_empty())
}

fn truncate(command: &str) -> String {
    match command.char_indices().nth(MAX_COMMAND_CHARS) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command.to_owned(),
    }
}

/// Secret that is expected in the next word.
#[derive(Debug, Clone, Copy)]
struct PendingSecret {
    form: SecretForm,
    /// False if the option may have no value, so that a following option is not its value.
    has_value: bool,
}

/// State of masking between the words of a command line.
#[derive(Debug, Default)]
struct Masker {
    /// Latest known program: that of `sudo`, `docker exec` or `sh -c` too.
    program: Option<&'static Program>,
    pending: Option<PendingSecret>,
    /// Number of arguments until the arguments of the program are secrets, and the form of those.
    until_secret: Option<(usize, SecretForm)>,
    has_subcommand: bool,
    /// True after the subcommand from which on names are followed by their values.
    has_named: bool,
    /// True if the options of `htpasswd` contain `n`, which leaves out the name of the file.
    has_no_file: bool,
    /// Previous word, unless it was masked.
    previous: String,
    /// Number of scripts around the current word.
    depth: usize,
}

impl Masker {
    /// Masks an argument. The first argument can be the title of a process, with all its words.
    fn mask_argument(&mut self, argument: &str, is_title: bool) -> String {
        if !argument.contains(char::is_whitespace) {
            return self.mask_word(argument);
        }
        if let Some(pending) = self.pending.take()
            && (pending.has_value || !argument.starts_with('-'))
        {
            self.previous.clear();
            return mask_form(argument, pending.form);
        }
        // A single word with spaces (`-pmy secret`), or else several words.
        if !is_title && let Some(masked) = self.mask_option(argument) {
            self.previous.clear();
            return masked;
        }
        // `-c` and clusters such as `-lc` precede a script, where a space ends the value of a variable.
        let is_script = self.previous.starts_with('-') && self.previous.ends_with('c');
        let text = mask_text(&mask_pipelines(argument), !is_title && !is_script);
        self.mask_script(&text)
    }

    /// Masks the words of a text that can contain a command line.
    fn mask_script(&mut self, text: &str) -> String {
        self.depth += 1;
        let mut out = String::with_capacity(text.len());
        for (space, word) in split_words(text) {
            out.push_str(space);
            let quote = word.chars().next().filter(|c| word.len() > 1 && matches!(c, '"' | '\''));
            let inner = quote.and_then(|quote| word.strip_prefix(quote)?.strip_suffix(quote));
            match (quote, inner) {
                (Some(quote), Some(inner)) if self.depth < MAX_NESTED_SCRIPTS => {
                    out.push(quote);
                    out.push_str(&self.mask_argument(inner, false));
                    out.push(quote);
                }
                _ => out.push_str(&self.mask_word(word)),
            }
        }
        self.depth -= 1;
        out
    }

    fn mask_word(&mut self, word: &str) -> String {
        if SEPARATORS.contains(&word) && (self.pending.is_some() || self.is_name(&self.previous, word)) {
            self.pending.get_or_insert(PendingSecret { form: SecretForm::Whole, has_value: false });
            return word.to_owned();
        }
        if let Some(pending) = self.pending.take()
            && (pending.has_value || !word.starts_with('-'))
        {
            self.previous.clear();
            return mask_form(word, pending.form);
        }
        let masked = if let Some(masked) = self.mask_option(word) {
            masked
        } else if word.starts_with('-') {
            mask_text(word, true)
        } else {
            self.mask_operand(word)
        };
        if self.pending.is_none()
            && let Some(separator) = SEPARATORS.iter().find(|separator| word.ends_with(**separator))
            && masked == word
            && self.is_name(&word[..word.len() - separator.len()], separator)
            && !self.is_empty_variable(word)
        {
            self.pending = Some(PendingSecret { form: SecretForm::Whole, has_value: false });
        }
        word.clone_into(&mut self.previous);
        masked
    }

    /// Returns whether a text before a separator is a secret name without a value, so that the value is the
    /// next word. Inside an argument, `mask_text` handles colons.
    fn is_name(&self, text: &str, separator: &str) -> bool {
        let name = text.trim_start_matches(['-', '{', '"', '\'']).trim_end_matches(['"', '\'']);
        let is_colon = separator == ":";
        if !name.chars().all(is_name_character) || (is_colon && self.depth > 0) {
            return false;
        }
        match classify(name) {
            NameKind::Secret => true,
            NameKind::Weak => !is_colon,
            NameKind::Phrase => false,
            NameKind::Harmless => is_colon && is_key_header(name),
        }
    }

    /// Returns whether a word assigns an empty value to a variable (`PASSWORD= ./run`).
    fn is_empty_variable(&self, word: &str) -> bool {
        let is_constant = !word.contains(|c: char| c.is_lowercase());
        word.ends_with('=') && !word.starts_with('-') && (is_constant || self.depth > 0)
    }

    /// Masks an option whose value is secret, or expects its value in the next word.
    fn mask_option(&mut self, word: &str) -> Option<String> {
        self.program_option(word).or_else(|| self.general_option(word))
    }

    fn program_option(&mut self, word: &str) -> Option<String> {
        let program = self.program?;
        self.observe_flag(program, word);
        let is_active = |option: &&SecretOption| {
            option.form == SecretForm::Nothing || program.subcommand.is_empty() || self.has_subcommand
        };
        let (option, value_start) = program
            .options
            .iter()
            .filter(is_active)
            .find_map(|option| Some((option, option_end(program, option, word)?)))?;
        let (name, value) = word.split_at(value_start);
        if value.is_empty() {
            if option.position != ValuePosition::Attached {
                self.pending = Some(PendingSecret { form: option.form, has_value: true });
            }
            return Some(word.to_owned());
        }
        Some(format!("{name}{}", mask_form(value, option.form)))
    }

    fn observe_flag(&mut self, program: &Program, word: &str) {
        let letters = word.strip_prefix('-').filter(|letters| !letters.starts_with('-')).unwrap_or_default();
        for argument in program.arguments {
            if let SecretArgument::Flag(letter, count) = *argument {
                self.has_no_file |= letters.contains('n');
                if letters.contains(letter) || self.until_secret == Some((count, SecretForm::Whole)) {
                    self.until_secret = Some((count - usize::from(self.has_no_file), SecretForm::Whole));
                }
            }
        }
    }

    /// Handles the options that have the same meaning for most programs.
    fn general_option(&mut self, word: &str) -> Option<String> {
        let is_login = |name: &str| name == "--user" || (name.starts_with('-') && name.ends_with("-login"));
        if word == "-u" || is_login(word) {
            self.pending = Some(PendingSecret { form: SecretForm::User, has_value: false });
            return Some(word.to_owned());
        }
        if let Some((name, value)) = word.split_once('=').filter(|(name, _)| is_login(name)) {
            return Some(format!("{name}={}", mask_form(value, SecretForm::User)));
        }
        if SLASH_OPTIONS.iter().any(|option| word.eq_ignore_ascii_case(option)) {
            self.pending = Some(PendingSecret { form: SecretForm::Whole, has_value: false });
            return Some(word.to_owned());
        }
        if word == "--proxy" {
            self.pending = Some(PendingSecret { form: SecretForm::BeforeHost, has_value: false });
            return Some(word.to_owned());
        }
        let is_name = word.starts_with('-') && word.len() > 2 && !word.contains(['=', ':', ' ', '/']);
        let form = match classify(word) {
            _ if !is_name => return None,
            NameKind::Harmless if is_webhook(word) => SecretForm::Path,
            NameKind::Harmless => return None,
            NameKind::Weak => SecretForm::Unless('/'),
            NameKind::Phrase => SecretForm::Phrase,
            NameKind::Secret => SecretForm::Whole,
        };
        self.pending = Some(PendingSecret { form, has_value: false });
        Some(word.to_owned())
    }

    /// Masks a word that is not an option: the name of a program or an argument.
    fn mask_operand(&mut self, word: &str) -> String {
        let is_operator = matches!(word, "&&" | "||" | "|" | "&" | ";");
        let text = match self.program.filter(|_| self.until_secret.is_some() && !is_operator) {
            Some(program) => self.mask_program_argument(program, word),
            None => mask_text(word, true),
        };
        if self.until_secret.is_none() || is_operator {
            if text != word {
                return text;
            }
            if word.eq_ignore_ascii_case("bearer") {
                self.pending = Some(PendingSecret { form: SecretForm::Whole, has_value: false });
                return text;
            }
            let name = word.trim_start_matches(['(', '{', '`', '$', '"', '\'']);
            let is_setting = SETTERS.contains(&self.previous.as_str())
                && classify(word) == NameKind::Secret
                && word.chars().all(|c| is_name_character(c) || c == ':');
            if is_operator {
                self.enter_program(None);
            } else if !is_setting
                && !NAMING_OPTIONS.contains(&self.previous.as_str())
                && let Some(program) = find_program(name)
            {
                self.enter_program(Some(program));
            } else {
                let masked = self.program.map(|program| self.mask_program_argument(program, word));
                if is_setting && self.until_secret.is_none() {
                    self.pending = Some(PendingSecret { form: SecretForm::Whole, has_value: false });
                }
                if let Some(masked) = masked {
                    return masked;
                }
            }
        }
        if word.ends_with(';') {
            self.enter_program(None);
        }
        text
    }

    fn enter_program(&mut self, program: Option<&'static Program>) {
        self.program = program;
        self.has_subcommand = false;
        self.has_named = false;
        self.has_no_file = false;
        let arguments = program.map_or(&[] as &[SecretArgument], |program| program.arguments);
        self.until_secret = arguments.iter().find_map(|argument| match argument {
            SecretArgument::After(count) => Some((*count, SecretForm::Whole)),
            _ => None,
        });
    }

    fn mask_program_argument(&mut self, program: &Program, word: &str) -> String {
        self.has_subcommand |= program.subcommand.split(' ').any(|subcommand| subcommand == word);
        match self.until_secret {
            Some((0, form)) => return mask_form(word, form),
            Some((count, form)) => {
                self.until_secret = Some((count - 1, form));
                return mask_text(word, true);
            }
            None => {}
        }
        for argument in program.arguments {
            match *argument {
                SecretArgument::Subcommand(names, count) if self.is_subcommand(names, word) => {
                    self.until_secret = Some((count, SecretForm::Whole));
                    break;
                }
                SecretArgument::Values(names, count) if self.is_subcommand(names, word) => {
                    self.until_secret = Some((count, SecretForm::After('=')));
                    break;
                }
                SecretArgument::Users(names, count) if self.is_subcommand(names, word) => {
                    self.until_secret = Some((count, SecretForm::After(':')));
                    break;
                }
                SecretArgument::Login if !word.starts_with(['/', '@', '.']) => return mask_login(word),
                SecretArgument::Named(subcommand) => {
                    self.has_named |= subcommand.is_empty() || word == subcommand;
                    let is_secret = classify(word) != NameKind::Harmless && !word.contains(['"', ',', '=']);
                    if self.has_named && is_secret {
                        self.pending = Some(PendingSecret { form: SecretForm::Whole, has_value: false });
                    }
                }
                SecretArgument::Share if self.previous.starts_with("//") => return MASK.to_owned(),
                SecretArgument::DataSource => return mask_data_source(word),
                _ => {}
            }
        }
        word.to_owned()
    }

    /// Returns whether a word, with the previous word if necessary, is one of the subcommands.
    fn is_subcommand(&self, names: &[&str], word: &str) -> bool {
        names.iter().any(|name| match name.split_once(' ') {
            Some((first, second)) => self.previous == first && word == second,
            None => word.eq_ignore_ascii_case(name),
        })
    }
}

/// Returns the index in the word at which the value of an option starts, or `None` for another option.
fn option_end(program: &Program, option: &SecretOption, word: &str) -> Option<usize> {
    if word == option.name {
        return Some(word.len());
    }
    if option.position == ValuePosition::Separate && option.name.len() > 2 {
        return None;
    }
    if option.name.starts_with("--") {
        return word.strip_prefix(option.name)?.starts_with('=').then_some(option.name.len() + 1);
    }
    // Some programs have `-p` and `-password`.
    if word.starts_with("--") || WORD_OPTIONS.contains(&word) {
        return None;
    }
    let letters = option.name.strip_prefix('-').filter(|letters| letters.len() == 1);
    let end = match letters {
        Some(letter) => {
            let value = word.strip_prefix('-')?.trim_start_matches(|c| program.flags.contains(c));
            word.len() - value.strip_prefix(letter)?.len()
        }
        // `-encrypt=VALUE` and `-encrypt VALUE`, but not `-encrypt-verify`.
        None => match word.strip_prefix(option.name)? {
            "" => word.len(),
            value if value.starts_with('=') => option.name.len() + 1,
            _ if option.position == ValuePosition::Attached => option.name.len(),
            _ => return None,
        },
    };
    let is_allowed = option.position != ValuePosition::Separate || end == word.len();
    is_allowed.then_some(end)
}

/// Splits a text at spaces outside of quotes; each word has the space before it. A quote without an end,
/// such as an apostrophe, is an ordinary character.
fn split_words(text: &str) -> Vec<(&str, &str)> {
    let mut words = Vec::new();
    let mut remaining = text;
    loop {
        let trimmed = remaining.trim_start();
        if trimmed.is_empty() {
            return words;
        }
        let space = &remaining[..remaining.len() - trimmed.len()];
        let mut end = 0;
        // A quote without an end is not searched for again, so that the cost is linear.
        let mut unclosed = String::new();
        while let Some(character) = trimmed[end..].chars().next().filter(|c| !c.is_whitespace()) {
            end += character.len_utf8();
            if matches!(character, '"' | '\'') && !unclosed.contains(character) {
                match trimmed[end..].find(character) {
                    Some(closing) => end += closing + 1,
                    None => unclosed.push(character),
                }
            }
        }
        words.push((space, &trimmed[..end]));
        remaining = &trimmed[end..];
    }
}

#[cfg(test)]
mod tests;
