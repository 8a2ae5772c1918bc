//! The files of a configuration as texts that diagnostics can point into.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::check::{self, Document};
use super::diagnostic::quote;
use super::entry::Entry;
use super::expand::LoginFile;
use super::files;
use super::login::{self, Logins};
use super::problems::{At, Problems};
use super::source::Place;

/// How many errors of the parser are looked at: what follows is most often their echo.
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
        problems.error(place.map_or(At::Nowhere, At::Place), format!("{}{name}", error.message()));
    }
    errors.is_empty().then(|| check::document(table.get_ref(), source, problems))
}

/// Reads each file of logins once, however many entries name it.
pub(super) fn read_login_files(
    entries: &[Entry],
    base: &Path,
    logins: &mut Logins,
    problems: &mut Problems,
) -> HashMap<Box<str>, Option<LoginFile>> {
    let mut read: HashMap<Box<str>, Option<LoginFile>> = HashMap::new();
    for word in entries.iter().filter_map(|entry| entry.broadcaster_file.as_ref()) {
        if read.contains_key(&word.text) {
            continue;
        }
        let path = base.join(&*word.text);
        let list = match files::read(&path, files::MAX_FILE) {
            Err(unreadable) => {
                let diagnostic = problems.error(word.place, unreadable.message);
                if unreadable.missing {
                    diagnostic.hint("the path is relative to the directory of the configuration file");
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
