//! Properties of planning from what is known, against a Twitch that others change as well.

use std::collections::{BTreeSet, HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::model::subscription::{Condition, SubscriptionKey, TransportTarget};
use crate::reconcile::Policy;
use crate::reconcile::decide::action::Action;
use crate::reconcile::decide::park::ParkTable;
use crate::reconcile::decide::place::Place;
use crate::reconcile::decide::plan::{Hold, Input, Planned, plan};

const ENDS: [&str; 3] = ["authorization_revoked", "notification_failures_exceeded", "user_removed"];

#[derive(Clone, Debug)]
enum Step {
    /// The file changes, and a run follows.
    Reload(BTreeSet<u8>),
    ForeignCreate(u8),
    ForeignDelete(usize),
    /// Twitch ends a subscription, and we hear of it or not.
    End {
        nth: usize,
        status: &'static str,
        heard: bool,
    },
    /// A list is read in the background: its first half now, its second half when it is taken.
    BeginReading,
    EndReading,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::btree_set(0..30_u8, 0..25).prop_map(Step::Reload),
        2 => (0..30_u8).prop_map(Step::ForeignCreate),
        2 => any::<usize>().prop_map(Step::ForeignDelete),
        3 => (any::<usize>(), prop::sample::select(&ENDS[..]), any::<bool>())
            .prop_map(|(nth, status, heard)| Step::End { nth, status, heard }),
        1 => Just(Step::BeginReading),
        1 => Just(Step::EndReading),
    ]
}

fn key(n: u8) -> SubscriptionKey {
    let id = n.to_string();
    SubscriptionKey::new("stream.online", "1", Condition::from_pairs([("broadcaster_user_id", id.as_str())]))
}

fn places() -> Places {
    Places { current: Place::Conduit("c".into()), conduit: None, urls: BTreeSet::new() }
}

fn target() -> TransportTarget {
    TransportTarget::Conduit { conduit_id: "c".into() }
}

/// The ids that these actions delete.
fn ids(actions: &[Action]) -> HashSet<SubscriptionId> {
    let id = |action: &Action| match action {
        Action::Delete { id, .. } => Some(id.clone()),
        Action::Create { .. } => None,
    };
    actions.iter().filter_map(id).collect()
}

/// Twitch, and what we know of it.
struct World {
    rows: Vec<SubscriptionRow>,
    serial: usize,
    ledger: Ledger,
    wanted: Vec<SubscriptionKey>,
    parked: ParkTable,
    hold: Option<Hold>,
    /// Deletes that the last plan held. What others change may end a hold.
    held: HashSet<SubscriptionId>,
    max_delete: f64,
    now: Instant,
    /// Changes by others since the known list was read.
    foreign: HashSet<SubscriptionKey>,
    /// The first half of the list that is being read, and what others changed since.
    reading: Option<(Vec<SubscriptionRow>, HashSet<SubscriptionKey>)>,
}

impl World {
    fn plan(&self, rows: &[SubscriptionRow], is_fresh: bool) -> Planned {
        plan(&Input {
            places: &places(),
            wanted: &self.wanted,
            rows,
            is_fresh,
            parked: &self.parked,
            overdue: &HashSet::new(),
            unreachable: None,
            ungranted: &HashMap::new(),
            now: self.now,
            policy: Policy::Sync,
            own: &HashSet::new(),
            max_delete: self.max_delete,
            allow_deletes: false,
            hold: self.hold,
            total_cost: 0,
            max_total_cost: 1_000_000,
        })
    }

    fn is_foreign(&mut self, key: &SubscriptionKey) {
        self.foreign.insert(key.clone());
        if let Some((_, since)) = &mut self.reading {
            since.insert(key.clone());
        }
    }

    fn add(&mut self, key: &SubscriptionKey) -> SubscriptionRow {
        self.serial += 1;
        let row = SubscriptionRow {
            id: format!("row-{}", self.serial).into(),
            status: SubscriptionStatus::Enabled,
            key: key.clone(),
            target: target(),
            cost: 0,
        };
        self.rows.push(row.clone());
        row
    }

    fn live(&self, key: &SubscriptionKey) -> Option<SubscriptionRow> {
        self.rows.iter().find(|row| row.key == *key && row.status.is_live()).cloned()
    }

    fn known(&mut self) -> Vec<SubscriptionRow> {
        self.ledger.list().expect("it was read").rows.clone()
    }

    /// A run with a list that is read at once.
    fn whole_run(&mut self) {
        self.reading = None;
        self.ledger.begin_reading();
        let list = SubscriptionList { rows: self.rows.clone(), ..SubscriptionList::default() };
        self.ledger.replace(places().filter(), self.now, list);
        self.foreign.clear();
        let known = self.known();
        let planned = self.plan(&known, true);
        self.carry_out(&planned);
    }

    /// A run from what is known; whether it was one.
    fn short_run(&mut self) -> Result<(), TestCaseError> {
        let known = self.known();
        let planned = self.plan(&known, false);
        if planned.needs_fresh {
            self.whole_run();
            return Ok(());
        }
        let fresh = self.plan(&self.rows.clone(), true);
        let (would_go, held) = (ids(&fresh.plan.actions), ids(&fresh.plan.held));
        for id in ids(&planned.plan.actions) {
            let is_there = self.rows.iter().any(|row| row.id == id);
            prop_assert!(
                !is_there || would_go.contains(&id) || held.contains(&id),
                "{} would stay: {:?}",
                id,
                fresh.plan
            );
        }
        self.carry_out(&planned);
        Ok(())
    }

    /// Carries out a plan as execution and the tables do.
    fn carry_out(&mut self, planned: &Planned) {
        for action in &planned.plan.actions {
            match action {
                Action::Delete { id, .. } => {
                    self.rows.retain(|row| row.id != *id);
                    self.ledger.record(Known::Gone(id.clone()));
                }
                Action::Create { key, .. } => {
                    // 409: adopted.
                    let row = self.live(key).unwrap_or_else(|| self.add(key));
                    self.ledger.record(Known::There(row));
                    self.parked.record_alive(key, self.now);
                }
            }
        }
        for (key, obstacle, reason) in &planned.park {
            self.parked.park(key, *obstacle, reason, self.now);
        }
        for (key, reason) in &planned.at_once {
            self.parked.record_trial(key, reason, self.now);
        }
        self.hold = planned.hold;
        self.held = ids(&planned.plan.held);
    }

    fn is_first_half(row: &SubscriptionRow) -> bool {
        row.id.to_string().ends_with(['0', '2', '4', '6', '8'])
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Reload(wanted) => {
                self.wanted = wanted.into_iter().map(key).collect();
                self.wanted.sort_unstable();
                self.parked.retain(|key| self.wanted.contains(key), self.now);
                self.short_run()?;
            }
            Step::ForeignCreate(n) => {
                let key = key(n);
                if self.live(&key).is_none() {
                    self.add(&key);
                    self.is_foreign(&key);
                }
            }
            Step::ForeignDelete(nth) if !self.rows.is_empty() => {
                let row = self.rows.remove(nth % self.rows.len());
                self.is_foreign(&row.key);
            }
            Step::End { nth, status, heard } if !self.rows.is_empty() => {
                let nth = nth % self.rows.len();
                let row = &mut self.rows[nth];
                if row.status.is_live() {
                    row.status = SubscriptionStatus::parse(status);
                    let (id, key) = (row.id.clone(), row.key.clone());
                    if heard {
                        self.ledger.record(Known::Ended { id, status: SubscriptionStatus::parse(status) });
                        self.short_run()?;
                    } else {
                        self.is_foreign(&key);
                    }
                }
            }
            Step::BeginReading => {
                self.ledger.begin_reading();
                let half = self.rows.iter().filter(|row| Self::is_first_half(row)).cloned().collect();
                self.reading = Some((half, HashSet::new()));
            }
            Step::EndReading => {
                if let Some((mut rows, since)) = self.reading.take() {
                    rows.extend(self.rows.iter().filter(|row| !Self::is_first_half(row)).cloned());
                    let list = SubscriptionList { rows, ..SubscriptionList::default() };
                    self.ledger.replace(places().filter(), self.now, list);
                    self.foreign = since;
                    let known = self.known();
                    let planned = self.plan(&known, true);
                    self.carry_out(&planned);
                }
            }
            Step::ForeignDelete(_) | Step::End { .. } => {}
        }
        Ok(())
    }
}

proptest! {
    /// For all that we and others may do: planning from what is known deletes nothing that a fresh list would keep, and the
    /// next comparison has only to mend what others did.
    #[test]
    fn the_short_way_does_no_harm_and_leaves_nothing_of_its_own_to_mend(
        first in prop::collection::btree_set(0..30_u8, 0..25),
        there in prop::collection::btree_set(0..30_u8, 0..25),
        max_delete in prop_oneof![Just(0.5), Just(1.0), Just(0.0)],
        steps in prop::collection::vec(step(), 0..25),
    ) {
        let mut world = World {
            rows: Vec::new(),
            serial: 0,
            ledger: Ledger::default(),
            wanted: first.into_iter().map(key).collect(),
            parked: ParkTable::default(),
            hold: None,
            held: HashSet::new(),
            max_delete,
            now: Instant::now(),
            foreign: HashSet::new(),
            reading: None,
        };
        world.wanted.sort_unstable();
        for n in there {
            world.add(&key(n));
        }
        world.whole_run();
        for step in steps {
            world.step(step)?;
        }
        let next = world.plan(&world.rows.clone(), true);
        let was_held = |action: &Action| !ids(std::slice::from_ref(action)).is_disjoint(&world.held);
        for action in next.plan.actions.iter().filter(|action| !was_held(action)) {
            prop_assert!(world.foreign.contains(action.key()), "left over: {:?}", action);
        }
    }
}

fn row(id: &str, status: &str) -> SubscriptionRow {
    SubscriptionRow {
        id: id.into(),
        status: SubscriptionStatus::parse(status),
        key: key(1),
        target: target(),
        cost: 0,
    }
}

#[test]
fn a_change_during_the_reading_counts_whether_a_page_shows_it_or_not() {
    let now = Instant::now();
    let pending = "webhook_callback_verification_pending";
    for listed in [vec![], vec![row("new", pending), row("old", "enabled")]] {
        let mut ledger = Ledger::default();
        assert!(ledger.list().is_none());
        ledger.record(Known::There(row("before", "enabled")));
        ledger.begin_reading();
        ledger.record(Known::There(row("new", pending)));
        ledger.record(Known::There(row("new", "enabled")));
        ledger.record(Known::Gone("old".into()));
        ledger.record(Known::Ended { id: "nobody".into(), status: SubscriptionStatus::Enabled });
        let list = SubscriptionList { rows: listed, ..SubscriptionList::default() };
        ledger.replace(Filter::All, now, list);
        assert_eq!(ledger.list().unwrap().rows, [row("new", "enabled")]);
    }
}

#[test]
fn a_list_is_usable_for_its_own_filter_and_its_time() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    let hour = Duration::from_secs(3600);
    assert!(!ledger.is_usable(&Filter::All, hour, now));
    ledger.begin_reading();
    ledger.replace(
        Filter::All,
        now,
        SubscriptionList { rows: vec![row("a", "enabled")], ..Default::default() },
    );
    assert!(ledger.is_usable(&Filter::All, hour, now + hour / 2));
    assert!(!ledger.is_usable(&Filter::All, hour, now + hour));
    assert!(!ledger.is_usable(&Filter::Conduit("c".into()), hour, now));
    ledger.record(Known::Ended { id: "a".into(), status: SubscriptionStatus::UserRemoved });
    ledger.record_costs(7, 9);
    let list = ledger.list().unwrap();
    assert_eq!((list.rows[0].status.as_str(), list.total_cost, list.max_total_cost), ("user_removed", 7, 9));
}
