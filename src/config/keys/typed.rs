//! From a value that has passed its check to the type of its key.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use config::{ConfigError, Value};

use super::schema::Key;
use crate::model::choice::Choice;
use crate::model::mode::ShardCount;
use crate::model::secret::Secret;
use crate::model::sink::Format;
use crate::model::text::duration;
use crate::model::webhook::Listen;

/// The values in force, by path.
pub(in crate::config) struct Values(config::Config);

impl Values {
    pub(super) fn new(values: config::Config) -> Self {
        Self(values)
    }

    /// The value of a key in a section.
    ///
    /// # Errors
    /// The table of keys has another type than the check lets through: a defect of the table.
    pub(super) fn get<T: KeyValue>(&self, section: &str, name: &str) -> Result<T, ConfigError> {
        match self.0.get::<Value>(&format!("{section}.{name}")) {
            Ok(value) => T::read(Some(value)),
            Err(ConfigError::NotFound(_)) => T::read(None),
            Err(error) => Err(error),
        }
    }
}

/// A section of the file with a field for each key; `keys!` makes them.
pub(in crate::config) trait Section: Sized {
    /// The path of the section, with `*` for the name of a sink.
    const PATH: &'static str;

    /// Reads the section at a path.
    ///
    /// # Errors
    /// See [`Values::get`].
    fn read(values: &Values, path: &str) -> Result<Self, ConfigError>;

    /// The keys whose values differ, with both values as people read them.
    fn changes(&self, new: &Self) -> Vec<(&'static Key, String, String)>;
}

/// A type that a key can have.
pub(super) trait KeyValue: Sized {
    /// Reads a value that has passed its check. `None` means that no layer has the key.
    fn read(value: Option<Value>) -> Result<Self, ConfigError>;

    /// The value in messages about a change.
    fn show(&self) -> String;
}

fn missing() -> ConfigError {
    ConfigError::Message("a key has neither a value nor a default".to_owned())
}

fn text(value: Option<Value>) -> Result<String, ConfigError> {
    value.ok_or_else(missing)?.into_string()
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: Option<Value>) -> Result<T, ConfigError> {
    text(value)?.parse().map_err(|error: T::Err| ConfigError::Message(error.to_string()))
}

impl<T: KeyValue> KeyValue for Option<T> {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        value.map(|value| T::read(Some(value))).transpose()
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::show)
    }
}

impl<T: Choice> KeyValue for T {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        let word = text(value)?;
        T::from_word(&word).ok_or_else(|| ConfigError::Message(format!("`{word}` is not one of the words")))
    }

    fn show(&self) -> String {
        self.word().to_owned()
    }
}

impl KeyValue for String {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        text(value)
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl KeyValue for Secret {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        text(value).map(Self::new)
    }

    fn show(&self) -> String {
        "[secret]".to_owned()
    }
}

/// The type of keys whose values go another way, since they may be secret: the client secret and headers.
#[derive(PartialEq, Eq)]
pub(in crate::config) struct Apart;

impl KeyValue for Apart {
    fn read(_: Option<Value>) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn show(&self) -> String {
        "[secret]".to_owned()
    }
}

impl KeyValue for Vec<String> {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        value.ok_or_else(missing)?.into_array()?.into_iter().map(Value::into_string).collect()
    }

    fn show(&self) -> String {
        self.join(", ")
    }
}

impl KeyValue for Duration {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        humantime::parse_duration(&text(value)?).map_err(|error| ConfigError::Message(error.to_string()))
    }

    fn show(&self) -> String {
        duration(*self)
    }
}

impl KeyValue for bool {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        value.ok_or_else(missing)?.into_bool()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl KeyValue for f64 {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        value.ok_or_else(missing)?.into_float()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($type:ty),+) => {$(
        impl KeyValue for $type {
            fn read(value: Option<Value>) -> Result<Self, ConfigError> {
                let number = value.ok_or_else(missing)?.into_int()?;
                Self::try_from(number).map_err(|error| ConfigError::Message(error.to_string()))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
whole_numbers!(u8, u32, u64, usize);

impl KeyValue for ShardCount {
    fn read(value: Option<Value>) -> Result<Self, ConfigError> {
        match &*text(value)? {
            Self::AUTO => Ok(Self::Auto),
            number => {
                let count = number.parse().map(Self::Fixed);
                count.map_err(|error| ConfigError::Message(error.to_string()))
            }
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! parsed_texts {
    ($($type:ty),+) => {$(
        impl KeyValue for $type {
            fn read(value: Option<Value>) -> Result<Self, ConfigError> {
                parsed(value)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
parsed_texts!(ByteSize, SocketAddr, Listen, http::Method);

/// The `format` of a sink: a form of events, or a template that makes the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum SinkFormat {
    Plain(Format),
    Template,
}

const TEMPLATE: &str = "template";

impl Choice for SinkFormat {
    const WORDS: &'static [&'static str] = &[Format::Eventsub.name(), Format::Cloudevents.name(), TEMPLATE];

    fn from_word(word: &str) -> Option<Self> {
        if word == TEMPLATE { Some(Self::Template) } else { Format::from_word(word).map(Self::Plain) }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Plain(format) => format.name(),
            Self::Template => TEMPLATE,
        }
    }
}
