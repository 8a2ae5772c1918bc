//! Shards that call: which must be given their callback, which wait for Twitch's challenge, which deliver. ◆
//!
//! Unlike a WebSocket a callback does not run away, so Twitch's list is what counts: nothing is done before it
//! was read. A shard that delivers already, to a socket or to an older callback, is moved only while others
//! deliver: what comes for a shard that waits for its challenge is tried on one other shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::helix::{ShardRow, Transport};
use crate::model::shard::{ShardBinding, ShardId, ShardTarget, Tenure, Unbound};
use crate::model::status::ShardState;
use crate::model::webhook::{Callback, KeyId, WebhookKey};
use crate::reconcile::decide::park::{Obstacle, RetryTimes};

/// Time that Twitch may take with its challenge, and with its list after it.
const CHALLENGE: Duration = Duration::from_secs(60);

/// From one look at the list to the next while something waits for its challenge.
const LOOK: Duration = Duration::from_secs(5);

/// Time that the only shard waits for a stand-in.
const STAND_IN: Duration = Duration::from_secs(30);

/// Twitch's status of a shard that waits for its challenge.
const PENDING: &str = "webhook_callback_verification_pending";

#[derive(Clone, Debug)]
struct Slot {
    callback: Arc<str>,
    state: State,
    since: Instant,
    attempts: u32,
    /// The binding, from the look that found the shard enabled; it goes on while the shard is moved.
    tenure: Option<Tenure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Twitch's list has not been read since; until then it delivered, or not.
    Unknown {
        delivered: bool,
    },
    /// No transport, or one that does not deliver.
    Dark,
    /// Delivers to a socket or to another callback.
    Elsewhere,
    Asked,
    Pending,
    Enabled,
    Failed {
        why: Box<str>,
        retry_at: Instant,
    },
}

/// The table of them.
#[derive(Clone, Debug, Default)]
pub(in crate::reconcile) struct Hooks {
    conduit: Option<Arc<str>>,
    key: Option<WebhookKey>,
    slots: BTreeMap<ShardId, Slot>,
    /// The last binding of each shard that is over, and why it ended.
    past: BTreeMap<ShardId, (Tenure, Unbound)>,
    /// The secrets of the callbacks that Twitch lists; `None` before it was asked.
    keys: Option<BTreeSet<KeyId>>,
    times: RetryTimes,
}

impl Hooks {
    pub(in crate::reconcile) fn new(times: RetryTimes) -> Self {
        Self { times, ..Self::default() }
    }

    /// Handles the newest target; on another conduit or with another callback everything is looked at anew.
    pub(in crate::reconcile) fn handle_target(&mut self, target: Option<&ShardTarget>, now: Instant) {
        let conduit = target.map(|target| target.conduit_id.clone());
        if self.conduit != conduit {
            self.keys = None;
            self.slots.clear();
            self.past.clear();
        }
        self.conduit = conduit;
        let Some((target, webhook)) = target.and_then(|target| Some((target, target.webhook.as_ref()?)))
        else {
            self.slots.clear();
            return;
        };
        let key = webhook.keys.current();
        self.key = Some(key.clone());
        self.slots.retain(|shard, _| shard.0 < target.shards);
        for shard in (0..target.shards).map(ShardId) {
            let callback = Callback { url: webhook.url.clone(), key: key.id, shard: Some(shard) };
            let callback: Arc<str> = callback.to_string().into();
            if self.slots.get(&shard).is_none_or(|slot| slot.callback != callback) {
                let old = self.slots.remove(&shard);
                let delivered = old.as_ref().is_some_and(|slot| slot.state == State::Enabled);
                let state = State::Unknown { delivered };
                let tenure = old.and_then(|slot| slot.tenure);
                self.slots.insert(shard, Slot { callback, state, since: now, attempts: 0, tenure });
            }
        }
    }

    /// Whether shards are to call.
    pub(in crate::reconcile) fn is_active(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Handles Twitch's list, which was asked for at `asked_at`, and says which shards came to deliver.
    pub(in crate::reconcile) fn handle_list(
        &mut self,
        conduit: &str,
        rows: &[ShardRow],
        asked_at: Instant,
        now: Instant,
    ) -> Vec<ShardId> {
        if self.conduit.as_deref() != Some(conduit) {
            return Vec::new();
        }
        let callbacks = rows.iter().filter_map(|row| row.callback.as_deref());
        self.keys = Some(callbacks.filter_map(|text| Some(text.parse::<Callback>().ok()?.key)).collect());
        let rows: BTreeMap<ShardId, &ShardRow> = rows.iter().map(|row| (row.id, row)).collect();
        let mut new = Vec::new();
        for (shard, slot) in &mut self.slots {
            let row = rows.get(shard);
            let ours = row.is_some_and(|row| row.callback.as_deref() == Some(&*slot.callback));
            let status = row.map_or("", |row| &row.status);
            let late = now >= slot.since + CHALLENGE;
            let state = match (&slot.state, ours, status) {
                // A callback that was asked for may not be in the list yet; a failed one waits for its retry.
                (State::Asked, false, _) => continue,
                (State::Pending, false, _) if !late => continue,
                (State::Failed { .. }, _, status) if !(ours && status == "enabled") => continue,
                (_, true, "enabled") => State::Enabled,
                (State::Pending | State::Unknown { .. } | State::Asked, true, PENDING) if !late => {
                    State::Pending
                }
                (_, true, PENDING) => Self::failed(slot, self.times, "Twitch's challenge has not come", now),
                (_, true, status) => {
                    Self::failed(slot, self.times, &format!("Twitch disabled it: {status}"), now)
                }
                (_, false, "enabled") => State::Elsewhere,
                (_, false, _) => State::Dark,
            };
            if state == State::Enabled {
                slot.attempts = 0;
                if slot.state != State::Enabled {
                    new.push(*shard);
                }
            }
            if let Some(past) = record(slot, &state, asked_at) {
                self.past.insert(*shard, past);
            }
            set(slot, state, now);
        }
        new
    }

    fn failed(slot: &mut Slot, times: RetryTimes, why: &str, now: Instant) -> State {
        slot.attempts = slot.attempts.saturating_add(1);
        State::Failed { why: why.into(), retry_at: now + times.pause(Obstacle::Callback, slot.attempts) }
    }

    /// Shards that must get their callback now; each counts as asked for from here on.
    pub(in crate::reconcile) fn poll_due(&mut self, now: Instant) -> Vec<(ShardId, Transport)> {
        let Some(key) = &self.key else { return Vec::new() };
        if self.slots.values().any(|slot| matches!(slot.state, State::Unknown { .. })) {
            return Vec::new();
        }
        let delivering = |state: &State| matches!(state, State::Enabled | State::Elsewhere);
        let count = self.slots.values().filter(|slot| delivering(&slot.state)).count();
        let waits = self.slots.values().any(|slot| matches!(slot.state, State::Asked | State::Pending));
        // Half of those that deliver stay as they are while the others are moved.
        let mut room = if waits { 0 } else { count / 2 };
        let mut due = Vec::new();
        for (shard, slot) in &mut self.slots {
            let now_due = match &slot.state {
                State::Dark => true,
                State::Failed { retry_at, .. } => *retry_at <= now,
                State::Elsewhere if room > 0 => {
                    room -= 1;
                    true
                }
                State::Elsewhere => count == 1 && !waits && now >= slot.since + STAND_IN,
                State::Unknown { .. } | State::Asked | State::Pending | State::Enabled => false,
            };
            if now_due {
                set(slot, State::Asked, now);
                let secret = key.secret.clone();
                due.push((*shard, Transport::Webhook { callback: slot.callback.clone(), secret }));
            }
        }
        due
    }

    /// Handles Twitch's answer for one shard; one about another callback says nothing.
    pub(in crate::reconcile) fn handle_answer(
        &mut self,
        shard: ShardId,
        asked: &Transport,
        answer: Result<(), &str>,
        now: Instant,
    ) {
        let Some(slot) = self.slots.get_mut(&shard) else { return };
        let same = matches!(asked, Transport::Webhook { callback, .. } if *callback == slot.callback);
        if !same || slot.state != State::Asked {
            return;
        }
        let state = match answer {
            Ok(()) => State::Pending,
            Err(why) => Self::failed(slot, self.times, why, now),
        };
        set(slot, state, now);
    }

    /// Whether the only shard delivers elsewhere, and another one should stand in for it while it is moved.
    pub(in crate::reconcile) fn wants_stand_in(&self) -> bool {
        let lonely = self.slots.len() == 1 && self.slots.values().all(|slot| slot.state == State::Elsewhere);
        let stood_in = self.slots.len() == 2
            && self.slots.get(&ShardId(0)).is_some_and(|slot| slot.state != State::Enabled);
        lonely || stood_in
    }

    /// When to look at Twitch's list, or at what is due.
    pub(in crate::reconcile) fn poll_timeout(&self) -> Option<Instant> {
        let next = |slot: &Slot| match slot.state {
            State::Unknown { .. } => Some(slot.since),
            State::Asked | State::Pending => Some(slot.since + LOOK),
            State::Failed { retry_at, .. } => Some(retry_at),
            State::Elsewhere => Some(slot.since + STAND_IN),
            State::Dark | State::Enabled => None,
        };
        self.slots.values().filter_map(next).min()
    }

    /// Number of shards that deliver: to us or, until they are moved, elsewhere.
    pub(in crate::reconcile) fn delivering(&self) -> u32 {
        let delivers = |slot: &&Slot| {
            matches!(slot.state, State::Enabled | State::Elsewhere | State::Unknown { delivered: true })
        };
        let count = self.slots.values().filter(delivers).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether all of them do.
    pub(in crate::reconcile) fn all_enabled(&self) -> bool {
        self.slots.values().all(|slot| slot.state == State::Enabled)
    }

    /// The secrets of the callbacks that Twitch lists for our shards.
    pub(in crate::reconcile) fn keys(&self) -> Option<&BTreeSet<KeyId>> {
        self.keys.as_ref()
    }

    /// Returns the known bindings of each shard.
    pub(in crate::reconcile) fn tenures(&self) -> impl Iterator<Item = (ShardId, ShardBinding)> {
        self.slots.iter().map(|(shard, slot)| {
            let past = self.past.get(shard);
            let binding = ShardBinding {
                present: slot.tenure.clone(),
                past: past.map(|(tenure, _)| tenure.clone()),
                unbound: past.map(|(_, unbound)| *unbound),
            };
            (*shard, binding)
        })
    }

    /// Each shard with its state, the start of that state, and the reason if it does not deliver.
    pub(in crate::reconcile) fn states(
        &self,
    ) -> impl Iterator<Item = (ShardId, ShardState, Instant, Option<&str>)> {
        self.slots.iter().map(|(shard, slot)| {
            let (state, why) = match &slot.state {
                State::Enabled => (ShardState::Bound, None),
                State::Elsewhere | State::Unknown { delivered: true } => (ShardState::HandingOver, None),
                State::Unknown { .. } | State::Dark => (ShardState::Connecting, None),
                State::Asked | State::Pending => (ShardState::AwaitingBinding, None),
                State::Failed { why, .. } => (ShardState::Waiting, Some(&**why)),
            };
            (*shard, state, slot.since, why)
        })
    }
}

/// Records what a look at `asked_at` says of the binding of a slot that gets this state. Returns the binding if it is
/// over.
fn record(slot: &mut Slot, state: &State, asked_at: Instant) -> Option<(Tenure, Unbound)> {
    let unbound = match (&slot.state, state) {
        (was, State::Enabled) => {
            let found = matches!(was, State::Unknown { .. });
            let new = || Tenure {
                session_id: None,
                bound_at: asked_at,
                seen_at: None,
                found,
                is_adopted: false,
                succeeds: None,
            };
            slot.tenure.get_or_insert_with(new).seen_at = Some(asked_at);
            return None;
        }
        (State::Enabled, State::Elsewhere) | (_, State::Dark) => Unbound::Taken,
        (_, State::Failed { .. }) => Unbound::Disabled,
        _ => return None,
    };
    Some((slot.tenure.take()?, unbound))
}

fn set(slot: &mut Slot, state: State, now: Instant) {
    if slot.state != state {
        slot.state = state;
        slot.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;
    use crate::model::shard::{SessionId, ShardSet, WebhookTarget};
    use crate::model::webhook::WebhookKeys;

    fn target(shards: u32, secret: &str) -> ShardTarget {
        let key = WebhookKey::new(Secret::new(secret)).unwrap();
        let keys = WebhookKeys::new(key, []);
        let webhook = Some(WebhookTarget { url: "https://a.example/e".into(), keys });
        ShardTarget { conduit_id: "c".into(), shards, sockets: ShardSet::default(), webhook }
    }

    fn row(shard: u32, status: &str, callback: Option<&str>) -> ShardRow {
        ShardRow {
            id: ShardId(shard),
            status: status.into(),
            session_id: callback.is_none().then(|| SessionId::new("s")),
            callback: callback.map(Into::into),
        }
    }

    fn numbers(due: &[(ShardId, Transport)]) -> Vec<u32> {
        due.iter().map(|(shard, _)| shard.0).collect()
    }

    fn callback(transport: &Transport) -> &str {
        let Transport::Webhook { callback, .. } = transport else { panic!("{transport:?}") };
        callback
    }

    #[test]
    fn new_shards_get_their_callbacks_and_wait_for_the_challenge() {
        let now = Instant::now();
        let mut hooks = Hooks::new(RetryTimes::default());
        hooks.handle_target(Some(&target(2, "0123456789")), now);
        assert!(hooks.poll_due(now).is_empty(), "the list has not been read");
        hooks.handle_list("c", &[], now, now);
        let due = hooks.poll_due(now);
        assert_eq!(numbers(&due), [0, 1]);
        assert!(callback(&due[1].1).ends_with("&shard=1"));
        assert!(hooks.poll_due(now).is_empty());
        hooks.handle_answer(ShardId(0), &due[0].1, Ok(()), now);
        hooks.handle_answer(ShardId(1), &due[1].1, Err("bad callback"), now);
        let rows = [row(0, "enabled", Some(callback(&due[0].1)))];
        assert_eq!(hooks.handle_list("c", &rows, now, now), [ShardId(0)]);
        assert_eq!((hooks.delivering(), hooks.all_enabled()), (1, false));
        let retry = hooks.poll_timeout().unwrap();
        assert!(hooks.poll_due(retry - Duration::from_millis(1)).is_empty());
        assert_eq!(numbers(&hooks.poll_due(retry)), [1]);
        assert_eq!(hooks.keys().unwrap().len(), 1);
    }

    #[test]
    fn a_challenge_that_does_not_come_is_asked_for_again_with_growing_pauses() {
        let mut now = Instant::now();
        let mut hooks = Hooks::new(RetryTimes::default());
        hooks.handle_target(Some(&target(1, "0123456789")), now);
        hooks.handle_list("c", &[], now, now);
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            let due = hooks.poll_due(now);
            assert_eq!(numbers(&due), [0]);
            hooks.handle_answer(ShardId(0), &due[0].1, Ok(()), now);
            let rows = [row(0, PENDING, Some(callback(&due[0].1)))];
            hooks.handle_list("c", &rows, now, now);
            now += CHALLENGE;
            hooks.handle_list("c", &rows, now, now);
            let retry = hooks.poll_timeout().unwrap();
            assert!(retry - now > last, "{:?}", retry - now);
            last = retry - now;
            now = retry;
        }
    }

    #[test]
    fn shards_that_deliver_are_moved_by_halves_and_a_lonely_one_with_a_stand_in() {
        let now = Instant::now();
        let mut hooks = Hooks::new(RetryTimes::default());
        hooks.handle_target(Some(&target(4, "0123456789")), now);
        let sockets: Vec<ShardRow> = (0..4).map(|n| row(n, "enabled", None)).collect();
        hooks.handle_list("c", &sockets, now, now);
        let due = hooks.poll_due(now);
        assert_eq!(numbers(&due), [0, 1]);
        for (shard, asked) in &due {
            hooks.handle_answer(*shard, asked, Ok(()), now);
        }
        assert!(hooks.poll_due(now).is_empty(), "the others stay while these wait");
        let mut rows = sockets.clone();
        for (shard, asked) in &due {
            rows[shard.0 as usize] = row(shard.0, "enabled", Some(callback(asked)));
        }
        hooks.handle_list("c", &rows, now, now);
        assert_eq!(numbers(&hooks.poll_due(now)), [2, 3]);

        let mut hooks = Hooks::new(RetryTimes::default());
        hooks.handle_target(Some(&target(1, "0123456789")), now);
        hooks.handle_list("c", &sockets[..1], now, now);
        assert!(hooks.poll_due(now).is_empty() && hooks.wants_stand_in());
        hooks.handle_target(Some(&target(2, "0123456789")), now);
        hooks.handle_list("c", &sockets[..1], now, now);
        let due = hooks.poll_due(now);
        assert_eq!(numbers(&due), [1]);
        hooks.handle_answer(ShardId(1), &due[0].1, Ok(()), now);
        let rows = [sockets[0].clone(), row(1, "enabled", Some(callback(&due[0].1)))];
        hooks.handle_list("c", &rows, now, now);
        assert_eq!(numbers(&hooks.poll_due(now)), [0]);
        assert!(hooks.wants_stand_in(), "until the first one delivers");
    }

    #[test]
    fn another_secret_moves_them_and_a_foreign_answer_says_nothing() {
        let now = Instant::now();
        let mut hooks = Hooks::new(RetryTimes::default());
        hooks.handle_target(Some(&target(2, "0123456789")), now);
        hooks.handle_list("c", &[], now, now);
        let due = hooks.poll_due(now);
        hooks.handle_target(Some(&target(2, "abcdefghij")), now);
        hooks.handle_answer(ShardId(0), &due[0].1, Ok(()), now);
        let rows: Vec<ShardRow> = due.iter().map(|(id, t)| row(id.0, "enabled", Some(callback(t)))).collect();
        assert!(hooks.handle_list("other", &rows, now, now).is_empty());
        hooks.handle_list("c", &rows, now, now);
        assert_eq!(numbers(&hooks.poll_due(now)), [0], "one half first");
    }

    #[test]
    fn a_binding_is_found_lost_and_kept_through_a_move() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut hooks = Hooks::new(RetryTimes::default());
        hooks.handle_target(Some(&target(2, "0123456789")), now);
        hooks.handle_list("c", &[], now, now);
        let due = hooks.poll_due(now);
        let own: Vec<ShardRow> = due.iter().map(|(id, t)| row(id.0, "enabled", Some(callback(t)))).collect();
        for (shard, asked) in &due {
            hooks.handle_answer(*shard, asked, Ok(()), now);
        }
        hooks.handle_list("c", &own, at(10), at(10));
        let of = |hooks: &Hooks, shard: usize| hooks.tenures().nth(shard).expect("a shard").1;
        let tenure = of(&hooks, 0).present.expect("bound");
        assert_eq!((tenure.bound_at, tenure.seen_at, tenure.found), (at(10), Some(at(10)), false));
        let mut rows = own.clone();
        rows[0].status = "notification_failures_exceeded".into();
        rows[1].callback = Some("https://b.example/e".into());
        hooks.handle_list("c", &rows, at(20), at(20));
        for (shard, why) in [(0, Unbound::Disabled), (1, Unbound::Taken)] {
            let binding = of(&hooks, shard);
            assert_eq!((binding.present, binding.unbound), (None, Some(why)));
            assert_eq!(binding.past.expect("it was bound").seen_at, Some(at(10)));
        }

        // Another process that starts finds them, and a new secret moves them.
        let mut hooks = Hooks::new(RetryTimes::default());
        hooks.handle_target(Some(&target(2, "0123456789")), now);
        hooks.handle_list("c", &own, now, now);
        assert!(of(&hooks, 1).present.expect("bound").found);
        hooks.handle_target(Some(&target(2, "abcdefghij")), now);
        hooks.handle_list("c", &own, at(1), at(1));
        hooks.poll_due(at(1));
        assert!(of(&hooks, 0).present.is_some() && of(&hooks, 1).present.is_some());
    }
}
