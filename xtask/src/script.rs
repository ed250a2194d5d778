//! Tokenizer for TypeScript and for the sections of Vue components.

/// Class of a script token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScriptKind {
    /// Identifier or keyword of TypeScript.
    Ident,
    /// Content of a string literal or of a chunk of a template literal.
    Text,
    /// Single punctuation character of TypeScript.
    Punct,
}

/// Token of a script with its source text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScriptToken<'a> {
    /// Class of the token.
    pub(crate) kind: ScriptKind,
    /// Source text; strings without their quotes.
    pub(crate) text: &'a str,
    /// One-based line of the file.
    pub(crate) line: usize,
}

struct Scanner<'a> {
    text: &'a str,
    position: usize,
    line: usize,
    tokens: Vec<ScriptToken<'a>>,
}

/// Splits a script into tokens; comments, numbers, and regular expressions are dropped.
pub(crate) fn tokenize_script(text: &str, first_line: usize) -> Vec<ScriptToken<'_>> {
    let mut scanner = Scanner { text, position: 0, line: first_line, tokens: Vec::new() };
    scanner.scan_until(None);
    scanner.tokens
}

fn is_ident_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn byte(&self, offset: usize) -> u8 {
        self.text.as_bytes().get(self.position + offset).copied().unwrap_or(0)
    }

    fn push(&mut self, kind: ScriptKind, start: usize, end: usize) {
        let text = self.text.get(start..end).unwrap_or_default();
        self.tokens.push(ScriptToken { kind, text, line: self.line });
    }

    fn advance(&mut self, end: usize) {
        let end = end.min(self.text.len());
        let bytes = &self.text.as_bytes()[self.position..end];
        self.line += bytes.iter().filter(|byte| **byte == b'\n').count();
        self.position = end;
    }

    /// Scans up to the brace that closes a template expression, or to the end.
    fn scan_until(&mut self, close: Option<u8>) {
        let mut depth = 0_usize;
        while self.position < self.text.len() {
            let byte = self.byte(0);
            if Some(byte) == close && depth == 0 {
                self.advance(self.position + 1);
                return;
            }
            depth += usize::from(byte == b'{');
            depth = depth.saturating_sub(usize::from(byte == b'}'));
            self.next_token(byte);
        }
    }

    fn next_token(&mut self, byte: u8) {
        let start = self.position;
        match byte {
            b'/' if self.byte(1) == b'/' => {
                self.advance(start + self.rest().find('\n').unwrap_or(self.rest().len()));
            }
            b'/' if self.byte(1) == b'*' => {
                let length = self.rest().find("*/").map_or(self.rest().len(), |at| at + 2);
                self.advance(start + length);
            }
            b'/' if self.regex_may_start() => self.advance(self.end_of_regex()),
            b'\'' | b'"' => {
                let end = self.end_of_string(byte);
                self.push(ScriptKind::Text, start + 1, end.saturating_sub(1));
                self.advance(end);
            }
            b'`' => self.template(),
            _ if is_ident_byte(byte) => {
                let end = start + self.rest().bytes().take_while(|byte| is_ident_byte(*byte)).count();
                if !byte.is_ascii_digit() {
                    self.push(ScriptKind::Ident, start, end);
                }
                self.advance(end);
            }
            _ => {
                let end = start + self.rest().chars().next().map_or(1, char::len_utf8);
                if !byte.is_ascii_whitespace() {
                    self.push(ScriptKind::Punct, start, end);
                }
                self.advance(end);
            }
        }
    }

    /// A slash after an operand divides; anywhere else it opens a regular expression.
    fn regex_may_start(&self) -> bool {
        self.tokens.last().is_none_or(|token| match token.kind {
            ScriptKind::Punct => !matches!(token.text, ")" | "]" | "}"),
            ScriptKind::Ident => matches!(token.text, "return" | "case" | "typeof"),
            ScriptKind::Text => false,
        })
    }

    fn end_of_regex(&self) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = self.position + 1;
        let mut in_class = false;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'\\' => at += 1,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'\n' => return self.position + 1,
                b'/' if !in_class => return at + 1,
                _ => {}
            }
            at += 1;
        }
        self.position + 1
    }

    fn end_of_string(&self, quote: u8) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = self.position + 1;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'\\' => at += 1,
                byte if *byte == quote => return at + 1,
                _ => {}
            }
            at += 1;
        }
        bytes.len()
    }

    /// Template literal: its chunks become strings, its expressions are scanned as script.
    fn template(&mut self) {
        self.advance(self.position + 1);
        let mut start = self.position;
        while self.position < self.text.len() {
            match self.byte(0) {
                b'\\' => self.advance(self.position + 2),
                b'`' => break,
                b'$' if self.byte(1) == b'{' => {
                    self.push(ScriptKind::Text, start, self.position);
                    self.advance(self.position + 2);
                    self.scan_until(Some(b'}'));
                    start = self.position;
                }
                _ => self.advance(self.position + 1),
            }
        }
        self.push(ScriptKind::Text, start, self.position);
        self.advance(self.position + 1);
    }
}

/// Static text of a Vue template: a text node or the value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Markup<'a> {
    /// Name of the attribute; empty for a text node.
    pub(crate) attribute: &'a str,
    /// Raw text or value.
    pub(crate) text: &'a str,
    /// One-based line of the file.
    pub(crate) line: usize,
}

/// Sections of a web source.
#[derive(Debug, Default)]
pub(crate) struct WebParts<'a> {
    /// Tokens of the script.
    pub(crate) script: Vec<ScriptToken<'a>>,
    /// Tokens of the expressions in the template.
    pub(crate) expressions: Vec<ScriptToken<'a>>,
    /// Text nodes and static attributes of the template.
    pub(crate) markup: Vec<Markup<'a>>,
}

/// Splits a TypeScript file or a Vue component, by the ending of its path.
pub(crate) fn web_parts<'a>(path: &str, text: &'a str) -> WebParts<'a> {
    if !path.ends_with(".vue") {
        return WebParts { script: tokenize_script(text, 1), ..WebParts::default() };
    }
    let mut parts = WebParts::default();
    for (body, line) in sections(text, "script") {
        parts.script.extend(tokenize_script(body, line));
    }
    for (body, line) in sections(text, "template") {
        scan_template(body, line, &mut parts);
    }
    parts
}

/// Bodies of the top-level elements with a name, with their first lines.
fn sections<'a>(text: &'a str, name: &str) -> Vec<(&'a str, usize)> {
    let open = format!("<{name}");
    let close = format!("\n</{name}>");
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(&open).map(|at| from + at) {
        let is_top_level = at == 0 || text.as_bytes()[at - 1] == b'\n';
        let Some(body) = text[at..].find('>').map(|end| at + end + 1).filter(|_| is_top_level) else {
            from = at + open.len();
            continue;
        };
        let end = text[body..].find(&close).map_or(text.len(), |end| body + end);
        found.push((&text[body..end], 1 + text[..body].matches('\n').count()));
        from = end;
    }
    found
}

fn scan_template<'a>(body: &'a str, first_line: usize, parts: &mut WebParts<'a>) {
    let mut at = 0;
    let line_of = |offset: usize| first_line + body[..offset].matches('\n').count();
    while at < body.len() {
        let rest = &body[at..];
        if rest.starts_with("<!--") {
            at += rest.find("-->").map_or(rest.len(), |end| end + 3);
        } else if rest.starts_with("{{") {
            let end = rest.find("}}").unwrap_or(rest.len());
            parts.expressions.extend(tokenize_script(&rest[2.min(end)..end], line_of(at)));
            at += (end + 2).min(rest.len());
        } else if rest.starts_with('<') {
            at = scan_tag(body, at, &line_of, parts);
        } else {
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let markers = [rest[first..].find('<'), rest[first..].find("{{")];
            let end = markers.into_iter().flatten().min().map_or(rest.len(), |end| first + end);
            let text = &rest[..end];
            if !text.trim().is_empty() {
                let lead = text.len() - text.trim_start().len();
                parts.markup.push(Markup { attribute: "", text: text.trim(), line: line_of(at + lead) });
            }
            at += end;
        }
    }
}

/// Scans one tag with its attributes; returns the offset behind its `>`.
fn scan_tag<'a>(
    body: &'a str,
    start: usize,
    line_of: &impl Fn(usize) -> usize,
    parts: &mut WebParts<'a>,
) -> usize {
    let bytes = body.as_bytes();
    let mut at = start + 1;
    let mut name = at;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'>' => return at + 1,
            b'=' if matches!(bytes.get(at + 1), Some(b'"' | b'\'')) => {
                let quote = bytes[at + 1];
                let open = at + 2;
                let close =
                    bytes[open..].iter().position(|byte| *byte == quote).map_or(body.len(), |end| open + end);
                let (attribute, value) = (&body[name..at], &body[open..close]);
                if attribute.starts_with([':', '@', '#']) || attribute.starts_with("v-") {
                    parts.expressions.extend(tokenize_script(value, line_of(open)));
                } else {
                    parts.markup.push(Markup { attribute, text: value, line: line_of(open) });
                }
                at = close + 1;
                name = at;
            }
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                name = at;
            }
            _ => at += 1,
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tokens: &[ScriptToken<'_>], kind: ScriptKind) -> Vec<String> {
        tokens.iter().filter(|token| token.kind == kind).map(|token| token.text.to_owned()).collect()
    }

    #[test]
    fn script_tokenizer_separates_strings_comments_and_patterns() {
        let text = "// no\nconst a = 'it\\'s' /* no */ + `x ${b ? `y` : { c: 1 }} z` // no\n\
            const d = /['\"]/.test(e) / 2";
        let tokens = tokenize_script(text, 1);
        assert_eq!(texts(&tokens, ScriptKind::Text), ["it\\'s", "x ", "y", " z"]);
        assert_eq!(texts(&tokens, ScriptKind::Ident), ["const", "a", "b", "c", "const", "d", "test", "e"]);
        assert_eq!(tokens.last().map(|token| token.line), Some(3));
    }

    #[test]
    fn vue_component_is_split_into_script_and_template() {
        let text = "<script setup lang=\"ts\">\nconst x = 'A'\n</script>\n\n\
            <template>\n  <p v-if=\"y > 1\" title=\"Say\" :alt=\"z\">\n    Hello {{ name }} \
            you<b>!</b>\n  </p>\n</template>\n\n<style>\np { color: red }\n</style>\n";
        let parts = web_parts("a.vue", text);
        assert_eq!(texts(&parts.script, ScriptKind::Ident), ["const", "x"]);
        assert_eq!(texts(&parts.expressions, ScriptKind::Ident), ["y", "z", "name"]);
        let markup: Vec<_> = parts.markup.iter().map(|part| (part.attribute, part.text, part.line)).collect();
        assert_eq!(markup, [("title", "Say", 6), ("", "Hello", 7), ("", "you", 7), ("", "!", 7)]);
        assert_eq!(parts.script[0].line, 2);
    }
}
