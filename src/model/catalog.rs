//! Catalogue of the subscription types that this release knows: versions, condition fields, required scopes and their
//! granter, transports.
//!
//! Used for offline checks and hints only. Twitch adds types between releases, and nothing at run time may depend on
//! a type being listed here. Source: Twitch's "EventSub Subscription Types" and "EventSub Reference", with
//! corrections from its changelog.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// One version of one subscription type.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TypeVersion {
    /// For example `channel.follow`.
    #[serde(rename = "type")]
    pub name: String,
    /// For example `2`, or `beta`.
    pub version: String,
    /// Twitch refuses to create it now (410).
    pub removed: bool,
    /// Superseded; listed for the sake of old files.
    pub deprecated: bool,
    /// May vanish without notice.
    pub beta: bool,
    /// Fields of the condition, by name.
    pub condition: BTreeMap<String, ConditionField>,
    pub auth: Auth,
    /// Groups of scopes; the granting user needs at least one scope of each group.
    pub scopes: Vec<Vec<String>>,
    /// The condition field whose user must have granted [`Self::scopes`].
    pub scope_granted_by: Option<String>,
    /// Scopes that users of other condition fields must have granted.
    pub additional_grants: Vec<AdditionalGrant>,
    /// `webhook`, `websocket`, `conduit`.
    pub transports: Vec<String>,
    /// Notifications hold a list of `events`; creating needs `is_batching_enabled`.
    pub batched: bool,
    /// Members of `event`, texts all, that make two events the same happening; none if the type has no identity.
    pub identity: Vec<String>,
    /// Remarks for people.
    pub notes: String,
}

/// The cost of a subscription (Twitch: "Managing Event Subscriptions", subscription limits; recorded answers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// 0: a user must have authorized the application anyway, or no user is concerned.
    Free,
    One,
    /// 0 if a user of the condition has authorized the application, otherwise 1.
    FreeIfAuthorized,
}

impl Cost {
    /// The cost if no user has authorized the application.
    pub fn worst(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::One | Self::FreeIfAuthorized => 1,
        }
    }

    /// The cost, if it does not depend on users.
    pub fn fixed(self) -> Option<u64> {
        (self != Self::FreeIfAuthorized).then(|| self.worst())
    }
}

impl TypeVersion {
    /// The cost of one subscription.
    pub fn cost(&self) -> Cost {
        if self.name.starts_with("user.authorization.") {
            Cost::One
        } else if self.auth != Auth::None {
            Cost::Free
        } else {
            Cost::FreeIfAuthorized
        }
    }

    /// The fields of the condition that name users.
    pub fn user_fields(&self) -> impl Iterator<Item = &str> {
        let fields = self.condition.iter().filter(|(_, field)| field.kind == "user_id");
        fields.map(|(name, _)| name.as_str())
    }
}

/// One field of a condition.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ConditionField {
    /// Whether Twitch refuses a condition without it.
    pub required: bool,
    /// Meaning of the value: `user_id`, `reward_id`, `client_id`, ….
    pub kind: String,
}

/// The user whose grant a type needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    None,
    /// The user of `broadcaster_user_id`.
    Broadcaster,
    /// The user of `moderator_user_id`, who moderates the channel or owns it.
    Moderator,
    /// The chatting user of `user_id`, and the broadcaster.
    Bot,
    /// The user of `user_id`.
    User,
    /// The application itself must be entitled.
    App,
}

/// A grant needed from a further user of the condition.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AdditionalGrant {
    /// The condition field that names the user.
    pub field: String,
    /// A fact that makes the grant unnecessary, in words.
    pub alternative: Option<String>,
    /// Groups of scopes, as in [`TypeVersion::scopes`].
    pub scopes: Vec<Vec<String>>,
}

/// A fact about chat that surprises people who list `channel.chat.message` alone.
pub const CHAT_WITH_NOTICES: &str = "the words that come with a watch streak, a resubscription or an announcement are in \
    channel.chat.notification only, never in channel.chat.message";

static CATALOG: LazyLock<Vec<TypeVersion>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("subscription-types.json"))
        .expect("the embedded catalogue is checked by a test")
});

/// Returns all rows, sorted by type, older versions first.
pub fn all() -> &'static [TypeVersion] {
    &CATALOG
}

static IDENTITIES: LazyLock<HashMap<&'static str, Vec<&'static TypeVersion>>> = LazyLock::new(|| {
    let mut known: HashMap<&str, Vec<&TypeVersion>> = HashMap::new();
    for row in all().iter().filter(|row| !row.identity.is_empty()) {
        known.entry(&row.name).or_default().push(row);
    }
    known
});

/// The members that make two events of this version of a type the same happening; `None` if it has no identity. Asked
/// for every event, so it does not search the catalogue.
pub fn identity(name: &str, version: &str) -> Option<&'static [String]> {
    let row = IDENTITIES.get(name)?.iter().find(|row| row.version == version)?;
    Some(&row.identity)
}

/// The row of one version of one type.
pub fn lookup(name: &str, version: &str) -> Option<&'static TypeVersion> {
    versions(name).find(|row| row.version == version)
}

/// Returns the rows of one type, older versions first; none if the type is unknown.
pub fn versions(name: &str) -> impl Iterator<Item = &'static TypeVersion> {
    all().iter().filter(move |row| row.name == name)
}

/// Returns the version for a file that names none: the newest that is neither beta nor removed, else the newest beta
/// that is not removed.
pub fn default_version(name: &str) -> Option<&'static TypeVersion> {
    let usable = || versions(name).filter(|row| !row.removed);
    usable().filter(|row| !row.beta).last().or_else(|| usable().last())
}

/// Returns the names of all types, each once.
pub fn names() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    all().iter().filter_map(move |row| {
        let new = row.name != last;
        last = &row.name;
        new.then_some(row.name.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_grouped_and_consistent() {
        assert_eq!(all().len(), 89);
        let mut seen = std::collections::HashSet::new();
        for row in all() {
            assert!(seen.insert((&row.name, &row.version)), "{} twice", row.name);
            assert!(row.identity.len() <= 3 && (!row.batched || row.identity.is_empty()), "{}", row.name);
            if let Some(field) = &row.scope_granted_by {
                assert!(row.condition.contains_key(field), "{}: {field}", row.name);
            }
        }
        let distinct: std::collections::HashSet<_> = all().iter().map(|row| &row.name).collect();
        assert_eq!(names().count(), distinct.len(), "rows of one type stand together");
    }

    #[test]
    fn costs_are_those_of_recorded_answers() {
        for (name, cost) in [
            ("user.authorization.grant", Cost::One),
            ("user.authorization.revoke", Cost::One),
            ("conduit.shard.disabled", Cost::Free),
            ("extension.bits_transaction.create", Cost::Free),
            ("drop.entitlement.grant", Cost::Free),
            ("channel.follow", Cost::Free),
            ("channel.chat.message", Cost::Free),
            ("stream.online", Cost::FreeIfAuthorized),
            ("channel.raid", Cost::FreeIfAuthorized),
            ("user.update", Cost::FreeIfAuthorized),
        ] {
            assert_eq!(default_version(name).expect("known").cost(), cost, "{name}");
        }
        for row in all().iter().filter(|row| row.cost() == Cost::FreeIfAuthorized) {
            assert!(row.user_fields().next().is_some(), "{}", row.name);
        }
    }

    #[test]
    fn default_versions_skip_removed_and_beta_ones() {
        assert_eq!(default_version("channel.follow").expect("known").version, "2");
        assert_eq!(default_version("channel.guest_star_session.begin").expect("known").version, "beta");
        assert_eq!(default_version("channel.custom_power_up_redemption.add").expect("known").version, "1");
        assert!(default_version("channel.nonsense").is_none());
        assert!(names().all(|name| default_version(name).is_some()));
    }
}
