//! Tokenizer for Rust sources: separates comments, strings, and identifiers.

/// Class of a Rust token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Outer documentation line (`///`).
    Doc,
    /// Inner documentation line (`//!`).
    InnerDoc,
    /// Any other line or block comment.
    Comment,
    /// String literal of any prefix, quotes included.
    Str,
    /// Character or byte literal, quotes included.
    Char,
    /// Identifier or keyword; the `r#` of raw identifiers is excluded.
    Ident,
    /// Lifetime or loop label, with its quote.
    Lifetime,
    /// Numeric literal with its suffix.
    Number,
    /// Single punctuation character of Rust.
    Punct,
}

/// Token as a byte range of its source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    /// Class of the token.
    pub(crate) kind: TokenKind,
    /// Byte offset of the first byte.
    pub(crate) start: usize,
    /// Byte offset after the last byte.
    pub(crate) end: usize,
    /// One-based line of the first byte.
    pub(crate) line: usize,
    /// True if no other token precedes on the same line.
    pub(crate) first_on_line: bool,
}

struct Lexer<'a> {
    bytes: &'a [u8],
    position: usize,
    line: usize,
    tokens: Vec<Token>,
}

/// Splits a Rust source into tokens; whitespace is dropped. Never fails: an
/// unterminated literal or comment ends at the end of the text.
pub(crate) fn tokenize(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { bytes: text.as_bytes(), position: 0, line: 1, tokens: Vec::new() };
    while lexer.position < lexer.bytes.len() {
        lexer.next_token();
    }
    lexer.tokens
}

fn is_ident_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_ident_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl Lexer<'_> {
    fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(self.position + offset).copied().unwrap_or(0)
    }

    fn next_token(&mut self) {
        let byte = self.byte(0);
        if byte.is_ascii_whitespace() {
            self.line += usize::from(byte == b'\n');
            self.position += 1;
            return;
        }
        let start = self.position;
        let line = self.line;
        let (kind, end) = self.classify(byte);
        let end = end.min(self.bytes.len());
        let first_on_line =
            self.bytes[..start].iter().rev().take_while(|byte| **byte != b'\n').all(u8::is_ascii_whitespace);
        self.line += self.bytes[start..end].iter().filter(|byte| **byte == b'\n').count();
        self.position = end;
        self.tokens.push(Token { kind, start, end, line, first_on_line });
    }

    fn classify(&self, byte: u8) -> (TokenKind, usize) {
        match byte {
            b'/' if self.byte(1) == b'/' => (self.line_comment_kind(), self.end_of_line()),
            b'/' if self.byte(1) == b'*' => (TokenKind::Comment, self.end_of_block_comment()),
            b'"' => (TokenKind::Str, self.end_of_quoted(self.position + 1, b'"')),
            b'\'' => self.quote(),
            b'r' | b'b' | b'c' => self.prefixed(),
            _ if is_ident_start(byte) => (TokenKind::Ident, self.end_of_ident(self.position)),
            _ if byte.is_ascii_digit() => (TokenKind::Number, self.end_of_number()),
            // A multi-byte character outside literals is one token.
            _ => (TokenKind::Punct, self.end_of_char(self.position)),
        }
    }

    fn line_comment_kind(&self) -> TokenKind {
        match (self.byte(2), self.byte(3)) {
            (b'/', b'/') => TokenKind::Comment,
            (b'/', _) => TokenKind::Doc,
            (b'!', _) => TokenKind::InnerDoc,
            _ => TokenKind::Comment,
        }
    }

    fn end_of_line(&self) -> usize {
        let rest = &self.bytes[self.position..];
        self.position + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    }

    fn end_of_block_comment(&self) -> usize {
        let mut depth = 0_usize;
        let mut at = self.position;
        while at < self.bytes.len() {
            if self.bytes[at..].starts_with(b"/*") {
                depth += 1;
                at += 2;
            } else if self.bytes[at..].starts_with(b"*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            } else {
                at += 1;
            }
        }
        at
    }

    fn end_of_quoted(&self, mut at: usize, quote: u8) -> usize {
        while at < self.bytes.len() {
            match self.bytes[at] {
                b'\\' => at += 2,
                byte if byte == quote => return at + 1,
                _ => at += 1,
            }
        }
        at
    }

    /// Character literal or lifetime: `'a'` ends with a quote after one character.
    fn quote(&self) -> (TokenKind, usize) {
        let next = self.position + 1;
        if self.byte(1) == b'\\' {
            return (TokenKind::Char, self.end_of_quoted(next, b'\''));
        }
        let after = self.end_of_char(next);
        if self.bytes.get(after) == Some(&b'\'') {
            return (TokenKind::Char, after + 1);
        }
        (TokenKind::Lifetime, self.end_of_ident(next))
    }

    /// Raw, byte and C strings, byte literals, raw identifiers, or a plain identifier.
    fn prefixed(&self) -> (TokenKind, usize) {
        let rest = &self.bytes[self.position..];
        if rest.starts_with(b"b'") {
            return (TokenKind::Char, self.end_of_quoted(self.position + 2, b'\''));
        }
        let letters = rest.iter().take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
        let hashes = rest[letters..].iter().take_while(|byte| **byte == b'#').count();
        let quoted = rest.get(letters + hashes) == Some(&b'"');
        let raw = matches!(&rest[..letters], b"r" | b"br" | b"cr");
        let content = self.position + letters + hashes + 1;
        if quoted && raw {
            return (TokenKind::Str, self.end_of_raw(content, hashes));
        }
        if quoted && hashes == 0 && letters == 1 {
            return (TokenKind::Str, self.end_of_quoted(content, b'"'));
        }
        if letters == 1 && rest[0] == b'r' && hashes == 1 {
            return (TokenKind::Ident, self.end_of_ident(self.position + 2));
        }
        (TokenKind::Ident, self.end_of_ident(self.position))
    }

    fn end_of_raw(&self, mut at: usize, hashes: usize) -> usize {
        while at < self.bytes.len() {
            let closing = self.bytes[at + 1..].iter().take(hashes).filter(|byte| **byte == b'#').count();
            if self.bytes[at] == b'"' && closing == hashes {
                return at + 1 + hashes;
            }
            at += 1;
        }
        at
    }

    fn end_of_ident(&self, start: usize) -> usize {
        start + self.bytes[start..].iter().take_while(|byte| is_ident_part(**byte)).count()
    }

    fn end_of_number(&self) -> usize {
        let mut at = self.end_of_ident(self.position);
        let is_fraction =
            self.bytes.get(at) == Some(&b'.') && self.bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if is_fraction {
            at = self.end_of_ident(at + 1);
        }
        at
    }

    fn end_of_char(&self, start: usize) -> usize {
        let mut at = start + 1;
        while self.bytes.get(at).is_some_and(|byte| byte & 0xC0 == 0x80) {
            at += 1;
        }
        at
    }
}

/// Text of a token without the `r#` of raw identifiers.
pub(crate) fn token_text<'a>(text: &'a str, token: &Token) -> &'a str {
    let raw = &text[token.start..token.end];
    if token.kind == TokenKind::Ident { raw.strip_prefix("r#").unwrap_or(raw) } else { raw }
}

/// Content of a string literal: prefix, hashes and quotes removed, escapes untouched.
pub(crate) fn string_content(literal: &str) -> &str {
    let open = literal.find('"').map_or(0, |at| at + 1);
    let close = literal.rfind('"').unwrap_or(literal.len());
    literal.get(open..close).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<(TokenKind, &str)> {
        tokenize(text).iter().map(|token| (token.kind, token_text(text, token))).collect()
    }

    fn texts_of_kind(text: &str, kind: TokenKind) -> Vec<&str> {
        tokens(text).into_iter().filter(|(found, _)| *found == kind).map(|(_, text)| text).collect()
    }

    #[test]
    fn lexer_separates_doc_inner_doc_and_comment() {
        let text = "//! inner\n/// outer\n//// plain\n// plain\nfn x() {} // trailing\n";
        assert_eq!(texts_of_kind(text, TokenKind::InnerDoc), ["//! inner"]);
        assert_eq!(texts_of_kind(text, TokenKind::Doc), ["/// outer"]);
        assert_eq!(texts_of_kind(text, TokenKind::Comment), ["//// plain", "// plain", "// trailing"]);
        let lines: Vec<_> = tokenize(text).iter().map(|token| (token.line, token.first_on_line)).collect();
        assert_eq!(lines.last(), Some(&(5, false)));
        assert_eq!(lines[1], (2, true));
    }

    #[test]
    fn lexer_closes_nested_comments_at_the_outer_end() {
        let text = "/* a /* b */ c */ name /* open";
        assert_eq!(texts_of_kind(text, TokenKind::Comment), ["/* a /* b */ c */", "/* open"]);
        assert_eq!(texts_of_kind(text, TokenKind::Ident), ["name"]);
    }

    #[test]
    fn lexer_finds_no_comments_or_identifiers_in_strings() {
        let text =
            r####"let a = "x // y \" z"; let b = r#"q " // w"#; let c = br##"#"# "##; let d = c"e";"####;
        assert_eq!(texts_of_kind(text, TokenKind::Comment), [""; 0]);
        assert_eq!(texts_of_kind(text, TokenKind::Ident), ["let", "a", "let", "b", "let", "c", "let", "d"]);
        let strings = texts_of_kind(text, TokenKind::Str);
        assert_eq!(strings.len(), 4);
        assert_eq!(string_content(strings[1]), r#"q " // w"#);
        assert_eq!(string_content(strings[2]), r##"#"# "##);
    }

    #[test]
    fn lexer_separates_lifetimes_from_char_literals() {
        let text = r"fn f<'a>(x: &'a str) { 'l: loop { m('a', '\'', b'x', 'é', '_', '\u{1F600}'); } }";
        assert_eq!(texts_of_kind(text, TokenKind::Lifetime), ["'a", "'a", "'l"]);
        let chars = ["'a'", r"'\''", "b'x'", "'é'", "'_'", r"'\u{1F600}'"];
        assert_eq!(texts_of_kind(text, TokenKind::Char), chars);
    }

    #[test]
    fn lexer_reads_raw_identifiers_and_numbers() {
        let text = "r#type bcr 1_000u64 0x1f 1.5e3 0..9 br";
        assert_eq!(texts_of_kind(text, TokenKind::Ident), ["type", "bcr", "br"]);
        assert_eq!(texts_of_kind(text, TokenKind::Number), ["1_000u64", "0x1f", "1.5e3", "0", "9"]);
    }

    #[test]
    fn lexer_counts_lines_inside_multi_line_literals() {
        let lines: Vec<_> = tokenize("\"a\nb\"\nx").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3]);
    }
}
