//! The channels that are subscribed to, a part at a time. ◆

use std::collections::BTreeMap;
use std::ops::Bound;

use super::make::{TYPES, key};
use super::options::CatchUpOptions;
use super::schedule::Channels;
use crate::helix::{MAX_CHANNELS, User};
use crate::model::last_known::{CHANNEL, OFFLINE, ONLINE};
use crate::model::status::{SubscriptionEntry, SubscriptionState};
use crate::model::subscriptions::Subscriptions;

/// A channel and its enabled subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) id: Box<str>,
    /// As the file has it, if Twitch does not say.
    pub(super) user: User,
    /// By the place of the type in [`TYPES`].
    subscriptions: [Option<Box<str>>; TYPES.len()],
}

impl Target {
    /// A channel with enabled subscriptions to some of [`TYPES`].
    #[cfg(test)]
    pub(super) fn with_types(id: &str, subscribed: [bool; TYPES.len()]) -> Self {
        let user = User { id: id.into(), login: id.into() };
        let subscriptions = subscribed.map(|is_subscribed| is_subscribed.then(|| "s".into()));
        Self { id: id.into(), user, subscriptions }
    }

    /// The id of the subscription to a type.
    pub(super) fn subscription(&self, kind: &str) -> Option<&str> {
        let place = TYPES.iter().position(|(known, _)| *known == kind)?;
        self.subscriptions.get(place)?.as_deref()
    }

    pub(super) fn has_streams(&self, options: CatchUpOptions) -> bool {
        options.streams && [ONLINE, OFFLINE].iter().any(|kind| self.subscription(kind).is_some())
    }

    pub(super) fn has_channels(&self, options: CatchUpOptions) -> bool {
        options.channels && self.subscription(CHANNEL).is_some()
    }
}

/// Up to [`MAX_CHANNELS`] channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) targets: Vec<Target>,
    /// The last channel that was looked for. `None` at the end.
    pub(super) last: Option<Box<str>>,
}

/// The subscriptions to types of which a catch-up can tell.
#[derive(Clone, Debug)]
pub(super) struct List {
    subscriptions: Subscriptions,
    kinds: Vec<&'static str>,
}

/// The channel of a subscription that a catch-up can tell of.
fn channel_of<'a>(entry: &'a SubscriptionEntry, kind: &str) -> Option<&'a str> {
    let version = TYPES.iter().find(|(known, _)| *known == kind)?.1;
    let is_of = entry.key.subscription_type == kind && entry.key.version == version;
    if !is_of || entry.own || entry.state != SubscriptionState::Enabled || entry.id.is_none() {
        return None;
    }
    let mut fields = entry.key.condition.iter();
    match (fields.next(), fields.next()) {
        (Some(("broadcaster_user_id", id)), None) => Some(id),
        _ => None,
    }
}

impl List {
    pub(super) fn new(subscriptions: Subscriptions, kinds: Vec<&'static str>) -> Self {
        Self { subscriptions, kinds }
    }

    /// The ids of all channels, in order, each once.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        let mut lists: Vec<_> =
            self.kinds.iter().map(|kind| self.of_kind(kind, "").map(|(id, _)| id).peekable()).collect();
        std::iter::from_fn(move || {
            let least = lists.iter_mut().filter_map(|list| list.peek().copied()).min()?;
            for list in &mut lists {
                list.next_if_eq(&least);
            }
            Some(least)
        })
    }

    /// Whether there is a subscription for this channel, in whatever state.
    pub(super) fn has(&self, id: &str) -> bool {
        self.kinds.iter().any(|kind| self.subscriptions.find(&key(kind, id)).is_some())
    }

    /// The subscriptions to a type for channels after one, in the order of the channels.
    fn of_kind<'a>(
        &'a self,
        kind: &'static str,
        after: &str,
    ) -> impl Iterator<Item = (&'a str, &'a SubscriptionEntry)> {
        let at = match self.subscriptions.position(&key(kind, after)) {
            Ok(at) => at + 1,
            Err(at) => at,
        };
        self.subscriptions
            .iter_from(at)
            .take_while(move |entry| entry.key.subscription_type == kind)
            .filter_map(move |entry| Some((channel_of(entry, kind)?, entry)))
    }

    /// The next part of these channels.
    pub(super) fn after(&self, cursor: &str, channels: &Channels) -> Part {
        let mut found = BTreeMap::new();
        let last = match channels {
            Channels::All => {
                for kind in &self.kinds {
                    for (id, entry) in self.of_kind(kind, cursor).take(MAX_CHANNELS) {
                        add(&mut found, id, kind, entry);
                    }
                }
                while found.len() > MAX_CHANNELS {
                    found.pop_last();
                }
                found.last_key_value().map(|(id, _)| Box::from(*id))
            }
            Channels::These(these) => {
                let rest = these.range::<str, _>((Bound::Excluded(cursor), Bound::Unbounded));
                let ids: Vec<&Box<str>> = rest.take(MAX_CHANNELS).collect();
                for id in &ids {
                    for kind in &self.kinds {
                        let entry = self.subscriptions.find(&key(kind, id));
                        if let Some(entry) = entry.filter(|entry| channel_of(entry, kind).is_some()) {
                            add(&mut found, id, kind, entry);
                        }
                    }
                }
                ids.last().map(|id| (*id).clone())
            }
        };
        Part { targets: found.into_values().collect(), last }
    }
}

fn add<'a>(found: &mut BTreeMap<&'a str, Target>, id: &'a str, kind: &str, entry: &SubscriptionEntry) {
    let target = found.entry(id).or_insert_with(|| {
        let login = entry.logins.as_slice().first().map_or_else(|| id.into(), |login| (**login).into());
        Target { id: id.into(), user: User { id: id.into(), login }, subscriptions: Default::default() }
    });
    let place = TYPES.iter().position(|(known, _)| *known == kind);
    if let Some(slot) = place.and_then(|place| target.subscriptions.get_mut(place)) {
        *slot = entry.id.as_ref().map(|id| id.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::subscription::{Condition, SubscriptionKey};
    use crate::model::subscriptions::LoginNames;

    fn entry(key: SubscriptionKey, state: SubscriptionState) -> SubscriptionEntry {
        let id = Some(format!("s-{key}").into());
        let logins = LoginNames::None;
        SubscriptionEntry {
            key,
            state,
            id,
            reason: None,
            obstacle: None,
            retry_at: None,
            cost: None,
            own: false,
            logins,
        }
    }

    fn list(count: usize) -> List {
        let mut entries = Vec::new();
        for number in 0..count {
            let id = number.to_string();
            if !number.is_multiple_of(3) {
                entries.push(entry(key(ONLINE, &id), SubscriptionState::Enabled));
            }
            if number.is_multiple_of(2) {
                entries.push(entry(key(OFFLINE, &id), SubscriptionState::Enabled));
            }
            entries.push(entry(key(CHANNEL, &id), SubscriptionState::Parked));
        }
        let two = [("broadcaster_user_id", "5"), ("moderator_user_id", "5")];
        let other = SubscriptionKey::new(ONLINE, "1", Condition::from_pairs(two));
        entries.push(entry(other, SubscriptionState::Enabled));
        entries.push(entry(key("channel.follow", "1"), SubscriptionState::Enabled));
        List::new(entries.into(), vec![ONLINE, OFFLINE, CHANNEL])
    }

    #[test]
    fn every_channel_with_an_enabled_subscription_comes_once() {
        for count in [0, 1, 7, 100, 101, 350, 1_000] {
            let list = list(count);
            let expected: BTreeSet<String> = (0..count)
                .filter(|n| !n.is_multiple_of(3) || n.is_multiple_of(2))
                .map(|n| n.to_string())
                .collect();
            assert!(list.ids().eq(expected.iter().map(String::as_str)), "{count}");
            let (mut cursor, mut found) = (Box::from(""), Vec::new());
            loop {
                let part = list.after(&cursor, &Channels::All);
                assert!(part.targets.len() <= MAX_CHANNELS);
                let Some(last) = part.last else { break };
                cursor = last;
                found.extend(part.targets);
            }
            assert!(
                found.iter().map(|target| &*target.id).eq(expected.iter().map(String::as_str)),
                "{count}"
            );
            for target in found {
                let number: usize = target.id.parse().expect("a number");
                assert_eq!(target.subscription(ONLINE).is_some(), !number.is_multiple_of(3), "{number}");
                assert_eq!(target.subscription(OFFLINE).is_some(), number.is_multiple_of(2), "{number}");
                assert_eq!(target.subscription(CHANNEL), None, "it is parked");
            }
        }
    }

    #[test]
    fn some_channels_are_found_by_their_ids() {
        let list = list(400);
        let these: BTreeSet<Box<str>> = (0..300).map(|n: u32| n.to_string().into()).collect();
        let (mut cursor, mut found, mut parts) = (Box::from(""), 0, 0);
        let channels = Channels::These(these);
        while let Part { targets, last: Some(last) } = list.after(&cursor, &channels) {
            (cursor, found, parts) = (last, found + targets.len(), parts + 1);
        }
        assert_eq!((found, parts), (250, 3), "every sixth has neither subscription");
        assert!(list.has("3") && !list.has("400"), "it is there, though it is parked");
    }
}
