//! Which parts of a configuration file hold the client secret, or secrets of sinks.
//!
//! Works on the text alone, so that it also holds for files that are no TOML, and errs on the side
//! of hiding too much: a line that is hidden costs a look into the file, one that is shown costs
//! the secret.

use std::ops::Range;

/// Keys of sinks, and names of headers, whose values are or may hold secrets.
const SECRETIVE: [&str; 8] =
    ["url", "headers", "authorization", "cookie", "token", "password", "apikey", "xapikey"];

/// How far a misspelt key may be from `client_secret` and still be taken for it.
const TYPOS: usize = 3;

/// The byte ranges that are not to be shown, in order and without overlap.
pub(super) fn hidden_ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let end = line_end(text, at);
        if let Some(value) = secret_value(&text[at..end]) {
            let from = at + value;
            let to = value_end(text, from, end);
            ranges.push(from..to);
            at = if to > end { to } else { end + 1 };
            // The rest of the line on which a value of several lines ends.
            if to > end {
                let rest = line_end(text, to);
                ranges.push(to..rest);
                at = rest + 1;
            }
        } else {
            if let Some(user) = user_info(&text[at..end]) {
                ranges.push(at + user.start..at + user.end);
            }
            at = end + 1;
        }
    }
    ranges
}

/// The user name and the password of a URL.
fn user_info(line: &str) -> Option<Range<usize>> {
    let start = line.find("://")? + "://".len();
    let length = line[start..].find(|c: char| c == '/' || c == '"' || c == '\'' || c.is_whitespace());
    let authority = &line[start..length.map_or(line.len(), |length| start + length)];
    authority.rfind('@').map(|at| start..start + at)
}

fn line_end(text: &str, from: usize) -> usize {
    text[from..].find('\n').map_or(text.len(), |at| from + at)
}

/// Where in the line the value of a secret starts.
fn secret_value(line: &str) -> Option<usize> {
    let mut separators = 0;
    let mut from = 0;
    for (at, separator) in line.char_indices().filter(|(_, c)| matches!(c, '=' | ':')) {
        separators += 1;
        let key = last_key(&line[from..at]);
        from = at + separator.len_utf8();
        if is_secret_key(key, &line[from..]) {
            return Some(from + (line[from..].len() - line[from..].trim_start().len()));
        }
    }
    // The name alone: the value may follow in any form, even on the next line.
    if separators == 0 && !line.trim_start().starts_with(['#', '[']) {
        let lower = line.to_ascii_lowercase();
        return lower.find("secret").map(|at| at + "secret".len());
    }
    None
}

/// The last word before a separator, without quotes.
fn last_key(before: &str) -> &str {
    let before = before.trim_end().trim_end_matches(['"', '\'']);
    let start = before
        .char_indices()
        .rev()
        .take_while(|(_, c)| c.is_alphanumeric() || matches!(c, '_' | '-' | '\\'))
        .last();
    start.map_or("", |(at, _)| &before[at..])
}

/// Whether the key is that of a secret, or was meant to be.
pub(super) fn is_secret_key(key: &str, value: &str) -> bool {
    let plain: String =
        key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if plain.ends_with("secretfile") {
        return looks_like_secret(value);
    }
    SECRETIVE.contains(&plain.as_str())
        || plain.contains("secret")
        || ((9..=16).contains(&plain.len()) && strsim::osa_distance(&plain, "clientsecret") <= TYPOS)
}

/// Whether the text holds a word in the shape of Twitch's client secrets: 30 letters and digits.
pub(super) fn looks_like_secret(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word.len() == 30 && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

/// The end of the value that starts at `from`, on the line that ends at `end`.
fn value_end(text: &str, from: usize, end: usize) -> usize {
    let value = text[from..end].trim();
    let open = text[from..end].len() - text[from..end].trim_start().len() + from;
    for (opening, closing) in [("\"\"\"", "\"\"\""), ("'''", "'''"), ("[", "]"), ("{", "}")] {
        if value.starts_with(opening) {
            let inside = open + opening.len();
            let close = text[inside..].find(closing).map_or(text.len(), |at| inside + at + closing.len());
            return close.max(end);
        }
    }
    if value.is_empty() && end < text.len() { line_end(text, end + 1) } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn no_spelling_of_the_key_shows_its_value() {
        for text in [
            "client_secret = \"hunter2\"",
            "client_secret=\"hunter2",
            "twitch.client_secret = 'hunter2' # x",
            "\"client_secret\" = \"hunter2\"",
            "client-secret = \"hunter2\"",
            "clientSecret = \"hunter2\"",
            "client_secert = \"hunter2\"",
            "cleint_sercet = \"hunter2\"",
            "client_secret: hunter2",
            "client_secret hunter2",
            "client_secret\n= \"hunter2\"",
            "client_secret =\n\"hunter2\"",
            "client_secret = \"\"\"\nhunter2\nhunter2\"\"\" hunter2\nx = 1",
            "client_secret = '''hunter2\nhunter2",
            "client_secret = [\n \"hunter2\" \"x\"\n] hunter2\nx = 1",
            "twitch = { client_id = \"x\", client_secret = \"hunter2\" }",
            "SECRET = hunter2",
            "url = \"https://discord.example/api/webhooks/1/hunter2\"",
            "headers = { a = \"hunter2\" }",
            "Authorization = \"Bearer hunter2\"",
            "\"X-Api-Key\" = \"hunter2\"",
            "auth_url = \"https://me:hunter2@host/\"",
        ] {
            assert!(!shown(text).contains("hunter2"), "{text:?}");
            assert!(shown(text).contains('*'), "{text:?}");
        }
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        for text in [
            "client_id = \"x\"",
            "client_secret_file = \"client_secret\"",
            "# the client_secret is elsewhere",
            "[secret]",
            "auth_url = \"https://x\"",
            "interval = \"1h\"\nshards = 1",
        ] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(
            shown("client_secret_file = \"abcdefghijklmnopqrstuvwxyz0123\""),
            "client_secret_file = *",
            "a secret in the place of its path"
        );
    }
}
