//! The shared values, and how this host writes them as the leader: one save after the other, each a few writes of keys
//! under one lease. ◆
//!
//! A new leader begins with a claim: it writes [`PLACES`] under its lease, so that every later write of an earlier leader
//! fails. A bucket that has no values yet gets those that this host remembers.

use std::collections::VecDeque;

use super::lease::Answer;
use super::values::{Group, GroupWrite, PLACES, SharedValues};

/// The shared values could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaveError {
    /// This host does not lead, or does not any more.
    #[error(
        "this host does not lead the cluster any more, and the next leader goes on; `eventsubd hosts` shows who leads"
    )]
    NotLeading,
    /// NATS has not answered; the write may have been carried out.
    #[error(
        "NATS did not answer, and the write is tried again; if this lasts, look at `eventsubd status` here and at \
         `systemctl status nats-server` on the hosts of NATS"
    )]
    NoAnswer,
    /// The task has ended.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The lease under which [`PLACES`] was written last, and whether that leader had the same file.
pub(super) type Before = (u64, bool);

/// A claim that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) epoch: u64,
    /// `None` means that nobody had written the values before.
    pub(super) before: Option<Before>,
}

/// The next step of the save in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SaveStep {
    /// Writes a key. It counts as begun.
    Write(GroupWrite),
    /// The save is over, with this outcome.
    End(Result<(), SaveError>),
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// Changes that a part of this host has asked for.
    Changes,
    /// `before` is taken before the write: the watch may tell of the write itself before its answer comes.
    Claim { before: Option<Before> },
}

#[derive(Debug)]
struct Save {
    /// Under which lease.
    epoch: u64,
    purpose: Purpose,
    writes: VecDeque<GroupWrite>,
    is_writing: bool,
    /// `None` until the end is known.
    outcome: Option<Result<(), SaveError>>,
}

/// The shared values as this host knows them, with the save in hand.
#[derive(Debug)]
pub(super) struct Saving {
    values: SharedValues,
    /// Values for a bucket that has none.
    own: Vec<(String, String)>,
    /// Count of changes by others.
    known: u64,
    save: Option<Save>,
}

impl Saving {
    /// `own` are the values that this host remembered before the cluster had any.
    pub(super) fn new(own: Vec<(String, String)>) -> Self {
        Self { values: SharedValues::default(), own, known: 0, save: None }
    }

    pub(super) fn values(&self) -> &SharedValues {
        &self.values
    }

    /// Count of changes of the values by others.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// Whether no save is in hand.
    pub(super) fn is_idle(&self) -> bool {
        self.save.is_none()
    }

    /// Takes the text of a key as it was read; `None` if the key has ended. Older revisions change nothing.
    pub(super) fn handle_change(&mut self, key: &str, revision: u64, value: Option<&[u8]>) {
        let group = value.and_then(|value| serde_json::from_slice::<Group>(value).ok());
        if self.values.insert(key, revision, group.unwrap_or_default()) && !SharedValues::is_busy(key) {
            self.known += 1;
        }
    }

    /// Begins to make these changes; a name without a value is removed.
    pub(super) fn save(&mut self, changes: Vec<(String, Option<String>)>, epoch: u64, fingerprint: &str) {
        let writes = self.values.writes(changes, epoch, fingerprint);
        self.begin(epoch, Purpose::Changes, writes);
    }

    /// Begins to claim the values under the lease `epoch`.
    pub(super) fn claim(&mut self, epoch: u64, fingerprint: &str) {
        let places = self.values.get(PLACES);
        let before = places.map(|(_, group)| (group.epoch, group.fingerprint == fingerprint));
        let (expected, group) = places.map_or_else(Default::default, |(r, group)| (r, group.clone()));
        let mut writes = if before.is_some() {
            Vec::new()
        } else {
            let own = self.own.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
            self.values.writes(own.collect(), epoch, fingerprint)
        };
        if !writes.iter().any(|write| write.key == PLACES) {
            let group = Group { epoch, fingerprint: fingerprint.to_owned(), ..group };
            writes.push(GroupWrite { key: PLACES.to_owned(), expected, group });
        }
        self.begin(epoch, Purpose::Claim { before }, writes);
    }

    fn begin(&mut self, epoch: u64, purpose: Purpose, writes: Vec<GroupWrite>) {
        self.save = Some(Save { epoch, purpose, writes: writes.into(), is_writing: false, outcome: None });
    }

    /// The next step of the save in hand. `epoch` is the lease under which this host may write now.
    pub(super) fn poll(&mut self, epoch: Option<u64>) -> Option<SaveStep> {
        let save = self.save.as_mut().filter(|save| !save.is_writing)?;
        let outcome = match save.outcome.take() {
            Some(outcome) => outcome,
            None if epoch != Some(save.epoch) => Err(SaveError::NotLeading),
            None => match save.writes.pop_front() {
                Some(write) => {
                    save.is_writing = true;
                    return Some(SaveStep::Write(write));
                }
                None => Ok(()),
            },
        };
        self.save = None;
        Some(SaveStep::End(outcome))
    }

    /// Takes the answer to a write; `found` is the state of its key if it was refused, and could be read then. Returns the
    /// claim if this was one.
    pub(super) fn handle_answer(
        &mut self,
        write: GroupWrite,
        answer: Answer,
        found: Option<(u64, Option<&[u8]>)>,
    ) -> Option<Claimed> {
        let save = self.save.as_mut()?;
        save.is_writing = false;
        let (epoch, purpose) = (save.epoch, save.purpose);
        match answer {
            Answer::Done(revision) => {
                let is_places = write.key == PLACES;
                self.values.insert(&write.key, revision, write.group);
                match purpose {
                    Purpose::Claim { before } if is_places => return Some(Claimed { epoch, before }),
                    Purpose::Claim { .. } | Purpose::Changes => {}
                }
            }
            Answer::Refused => {
                if let Some((revision, value)) = found {
                    self.handle_change(&write.key, revision, value);
                }
                self.handle_refused(write, epoch, purpose, found.is_some());
            }
            // A claim is tried again as long as the lease is held.
            Answer::Unknown => self.end(Err(SaveError::NoAnswer)),
        }
        None
    }

    fn handle_refused(&mut self, write: GroupWrite, epoch: u64, purpose: Purpose, is_read: bool) {
        let known = self.values.get(&write.key).map(|(revision, group)| (revision, group.epoch));
        match (known, purpose) {
            // A later leader has written: this lease is over, whatever the clock says.
            (Some((_, newer)), _) if newer > epoch => self.end(Err(SaveError::NotLeading)),
            (_, Purpose::Claim { .. }) => self.end(Ok(())),
            // The answer to a write of ours was lost.
            (Some((revision, _)), Purpose::Changes) if is_read => {
                if let Some(save) = &mut self.save {
                    save.writes.push_front(GroupWrite { expected: revision, ..write });
                }
            }
            (_, Purpose::Changes) => self.end(Err(SaveError::NoAnswer)),
        }
    }

    fn end(&mut self, outcome: Result<(), SaveError>) {
        if let Some(save) = &mut self.save {
            (save.is_writing, save.outcome) = (false, Some(outcome));
        }
    }

    /// Begins anew in another bucket. If everything in the one before was known, the first leader writes it again.
    pub(super) fn handle_new_bucket(&mut self, was_known: bool) {
        if was_known {
            self.own = self.values.load("");
        }
        self.end(Err(SaveError::NoAnswer));
        self.values = SharedValues::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(name: &str, value: &str) -> Vec<(String, Option<String>)> {
        vec![(name.to_owned(), Some(value.to_owned()))]
    }

    fn write(saving: &mut Saving, epoch: u64) -> GroupWrite {
        match saving.poll(Some(epoch)) {
            Some(SaveStep::Write(write)) => write,
            other => panic!("not a write: {other:?}"),
        }
    }

    /// Carries out everything that is left of the save in hand.
    fn finish(
        saving: &mut Saving,
        epoch: u64,
        revision: &mut u64,
    ) -> (Result<(), SaveError>, Option<Claimed>) {
        let mut claimed = None;
        loop {
            match saving.poll(Some(epoch)).expect("a save is in hand") {
                SaveStep::Write(write) => {
                    *revision += 1;
                    claimed = claimed.or(saving.handle_answer(write, Answer::Done(*revision), None));
                }
                SaveStep::End(outcome) => return (outcome, claimed),
            }
        }
    }

    #[test]
    fn a_new_bucket_gets_what_the_first_leader_remembers_and_a_later_claim_changes_nothing() {
        let own =
            vec![("conduit_id:c".to_owned(), "1".to_owned()), ("login:ann".to_owned(), "5 1".to_owned())];
        let (mut saving, mut revision) = (Saving::new(own.clone()), 0);
        saving.claim(7, "f");
        let (outcome, claimed) = finish(&mut saving, 7, &mut revision);
        assert_eq!((outcome, claimed), (Ok(()), Some(Claimed { epoch: 7, before: None })));
        assert_eq!(saving.values().load("").len(), 2);
        saving.claim(9, "g");
        let claim = write(&mut saving, 9);
        assert_eq!((claim.key.as_str(), claim.group.values.len()), (PLACES, 1));
        let claimed = saving.handle_answer(claim, Answer::Done(revision + 1), None);
        assert_eq!(claimed, Some(Claimed { epoch: 9, before: Some((7, false)) }));
        assert_eq!(saving.poll(Some(9)), Some(SaveStep::End(Ok(()))));
        // The next bucket gets the values that were known of the last one.
        saving.handle_new_bucket(true);
        assert!(saving.is_idle() && saving.values().load("").is_empty());
        saving.claim(12, "g");
        finish(&mut saving, 12, &mut revision).0.unwrap();
        assert_eq!(saving.values().load("").len(), own.len());
    }

    #[test]
    fn a_save_ends_when_the_lease_does() {
        let mut saving = Saving::new(Vec::new());
        saving.save(change("a", "1"), 7, "f");
        assert_eq!(saving.poll(None), Some(SaveStep::End(Err(SaveError::NotLeading))));
        assert!(saving.is_idle());
        saving.save(change("a", "1"), 7, "f");
        let asked = write(&mut saving, 7);
        assert_eq!(saving.poll(Some(7)), None, "one write at a time");
        saving.handle_new_bucket(false);
        assert_eq!(saving.poll(None), Some(SaveStep::End(Err(SaveError::NoAnswer))));
        assert_eq!(saving.handle_answer(asked, Answer::Done(3), None), None, "nobody waits for it");
        assert!(saving.values().load("").is_empty());
    }

    #[test]
    fn a_refused_write_is_tried_again_unless_a_later_leader_has_written() {
        let mut saving = Saving::new(Vec::new());
        let group = |epoch| serde_json::to_vec(&Group { epoch, ..Group::default() }).unwrap();
        saving.save(change("a", "1"), 7, "f");
        let asked = write(&mut saving, 7);
        saving.handle_answer(asked, Answer::Refused, Some((4, Some(&group(7)))));
        let again = write(&mut saving, 7);
        assert_eq!(again.expected, 4);
        saving.handle_answer(again, Answer::Refused, Some((5, Some(&group(8)))));
        assert_eq!(saving.poll(Some(7)), Some(SaveStep::End(Err(SaveError::NotLeading))));
        saving.save(change("a", "1"), 9, "f");
        let asked = write(&mut saving, 9);
        saving.handle_answer(asked, Answer::Refused, None);
        assert_eq!(saving.poll(Some(9)), Some(SaveStep::End(Err(SaveError::NoAnswer))));
    }

    #[test]
    fn changes_of_others_are_counted_but_not_those_that_come_all_the_time() {
        let mut saving = Saving::new(Vec::new());
        let group = |value: &str| {
            let values = [("a".to_owned(), value.to_owned())].into();
            serde_json::to_vec(&Group { values, ..Group::default() }).unwrap()
        };
        saving.handle_change(PLACES, 1, Some(&group("1")));
        saving.handle_change(PLACES, 2, Some(&group("1")));
        saving.handle_change("set.gaps", 3, Some(&group("1")));
        assert_eq!(saving.known(), 1);
        saving.handle_change(PLACES, 4, None);
        assert_eq!(saving.known(), 2);
    }

    proptest! {
        /// A save ends for any answers of NATS and any leaders, and one that succeeds is there.
        #[test]
        fn every_save_ends(
            answers in prop::collection::vec((0_u8..5, any::<bool>()), 40),
            is_claim in any::<bool>(),
            names in prop::collection::vec("(login|conduit_id):[a-c]", 0..5),
        ) {
            let mut saving = Saving::new(names.iter().map(|name| (name.clone(), "own".to_owned())).collect());
            if is_claim {
                saving.claim(7, "f");
            } else {
                saving.save(names.iter().map(|name| (name.clone(), Some("new".to_owned()))).collect(), 7, "f");
            }
            let mut revision = 0;
            for (kind, holds) in answers {
                match saving.poll(Some(7).filter(|_| holds)) {
                    Some(SaveStep::End(outcome)) => {
                        prop_assert!(saving.is_idle() && saving.poll(Some(7)).is_none());
                        if outcome.is_ok() && !is_claim {
                            prop_assert!(names.iter().all(|name| saving.values().load(name).len() == 1));
                        }
                        return Ok(());
                    }
                    Some(SaveStep::Write(write)) => {
                        revision += 1;
                        let answer = match kind {
                            0 => Answer::Refused,
                            1 => Answer::Unknown,
                            _ => Answer::Done(revision),
                        };
                        saving.handle_answer(write, answer, None);
                    }
                    None => prop_assert!(false, "nothing to do, and no end"),
                }
            }
            prop_assert!(false, "no end");
        }
    }
}
