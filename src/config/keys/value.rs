//! One value against its key: type, unit, range.
//!
//! Pure. Values from the environment are text and take the same way as far as they are. A value of a sink or of the
//! environment is quoted only when it was understood: else it may be a secret in the wrong place.

use std::time::Duration;

use bytesize::ByteSize;
use toml::de::DeValue;

use super::schema::{Key, Kind};
use super::table::SECRET_PATH;
use super::url;
use crate::config::report::diagnostic::{closest, quote};
use crate::config::report::private;
use crate::config::report::problems::Complaint;
use crate::model::mode::ShardCount;
use crate::model::webhook::Listen;

/// A value that has passed the check of its key.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Plain {
    Text(String),
    Integer(i64),
    Fraction(f64),
    Flag(bool),
    Texts(Vec<String>),
}

/// Checks a value of the file. Tables are not its business.
pub(in crate::config) fn check(key: &Key, name: &str, value: &DeValue<'_>) -> Result<Plain, Complaint> {
    match (&key.kind, value) {
        (Kind::Integer { .. } | Kind::IntegerOrAuto { .. }, DeValue::Integer(number)) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            integer(key, name, parsed.ok(), &number.to_string(), Quoting::Allowed)
        }
        (Kind::Fraction, DeValue::Integer(number)) => fraction(key, name, number.as_str(), Quoting::Allowed),
        (Kind::Fraction, DeValue::Float(number)) => fraction(key, name, number.as_str(), Quoting::Allowed),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Plain::Flag(*flag)),
        (Kind::Texts, DeValue::Array(items)) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.clone().into_owned()),
                other => Err(wrong_type(key, name, other)),
            })
            .collect::<Result<_, _>>()
            .map(Plain::Texts),
        (Kind::Texts, DeValue::String(text)) => Ok(Plain::Texts(vec![text.clone().into_owned()])),
        (Kind::IntegerOrAuto { .. }, DeValue::String(text)) if *text == ShardCount::AUTO => {
            Ok(Plain::Text(text.clone().into_owned()))
        }
        (
            Kind::Integer { .. } | Kind::IntegerOrAuto { .. } | Kind::Fraction | Kind::Flag | Kind::Fields,
            other,
        ) => Err(wrong_type(key, name, other)),
        (_, DeValue::String(text)) => {
            let quoting = if key.path.starts_with("sink.") { Quoting::Forbidden } else { Quoting::Allowed };
            check_text(key, name, text, quoting)
        }
        (_, other) => Err(wrong_type(key, name, other)),
    }
}

/// Checks a value of the environment, where everything is text and lists have commas.
pub(in crate::config) fn check_variable(key: &Key, name: &str, text: &str) -> Result<Plain, Complaint> {
    let quoting = Quoting::Forbidden;
    match key.kind {
        Kind::IntegerOrAuto { .. } if text == ShardCount::AUTO => Ok(Plain::Text(text.to_owned())),
        Kind::Integer { .. } | Kind::IntegerOrAuto { .. } => {
            integer(key, name, text.parse().ok(), text, quoting)
        }
        Kind::Fraction => fraction(key, name, text, quoting),
        Kind::Flag => text
            .parse()
            .map(Plain::Flag)
            .map_err(|_| Complaint { message: format!("`{name}` must be true or false"), hint: None }),
        Kind::Texts => Ok(Plain::Texts(text.split(',').map(|item| item.trim().to_owned()).collect())),
        Kind::Fields => {
            Err(Complaint { message: format!("`{name}` must be {}", key.kind.noun()), hint: None })
        }
        _ => check_text(key, name, text, quoting),
    }
}

/// Whether a message may quote a value that is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoting {
    Allowed,
    Forbidden,
}

impl Quoting {
    /// The value behind what should stand there; nothing if it must not be shown.
    fn not(self, text: &str) -> String {
        match self {
            Self::Allowed => format!(", not {}", quote(text)),
            Self::Forbidden => String::new(),
        }
    }
}

/// The complaint about a value of another type than the key's.
pub(in crate::config) fn wrong_type(key: &Key, name: &str, value: &DeValue<'_>) -> Complaint {
    let found = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let message = format!("`{name}` must be {}, not {found}", key.kind.noun());
    let hint = match (&key.kind, value) {
        (Kind::Duration { .. }, DeValue::Integer(n)) => {
            Some(unit_hint("a duration", n.as_str(), ["s", "m", "h"]))
        }
        (Kind::Size { .. }, DeValue::Integer(n)) => {
            Some(unit_hint("a size", n.as_str(), ["B", "KiB", "MiB"]))
        }
        (Kind::Flag, DeValue::String(text)) => {
            let text = text.to_ascii_lowercase();
            Some(match text.as_str() {
                "true" | "yes" | "on" | "1" | "enabled" => "write `true`, without quotes".to_owned(),
                "false" | "no" | "off" | "0" | "disabled" => "write `false`, without quotes".to_owned(),
                _ => "write `true` or `false`, without quotes".to_owned(),
            })
        }
        (Kind::Flag, DeValue::Integer(_)) => Some("write `true` or `false`".to_owned()),
        (Kind::Integer { .. } | Kind::IntegerOrAuto { .. } | Kind::Fraction, DeValue::String(text)) => {
            Some(match (text.parse::<f64>(), &key.kind) {
                (Ok(_), _) => "write it without quotes".to_owned(),
                (Err(_), Kind::IntegerOrAuto { .. }) => {
                    "the word is \"auto\"; a number stands without quotes".to_owned()
                }
                (Err(_), kind) => format!("write {} without quotes", kind.noun()),
            })
        }
        (Kind::Text | Kind::Texts, DeValue::Integer(_) | DeValue::Float(_)) if key.path != SECRET_PATH => {
            match key.path {
                "subscription.broadcaster"
                | "subscription.moderator"
                | "subscription.user"
                | "subscription.from_broadcaster"
                | "subscription.to_broadcaster" => {
                    Some("these are logins in quotes; ids go into `condition`, in quotes as well".to_owned())
                }
                _ => Some("put it in quotes".to_owned()),
            }
        }
        (Kind::Address { .. }, DeValue::Integer(_)) => Some("for example \"127.0.0.1:8080\"".to_owned()),
        _ => None,
    };
    Complaint { message, hint }
}

fn check_text(key: &Key, name: &str, text: &str, quoting: Quoting) -> Result<Plain, Complaint> {
    if text.trim().is_empty() {
        let hint = (!key.required).then(|| "leave the key out instead".to_owned());
        return Err(Complaint { message: format!("`{name}` is empty"), hint });
    }
    let plain = Plain::Text(text.to_owned());
    match key.kind {
        Kind::Duration { min, max } => duration(key, name, text, (min, max), quoting).map(|_| plain),
        Kind::Size { min } => size(key, name, text, min, quoting).map(|_| plain),
        Kind::Url { schemes } => {
            url::check(name, text, schemes).map(|()| Plain::Text(text.trim_end_matches('/').to_owned()))
        }
        Kind::Address { systemd } => address(key, name, text, systemd).map(|()| plain),
        Kind::Choice { values } => choice(name, text, values, quoting).map(|()| plain),
        Kind::Path if text.contains('\0') => Err(Complaint {
            message: format!("`{name}` is not a valid path: it holds a NUL character"),
            hint: None,
        }),
        _ => Ok(plain),
    }
}

/// Hint that shows a bare number with units.
fn unit_hint(what: &str, number: &str, units: [&str; 3]) -> String {
    let number = if number.len() <= 12 { number.trim() } else { "1" };
    let [a, b, c] = units.map(|unit| format!("\"{number}{unit}\""));
    format!("{what} has a unit: {a}, {b} or {c}")
}

/// `not` is what stands there, as [`Quoting::not`] has it.
fn out_of_range(key: &Key, name: &str, bounds: &str, not: &str) -> Complaint {
    Complaint::new(format!("`{name}` must be {bounds}{not}"), key.doc)
}

/// A number is understood even when it is too large for us.
fn is_number(text: &str) -> bool {
    text.len() <= 40 && text.bytes().all(|b| b.is_ascii_digit() || b"+-.".contains(&b))
}

fn integer(
    key: &Key,
    name: &str,
    number: Option<i64>,
    text: &str,
    quoting: Quoting,
) -> Result<Plain, Complaint> {
    let (Kind::Integer { min, max } | Kind::IntegerOrAuto { min, max }) = key.kind else {
        return Err(Complaint { message: format!("`{name}` must be {}", key.kind.noun()), hint: None });
    };
    let auto = if matches!(key.kind, Kind::IntegerOrAuto { .. }) { " or \"auto\"" } else { "" };
    match number {
        Some(number) if (min..=max).contains(&number) => Ok(Plain::Integer(number)),
        _ => {
            let quoting = if is_number(text) { Quoting::Allowed } else { quoting };
            Err(out_of_range(
                key,
                name,
                &format!("a whole number from {min} to {max}{auto}"),
                &quoting.not(text),
            ))
        }
    }
}

fn fraction(key: &Key, name: &str, text: &str, quoting: Quoting) -> Result<Plain, Complaint> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(Plain::Fraction(number)),
        _ => {
            let quoting = if is_number(text) { Quoting::Allowed } else { quoting };
            Err(out_of_range(key, name, "a number from 0 to 1", &quoting.not(text)))
        }
    }
}

/// The address of the page for invited users.
const INVITES: &str = "authorize.listen";

fn address(key: &Key, name: &str, text: &str, systemd: bool) -> Result<(), Complaint> {
    let is_right = match text.parse() {
        Ok(Listen::Address(_)) => true,
        Ok(Listen::Systemd) => systemd,
        Err(_) => false,
    };
    if is_right {
        return Ok(());
    }
    let hint = if systemd {
        "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:443\", or \"systemd\" for the socket that systemd passes"
    } else if key.path == INVITES && text.parse() == Ok(Listen::Systemd) {
        "leave it out: the listener of [transport.webhook] then serves the page, with its TLS and the socket that systemd passes"
    } else if key.path == INVITES {
        "it is an IP address and a port, for example \"127.0.0.1:8081\"; left out, the listener of [transport.webhook] serves \
         the page"
    } else {
        "it is an IP address and a port, for example \"127.0.0.1:9464\" or \"[::1]:9464\""
    };
    Err(Complaint::new(format!("{} of `{name}` is not an address to listen on", private::shown(text)), hint))
}

fn duration(
    key: &Key,
    name: &str,
    text: &str,
    (min, max): (&str, &str),
    quoting: Quoting,
) -> Result<Duration, Complaint> {
    if text.parse::<f64>().is_ok() {
        return Err(Complaint::new(
            format!("`{name}` has no unit: {}", quote(text)),
            unit_hint("a duration", text, ["s", "m", "h"]),
        ));
    }
    let parsed = humantime::parse_duration(text).map_err(|error| {
        let hint = match error {
            humantime::DurationError::UnknownUnit { .. } => "the units are ms, s, m, h, d and w",
            humantime::DurationError::NumberOverflow => "that is more than can be counted",
            _ => "durations are written \"30s\", \"10m\" or \"7d\"",
        };
        Complaint::new(format!("`{name}` must be {}{}", key.kind.noun(), quoting.not(text)), hint)
    })?;
    let bound = |text| humantime::parse_duration(text).unwrap_or_default();
    if parsed < bound(min) || parsed > bound(max) {
        return Err(out_of_range(key, name, &format!("from {min} to {max}"), &Quoting::Allowed.not(text)));
    }
    Ok(parsed)
}

fn size(key: &Key, name: &str, text: &str, min: &str, quoting: Quoting) -> Result<u64, Complaint> {
    if text.parse::<f64>().is_ok() {
        return Err(Complaint::new(
            format!("`{name}` has no unit: {}", quote(text)),
            unit_hint("a size", text, ["B", "KiB", "MiB"]),
        ));
    }
    let parsed = text.parse::<ByteSize>().map_err(|_| {
        Complaint::new(
            format!("`{name}` must be {}{}", key.kind.noun(), quoting.not(text)),
            "the units are B, KiB, MiB, GiB and TiB",
        )
    })?;
    if parsed < min.parse::<ByteSize>().unwrap_or_default() {
        return Err(out_of_range(key, name, &format!("at least {min}"), &Quoting::Allowed.not(text)));
    }
    // The store counts in signed 64 bits.
    if i64::try_from(parsed.as_u64()).is_err() {
        return Err(Complaint { message: format!("`{name}` is too large: {}", quote(text)), hint: None });
    }
    Ok(parsed.as_u64())
}

fn choice(name: &str, text: &str, values: &[&str], quoting: Quoting) -> Result<(), Complaint> {
    if values.contains(&text) {
        return Ok(());
    }
    let list = values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    let hint = match closest(text, values.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("it is one of {list}"),
    };
    let close = closest(text, values.iter().copied()).is_some();
    let found = if close || quoting == Quoting::Allowed { quote(text) } else { "the value".to_owned() };
    Err(Complaint::new(format!("{found} is not valid for `{name}`"), hint))
}
