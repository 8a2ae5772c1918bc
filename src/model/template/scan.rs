//! Lexical scan of a template for words and their places. The engine checks syntax; here any text is accepted.

use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WordKind {
    Filter,
    Test,
    Function,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) kind: WordKind,
    pub(super) range: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Ident,
    Text,
    Sign(u8),
}

type Tokens = Vec<(Token, Range<usize>)>;

/// Returns the filters, tests and functions that the template uses.
pub(super) fn words(source: &str) -> Vec<Word> {
    let mut found = Vec::new();
    for block in blocks(source) {
        let text = |at: usize| block.get(at).map_or("", |(_, range)| &source[range.clone()]);
        for (at, (token, range)) in block.iter().enumerate() {
            if *token != Token::Ident {
                continue;
            }
            let before = |back: usize| at.checked_sub(back).map_or("", text);
            let kind = match (before(2), before(1)) {
                (_, "|") => WordKind::Filter,
                ("", "filter") if at == 1 => WordKind::Filter,
                // `in` and `not` can follow `is` too; the engine has `in` as a test.
                (_, "is") if text(at) != "not" => WordKind::Test,
                ("is", "not") => WordKind::Test,
                (_, ".") => continue,
                _ if text(at + 1) == "(" => WordKind::Function,
                _ => continue,
            };
            found.push(Word { kind, range: range.clone() });
        }
    }
    found
}

/// Returns names followed by member names: `event.title`, `event["title"]`.
pub(super) fn paths(source: &str) -> Vec<Vec<Range<usize>>> {
    let mut found = Vec::new();
    for block in blocks(source) {
        let sign = |at: usize, sign: u8| block.get(at).is_some_and(|(token, _)| *token == Token::Sign(sign));
        let mut at = 0;
        while at < block.len() {
            let (token, range) = &block[at];
            let before = at.checked_sub(1).map(|before| block[before].0);
            at += 1;
            let is_member = before == Some(Token::Sign(b'.')) || before == Some(Token::Sign(b'|'));
            if *token != Token::Ident || is_member {
                continue;
            }
            let mut path = vec![range.clone()];
            loop {
                match block.get(at + 1) {
                    Some((Token::Ident, name)) if sign(at, b'.') => {
                        path.push(name.clone());
                        at += 2;
                    }
                    Some((Token::Text, text)) if sign(at, b'[') && sign(at + 2, b']') => {
                        path.push(text.start + 1..text.end - 1);
                        at += 3;
                    }
                    _ => break,
                }
            }
            // The name of a method is not a member.
            if path.len() > 1 && sign(at, b'(') {
                path.pop();
            }
            found.push(path);
        }
    }
    found
}

/// Returns the tokens of each `{{ … }}` and `{% … %}`.
fn blocks(source: &str) -> Vec<Tokens> {
    let bytes = source.as_bytes();
    let (mut blocks, mut at) = (Vec::new(), 0);
    while let Some(open) = find(bytes, at, b"{") {
        let close: &[u8] = match bytes.get(open + 1) {
            Some(b'{') => b"}}",
            Some(b'%') => b"%}",
            Some(b'#') => {
                at = find(bytes, open + 2, b"#}").map_or(bytes.len(), |end| end + 2);
                continue;
            }
            _ => {
                at = open + 1;
                continue;
            }
        };
        let (tokens, end) = tokens(bytes, open + 2, close);
        let is_raw =
            close == b"%}" && tokens.first().is_some_and(|(_, range)| &source[range.clone()] == "raw");
        at = end;
        if is_raw {
            at = find(bytes, end, b"endraw").map_or(bytes.len(), |end| end + 6);
        }
        blocks.push(tokens);
    }
    blocks
}

/// Returns the tokens from `at` to `close`, and the position after them.
fn tokens(bytes: &[u8], mut at: usize, close: &[u8]) -> (Tokens, usize) {
    let mut tokens = Vec::new();
    while at < bytes.len() && !bytes[at..].starts_with(close) {
        let start = at;
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
                // An unterminated literal has no inside to cut out.
                if at - start >= 2 {
                    tokens.push((Token::Text, start..at));
                }
            }
            first if first.is_ascii_alphabetic() || first == b'_' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
                tokens.push((Token::Ident, start..at));
            }
            digit if digit.is_ascii_digit() => {
                while at < bytes.len() && bytes[at].is_ascii_alphanumeric() {
                    at += 1;
                }
            }
            other => {
                at += 1;
                if other.is_ascii_graphic() && !(other == b'-' && tokens.is_empty()) {
                    tokens.push((Token::Sign(other), start..at));
                }
            }
        }
    }
    (tokens, (at + close.len()).min(bytes.len()))
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes.get(from..)?, what).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_found_in_code_only() {
        let source = r#"upper( {# {{ a|b }} #} {{- event.title | default("x | y") | upper }} {% if x is not defined or y is odd %}
            {% for i in range(3) %}{{ a.b(1) }}{% endfor %}{% raw %}{{ n|o }}{% endraw %}{% filter lower %}{% endfilter %}{{ 'it\'s' | trim }}"#;
        let found: Vec<(WordKind, &str)> =
            words(source).into_iter().map(|word| (word.kind, &source[word.range])).collect();
        use WordKind::{Filter, Function, Test};
        assert_eq!(
            found,
            [
                (Filter, "default"),
                (Filter, "upper"),
                (Test, "defined"),
                (Test, "odd"),
                (Function, "range"),
                (Filter, "lower"),
                (Filter, "trim"),
            ]
        );
    }

    #[test]
    fn paths_are_names_with_their_members() {
        let source = r#"{{ event.a.b ~ event["c d"].e | join(sep.x) }}{{ title.upper() }}{{ n[0].x }}"#;
        let found: Vec<Vec<&str>> = paths(source)
            .into_iter()
            .map(|path| path.into_iter().map(|range| &source[range]).collect())
            .collect();
        assert_eq!(
            found,
            [vec!["event", "a", "b"], vec!["event", "c d", "e"], vec!["sep", "x"], vec!["title"], vec!["n"]]
        );
    }

    proptest! {
        #[test]
        fn any_text_can_be_scanned(source in "(\\{\\{|%\\}|\\{%|\\}\\}|'|\"|\\\\|\\{#|#\\}|raw|endraw|é|[a-z|.\\[\\]()0-9 -]){0,40}") {
            for word in words(&source) {
                prop_assert!(source.get(word.range).is_some());
            }
            for range in paths(&source).into_iter().flatten() {
                prop_assert!(source.get(range).is_some());
            }
        }
    }
}
