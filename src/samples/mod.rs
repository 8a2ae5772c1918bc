//! Sample events for every type of the catalogue. ◆
//!
//! Owns the templates (`*.json`, one file a family of types, named `TYPE VERSION`, each with one
//! or more variants) and what fills them. The members stand in the order of Twitch's "EventSub
//! Reference". Templates are text and stay text, so that order and numbers come out as written.
//!
//! Must never ask a clock or a source of chance: equal requests give equal events. Holds no state, so a
//! crash loses nothing.

mod message;
mod render;
mod values;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::value::RawValue;

use crate::model::subscription::Condition;
use crate::model::time::Timestamp;

pub use self::message::{gap, message, revocation};
use self::values::Values;

/// A user, as samples need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleUser {
    /// Twitch's id of the user, as a rule digits.
    pub id: String,
    /// The name in lower case, as in the channel's address.
    pub login: String,
    /// The name as it is shown.
    pub name: String,
}

/// The event to make.
pub struct SampleRequest<'a> {
    /// For example `channel.follow`.
    pub subscription_type: &'a str,
    /// For example `2`.
    pub version: &'a str,
    /// The subscription's condition: the event speaks of the users and things named here.
    pub condition: &'a Condition,
    /// Looks up users by id. It is asked for the users of the condition and for the others in the event
    /// (viewers, moderators, further channels), whose ids come from a small fixed set.
    pub user: &'a dyn Fn(&str) -> SampleUser,
    /// When the event happens; the times in it are relative to this.
    pub now: Timestamp,
    /// Grows with each sample: makes ids differ, and picks among variants.
    pub serial: u64,
}

const FAMILIES: [&str; 9] = [
    include_str!("automod.json"),
    include_str!("channel.json"),
    include_str!("chat.json"),
    include_str!("drives.json"),
    include_str!("guest_star.json"),
    include_str!("moderation.json"),
    include_str!("platform.json"),
    include_str!("points.json"),
    include_str!("votes.json"),
];

/// The variants by `TYPE VERSION`; they point into [`FAMILIES`].
static TEMPLATES: LazyLock<HashMap<&'static str, Vec<&'static RawValue>>> = LazyLock::new(|| {
    let parse = |family: &'static str| -> HashMap<&'static str, Vec<&'static RawValue>> {
        serde_json::from_str(family).expect("the embedded templates are checked by a test")
    };
    FAMILIES.into_iter().flat_map(parse).collect()
});

/// The JSON text of `event` (or, for batched types, `events` with its brackets), on one line.
///
/// A type or version without a template gives an object of the condition's fields (with logins and names
/// of users), since Twitch has types that the catalogue does not know.
pub fn event(request: &SampleRequest<'_>) -> String {
    let values = Values::new(request);
    match templates(request) {
        Some(variants) => render::render(variants[values.variant(variants.len())].get(), &values),
        None => unknown(request),
    }
}

/// Like [`event`], once for each variant of the type, in the order of the templates.
pub fn every_variant(request: &SampleRequest<'_>) -> Vec<String> {
    let values = Values::new(request);
    match templates(request) {
        Some(variants) => variants.iter().map(|variant| render::render(variant.get(), &values)).collect(),
        None => vec![unknown(request)],
    }
}

fn templates(request: &SampleRequest<'_>) -> Option<&'static [&'static RawValue]> {
    let key = format!("{} {}", request.subscription_type, request.version);
    TEMPLATES.get(key.as_str()).map(Vec::as_slice)
}

fn unknown(request: &SampleRequest<'_>) -> String {
    let mut members = Vec::new();
    let mut add = |name: &str, value: &str| {
        members.push(format!("\"{}\":\"{}\"", render::escaped(name), render::escaped(value)));
    };
    for (name, value) in request.condition.iter() {
        add(name, value);
        if let Some(prefix) = name.strip_suffix("_id").filter(|prefix| prefix.ends_with("user")) {
            let user = (request.user)(value);
            add(&format!("{prefix}_login"), &user.login);
            add(&format!("{prefix}_name"), &user.name);
        }
    }
    format!("{{{}}}", members.join(","))
}
