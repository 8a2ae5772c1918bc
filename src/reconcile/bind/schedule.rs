//! When the binder looks at Twitch's list of shards, publishes the bindings, retries and warns. ◆

use std::time::{Duration, Instant};

use crate::model::timers::Timers;

/// Shards whose bindings are published at once.
const FEW_SHARDS: usize = 100;

/// Least pause between two publications of the bindings of more shards.
const PUBLISH_PAUSE: Duration = Duration::from_millis(20);

/// From a hint to the look that it leads to.
const HINT_PAUSE: Duration = Duration::from_secs(1);

/// From one look to the next that the end of a session causes.
const LOST_PAUSE: Duration = Duration::from_secs(2);

/// From the look that an adopted session causes to the one that confirms it: the list may have been behind a binding of
/// the leader before.
const CONFIRM_PAUSE: Duration = Duration::from_secs(5);

/// Everything that the binder waits for, beside its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The next look at Twitch's list. Stands still during one.
    Look,
    /// The next publication of the bindings of many shards.
    Publish,
    /// The next try to bind a shard.
    Retry,
    /// The next warning that no shard is bound.
    Warning,
}

/// The binder's timers.
#[derive(Debug)]
pub(in crate::reconcile) struct Schedule {
    timers: Timers<Timer>,
    looked_at: Instant,
    /// When the look after the present one is due; `None` while nobody looks.
    after_look: Option<Instant>,
    published_at: Option<Instant>,
    /// Whether the next look is to be followed by another one soon.
    confirm: bool,
    /// Time after which the loop turns in any case, to show that it moves.
    longest: Duration,
}

impl Schedule {
    /// Creates a schedule whose first look comes after `pause`.
    pub(in crate::reconcile) fn new(pause: Duration, longest: Duration, now: Instant) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Look, now + pause);
        Self { timers, looked_at: now, after_look: None, published_at: None, confirm: false, longest }
    }

    /// Handles a hint about the shards: it is looked up a moment later, and not at every one.
    pub(in crate::reconcile) fn handle_hint(&mut self, now: Instant) {
        self.look_by(now + HINT_PAUSE);
    }

    /// Handles the end of a session: only now does the list still show whether somebody had taken the shard before.
    pub(in crate::reconcile) fn handle_lost_session(&mut self, now: Instant) {
        if now >= self.looked_at + LOST_PAUSE {
            self.look_by(now);
        }
    }

    /// Handles a session that waits for a look before it is bound.
    pub(in crate::reconcile) fn handle_moving_session(&mut self, now: Instant) {
        self.look_by(now);
    }

    /// Handles a session that an earlier leader of the cluster has bound: it is looked up at once, and once more soon.
    pub(in crate::reconcile) fn handle_adopted_session(&mut self, now: Instant) {
        self.confirm = true;
        self.look_by(now);
    }

    /// Handles the end of a look.
    pub(in crate::reconcile) fn handle_look_end(&mut self) {
        if let Some(at) = self.after_look.take() {
            self.timers.set(Timer::Look, at);
        }
    }

    /// Moves the next look forward to what the callbacks need, with a pause since the last one.
    pub(in crate::reconcile) fn expect_callbacks(&mut self, at: Instant) {
        self.look_by(at.max(self.looked_at + HINT_PAUSE));
    }

    /// Sets when a shard is tried again; `None` if none waits for that.
    pub(in crate::reconcile) fn set_retry(&mut self, at: Option<Instant>) {
        self.set(Timer::Retry, at);
    }

    /// Sets when the next warning is due; `None` if a shard is bound.
    pub(in crate::reconcile) fn set_warning(&mut self, at: Option<Instant>) {
        self.set(Timer::Warning, at);
    }

    /// Returns whether a look is due; the one after it comes after `pause`.
    pub(in crate::reconcile) fn poll_look(&mut self, pause: Duration, now: Instant) -> bool {
        let is_due = self.timers.is_due(Timer::Look, now);
        if is_due {
            let confirm = std::mem::take(&mut self.confirm);
            self.timers.set(Timer::Look, now + if confirm { pause.min(CONFIRM_PAUSE) } else { pause });
            self.looked_at = now;
        }
        is_due
    }

    /// Records that a look has begun. None is due until [`Self::handle_look_end`].
    pub(in crate::reconcile) fn start_look(&mut self) {
        self.after_look = self.timers.get(Timer::Look);
        self.timers.stop(Timer::Look);
    }

    pub(in crate::reconcile) fn is_looking(&self) -> bool {
        self.after_look.is_some()
    }

    /// Returns whether to publish the bindings now. Each publication wakes every shard: with thousands of them, several
    /// answers share one.
    pub(in crate::reconcile) fn poll_publish(&mut self, shards: usize, now: Instant) -> bool {
        let next = self.published_at.map_or(now, |at| at + PUBLISH_PAUSE);
        let is_due = shards <= FEW_SHARDS || next <= now;
        if is_due {
            self.published_at = Some(now);
        }
        self.set(Timer::Publish, (!is_due).then_some(next));
        is_due
    }

    /// Returns when the loop has to turn.
    pub(in crate::reconcile) fn poll_timeout(&self, now: Instant) -> Instant {
        let longest = now + self.longest;
        self.timers.next().map_or(longest, |next| next.min(longest))
    }

    fn set(&mut self, timer: Timer, at: Option<Instant>) {
        match at {
            Some(at) => self.timers.set(timer, at),
            None => self.timers.stop(timer),
        }
    }

    fn look_by(&mut self, at: Instant) {
        match &mut self.after_look {
            Some(next) => *next = at.min(*next),
            None => self.timers.set_earlier(Timer::Look, at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(600);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_hint_and_the_end_of_a_session_bring_the_look_forward() {
        let start = Instant::now();
        let mut schedule = Schedule::new(PAUSE, PAUSE, start);
        assert!(!schedule.poll_look(PAUSE, at(start, 599)));
        schedule.handle_lost_session(at(start, 1));
        assert_eq!(schedule.poll_timeout(start), at(start, 600), "the last look was a moment ago");
        schedule.handle_hint(at(start, 4));
        schedule.handle_hint(at(start, 4));
        assert_eq!(schedule.poll_timeout(start), at(start, 5));
        schedule.handle_lost_session(at(start, 4));
        assert!(schedule.poll_look(PAUSE, at(start, 4)));
        assert!(!schedule.poll_look(PAUSE, at(start, 4)));
    }

    #[test]
    fn an_adopted_session_is_looked_up_at_once_and_five_seconds_later() {
        let start = Instant::now();
        let mut schedule = Schedule::new(PAUSE, PAUSE, start);
        schedule.handle_adopted_session(at(start, 1));
        assert!(schedule.poll_look(PAUSE, at(start, 1)) && !schedule.poll_look(PAUSE, at(start, 5)));
        assert!(schedule.poll_look(PAUSE, at(start, 6)) && !schedule.poll_look(PAUSE, at(start, 605)));
    }

    #[test]
    fn no_look_is_due_during_a_look() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::ZERO, PAUSE, start);
        assert!(schedule.poll_look(PAUSE, start));
        schedule.start_look();
        schedule.handle_hint(at(start, 1));
        assert!(schedule.is_looking() && !schedule.poll_look(PAUSE, at(start, 9)));
        assert_eq!(schedule.poll_timeout(at(start, 9)), at(start, 609));
        schedule.handle_look_end();
        assert!(!schedule.is_looking());
        assert!(schedule.poll_look(PAUSE, at(start, 9)));
    }

    #[test]
    fn many_shards_are_published_with_pauses() {
        let start = Instant::now();
        let mut schedule = Schedule::new(PAUSE, PAUSE, start);
        assert!(schedule.poll_publish(FEW_SHARDS + 1, start));
        assert!(!schedule.poll_publish(FEW_SHARDS + 1, start));
        assert_eq!(schedule.poll_timeout(start), start + PUBLISH_PAUSE);
        assert!(schedule.poll_publish(FEW_SHARDS, start), "few shards are published at once");
        assert_eq!(schedule.poll_timeout(start), at(start, 600));
        assert!(schedule.poll_publish(FEW_SHARDS + 1, start + PUBLISH_PAUSE));
    }
}
