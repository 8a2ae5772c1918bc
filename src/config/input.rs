//! The files of a configuration as texts that diagnostics can point into.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::files::{self, Folder};
use super::keys::check::{self, Document};
use super::report::diagnostic::quote;
use super::report::problems::{At, Problems};
use super::report::source::Place;
use super::section::secrets::RELATIVE;
use super::subscription::entry::Entry;
use super::subscription::login::{self, LoginFile, Logins};

/// Most errors of the parser that are reported; later ones are usually consequences of these.
const MAX_SYNTAX_ERRORS: usize = 20;

/// Makes the bytes of a file a text that diagnostics can point into.
pub(super) fn add_text(
    path: &Path,
    bytes: Vec<u8>,
    may_hold_secrets: bool,
    problems: &mut Problems,
) -> Option<(Arc<str>, u32)> {
    let name = path.display().to_string();
    match files::text(bytes) {
        Ok(text) => {
            let text: Arc<str> = text.into();
            let source = problems.sources.add(name, text.clone(), may_hold_secrets);
            Some((text, source))
        }
        Err((lossy, at)) => {
            let message = format!("{} is not UTF-8", quote(&name));
            let source = problems.sources.add(name, lossy.into(), may_hold_secrets);
            problems
                .error(Place::new(source, at..at + '\u{fffd}'.len_utf8()), message)
                .hint("save it as UTF-8");
            None
        }
    }
}

/// Parses and checks the file; `None` when it is no TOML, since guesses about the rest would only
/// bury the error that matters.
pub(super) fn parse(text: &str, source: u32, problems: &mut Problems) -> Option<Document> {
    let (table, errors) = toml::de::DeTable::parse_recoverable(text);
    let mut last_line = None;
    for error in errors.iter().take(MAX_SYNTAX_ERRORS) {
        let place = error.span().map(|span| Place::new(source, span));
        // One slip makes the parser stumble several times on its line.
        let line = place.and_then(|place| problems.sources.locate(place)).map(|location| location.line);
        if line.is_some() && line == last_line {
            continue;
        }
        last_line = line;
        let name =
            error.span().filter(|_| error.message() == "duplicate key").and_then(|span| text.get(span));
        let name = name.map(|name| format!(" {}", quote(name))).unwrap_or_default();
        let slip = error.span().and_then(|span| slip(text, span.start));
        let message = match &slip {
            Some(Slip { message: Some(message), .. }) => message.clone(),
            _ => format!("{}{name}", error.message()),
        };
        let diagnostic = problems.error(place.map_or(At::Nowhere, At::Place), message);
        diagnostic.hints.extend(slip.map(|slip| slip.hint));
    }
    errors.is_empty().then(|| check::document(table.get_ref(), source, problems))
}

/// A common slip behind an error of the parser.
struct Slip {
    /// In place of the parser's, which speaks of numbers where words are meant.
    message: Option<String>,
    hint: String,
}

/// The probable problem of the line in which the parser stopped. Never names its value.
fn slip(text: &str, at: usize) -> Option<Slip> {
    const CURLY: [char; 7] = ['\u{201c}', '\u{201d}', '\u{201e}', '\u{ab}', '\u{bb}', '\u{2018}', '\u{2019}'];
    let before = text.get(..at)?;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text[start..].split('\n').next()?.trim();
    let end = line.find(['=', ':'])?;
    let (name, value) = (line[..end].trim(), line[end + 1..].trim_start());
    // A name that may be anything is not repeated.
    let is_name = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b));
    if !is_name {
        return None;
    }
    if line.as_bytes().get(end) == Some(&b':') {
        let hint = format!("a key and its value have `=` between them: {name} = \"…\"");
        return Some(Slip { message: None, hint });
    }
    if value.starts_with(CURLY) {
        let message = Some(format!("the value of `{name}` stands in typographic quotes"));
        return Some(Slip { message, hint: format!("write straight quotes: {name} = \"…\"") });
    }
    let bare = value.split([' ', '\t', '#', '\r']).next().unwrap_or_default();
    let is_word =
        bare.starts_with(|c: char| c.is_alphabetic()) && !["true", "false", "inf", "nan"].contains(&bare);
    if ["yes", "no", "on", "off"].contains(&bare.to_ascii_lowercase().as_str())
        || bare.eq_ignore_ascii_case("true")
        || bare.eq_ignore_ascii_case("false")
    {
        let message = Some(format!("the value of `{name}` is not one of TOML's"));
        return Some(Slip { message, hint: "write `true` or `false`, in small letters".to_owned() });
    }
    is_word.then(|| Slip {
        message: Some(format!("the value of `{name}` is not in quotes")),
        hint: format!("texts stand in quotes: {name} = \"…\""),
    })
}

/// Reads each file of logins once, however many entries name it.
pub(super) fn read_login_files(
    entries: &[Entry],
    folder: &Folder,
    logins: &mut Logins,
    problems: &mut Problems,
) -> HashMap<Box<str>, Option<LoginFile>> {
    let mut read: HashMap<Box<str>, Option<LoginFile>> = HashMap::new();
    for word in entries.iter().filter_map(|entry| entry.broadcaster_file.as_ref()) {
        if read.contains_key(&word.text) {
            continue;
        }
        let path = folder.join(&word.text);
        let list = match folder.read(&word.text, files::MAX_FILE) {
            Err(unreadable) => {
                let diagnostic = problems.error(word.place, unreadable.message);
                if unreadable.missing {
                    diagnostic.hint(RELATIVE);
                }
                None
            }
            Ok((bytes, _)) => add_text(&path, bytes, false, problems)
                .map(|(text, source)| login::read_file(&text, source, logins, problems)),
        };
        read.insert(word.text.clone(), list);
    }
    read
}
