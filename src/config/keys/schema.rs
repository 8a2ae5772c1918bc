//! A key of the file: its path, its type with the range, its default, its help. ◆

use super::environment::PREFIX;
use crate::model::choice::Choice;
#[cfg(doc)]
use crate::model::mode::ShardCount;
use crate::model::sink::SinkType;

/// The values that a key accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Text,
    /// A path; relative ones are relative to the directory of the file.
    Path,
    /// An absolute URL of one of these schemes: the encrypted one, and one that is for loopback addresses only.
    Url {
        schemes: [&'static str; 2],
    },
    /// An IP address with a port, such as `"127.0.0.1:8080"`; or `"systemd"`, if that is allowed.
    Address {
        systemd: bool,
    },
    /// A string such as `"30s"`, within these bounds.
    Duration {
        min: &'static str,
        max: &'static str,
    },
    /// A string such as `"1GiB"`, at least this much.
    Size {
        min: &'static str,
    },
    /// A whole number within these bounds.
    Integer {
        min: i64,
        max: i64,
    },
    /// The same, or the word [`ShardCount::AUTO`].
    IntegerOrAuto {
        min: i64,
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
    /// A word of a fixed list.
    Choice {
        values: &'static [&'static str],
    },
}

/// One key of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// The path, such as `twitch.client_id`; `sink.*.type` stands for every sink, and `subscription.type` for every
    /// `[[subscription]]`.
    pub path: &'static str,
    pub kind: Kind,
    /// The default as TOML text. `None` means that the key is required, off, or found elsewhere.
    pub default: Option<&'static str>,
    /// One line of help.
    pub doc: &'static str,
    pub required: bool,
    /// Whether a reload that changes the value is refused.
    pub needs_restart: bool,
    /// The types of sinks that have the key; all if empty.
    pub only: &'static [SinkType],
}

impl Key {
    /// The last name: `client_id` of `twitch.client_id`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The variable of the environment that sets the key; `None` for keys that only the file can have. That of a sink
    /// has `*` in place of the sink's name.
    pub fn variable(&self) -> Option<String> {
        let is_only_in_file = self.kind == Kind::Fields || self.path.starts_with("subscription.");
        (!is_only_in_file).then(|| variable(self.path))
    }

    const fn of(kind: Kind) -> Self {
        Self { path: "", kind, default: None, doc: "", required: false, needs_restart: false, only: &[] }
    }

    /// Sets the default, as TOML text.
    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub(super) const fn needs_restart(self) -> Self {
        Self { needs_restart: true, ..self }
    }

    /// Restricts the key to sinks of these types.
    pub(super) const fn only(self, only: &'static [SinkType]) -> Self {
        Self { only, ..self }
    }
}

/// The variable of the environment for a path such as `sink.log.path`.
pub(in crate::config) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

pub(super) const TEXT: Key = Key::of(Kind::Text);
pub(super) const PATH: Key = Key::of(Kind::Path);
pub(super) const HTTP: Key = Key::of(Kind::Url { schemes: ["https", "http"] });
pub(super) const WEBSOCKET: Key = Key::of(Kind::Url { schemes: ["wss", "ws"] });
pub(super) const ADDRESS: Key = Key::of(Kind::Address { systemd: false });
pub(super) const ADDRESS_OR_SYSTEMD: Key = Key::of(Kind::Address { systemd: true });
pub(super) const FRACTION: Key = Key::of(Kind::Fraction);
pub(super) const FLAG: Key = Key::of(Kind::Flag);
pub(super) const TEXTS: Key = Key::of(Kind::Texts);
pub(super) const FIELDS: Key = Key::of(Kind::Fields);

pub(super) const fn time(min: &'static str, max: &'static str) -> Key {
    Key::of(Kind::Duration { min, max })
}

pub(super) const fn size(min: &'static str) -> Key {
    Key::of(Kind::Size { min })
}

pub(super) const fn integer(min: i64, max: i64) -> Key {
    Key::of(Kind::Integer { min, max })
}

pub(super) const fn integer_or_auto(min: i64, max: i64) -> Key {
    Key::of(Kind::IntegerOrAuto { min, max })
}

/// One of these words, for types that are not ours.
pub(super) const fn words(values: &'static [&'static str]) -> Key {
    Key::of(Kind::Choice { values })
}

pub(super) const fn choice<T: Choice>() -> Key {
    Key::of(Kind::Choice { values: T::WORDS })
}

impl Kind {
    /// The kind for manuals, and a sentence about its range, in Markdown.
    pub fn describe(&self) -> (&'static str, Option<String>) {
        match self {
            Self::Text => ("string", None),
            Self::Path => ("path", None),
            Self::Url { schemes: [encrypted, plain] } => {
                ("URL", Some(format!("`{encrypted}`, or `{plain}` to a loopback address.")))
            }
            Self::Address { systemd: false } => ("address with a port", None),
            Self::Address { systemd: true } => ("address with a port, or `\"systemd\"`", None),
            Self::Duration { min, max } => ("duration", Some(format!("From {min} to {max}."))),
            Self::Size { min } => ("size", Some(format!("At least {min}."))),
            Self::Integer { min, max: i64::MAX } => ("whole number", Some(format!("At least {min}."))),
            Self::Integer { min, max } => ("whole number", Some(format!("From {min} to {max}."))),
            Self::IntegerOrAuto { min, max } => {
                ("whole number, or `\"auto\"`", Some(format!("From {min} to {max}.")))
            }
            Self::Fraction => ("number", Some("From 0 to 1.".to_owned())),
            Self::Flag => ("true or false", None),
            Self::Texts => ("string or list of strings", None),
            Self::Fields => ("table of strings", None),
            Self::Choice { values } => {
                let words = values.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>();
                ("string", Some(format!("One of {}.", words.join(", "))))
            }
        }
    }

    /// The kind with its article, for messages.
    pub(in crate::config) fn noun(&self) -> &'static str {
        match self {
            Self::Text | Self::Choice { .. } => "a string",
            Self::Path => "a path in quotes",
            Self::Url { .. } => "a URL in quotes",
            Self::Address { .. } => "an address in quotes",
            Self::Duration { .. } => "a duration such as \"30s\"",
            Self::Size { .. } => "a size such as \"1GiB\"",
            Self::Integer { .. } => "a whole number",
            Self::IntegerOrAuto { .. } => "a whole number or \"auto\"",
            Self::Fraction => "a number",
            Self::Flag => "true or false",
            Self::Texts => "a string or a list of strings",
            Self::Fields => "a table of strings",
        }
    }
}
