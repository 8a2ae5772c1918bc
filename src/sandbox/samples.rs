//! Sample events for every type of the catalogue.

use std::fmt::Write as _;

use serde_json::Value;

use crate::model::subscription::Condition;
use crate::model::time::Timestamp;

/// What a sample needs to know of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleUser {
    /// The id.
    pub id: String,
    /// The login.
    pub login: String,
    /// The display name.
    pub name: String,
}

/// What the sample is made for.
pub struct SampleRequest<'a> {
    /// For example `channel.follow`.
    pub subscription_type: &'a str,
    /// For example `2`.
    pub version: &'a str,
    /// The subscription's.
    pub condition: &'a Condition,
    /// Looks up users by id.
    pub user: &'a dyn Fn(&str) -> SampleUser,
    /// The time of the event.
    pub now: Timestamp,
    /// Grows with each sample: makes ids differ, and picks among variants.
    pub serial: u64,
}

impl std::fmt::Debug for SampleRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleRequest").field("type", &self.subscription_type).finish_non_exhaustive()
    }
}

/// One template for each version of each type: a line with both, and a line with the text, or with `=`
/// and the template that it shares. `$user(PREFIX)` stands for the three fields of a user, whose id is the
/// condition's `PREFIX_id`, or that of the field after `=`; `$cond(FIELD)` for a field of the condition, or
/// an id when the condition leaves it open; `$now(SECONDS)` for a time from now.
const TEMPLATES: &str = include_str!("samples/events.txt");

/// The JSON text of `event` (or, for batched types, `events` with its brackets). A type without a
/// template gets what its condition says.
pub fn event(request: &SampleRequest<'_>) -> String {
    let name = format!("{} {}", request.subscription_type, request.version);
    template(&name).map_or_else(|| plain(request), |template| fill(template, request))
}

fn template(name: &str) -> Option<&'static str> {
    let mut lines = TEMPLATES.lines();
    let text =
        std::iter::from_fn(|| Some((lines.next()?, lines.next()?))).find(|(title, _)| *title == name)?.1;
    match text.strip_prefix('=') {
        Some(other) => template(other),
        None => Some(text),
    }
}

fn plain(request: &SampleRequest<'_>) -> String {
    let fields: serde_json::Map<String, Value> =
        request.condition.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    Value::Object(fields).to_string()
}

fn fill(template: &str, request: &SampleRequest<'_>) -> String {
    let mut text = String::with_capacity(template.len() + 512);
    let mut parts = template.split('$');
    text.push_str(parts.next().unwrap_or_default());
    for (nth, part) in parts.enumerate() {
        let end = part.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(part.len());
        let (word, rest) = part.split_at(end);
        let (argument, rest) = match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((argument, rest)) => (argument, rest),
            None => ("", rest),
        };
        let seed = request.serial.wrapping_mul(1_000).wrapping_add(nth as u64);
        match word {
            "user" => user(argument, request, seed, &mut text),
            "cond" => match condition(request, argument) {
                Some(value) => text.push_str(&Value::from(value).to_string()),
                None => uuid(seed, &mut text),
            },
            "uuid" => uuid(seed, &mut text),
            "number" => drop(write!(text, "\"{}\"", 40_000_000_000 + seed)),
            _ => now(argument, request.now, &mut text),
        }
        text.push_str(rest);
    }
    text
}

fn condition<'a>(request: &'a SampleRequest<'_>, field: &str) -> Option<&'a str> {
    request.condition.iter().find(|(name, value)| *name == field && !value.is_empty()).map(|(_, value)| value)
}

fn user(argument: &str, request: &SampleRequest<'_>, seed: u64, text: &mut String) {
    let (prefix, field) = argument.split_once('=').unwrap_or((argument, ""));
    let own = format!("{prefix}_id");
    // Some types shorten the name of the field, but their condition does not.
    let names = if argument.contains('=') {
        [field, ""]
    } else {
        [own.as_str(), if prefix == "broadcaster" { "broadcaster_user_id" } else { "" }]
    };
    let known = names.into_iter().find_map(|name| condition(request, name));
    let id = known.map_or_else(|| (50_000_000 + mix(seed) % 900_000_000).to_string(), str::to_owned);
    let user = (request.user)(&id);
    let _ = write!(
        text,
        "\"{prefix}_id\":{},\"{prefix}_login\":{},\"{prefix}_name\":{}",
        Value::from(user.id),
        Value::from(user.login),
        Value::from(user.name)
    );
}

fn uuid(seed: u64, text: &mut String) {
    let (a, b) = (mix(seed), mix(seed ^ 0x5bd1_e995));
    let _ = write!(
        text,
        "\"{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}\"",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    );
}

fn now(seconds: &str, now: Timestamp, text: &mut String) {
    let seconds: i64 = seconds.parse().unwrap_or(0);
    let millis = now.unix_millis().saturating_add_signed(seconds * 1_000);
    let _ = write!(text, "\"{}\"", Timestamp::from_unix_millis(millis));
}

/// Spreads neighbouring numbers over the whole range (the finaliser of SplitMix64).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::model::catalog::{self, TypeVersion};

    fn sample(row: &TypeVersion, condition: &Condition, name: &str, serial: u64) -> String {
        let user = |id: &str| SampleUser { id: id.to_owned(), login: name.to_owned(), name: name.to_owned() };
        event(&SampleRequest {
            subscription_type: &row.name,
            version: &row.version,
            condition,
            user: &user,
            now: Timestamp(SystemTime::UNIX_EPOCH),
            serial,
        })
    }

    fn full(row: &TypeVersion) -> Condition {
        let fields: Vec<(&str, String)> = row
            .condition
            .keys()
            .enumerate()
            .map(|(n, name)| (name.as_str(), (1_000 + n).to_string()))
            .collect();
        Condition::from_pairs(fields.iter().map(|(name, value)| (*name, value.as_str())))
    }

    /// Fields of conditions that the event does not show: who watches, not what happened.
    fn is_shown(kind: &str, field: &str) -> bool {
        match field {
            "moderator_user_id" => !matches!(
                kind,
                "channel.follow"
                    | "automod.message.hold"
                    | "channel.guest_star_session.begin"
                    | "channel.guest_star_session.end"
                    | "channel.guest_star_settings.update"
                    | "channel.shoutout.receive"
                    | "channel.suspicious_user.message"
                    | "channel.unban_request.create"
                    | "channel.warning.acknowledge"
            ),
            "user_id" => !kind.starts_with("channel.chat") || kind.contains("user_message_"),
            "client_id" => kind.starts_with("user.authorization"),
            _ => true,
        }
    }

    #[test]
    fn every_type_has_a_template_that_holds_its_condition() {
        for row in catalog::all() {
            assert!(
                template(&format!("{} {}", row.name, row.version)).is_some(),
                "{} {}",
                row.name,
                row.version
            );
            let condition = full(row);
            let text = sample(row, &condition, "some_user", 7);
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}: {text}", row.name));
            assert_eq!(value.is_array(), row.batched, "{}", row.name);
            assert!(!text.contains('$'), "{text}");
            for (field, id) in condition.iter().filter(|(field, _)| is_shown(&row.name, field)) {
                assert!(text.contains(&format!("\"{id}\"")), "{} shows {field}: {text}", row.name);
            }
            assert_eq!(text, sample(row, &condition, "some_user", 7), "the same again");
        }
    }

    #[test]
    fn a_type_that_is_new_gets_its_condition() {
        let condition = Condition::from_pairs([("broadcaster_user_id", "1")]);
        let user = |id: &str| SampleUser { id: id.to_owned(), login: String::new(), name: String::new() };
        let request = SampleRequest {
            subscription_type: "channel.new_thing",
            version: "1",
            condition: &condition,
            user: &user,
            now: Timestamp(SystemTime::UNIX_EPOCH),
            serial: 1,
        };
        assert_eq!(event(&request), r#"{"broadcaster_user_id":"1"}"#);
    }

    proptest! {
        #[test]
        fn hostile_names_stay_texts(name in ".{0,20}", serial in any::<u64>(), nth in 0..catalog::all().len()) {
            let row = &catalog::all()[nth];
            let text = sample(row, &full(row), &name, serial);
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }
    }
}
