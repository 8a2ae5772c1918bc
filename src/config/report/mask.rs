//! Which parts of a configuration file may be shown.
//!
//! Works on the text alone, so that it also holds for files that are not TOML, and shows only what is known to be
//! harmless: headers of sections, names of keys, and the values of known keys outside of sinks. A line that is hidden
//! costs a look into the file, one that is shown costs the secret.

use std::ops::Range;

use super::diagnostic::closest;
use super::private::{is_opaque, is_type_glob, reads_like_a_path, secret_of_url};
use crate::config::keys::schema::Kind;
use crate::config::keys::table::{self, SECRET_PATH};

/// The longest name of a key that is shown.
const MAX_NAME: usize = 64;

/// The byte ranges that are not to be shown, in order and without overlap.
pub(in crate::config) fn hidden_ranges(text: &str) -> Vec<Range<usize>> {
    let mut scan = Scan { text, hidden: Vec::new(), section: Vec::new() };
    let mut at = 0;
    while at < text.len() {
        at = scan.statement(at);
    }
    scan.hidden
}

struct Scan<'a> {
    text: &'a str,
    hidden: Vec<Range<usize>>,
    /// The path of the last header.
    section: Vec<String>,
}

/// The part of a value that is shown.
#[derive(Clone, Copy)]
enum Shown {
    Nothing,
    /// A text that does not look like a secret.
    Words,
    /// Hide the value unless it is a path.
    Path,
    /// Hide the value unless it is a URL without a user, a password and a query.
    Url,
    /// A value that has the form of its key.
    Form(Kind),
}

impl Scan<'_> {
    fn hide(&mut self, range: Range<usize>) {
        if !self.text[range.clone()].trim().is_empty() {
            let from =
                range.start + (self.text[range.clone()].len() - self.text[range.clone()].trim_start().len());
            let to = from + self.text[from..range.end].trim_end().len();
            self.hidden.push(from..to);
        }
    }

    /// Hides what is not to be shown of the statement that starts at `from`; where the next one starts.
    fn statement(&mut self, from: usize) -> usize {
        let end = line_end(self.text, from);
        let line = &self.text[from..end];
        let trimmed = line.trim_start();
        let start = from + (line.len() - trimmed.len());
        if trimmed.starts_with('#') {
            self.hide(start + 1..end);
            return end + 1;
        }
        if trimmed.starts_with('[') {
            return self.header(start, end);
        }
        let Some((names, separator)) = key(trimmed) else {
            self.bare_line(start, end);
            return end + 1;
        };
        let value = start + separator + 1;
        if trimmed.as_bytes().get(separator) != Some(&b'=') || trimmed[separator..].starts_with("==") {
            // Not TOML: the name is shown if it is known.
            let known = names.last().is_some_and(|name| is_known(name));
            self.hide(if known { value..end } else { start..end });
            return end + 1;
        }
        if !names.iter().all(|name| is_harmless_name(name)) {
            self.hide(start..start + separator);
        }
        let shown = self.what_is_shown(&names);
        self.value(value, shown)
    }

    /// A `[section]`; anything behind it is hidden.
    fn header(&mut self, start: usize, end: usize) -> usize {
        let line = &self.text[start..end];
        let close = quoted_find(line, ']');
        let inner = line[..close.unwrap_or(line.len())].trim_start_matches('[');
        let names = names(inner);
        if close.is_none() || !names.iter().all(|name| is_harmless_name(name)) {
            let named = names.first().is_some_and(|name| table::is_section(name));
            // Without its end only a known name is sure to be one.
            if !named || names.len() > 1 {
                self.hide(start + 1..end);
            }
        } else if let Some(close) = close {
            let after = start + close + line[close..].len() - line[close..].trim_start_matches(']').len();
            self.hide(after..end);
        }
        self.section = names;
        end + 1
    }

    /// A line without a separator: a key that lost it, or the rest of a value that was broken in two.
    fn bare_line(&mut self, start: usize, end: usize) {
        let line = &self.text[start..end];
        let word = line.split(|c: char| !is_bare(c)).next().unwrap_or_default();
        self.hide(if is_known(word) { start + word.len()..end } else { start..end });
    }

    fn what_is_shown(&self, names: &[String]) -> Shown {
        let path: Vec<&str> = self.section.iter().chain(names).map(String::as_str).collect();
        if let ["subscription", "condition", field] = path[..]
            && is_harmless_name(field)
        {
            return Shown::Words;
        }
        let is_sink = path.len() == 3 && path[0] == "sink";
        let path = if is_sink { format!("sink.*.{}", path[2]) } else { path.join(".") };
        match table::find(&path).map(|key| key.kind) {
            _ if path == SECRET_PATH => Shown::Nothing,
            None => Shown::Nothing,
            Some(Kind::Path) => Shown::Path,
            // Of the lists of sinks, that of types has a form, and that of a command has none.
            Some(Kind::Texts) if path != "sink.*.types" && is_sink => Shown::Nothing,
            Some(kind) if is_sink => Shown::Form(kind),
            Some(Kind::Url { .. }) => Shown::Url,
            Some(_) if ["transport.webhook.callback", "authorize.redirect_uri"].contains(&path.as_str()) => {
                Shown::Url
            }
            Some(_) => Shown::Words,
        }
    }

    /// Hides what is not to be shown of the value at `from`, and all that stands behind it on its last line; where the
    /// next statement starts.
    fn value(&mut self, from: usize, shown: Shown) -> usize {
        let rest = &self.text[from..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let start = from + blank;
        let end = match value_end(self.text, start) {
            // The value stands on the next line, which TOML does not allow.
            end if end == start => {
                let line = line_end(self.text, start);
                let next = line_end(self.text, (line + 1).min(self.text.len()));
                if key(&self.text[(line + 1).min(next)..next]).is_none() {
                    self.hide(start..next);
                    return next + 1;
                }
                self.hide(start..line);
                return line + 1;
            }
            end => end,
        };
        let value = &self.text[start..end];
        match shown {
            Shown::Nothing => self.hide(start..end),
            _ if value.starts_with("\"\"\"") || value.starts_with("'''") => self.hide(start..end),
            // A list without an end reaches into other statements.
            _ if value.starts_with(['[', '{']) && !value.ends_with([']', '}']) => {
                let line = line_end(self.text, start);
                self.hide(start + 1..line);
                return line + 1;
            }
            Shown::Form(kind) if !has_form(kind, value) => self.hide(start..end),
            Shown::Path if !reads_like_a_path(value.trim_matches(['"', '\''])) => self.hide(start..end),
            Shown::Url if value.contains(['?', '#']) || secret_of_url(value).is_some() => {
                self.hide(start..end);
            }
            _ => self.words(start, end),
        }
        let line = line_end(self.text, end);
        self.hide(end..line);
        line + 1
    }

    /// Hides the words of a shown value that look like secrets, and comments within it.
    fn words(&mut self, start: usize, end: usize) {
        let mut at = start;
        let mut quote = None;
        let mut word = start;
        while at < end {
            let Some(c) = self.text[at..end].chars().next() else { break };
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if c == open => quote = None,
                (None, '#') => {
                    let line = line_end(self.text, at).min(end);
                    self.word(word, at);
                    self.hide(at..line);
                    at = line;
                    word = at;
                    continue;
                }
                _ => {}
            }
            let next = at + c.len_utf8();
            if !(c.is_ascii_alphanumeric() || "-_.+%=~".contains(c)) {
                self.word(word, at);
                word = next;
            }
            at = next;
        }
        self.word(word, end);
    }

    fn word(&mut self, start: usize, end: usize) {
        if start < end && is_opaque(&self.text[start..end]) {
            self.hide(start..end);
        }
    }
}

fn line_end(text: &str, from: usize) -> usize {
    text[from..].find('\n').map_or(text.len(), |at| from + at)
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Returns whether any key has this name.
fn is_known(name: &str) -> bool {
    table::keys().iter().any(|key| key.path.split('.').any(|part| part == name && part != "*"))
}

/// Returns whether a value of a sink is valid for its key, or close to it, and cannot be a secret.
fn has_form(kind: Kind, value: &str) -> bool {
    let text = value.trim_matches(['"', '\'']);
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[number.len()..];
    let is_number = number.len() <= 12 && number.bytes().all(|b| b.is_ascii_digit() || b"+-.".contains(&b));
    match kind {
        Kind::Duration { .. }
        | Kind::Size { .. }
        | Kind::Integer { .. }
        | Kind::IntegerOrAuto { .. }
        | Kind::Fraction => is_number && unit.len() <= 3,
        Kind::Flag => ["true", "false", "yes", "no", "on", "off"].contains(&text),
        Kind::Choice { values } => closest(text, values.iter().copied()).is_some(),
        Kind::Texts if !value.starts_with('{') => {
            let items = value.trim_matches(['[', ']']).split([',', '\n']);
            items
                .map(|item| item.trim().trim_matches(['"', '\'']))
                .all(|item| item.is_empty() || is_type_glob(item))
        }
        _ => false,
    }
}

fn is_harmless_name(name: &str) -> bool {
    name.len() <= MAX_NAME && !is_opaque(name)
}

/// The first of these characters that stands in no quotes.
fn quoted_find(line: &str, wanted: char) -> Option<usize> {
    let mut quote = None;
    line.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, c) if c == wanted => return Some(at),
            _ => {}
        }
        None
    })
}

/// The names of a key, and where its separator is: `=`, or `:` of other languages.
fn key(line: &str) -> Option<(Vec<String>, usize)> {
    let equals = quoted_find(line, '=');
    let colon = quoted_find(line, ':');
    let separator = match (equals, colon) {
        (Some(equals), Some(colon)) => equals.min(colon),
        (found, None) | (None, found) => found?,
    };
    let name = line[..separator].trim();
    // A name in quotes may hold anything; blanks elsewhere mean that it is not a name.
    let plain =
        name.chars().all(|c| is_bare(c) || c.is_alphabetic() || c == '.') || name.starts_with(['"', '\'']);
    (plain && !name.is_empty()).then(|| (names(name), separator))
}

fn names(dotted: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = dotted;
    loop {
        let at = quoted_find(rest, '.');
        let name = at.map_or(rest, |at| &rest[..at]).trim();
        names.push(name.trim_matches(['"', '\'']).to_owned());
        match at {
            Some(at) => rest = &rest[at + 1..],
            None => return names,
        }
    }
}

/// The end of the value that starts at `start`: of a string its quotes, of a list its brackets, of anything else the
/// next blank. A text without an end takes its line, or all that follows if it may have several lines.
fn value_end(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    for quotes in ["\"\"\"", "'''"] {
        if let Some(inside) = rest.strip_prefix(quotes) {
            return inside.find(quotes).map_or(text.len(), |at| start + at + 2 * quotes.len());
        }
    }
    match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => start + string_end(rest, quote),
        Some('[' | '{') => start + list_end(rest),
        _ => start + rest.find(|c: char| c.is_whitespace() || c == '#').unwrap_or(rest.len()),
    }
}

/// The end of a string in one line, behind its quote.
fn string_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The end of a list or a table, behind its bracket.
fn list_end(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '"' | '\'' => {
                at = value_end(text, at);
                continue;
            }
            '#' => {
                at = line_end(text, at);
                continue;
            }
            '[' | '{' => depth += 1,
            ']' | '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        let mut shown = String::new();
        let mut at = 0;
        for range in hidden_ranges(text) {
            shown.push_str(&text[at..range.start]);
            shown.push('*');
            at = range.end;
        }
        shown + &text[at..]
    }

    #[test]
    fn no_spelling_of_a_key_shows_its_value() {
        for text in [
            "client_secret = \"hunter2\"",
            "client_secret=\"hunter2",
            "twitch.client_secret = 'hunter2' # x",
            "\"client_secret\" = \"hunter2\"",
            "client-secret = \"hunter2\"",
            "client_secert = \"hunter2\"",
            "client_secret: hunter2",
            "client_secret hunter2",
            "client_secret\n= \"hunter2\"",
            "client_secret =\n\"hunter2\"",
            "client_secret =\nhunter2",
            "client_secret = \"\"\"\nhunter2\nhunter2\"\"\" hunter2\nx = 1",
            "client_secret = '''hunter2\nhunter2",
            "client_secret = [\n \"hunter2\" \"x\"\n] hunter2\nx = 1",
            "twitch = { client_id = \"x\", client_secret = \"hunter2\" }",
            "SECRET = hunter2",
            "[sink.x]\nurl = \"https://discord.example/api/webhooks/1/hunter2\"",
            "[sink.x]\nulr = \"https://discord.example/api/webhooks/1/hunter2\"",
            "[sink.x]\ncommand = [\"prog\",\n \"hunter2\",\n]",
            "[sink.x]\ntype = \"hunter2\"",
            "[sink.x]\ntypes = [\"hunter2\"]",
            "[sink.x]\ntimeout = \"hunter2\"",
            "[sink.x]\ncommand = \"hunter2\"",
            "[sink.x]\npath = \"hunter2\"",
            "[sink.x]\nretry = \"hunter2\"",
            "[sink.x.headers]\nA = \"hunter2\"",
            "[sink.x]\nheaders.A = \"hunter2\"",
            "sink.x.headers.A = \"hunter2\"",
            "headers = { a = \"hunter2\" }",
            "Authorization = \"Bearer hunter2\"",
            "Authorization: Bearer hunter2",
            "[twitch]\nauth_url = \"https://me:hunter2@host/\"",
            "[twitch]\napi_url = \"https://host/?token=hunter2\"",
            "[twitch]\naccess_token = \"hunter2\"",
            "[store]\nretain = \"7d\" # hunter2",
            "[store]\nretain = \"7d\" client_secret = \"hunter2\"",
            "[store]\nretain = [\"7d\"\nclient_secret = \"hunter2\"",
            "[store] hunter2",
            "[hunter2hunter2hunter2hunter2",
            "# hunter2",
            "hunter2",
            "hunter2==",
            "\"hunter2",
            "[twitch]\nclient_secret_file = \"hunter2\"",
            "[admin]\ntoken_file = \"tok/hunter2\"",
            "[twitch]\nclient_id = \"hunter2hunter2hunter2hunter2\"",
            "[log]\nlevel = \"\"\"\nhunter2",
        ] {
            assert!(!shown(text).contains("hunter2"), "{text:?}: {}", shown(text));
            assert!(shown(text).contains('*'), "{text:?}");
        }
    }

    #[test]
    fn harmless_lines_stay_as_they_are() {
        for text in [
            "[twitch]\nclient_id = \"x\"",
            "[twitch]\nclient_secret_file = \"client_secret\"",
            "[secret]",
            "[[subscription]]\ntype = [\"stream.online\",\n  \"channel.follow\"]\nbroadcaster = ninja",
            "[[subscription]]\ncondition = { broadcaster_user_id = \"1234\" }",
            "[[subscription]]\nbroadcaster = \u{201c}ninja\u{201d}",
            "[twitch]\nauth_url = \"https://x\"",
            "[reconcile]\ninterval = \"1h\"\n[transport.conduit]\nshards = 1",
            "reconcile.interval = \"1h\"",
            "client_id",
            "[twitch",
            "[state]\ndirectory = \"/var/lib/eventsubd\"",
            "[sink.x]\ntype = \"fil\"\ntimeout = \"2h\"\nconcurrency = 0\nrotate_size = \"1GiB\"",
            "[sink.x]\ntypes = [\"stream.onlin\", \"channel.*\"]\npath = \"/var/log/events.jsonl\"",
        ] {
            assert_eq!(shown(text), text);
        }
        for (text, expected) in [
            ("ulr = \"hunter2\"", "ulr = *"),
            ("[store]\nretain = \"7d\" # why", "[store]\nretain = \"7d\" *"),
            ("[[subscription]]\ntype = [\n  \"x\", # why\n]", "[[subscription]]\ntype = [\n  \"x\", *\n]"),
            ("type: \"x\"", "type: *"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    proptest! {
        #[test]
        fn ranges_are_in_order_and_on_characters(
            text in "(client_id|client_secret|sink|é|=|:|\"\"\"|\"|'|\\[|\\]|\\{|\n| |x|'''|#|\\.|\\\\){0,30}",
        ) {
            let mut at = 0;
            for range in hidden_ranges(&text) {
                prop_assert!(range.start >= at && range.end > range.start, "{text:?} {range:?}");
                prop_assert!(text.get(range.clone()).is_some());
                at = range.end;
            }
        }
    }
}
