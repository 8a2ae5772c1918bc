//! Decides whether a receiver takes events now. ◆
//!
//! Three things close the gate: a receiver that does not work (pauses of our own, which grow), a receiver that asks for
//! a pause, and an allowance of requests that is used up. Once a receiver has failed, events go one at a time until
//! one of them has shown that it works again.

use std::time::Duration;

use super::retry::{Allowance, respected};

/// Numbers the stretches between two failures of the receiver. A request tells something about the receiver only if it
/// was sent in the current stretch: others were under way when it failed, and fail with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round(u64);

/// The number of events that may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    None,
    One,
    Any,
}

/// The requests that the receiver still takes in a period.
#[derive(Clone, Copy, Debug)]
struct Budget {
    limit: Option<u32>,
    left: u32,
    /// End of the period. `None` until an answer has named it.
    until: Option<Duration>,
}

/// Times are since any fixed moment.
#[derive(Debug, Default)]
pub struct Gate {
    round: Round,
    /// Failures of the receiver in a row.
    failures: u32,
    /// Whether the one event is out that shows whether the receiver works again.
    is_probing: bool,
    /// The end of our own pause.
    backoff_until: Option<Duration>,
    /// The end of the pause that the receiver asked for.
    asked_until: Option<Duration>,
    budget: Option<Budget>,
}

impl Gate {
    /// Returns how many events may go while `out` are under way.
    pub fn admission(&self, now: Duration, out: usize) -> Admission {
        if self.closed_until(now).is_some() || self.is_probing {
            return Admission::None;
        }
        if let Some(Budget { left: 0, until, .. }) = self.budget
            && until.map_or(out > 0, |until| now < until)
        {
            return Admission::None;
        }
        if self.failures > 0 { Admission::One } else { Admission::Any }
    }

    /// Returns the time at which the gate opens by itself, if a pause keeps it closed.
    pub fn closed_until(&self, now: Duration) -> Option<Duration> {
        let budget = self.budget.filter(|budget| budget.left == 0).and_then(|budget| budget.until);
        [self.backoff_until, self.asked_until, budget]
            .into_iter()
            .flatten()
            .filter(|until| *until > now)
            .max()
    }

    /// Whether the receiver wants no requests now.
    pub fn is_paused(&self, now: Duration) -> bool {
        let backoff = self.backoff_until.filter(|until| *until > now);
        self.closed_until(now) > backoff
    }

    /// The end of the pause that the receiver asked for, if it is not over.
    pub fn asked_until(&self, now: Duration) -> Option<Duration> {
        self.asked_until.filter(|until| *until > now)
    }

    /// Records a sent event.
    pub fn sent(&mut self, now: Duration) -> Round {
        if let Some(budget) = &mut self.budget {
            if budget.until.is_none_or(|until| until <= now) && (budget.left == 0 || budget.until.is_some()) {
                *budget = Budget { left: budget.limit.unwrap_or(u32::MAX), until: None, ..*budget };
            }
            budget.left = budget.left.saturating_sub(1);
        }
        self.is_probing = self.failures > 0;
        self.round
    }

    /// Records that the receiver has answered and works.
    pub fn proved(&mut self, round: Round) {
        if round == self.round {
            self.failures = 0;
            self.is_probing = false;
        }
    }

    /// Records that an attempt has ended, with any outcome.
    pub fn ended(&mut self, round: Round) {
        if round == self.round {
            self.is_probing = false;
        }
    }

    /// Returns the number of failures in a row if a request of this round fails.
    pub fn failures_with(&self, round: Round) -> u32 {
        self.failures.saturating_add(u32::from(round == self.round)).max(1)
    }

    /// Records that the receiver does not work. Returns whether that was not known yet.
    pub fn failed(&mut self, round: Round, until: Duration) -> bool {
        if round != self.round {
            return false;
        }
        self.failures = self.failures_with(round);
        self.is_probing = false;
        self.round = Round(round.0 + 1);
        self.backoff_until = Some(until);
        true
    }

    /// Records a pause that the receiver asks for. Returns its end.
    pub fn throttled(&mut self, round: Round, now: Duration, wait: Duration) -> Duration {
        self.proved(round);
        let until = now + respected(wait);
        self.pause_until(until);
        until
    }

    /// Records a pause that the receiver asked this sink or another one for.
    pub fn pause_until(&mut self, until: Duration) {
        self.asked_until = self.asked_until.max(Some(until));
    }

    /// Records how many requests are left, while `others` are under way.
    pub fn allowed(&mut self, allowance: Allowance, now: Duration, others: usize) {
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let left = allowance.remaining.saturating_sub(others);
        let until = now + respected(allowance.reset_after);
        let known = self.budget.filter(|budget| budget.until.is_none_or(|until| now < until));
        self.budget = Some(Budget {
            limit: allowance.limit,
            // Answers may overtake each other.
            left: known.map_or(left, |known| known.left.min(left)),
            until: Some(until),
        });
    }

    /// Ends our own pauses, and with `wishes` those that the receiver asked for.
    pub fn open(&mut self, wishes: bool) {
        self.backoff_until = None;
        if wishes {
            self.asked_until = None;
            self.budget = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_failed_receiver_is_tried_with_one_event_until_it_works() {
        let mut gate = Gate::default();
        let [first, second] = [gate.sent(Duration::ZERO), gate.sent(Duration::ZERO)];
        assert!(gate.failed(first, SECOND));
        assert!(!gate.failed(second, 9 * SECOND), "it was under way");
        gate.proved(second);
        assert_eq!(gate.admission(SECOND / 2, 0), Admission::None);
        assert_eq!(gate.admission(SECOND, 0), Admission::One);
        let probe = gate.sent(SECOND);
        assert_eq!(gate.admission(SECOND, 1), Admission::None);
        assert_eq!(gate.failures_with(probe), 2);
        gate.ended(probe);
        assert_eq!(gate.admission(SECOND, 0), Admission::One, "it was taken back");
        let probe = gate.sent(SECOND);
        gate.proved(probe);
        assert_eq!(gate.admission(SECOND, 0), Admission::Any);
    }

    #[test]
    fn a_pause_holds_for_all_and_only_a_person_ends_it() {
        let mut gate = Gate::default();
        let round = gate.sent(Duration::ZERO);
        gate.throttled(round, Duration::ZERO, 3 * SECOND);
        gate.throttled(round, Duration::ZERO, SECOND);
        gate.open(false);
        assert_eq!(gate.closed_until(2 * SECOND), Some(3 * SECOND));
        assert!(gate.is_paused(2 * SECOND) && !gate.is_paused(3 * SECOND));
        gate.open(true);
        assert_eq!(gate.admission(2 * SECOND, 0), Admission::Any);
    }

    #[test]
    fn an_allowance_is_not_exceeded() {
        let mut gate = Gate::default();
        gate.sent(Duration::ZERO);
        let allowance = Allowance { limit: Some(2), remaining: 1, reset_after: SECOND };
        gate.allowed(allowance, Duration::ZERO, 0);
        assert_eq!(gate.admission(Duration::ZERO, 0), Admission::Any);
        gate.sent(Duration::ZERO);
        assert_eq!(gate.admission(Duration::ZERO, 1), Admission::None);
        assert_eq!(gate.closed_until(Duration::ZERO), Some(SECOND));
        for _ in 0..2 {
            assert_eq!(gate.admission(SECOND, 1), Admission::Any);
            gate.sent(SECOND);
        }
        assert_eq!(gate.admission(SECOND, 2), Admission::None, "the limit holds before an answer has told");
        assert_eq!(gate.admission(SECOND, 0), Admission::Any, "nobody will tell");
    }
}
