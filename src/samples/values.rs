//! The values of placeholders: the condition's where it has them, otherwise made up from a seed.
//!
//! | placeholder | value |
//! |---|---|
//! | `ROLE.id`, `ROLE.login`, `ROLE.name` | a user, see [`ROLES`] |
//! | `condition:FIELD`, `condition:FIELD:ELSE` | of the condition; without it ELSE, or a UUID |
//! | `uuid:LABEL`, `base62:LABEL:LENGTH`, `digits:LABEL:LENGTH` | an id |
//! | `int:LABEL:LOW:HIGH` | a number, both ends included |
//! | `pick:LABEL:A\|B\|…` | one of the texts |
//! | `time:SECONDS` | the request's time and so many seconds |
//! | `begun:SECONDS:ELSE` | the time when the happening began and so many seconds; without it `time:ELSE` |
//!
//! Within one event, equal labels mean equal values.

use std::time::{Duration, UNIX_EPOCH};

use super::{SampleRequest, SampleUser, series};
use crate::model::time::Timestamp;

/// The users of an event, and the condition field that says who each is. Those without a field, or whose
/// field the condition lacks, are taken from the regulars: no two the same, and nobody of the condition.
const ROLES: [(&str, Option<&str>); 10] = [
    ("broadcaster", Some("broadcaster_user_id")),
    ("moderator", Some("moderator_user_id")),
    ("user", Some("user_id")),
    ("from_broadcaster", Some("from_broadcaster_user_id")),
    ("to_broadcaster", Some("to_broadcaster_user_id")),
    ("viewer", None),
    ("viewer2", None),
    ("viewer3", None),
    ("channel", None),
    ("channel2", None),
];

/// Number of regular users for each role.
const TURNS: u64 = 7;

/// 9999-01-01 in milliseconds since the Unix epoch; RFC 3339 has no later years than that one.
const LATEST_MILLIS: u64 = 253_370_764_800_000;

/// The values for one request.
pub(super) struct Values<'a> {
    request: &'a SampleRequest<'a>,
    seed: u64,
}

impl<'a> Values<'a> {
    pub(super) fn new(request: &'a SampleRequest<'a>) -> Self {
        if let (Some(happening), Some(leader)) =
            (request.happening, series::leader(request.subscription_type))
        {
            let began = happening.began.map_or(0, Timestamp::unix_millis);
            let seed = mix(happening.number) ^ hash(leader) ^ mix(began);
            return Self { request, seed: mix(seed ^ hash(series::channel(request.condition))) };
        }
        let mut seed = mix(request.serial) ^ hash(request.subscription_type) ^ request.now.unix_millis();
        for (name, value) in request.condition.iter() {
            seed = mix(seed ^ hash(name)) ^ hash(value);
        }
        Self { request, seed: mix(seed) }
    }

    /// The variant to take out of `count`. Depends on type and serial alone (within a happening, on that), and mixes
    /// them, so that a serial that grows in steps still meets all variants.
    pub(super) fn variant(&self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(1).max(1);
        let leader = series::leader(self.request.subscription_type);
        let chosen = match (self.request.happening, leader) {
            (Some(happening), Some(leader)) => mix(happening.number ^ hash(leader)),
            _ => mix(self.request.serial ^ hash(self.request.subscription_type)),
        };
        usize::try_from(chosen % count).unwrap_or(0)
    }

    /// The value of a placeholder; `None` if there is no such placeholder.
    pub(super) fn get(&self, spec: &str) -> Option<String> {
        let Some((verb, args)) = spec.split_once(':') else {
            let (role, part) = spec.split_once('.')?;
            let user = self.user(role)?;
            return match part {
                "id" => Some(user.id),
                "login" => Some(user.login),
                "name" => Some(user.name),
                _ => None,
            };
        };
        let (label, more) = args.split_once(':').map_or((args, None), |(label, more)| (label, Some(more)));
        match verb {
            "condition" => {
                let known = self.request.condition.get(label).or(more);
                Some(known.map_or_else(|| self.uuid(label), str::to_owned))
            }
            "uuid" => Some(self.uuid(label)),
            "base62" => {
                const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
                Some(self.characters(label, more?.parse().ok()?, DIGITS))
            }
            "digits" => {
                // Led by a digit that is not zero, as Twitch's numeric ids are.
                let rest =
                    self.characters(label, more?.parse::<u64>().ok()?.saturating_sub(1), b"0123456789");
                Some(format!("{}{rest}", 1 + self.number(label) % 9))
            }
            "int" => {
                let (low, high) = more?.split_once(':')?;
                let (low, high): (u64, u64) = (low.parse().ok()?, high.parse().ok()?);
                Some((low + self.number(label) % (high.checked_sub(low)? + 1)).to_string())
            }
            "pick" => {
                let texts: Vec<&str> = more?.split('|').collect();
                let index = self.number(label) % u64::try_from(texts.len()).ok()?;
                texts.get(usize::try_from(index).ok()?).map(|text| (*text).to_owned())
            }
            "time" => Some(self.time(self.request.now, label.parse().ok()?)),
            "begun" => Some(match self.request.happening.and_then(|happening| happening.began) {
                Some(began) => self.time(began, label.parse().ok()?),
                None => self.time(self.request.now, more?.parse().ok()?),
            }),
            _ => None,
        }
    }

    fn user(&self, role: &str) -> Option<SampleUser> {
        let index = ROLES.iter().position(|(known, _)| *known == role)?;
        if let Some(id) = ROLES[index].1.and_then(|field| self.request.condition.get(field)) {
            // The event must name the condition's id, whatever the look-up makes of it.
            return Some(SampleUser { id: id.to_owned(), ..(self.request.user)(id) });
        }
        let (index, roles) = (u64::try_from(index).ok()?, u64::try_from(ROLES.len()).ok()?);
        let regulars = (0..TURNS).map(|turn| (self.seed % TURNS + turn) % TURNS * roles + index).map(regular);
        let mut strangers = regulars.filter(|id| self.request.condition.iter().all(|(_, value)| value != id));
        let id = strangers.next()?;
        Some(SampleUser { id: id.clone(), ..(self.request.user)(&id) })
    }

    fn number(&self, label: &str) -> u64 {
        mix(self.seed ^ hash(label))
    }

    fn uuid(&self, label: &str) -> String {
        let high = self.number(label);
        let bits = u128::from(high) << 64 | u128::from(mix(high));
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }

    fn characters(&self, label: &str, length: u64, alphabet: &[u8]) -> String {
        let count = u64::try_from(alphabet.len()).unwrap_or(1);
        (0..length)
            .map(|place| mix(self.number(label) ^ mix(place)) % count)
            .filter_map(|index| alphabet.get(usize::try_from(index).ok()?))
            .map(|digit| char::from(*digit))
            .collect()
    }

    /// With nanoseconds, as most of Twitch's types have them. Nothing happens after the request's time but
    /// what is announced for later.
    fn time(&self, from: Timestamp, seconds: i64) -> String {
        let millis = from.unix_millis().saturating_sub(1);
        let millis = millis.saturating_add_signed(seconds.saturating_mul(1000)).min(LATEST_MILLIS);
        let nanos = Duration::from_nanos(self.number("time") % 1_000_000);
        humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_millis(millis) + nanos).to_string()
    }
}

/// The id of a regular: nine digits, spread.
fn regular(index: u64) -> String {
    (100_000_000 + (index * 12_345_679 + 7_654_321) % 899_999_981).to_string()
}

/// Spreads nearby numbers (the last step of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// FNV-1a. The standard library's hashers may change between releases of Rust.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
