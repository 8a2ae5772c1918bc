//! The values that a new leader takes over, as they are in the bucket: in a few keys, each with the number of the lease
//! under which it was written. ◆
//!
//! A key is written only on top of the revision that is known here. So once a new leader has written [`PLACES`], every
//! write of an older one fails.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bound;

/// The key of everything that is not a login: one key, so that names which belong together change together.
pub(super) const PLACES: &str = "set.places";
/// The key of what the watch over gaps knows, which changes every few seconds.
pub(super) const GAPS: &str = "set.gaps";
/// How the names in it begin.
const GAP: &str = "gaps.";
/// The key of what the leader has learned of the sessions of all hosts, for the first thousand shards. Other keys that begin
/// with it have a thousand more each, as NATS carries messages of up to 1 MiB.
const BOUND: &str = "set.bound";
/// Shards of one such key.
const BOUND_SHARE: u32 = 1_000;
/// How the keys of logins begin.
const LOGINS: &str = "set.logins.";
/// How the names of logins begin.
const LOGIN: &str = "login:";
/// Keys that logins are spread over: with 65,000 logins one has about 10 KiB.
const BUCKETS: u32 = 256;

/// The value of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// The lease under which it was written.
    pub(super) epoch: u64,
    /// Fingerprint of the file of the host that wrote it.
    #[serde(default)]
    pub(super) fingerprint: String,
    pub(super) values: BTreeMap<String, String>,
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupWrite {
    pub(super) key: String,
    /// The revision that the key must have; 0 stands for none.
    pub(super) expected: u64,
    pub(super) group: Group,
}

/// Everything that is known of the keys.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedValues {
    groups: BTreeMap<String, (u64, Group)>,
}

impl SharedValues {
    /// Whether the key belongs here.
    pub(super) fn has(key: &str) -> bool {
        key.starts_with("set.")
    }

    /// Takes a key as it was told or written; older revisions are left out. Returns whether its values changed.
    pub(super) fn insert(&mut self, key: &str, revision: u64, group: Group) -> bool {
        match self.groups.get_mut(key) {
            Some((known, _)) if *known >= revision => false,
            Some((known, old)) => {
                let changed = old.values != group.values;
                (*known, *old) = (revision, group);
                changed
            }
            None => {
                let changed = !group.values.is_empty();
                self.groups.insert(key.to_owned(), (revision, group));
                changed
            }
        }
    }

    /// Whether the key is written anew every few seconds, or with each session.
    pub(super) fn is_busy(key: &str) -> bool {
        key == GAPS || key.starts_with(BOUND)
    }

    /// The newest revision of what the leader has learned of the sessions of all hosts; 0 if there is none.
    pub(super) fn bound_revision(&self) -> u64 {
        let of = self.groups.range(BOUND.to_owned()..).take_while(|(key, _)| key.starts_with(BOUND));
        of.map(|(_, (revision, _))| *revision).max().unwrap_or(0)
    }

    /// The group of a key with its revision.
    pub(super) fn get(&self, key: &str) -> Option<(u64, &Group)> {
        self.groups.get(key).map(|(revision, group)| (*revision, group))
    }

    /// All names that begin with `prefix`, with their values, those written last at the end: a leader of an earlier release
    /// has one key for all shards.
    pub(super) fn load(&self, prefix: &str) -> Vec<(String, String)> {
        let mut groups: Vec<&(u64, Group)> = self.groups.values().collect();
        groups.sort_by_key(|(revision, _)| *revision);
        let all = groups.into_iter().flat_map(|(_, group)| &group.values);
        all.filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The writes that make these changes, those of logins first: a name without a value is removed.
    pub(super) fn writes(
        &self,
        changes: Vec<(String, Option<String>)>,
        epoch: u64,
        fingerprint: &str,
    ) -> Vec<GroupWrite> {
        let mut writes: BTreeMap<String, GroupWrite> = BTreeMap::new();
        for (name, value) in changes {
            let key = key_of(&name);
            let write = writes.entry(key.clone()).or_insert_with(|| {
                let (expected, group) = self.get(&key).map_or_else(Default::default, |(r, g)| (r, g.clone()));
                let group = Group { epoch, fingerprint: fingerprint.to_owned(), ..group };
                GroupWrite { key, expected, group }
            });
            match value {
                Some(value) => drop(write.group.values.insert(name, value)),
                None => drop(write.group.values.remove(&name)),
            }
        }
        writes.into_values().collect()
    }
}

/// The key of what was learned of a shard's session.
fn bound_key(shard: &str) -> String {
    match shard.parse::<u32>().map_or(0, |shard| shard / BOUND_SHARE) {
        0 => BOUND.to_owned(),
        share => format!("{BOUND}.{share}"),
    }
}

/// The key that has this name.
fn key_of(name: &str) -> String {
    let Some(login) = name.strip_prefix(LOGIN) else {
        let key = match name {
            _ if name.starts_with(GAP) => GAPS,
            _ => match name.strip_prefix(bound::PREFIX) {
                Some(shard) => return bound_key(shard),
                None => PLACES,
            },
        };
        return key.to_owned();
    };
    // FNV-1a: the same on every host and in every release.
    let hash =
        login.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{LOGINS}{}", hash % BUCKETS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(name: &str, value: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), value.map(str::to_owned))
    }

    #[test]
    fn names_that_belong_together_are_one_write() {
        let values = SharedValues::default();
        let changes = vec![
            change("conduit_id:c", Some("1")),
            change("login:ann", Some("5 1")),
            change("conduit_intent:c", None),
        ];
        let writes = values.writes(changes, 7, "f");
        let keys: Vec<_> = writes.iter().map(|write| write.key.as_str()).collect();
        assert_eq!(keys.len(), 2);
        assert!(keys[0].starts_with(LOGINS) && keys[1] == PLACES, "{keys:?}");
        let group = &writes[1].group;
        assert_eq!((group.epoch, &*group.fingerprint, group.values.len()), (7, "f", 1));
        assert_eq!(writes[1].expected, 0);
    }

    #[test]
    fn an_older_revision_changes_nothing() {
        let mut values = SharedValues::default();
        let group = |value: &str| Group {
            values: [("conduit_id:c".to_owned(), value.to_owned())].into(),
            ..Group::default()
        };
        assert!(values.insert(PLACES, 5, group("new")));
        assert!(!values.insert(PLACES, 4, group("old")));
        assert!(!values.insert(PLACES, 6, group("new")), "the same values");
        assert_eq!(values.load("conduit_id:"), [("conduit_id:c".to_owned(), "new".to_owned())]);
    }

    #[test]
    fn the_sessions_of_all_shards_fit_into_messages_of_nats() {
        let mut values = SharedValues::default();
        let changes =
            (0..20_000).map(|shard| (format!("bound.{shard}"), Some(format!("bound {shard:0>256}"))));
        let writes = values.writes(changes.collect(), 1, "f");
        assert_eq!(writes.len(), 20);
        for (nth, write) in writes.into_iter().enumerate() {
            assert!(
                SharedValues::is_busy(&write.key)
                    && serde_json::to_vec(&write.group).unwrap().len() < 1 << 19
            );
            values.insert(&write.key, nth as u64 + 1, write.group);
        }
        assert_eq!((values.load("bound.").len(), values.bound_revision()), (20_000, 20));
        assert!(!SharedValues::is_busy(PLACES));
    }

    proptest! {
        /// Written and read back, all changes are there, whatever they are and however they are divided.
        #[test]
        fn changes_are_read_back(
            changes in prop::collection::vec(
                ("((login|conduit_id|compared):[a-d]{1,2}|bound\\.[0-9]{1,5})", prop::option::of("[a-z]{0,3}")), 0..60),
            size in 1_usize..10,
        ) {
            let (mut values, mut expected, mut revision) = (SharedValues::default(), BTreeMap::new(), 0);
            for part in changes.chunks(size) {
                for (name, value) in part {
                    match value {
                        Some(value) => drop(expected.insert(name.clone(), value.clone())),
                        None => drop(expected.remove(name)),
                    }
                }
                for write in values.writes(part.to_vec(), 1, "") {
                    prop_assert_eq!(write.expected, values.get(&write.key).map_or(0, |(revision, _)| revision));
                    let text = serde_json::to_vec(&write.group).unwrap();
                    revision += 1;
                    values.insert(&write.key, revision, serde_json::from_slice(&text).unwrap());
                }
            }
            let mut loaded = values.load("");
            loaded.sort();
            prop_assert_eq!(loaded, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
