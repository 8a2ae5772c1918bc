//! The file as it may be typed: every key, its type, its range, its default and one line about it. ◆
//!
//! Pure data, and the one place where a key is defined: the checks, the defaults and the manual all
//! read this table.

use super::keys::KEYS;

use Kind::{Choice, Duration, Fields, Flag, Fraction, Integer, Path, Size, Text, Texts, Url};

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A string.
    Text,
    /// A path; relative ones are relative to the directory of the file.
    Path,
    /// An absolute URL of one of these schemes. The first one is meant for use, the second one,
    /// which is not encrypted, for loopback addresses only.
    Url {
        /// The encrypted scheme, then the other one.
        schemes: [&'static str; 2],
    },
    /// A string such as `"30s"`, within these bounds.
    Duration {
        /// The shortest.
        min: &'static str,
        /// The longest.
        max: &'static str,
    },
    /// A string such as `"1GiB"`, at least this much.
    Size {
        /// The smallest.
        min: &'static str,
    },
    /// A whole number within these bounds.
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A number from 0 to 1.
    Fraction,
    /// `true` or `false`.
    Flag,
    /// A string or a list of strings.
    Texts,
    /// A table of strings.
    Fields,
    /// One of some words.
    Choice {
        /// The words.
        values: &'static [&'static str],
    },
}

/// One key of the file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path, such as `twitch.client_id`; `sink.*.type` stands for every sink, and
    /// `subscription.type` for every `[[subscription]]`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The default as TOML text; `None` when it has to be given, or is off or found elsewhere.
    pub default: Option<&'static str>,
    /// One line about it.
    pub doc: &'static str,
    /// Whether it has to be given.
    pub required: bool,
    /// Of keys of sinks: the types of sinks that have it; all when empty.
    pub only: &'static [&'static str],
}

/// All keys that a file may have.
pub fn keys() -> &'static [Key] {
    KEYS
}

/// The key with this path, with `*` for the name of a sink.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether keys stand below this path.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| below(key.path, path).is_some())
}

/// The names that may stand directly in a section; in the file itself for the empty path.
pub(super) fn children(path: &str) -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter().filter_map(move |key| {
        let rest = if path.is_empty() { key.path } else { below(key.path, path)? };
        let name = rest.split('.').next().unwrap_or(rest);
        let new = name != last;
        last = name;
        new.then_some(name)
    })
}

fn below(path: &'static str, section: &str) -> Option<&'static str> {
    path.strip_prefix(section)?.strip_prefix('.')
}

impl Key {
    /// Its last name: `client_id` of `twitch.client_id`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

impl Kind {
    /// With its article, for messages.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Text | Choice { .. } => "a string",
            Path => "a path in quotes",
            Url { .. } => "a URL in quotes",
            Duration { .. } => "a duration such as \"30s\"",
            Size { .. } => "a size such as \"1GiB\"",
            Integer { .. } => "a whole number",
            Fraction => "a number",
            Flag => "true or false",
            Texts => "a string or a list of strings",
            Fields => "a table of strings",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value;

    #[test]
    fn the_table_is_consistent() {
        let mut seen = std::collections::HashSet::new();
        for key in keys() {
            assert!(seen.insert(key.path), "{} twice", key.path);
            assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}", key.path);
            assert!(key.default.is_none() || !key.required, "{}", key.path);
            if let Some(default) = key.default {
                let table = format!("x = {default}");
                let table = toml::de::DeTable::parse(&table).expect(key.path);
                let checked = value::check(key, key.path, table.get_ref()["x"].get_ref());
                assert!(checked.is_ok(), "{}: {checked:?}", key.path);
            }
            match key.kind {
                Duration { min, max } => {
                    let parse = |text| humantime::parse_duration(text).expect("a bound");
                    assert!(parse(min) < parse(max), "{}", key.path);
                }
                Size { min } => assert!(min.parse::<bytesize::ByteSize>().is_ok(), "{}", key.path),
                _ => {}
            }
        }
        assert!(seen.len() > 50);
    }

    #[test]
    fn sections_and_their_children() {
        assert!(is_section("transport") && is_section("transport.conduit") && is_section("sink.*"));
        assert!(!is_section("transport.method") && !is_section("trans") && !is_section("sink.log"));
        assert_eq!(children("transport").collect::<Vec<_>>(), ["method", "conduit", "webhook"]);
        assert_eq!(
            children("").collect::<Vec<_>>(),
            ["twitch", "reconcile", "transport", "subscription", "sink", "store", "state", "admin", "log"]
        );
    }
}
