//! Properties of planning, against a Twitch that is a list of rows.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::action::Action;
use super::park::{Obstacle, ParkTable, RetryTimes};
use super::place::{Place, Places, Side};
use super::plan::{FREE_DELETES, Hold, Input, Planned, plan};
use super::reason;
use crate::model::secret::Secret;
use crate::model::subscription::{
    Condition, SubscriptionId, SubscriptionKey, SubscriptionRow, SubscriptionStatus, TransportTarget,
};
use crate::model::webhook::WebhookKey;
use crate::reconcile::Policy;

const OURS: &str = "ours";

/// A key as Twitch returns it: fields that were left out are there, and empty.
fn key(n: u8) -> SubscriptionKey {
    let name = ["stream.online", "channel.raid", "channel.follow"][usize::from(n % 3)];
    let version = if name == "channel.follow" { "2" } else { "1" };
    let id = n.to_string();
    let field = if name == "channel.raid" { "to_broadcaster_user_id" } else { "broadcaster_user_id" };
    SubscriptionKey::new(
        name,
        version,
        Condition::from_pairs([(field, id.as_str()), ("from_broadcaster_user_id", ""), ("reward_id", "")]),
    )
}

#[derive(Clone, Debug)]
struct World {
    wanted: Vec<SubscriptionKey>,
    own: HashSet<SubscriptionKey>,
    rows: Vec<SubscriptionRow>,
    parked: ParkTable,
    now: Instant,
    places: Places,
    policy: Policy,
    max_delete: f64,
    allow_deletes: bool,
    hold: Option<Hold>,
    room: Option<u64>,
}

impl World {
    fn total(&self) -> u64 {
        self.rows.iter().filter(|row| row.status.is_live()).map(|row| row.cost).sum()
    }

    fn plan(&self) -> Planned {
        let total_cost = self.total();
        plan(&Input {
            ungranted: &std::collections::HashMap::new(),
            places: &self.places,
            overdue: &std::collections::HashSet::new(),
            unreachable: None,
            wanted: &self.wanted,
            is_fresh: true,
            rows: &self.rows,
            parked: &self.parked,
            now: self.now,
            policy: self.policy,
            max_delete: self.max_delete,
            allow_deletes: self.allow_deletes,
            hold: self.hold,
            own: &self.own,
            total_cost,
            max_total_cost: self.room.map_or(1_000_000, |room| total_cost + room).max(1),
        })
    }

    fn place(&self) -> TransportTarget {
        match &self.places.current {
            Place::Conduit(id) => TransportTarget::Conduit { conduit_id: id.clone() },
            Place::Webhook { callback, .. } => TransportTarget::Webhook { callback: callback.clone() },
        }
    }

    /// Carries out a plan without failures, and keeps what the next run needs.
    fn apply(&mut self, planned: &Planned) {
        for action in &planned.plan.actions {
            match action {
                Action::Delete { id, .. } => {
                    let before = self.rows.len();
                    self.rows.retain(|row| row.id != *id);
                    assert_eq!(self.rows.len(), before - 1, "deleted once");
                }
                Action::Create { key, worst_cost, .. } => {
                    let twin = self
                        .rows
                        .iter()
                        .any(|row| row.target == self.place() && row.key == *key && row.status.is_live());
                    assert!(!twin, "would be a 409");
                    let id = format!("new-{}", self.rows.len() + 1000).into();
                    self.rows.push(SubscriptionRow {
                        id,
                        status: match &self.places.current {
                            Place::Conduit(_) => SubscriptionStatus::Enabled,
                            Place::Webhook { .. } => SubscriptionStatus::WebhookCallbackVerificationPending,
                        },
                        key: key.clone(),
                        target: self.place(),
                        cost: *worst_cost,
                    });
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
    }
}

/// One place: the conduit.
fn settled() -> Places {
    Places { current: Place::Conduit(OURS.into()), conduit: None, urls: BTreeSet::new() }
}

fn is_ours(row: &SubscriptionRow) -> bool {
    matches!(&row.target, TransportTarget::Conduit { conduit_id } if **conduit_id == *OURS)
}

fn status() -> impl Strategy<Value = SubscriptionStatus> {
    prop_oneof![
        4 => Just("enabled"),
        1 => Just("webhook_callback_verification_pending"),
        1 => Just("authorization_revoked"),
        1 => Just("user_removed"),
        1 => Just("version_removed"),
        1 => Just("notification_failures_exceeded"),
        1 => Just("conduit_deleted"),
        1 => Just("something_new"),
    ]
    .prop_map(SubscriptionStatus::parse)
}

fn target() -> impl Strategy<Value = TransportTarget> {
    prop_oneof![
        6 => Just(TransportTarget::Conduit { conduit_id: OURS.into() }),
        1 => Just(TransportTarget::Conduit { conduit_id: "theirs".into() }),
        1 => Just(TransportTarget::Webhook { callback: "https://ours".into() }),
        1 => Just(TransportTarget::Other("websocket".into())),
    ]
}

fn world() -> impl Strategy<Value = World> {
    let rows = prop::collection::vec((0..40_u8, status(), target(), 0..2_u64), 0..60);
    let wanted = prop::collection::btree_set(0..40_u8, 0..30);
    let parked = prop::collection::vec((0..40_u8, prop::bool::ANY, 0..10_u64), 0..10);
    let rest = (
        prop::bool::ANY,
        prop_oneof![0.0..1.0_f64, Just(f64::NAN), Just(0.0), Just(1.0)],
        prop::bool::weighted(0.2),
        (prop::option::of(0..40_u64), prop::collection::hash_set(0..40_u8, 0..4)),
    );
    (rows, wanted, parked, rest).prop_map(
        |(rows, wanted, parked, (keep, max_delete, allow_deletes, (held_of, own)))| {
            let now = Instant::now();
            let mut table = ParkTable::new(RetryTimes::default());
            for (n, removed, minutes_ago) in parked {
                let obstacle = if removed { Obstacle::Removed } else { Obstacle::Grant };
                let at = now.checked_sub(Duration::from_secs(60 * minutes_ago)).unwrap_or(now);
                table.park(&key(n), obstacle, "parked before", at);
            }
            let row = |(at, (n, status, target, cost)): (usize, _)| SubscriptionRow {
                id: format!("row-{at}").into(),
                status,
                key: key(n),
                target,
                cost,
            };
            let own = own.intersection(&wanted.iter().copied().collect()).map(|n| key(*n)).collect();
            World {
                wanted: wanted.into_iter().map(key).collect(),
                rows: rows.into_iter().enumerate().map(row).collect(),
                parked: table,
                now,
                places: settled(),
                policy: if keep { Policy::Keep } else { Policy::Sync },
                max_delete,
                allow_deletes,
                hold: held_of.map(|of| Hold { of, wanted: 0 }),
                own,
                room: None,
            }
        },
    )
}

fn deleted(planned: &Planned) -> BTreeSet<SubscriptionId> {
    planned
        .plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Delete { id, .. } => Some(id.clone()),
            Action::Create { .. } => None,
        })
        .collect()
}

proptest! {
    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(mut world in world()) {
        let first = world.plan();
        world.apply(&first);
        let second = world.plan();
        prop_assert_eq!(&second.plan.actions, &[]);
        // Nor does anything that was held slip out by what was created meanwhile.
        prop_assert_eq!(&second.plan.held, &first.plan.held);
        prop_assert_eq!(second.plan.blocked.len(), first.plan.blocked.len());
        prop_assert!(second.park.is_empty() && second.at_once.is_empty());
        let live: BTreeSet<&SubscriptionKey> =
            world.rows.iter().filter(|row| is_ours(row) && row.status.is_live()).map(|row| &row.key).collect();
        for key in &world.wanted {
            let blocked = second.plan.blocked.iter().any(|blocked| blocked.key == *key);
            prop_assert!(live.contains(key) != blocked, "there or explained: {}", key);
        }
    }

    #[test]
    fn the_order_of_what_is_read_is_irrelevant(world in world(), seed in any::<u64>()) {
        let mut other = world.clone();
        let mut random = fastrand::Rng::with_seed(seed);
        random.shuffle(&mut other.rows);
        random.shuffle(&mut other.wanted);
        let (mut a, mut b) = (world.plan(), other.plan());
        (a.live, b.live) = (Vec::new(), Vec::new());
        prop_assert_eq!(a, b);
    }

    #[test]
    fn only_ours_and_nothing_wanted_is_deleted(world in world()) {
        let planned = world.plan();
        let held: BTreeSet<SubscriptionId> = planned.plan.held.iter().filter_map(|action| match action {
            Action::Delete { id, .. } => Some(id.clone()),
            Action::Create { .. } => None,
        }).collect();
        let deleted = deleted(&planned);
        prop_assert!(held.is_disjoint(&deleted));
        let ours = world
            .rows
            .iter()
            .filter(|row| is_ours(row) && row.status.is_live() && !world.own.contains(&row.key))
            .count();
        let mut unwanted = 0;
        for row in &world.rows {
            let gone = deleted.contains(&row.id);
            if !is_ours(row) {
                prop_assert!(!gone && !held.contains(&row.id), "not ours: {}", row.id);
                continue;
            }
            if !row.status.is_live() {
                prop_assert!(gone, "dead rows are cleared: {}", row.id);
                continue;
            }
            if world.policy == Policy::Keep {
                prop_assert!(!gone && !held.contains(&row.id), "kept by policy: {}", row.id);
            }
            if world.wanted.contains(&row.key) {
                prop_assert!(!held.contains(&row.id));
                let stays = world.rows.iter().any(|other| {
                    is_ours(other) && other.status.is_live() && other.key == row.key && !deleted.contains(&other.id)
                });
                prop_assert!(stays, "a live one is kept: {}", row.key);
            } else {
                unwanted += u64::from(gone);
            }
        }
        if unwanted > 0 && !world.allow_deletes {
            prop_assert!(unwanted < ours as u64, "all of ours would go");
        }
        if unwanted > FREE_DELETES && !world.allow_deletes {
            #[allow(clippy::cast_precision_loss)]
            let part = unwanted as f64 / ours as f64;
            prop_assert!(part <= world.max_delete, "{part} deleted of at most {}", world.max_delete);
        }
    }

    #[test]
    fn nothing_is_created_before_it_is_due_or_without_room(mut world in world(), room in prop::option::of(0..3_u64)) {
        world.room = room;
        let planned = world.plan();
        for action in planned.plan.actions.iter().filter(|action| action.is_create()) {
            let standing = world.parked.standing(action.key(), world.now);
            prop_assert!(!matches!(standing, super::park::Standing::Waiting { .. }), "{:?}", standing);
            prop_assert!(world.wanted.contains(action.key()));
        }
        let freed: u64 = world.rows.iter().filter(|row| deleted(&planned).contains(&row.id) && row.status.is_live())
            .map(|row| row.cost).sum();
        if room == Some(0) && freed == 0 && world.total() > 0 {
            let costly = planned.plan.actions.iter()
                .any(|action| matches!(action, Action::Create { worst_cost: 1.., .. }));
            prop_assert!(!costly);
        }
    }
}

fn simple(wanted: &[u8], rows: &[(u8, &str)]) -> World {
    World {
        wanted: wanted.iter().map(|n| key(*n)).collect(),
        rows: rows
            .iter()
            .enumerate()
            .map(|(at, (n, status))| SubscriptionRow {
                id: format!("row-{at}").into(),
                status: SubscriptionStatus::parse(status),
                key: key(*n),
                target: TransportTarget::Conduit { conduit_id: OURS.into() },
                cost: 1,
            })
            .collect(),
        parked: ParkTable::default(),
        now: Instant::now(),
        places: settled(),
        policy: Policy::Sync,
        max_delete: 0.5,
        allow_deletes: false,
        hold: None,
        own: HashSet::new(),
        room: None,
    }
}

fn shown(planned: &Planned) -> Vec<String> {
    let show = |action: &Action| match action {
        Action::Create { key, .. } => format!("+ {key}"),
        Action::Delete { id, reason, .. } => format!("- {id} {reason:?}"),
    };
    planned.plan.actions.iter().map(show).collect()
}

#[test]
fn the_reason_of_a_dead_row_decides_what_becomes_of_it() {
    let mut world =
        simple(&[0, 3, 6], &[(0, "authorization_revoked"), (3, "conduit_deleted"), (6, "user_removed")]);
    let planned = world.plan();
    let creates: Vec<_> = planned.plan.actions.iter().filter(|action| action.is_create()).collect();
    assert_eq!(creates.len(), 1);
    assert_eq!(*creates[0].key(), key(3));
    assert_eq!(deleted(&planned).len(), 3);
    let obstacles: Vec<_> = planned.plan.blocked.iter().map(|b| (b.obstacle, b.retry_in.is_some())).collect();
    assert_eq!(obstacles, [(Obstacle::Grant, true), (Obstacle::Removed, true)]);
    world.apply(&planned);

    // A subscription that ends again soon waits this time.
    world.rows.retain(|row| row.key != key(3));
    world.rows.extend(simple(&[], &[(3, "conduit_deleted")]).rows);
    let planned = world.plan();
    assert!(!planned.plan.actions.iter().any(Action::is_create), "{:?}", shown(&planned));
    world.apply(&planned);
    world.now += Duration::from_secs(301);
    let due: BTreeSet<_> =
        world.plan().plan.actions.iter().filter(|a| a.is_create()).map(|a| a.key().clone()).collect();
    assert_eq!(due, BTreeSet::from([key(0), key(3)]));
}

#[test]
fn a_hold_does_not_slip_when_creates_make_the_rest_larger() {
    let old: Vec<(u8, &str)> = (0..12).map(|n| (n * 3, "enabled")).collect();
    let mut world = simple(&(20..50).map(|n| n * 3).collect::<Vec<_>>(), &old);
    let first = world.plan();
    assert_eq!((first.plan.held.len(), first.plan.held_of), (12, Some(12)));
    world.apply(&first);
    assert_eq!(world.rows.len(), 42);
    let second = world.plan();
    assert_eq!((second.plan.held.len(), second.plan.held_of), (12, Some(12)));
    world.allow_deletes = true;
    let third = world.plan();
    assert_eq!((third.plan.actions.len(), third.plan.held_of), (12, None));
}

#[test]
fn whatever_the_number_all_of_ours_are_not_deleted_unasked() {
    let mut world = simple(&[], &[(0, "enabled"), (3, "enabled")]);
    let planned = world.plan();
    assert_eq!((planned.plan.held.len(), planned.plan.held_of), (2, Some(2)));
    // The daemon's own subscriptions stay, and are not counted.
    world.own = [key(6)].into();
    world.wanted = vec![key(6)];
    world.rows.push(SubscriptionRow { id: "own".into(), key: key(6), ..world.rows[0].clone() });
    assert_eq!(world.plan().plan.held_of, Some(2));
    // Others in their place are created, and the hold does not slip by that.
    world.wanted = vec![key(6), key(9), key(12)];
    let planned = world.plan();
    assert_eq!((planned.plan.held.len(), planned.plan.actions.len()), (2, 2));
    world.apply(&planned);
    assert_eq!(world.plan().plan.held, planned.plan.held);
    // A file that has the old ones again loses only what came by the mistake.
    world.wanted = vec![key(0), key(3), key(6)];
    let mended = world.plan();
    assert_eq!((mended.plan.actions.len(), mended.plan.held_of), (2, None));
    // One that stays is enough.
    world.wanted = vec![key(0), key(6), key(9), key(12)];
    assert_eq!(shown(&world.plan()), ["- row-1 Unwanted"]);
}

#[test]
fn deletes_make_room_first_when_cost_is_short() {
    let mut world = simple(&[3], &[(0, "enabled")]);
    world.allow_deletes = true;
    assert_eq!(shown(&world.plan()).last().map(|text| text.starts_with('-')), Some(true));
    world.room = Some(0);
    let short = world.plan();
    assert_eq!(shown(&short).first().map(|text| text.starts_with('-')), Some(true));
    assert_eq!(short.plan.actions.len(), 2);
    world.policy = Policy::Keep;
    let full = world.plan();
    assert_eq!(full.plan.actions, []);
    assert_eq!(full.plan.blocked[0].reason, reason::cost_limit());
}

const URL: &str = "https://a.example/e";

/// Everything goes to a callback with a new secret, away from a conduit, an older secret and an older URL.
fn leaving() -> (Places, Vec<TransportTarget>) {
    let url: std::sync::Arc<str> = URL.into();
    let key = |text: &str| WebhookKey::new(Secret::new(text)).unwrap();
    let webhook = |url: &str, secret: &str| {
        let Place::Webhook { callback, .. } = Place::webhook(&url.into(), &key(secret)) else {
            unreachable!()
        };
        TransportTarget::Webhook { callback }
    };
    let places = Places {
        current: Place::webhook(&url, &key("the-new-secret")),
        conduit: Some(OURS.into()),
        urls: [url.clone(), "https://old.example/e".into()].into(),
    };
    let targets = vec![
        TransportTarget::Conduit { conduit_id: OURS.into() },
        webhook(URL, "the-old-secret"),
        webhook(URL, "the-new-secret"),
        webhook("https://old.example/e", "the-old-secret"),
        TransportTarget::Conduit { conduit_id: "theirs".into() },
        TransportTarget::Webhook { callback: "https://theirs.example/e".into() },
    ];
    (places, targets)
}

/// Rows as Twitch can have them: of the same key at most three live ones, each with another target.
fn moving_world() -> impl Strategy<Value = World> {
    let rows = prop::collection::vec((0..12_u8, status(), 0..6_usize, 0..2_u64), 0..40);
    let wanted = prop::collection::btree_set(0..12_u8, 0..12);
    (rows, wanted, prop::bool::ANY, prop::option::of(0..4_u64)).prop_map(|(rows, wanted, keep, room)| {
        let (places, targets) = leaving();
        let mut world = simple(&wanted.into_iter().collect::<Vec<_>>(), &[]);
        for (at, (n, status, target, cost)) in rows.into_iter().enumerate() {
            let target = targets[target].clone();
            let equal = world.rows.iter().filter(|row| row.key == key(n) && row.status.is_live());
            let twin = equal.clone().any(|row| row.target == target);
            if status.is_live() && (twin || equal.count() == 3) {
                continue;
            }
            world.rows.push(SubscriptionRow {
                id: format!("row-{at}").into(),
                status,
                key: key(n),
                target,
                cost,
            });
        }
        World {
            places,
            policy: if keep { Policy::Keep } else { Policy::Sync },
            room,
            allow_deletes: true,
            ..world
        }
    })
}

proptest! {
    #[test]
    fn everything_moves_without_a_gap_and_within_twitchs_bounds(mut world in moving_world()) {
        let foreign = |world: &World| -> Vec<SubscriptionRow> {
            world.rows.iter().filter(|row| world.places.side(&row.target) == Side::Foreign).cloned().collect()
        };
        let delivers = |world: &World, key: &SubscriptionKey| world.rows.iter().any(|row| {
            row.key == *key && row.status == SubscriptionStatus::Enabled
                && world.places.side(&row.target) != Side::Foreign
        });
        let theirs = foreign(&world);
        let limit = world.total() + world.room.unwrap_or(1_000);
        let mut rounds = 0;
        loop {
            let planned = world.plan();
            let before: Vec<(SubscriptionKey, bool, usize)> = world.wanted.iter().map(|key| {
                let equal = world.rows.iter().filter(|row| row.key == *key && row.status.is_live()).count();
                (key.clone(), delivers(&world, key), equal)
            }).collect();
            let left = limit.saturating_sub(world.total());
            world.apply(&planned);
            for (key, delivered, equal) in before {
                let after = world.rows.iter().filter(|row| row.key == key && row.status.is_live()).count();
                prop_assert!(after <= 3, "{key}: {after} equal ones");
                prop_assert!(!delivered || delivers(&world, &key) || equal == 3 || left == 0, "a gap of {key}");
            }
            if planned.plan.actions.is_empty() && planned.moving == 0 {
                break;
            }
            // Twitch calls back.
            for row in &mut world.rows {
                let ours = world.places.side(&row.target) != Side::Foreign;
                if ours && row.status == SubscriptionStatus::WebhookCallbackVerificationPending {
                    row.status = SubscriptionStatus::Enabled;
                }
            }
            world.room = world.room.map(|_| limit.saturating_sub(world.total()));
            rounds += 1;
            prop_assert!(rounds < 30, "never done: {:?}", shown(&planned));
        }
        prop_assert_eq!(foreign(&world), theirs);
        let last = world.plan();
        for key in &world.wanted {
            let blocked = last.plan.blocked.iter().any(|blocked| blocked.key == *key);
            let rows = world.rows.iter().filter(|row| row.key == *key && row.status.is_live());
            let mut ours = rows.filter(|row| world.places.side(&row.target) != Side::Foreign);
            let current = ours.clone().all(|row| world.places.side(&row.target) == Side::Current);
            prop_assert!(blocked || (ours.next().is_some() && current), "{key} is not there: {:?}", world.rows);
        }
    }
}

#[test]
fn what_cannot_be_moved_stays_where_it_delivers() {
    let (places, targets) = leaving();
    let mut world = simple(&[0], &[(0, "enabled")]);
    world.places = places;
    let unreachable = |world: &World| {
        plan(&Input {
            places: &world.places,
            overdue: &std::collections::HashSet::new(),
            unreachable: Some("no answer"),
            ungranted: &std::collections::HashMap::new(),
            wanted: &world.wanted,
            is_fresh: true,
            rows: &world.rows,
            parked: &world.parked,
            now: world.now,
            policy: world.policy,
            max_delete: world.max_delete,
            allow_deletes: false,
            hold: None,
            own: &world.own,
            total_cost: 1,
            max_total_cost: 10_000,
        })
    };
    let planned = unreachable(&world);
    assert_eq!(shown(&planned), [""; 0]);
    assert_eq!(
        (planned.plan.blocked[0].obstacle, planned.plan.blocked[0].delivers),
        (Obstacle::Callback, true)
    );
    assert!(planned.live[0].as_ref().is_some_and(|live| live.enabled && !live.current));
    world.rows[0].target = targets[2].clone();
    assert!(unreachable(&world).plan.blocked.is_empty(), "what is there needs no proof");
}
