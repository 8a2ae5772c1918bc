//! One `[[subscription]]` as it was typed: words and where they stand, types checked, nothing
//! expanded.

use toml::Spanned;
use toml::de::DeValue;

use crate::config::keys::schema::{Key, Kind};
use crate::config::keys::table;
use crate::config::keys::value;
use crate::config::report::diagnostic::{closest, quote};
use crate::config::report::problems::{Complaint, Problems};
use crate::config::report::source::Place;

/// The login keys, and the condition fields that they stand for.
pub(in crate::config) const LOGIN_KEYS: [(&str, &str); 5] = [
    ("broadcaster", "broadcaster_user_id"),
    ("from_broadcaster", "from_broadcaster_user_id"),
    ("moderator", "moderator_user_id"),
    ("to_broadcaster", "to_broadcaster_user_id"),
    ("user", "user_id"),
];

/// A string of the file.
#[derive(Clone, Debug)]
pub(in crate::config) struct Word {
    pub(in crate::config) text: Box<str>,
    pub(in crate::config) place: Place,
}

/// A list of strings, or a single one.
#[derive(Clone, Debug)]
pub(in crate::config) struct Words {
    /// Place of the key.
    pub(in crate::config) place: Place,
    pub(in crate::config) words: Vec<Word>,
}

/// One `[[subscription]]`.
#[derive(Clone, Debug)]
pub(in crate::config) struct Entry {
    pub(in crate::config) types: Option<Words>,
    pub(in crate::config) version: Option<Word>,
    /// By index in [`LOGIN_KEYS`].
    pub(in crate::config) logins: [Option<Words>; LOGIN_KEYS.len()],
    /// The path, and the place of the key.
    pub(in crate::config) broadcaster_file: Option<Word>,
    /// Names and values of the condition's fields.
    pub(in crate::config) condition: Vec<(Word, Word)>,
    pub(in crate::config) sinks: Option<Words>,
    pub(in crate::config) enabled: bool,
    /// Whether a part could not be read; then nothing is reported as missing.
    pub(in crate::config) broken: bool,
}

/// Reads an entry; what is wrong with it goes to `problems`.
pub(in crate::config) fn read(table: &Spanned<DeValue<'_>>, source: u32, problems: &mut Problems) -> Entry {
    let place = Place::new(source, table.span());
    let mut entry = Entry {
        types: None,
        version: None,
        logins: Default::default(),
        broadcaster_file: None,
        condition: Vec::new(),
        sinks: None,
        enabled: true,
        broken: false,
    };
    let DeValue::Table(keys) = table.get_ref() else {
        problems
            .error(place, "`subscription` must be a list of tables")
            .hint("write each one as `[[subscription]]`");
        entry.broken = true;
        return entry;
    };
    for (name, value) in keys {
        let at = Place::new(source, name.span());
        let name: &str = name.get_ref();
        let Some(key) = table::find(&format!("subscription.{name}")) else {
            unknown_key(name, at, problems);
            entry.broken = true;
            continue;
        };
        if key.kind == Kind::Fields {
            entry.read_condition(value, source, problems);
            continue;
        }
        if let Err((place, complaint)) = check(key, name, value, source) {
            problems.error(place, complaint.message).hints.extend(complaint.hint);
            entry.broken = true;
            continue;
        }
        let words = || Words { place: at, words: words(value, source) };
        match name {
            "type" => entry.types = Some(words()),
            "version" => entry.version = words().words.pop(),
            "broadcaster_file" => entry.broadcaster_file = words().words.pop(),
            "sinks" => entry.sinks = Some(words()),
            "enabled" => entry.enabled = value.get_ref().as_bool().unwrap_or(true),
            _ => {
                if let Some(index) = LOGIN_KEYS.iter().position(|(login, _)| *login == name) {
                    entry.logins[index] = Some(words());
                }
            }
        }
    }
    if entry.types.is_none() && !keys.contains_key("type") {
        problems
            .error(place, "this subscription has no `type`")
            .hint("for example `type = \"stream.online\"`; `eventsubd types` lists them");
        entry.broken = true;
    }
    entry
}

impl Entry {
    fn read_condition(&mut self, value: &Spanned<DeValue<'_>>, source: u32, problems: &mut Problems) {
        let DeValue::Table(fields) = value.get_ref() else {
            problems
                .error(Place::new(source, value.span()), "`condition` must be a table of strings")
                .hint("for example `condition = { broadcaster_user_id = \"19571641\" }`");
            self.broken = true;
            return;
        };
        for (name, value) in fields {
            let at = Place::new(source, value.span());
            let word = Word { text: name.get_ref().as_ref().into(), place: Place::new(source, name.span()) };
            match value.get_ref() {
                DeValue::String(text) if text.is_empty() => {
                    problems
                        .error(at, format!("condition field {} is empty", quote(&word.text)))
                        .hint("leave it out instead");
                }
                DeValue::String(text) => {
                    self.condition.push((word, Word { text: text.as_ref().into(), place: at }));
                    continue;
                }
                DeValue::Integer(number) => {
                    let diagnostic =
                        problems.error(at, format!("condition field {} must be a string", quote(&word.text)));
                    if number.as_str().len() <= 20 {
                        diagnostic.hint(format!("put it in quotes: \"{number}\""));
                    }
                }
                _ => {
                    problems.error(at, format!("condition field {} must be a string", quote(&word.text)));
                }
            }
            self.broken = true;
        }
    }
}

/// Checks a value; of a list the item that is wrong is the place.
fn check(key: &Key, name: &str, value: &Spanned<DeValue<'_>>, source: u32) -> Result<(), (Place, Complaint)> {
    if let (Kind::Texts, DeValue::Array(items)) = (key.kind, value.get_ref()) {
        for item in items {
            if !item.get_ref().is_str() {
                let complaint = value::wrong_type(key, name, item.get_ref());
                return Err((Place::new(source, item.span()), complaint));
            }
        }
        return Ok(());
    }
    match value::check(key, name, value.get_ref()) {
        Ok(_) => Ok(()),
        Err(complaint) => Err((Place::new(source, value.span()), complaint)),
    }
}

fn words(value: &Spanned<DeValue<'_>>, source: u32) -> Vec<Word> {
    let word = |value: &Spanned<DeValue<'_>>| {
        let text = value.get_ref().as_str()?;
        Some(Word { text: text.into(), place: Place::new(source, value.span()) })
    };
    match value.get_ref() {
        DeValue::Array(items) => items.iter().filter_map(word).collect(),
        _ => word(value).into_iter().collect(),
    }
}

fn unknown_key(name: &str, at: Place, problems: &mut Problems) {
    let diagnostic = problems.error(at, format!("unknown key {}", quote(name)));
    if let Some(meant) = closest(name, table::children("subscription")) {
        diagnostic.hint(format!("did you mean `{meant}`?"));
    } else if name.ends_with("_id") {
        diagnostic.hint(format!("ids go into the condition: `condition = {{ {name} = \"…\" }}`"));
    }
}

/// Reads the entries, which must be a list of tables.
pub(in crate::config) fn read_all(
    value: &Spanned<DeValue<'_>>,
    at: Place,
    problems: &mut Problems,
) -> Vec<Entry> {
    match value.get_ref() {
        DeValue::Array(tables) => tables.iter().map(|table| read(table, at.source, problems)).collect(),
        other => {
            let found = if matches!(other, DeValue::Table(_)) { "a table" } else { "a value" };
            problems
                .error(at, format!("`subscription` must be a list of tables, not {found}"))
                .hint("write each one as `[[subscription]]`, with two brackets");
            Vec::new()
        }
    }
}
