//! Outcomes of attempts, and the decision to try again or give up. ◆

use std::time::Duration;

use crate::model::backoff::{Backoff, FULL, spread};

/// Ceiling of the pause after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(500);
/// The least pause, so that jitter never makes a tight loop.
const LEAST: Duration = Duration::from_millis(50);
/// The longest pause that a receiver may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(3_600);

/// The result of one attempt to hand an event to its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Done,
    /// The receiver has it, and says how many more requests it takes.
    DoneWithin(Allowance),
    /// The receiver will never take this event: a dead letter at once.
    Rejected(Failure),
    /// The event failed and may succeed later. Events of other lanes go on.
    Failed(Failure),
    /// The receiver can take nothing at present. All other events wait until this one succeeds or is given up.
    Unavailable(Failure),
    /// The receiver asks for a pause. No event is sent until it is over.
    Throttled {
        failure: Failure,
        /// Length of the pause.
        wait: Duration,
    },
}

impl Outcome {
    /// A failure of this event alone, which may pass.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(message))
    }

    /// A failure of the receiver.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable(Failure::new(message))
    }

    /// An event that can never be delivered.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::Rejected(Failure::new(message))
    }
}

/// The failure of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The failure, and what to do. Free of secrets and of the receiver's own words, so that it may stand in the log
    /// and in the status.
    pub message: String,
    /// The receiver's own words, masked. They are kept with the dead letter and shown only to somebody who asks.
    pub said: Option<String>,
}

impl Failure {
    /// A failure of which the receiver said nothing.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), said: None }
    }
}

/// The number of requests that a receiver takes, by the `X-RateLimit-*` headers of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests in each period, if the answer says so.
    pub limit: Option<u32>,
    /// Requests left in the current period.
    pub remaining: u32,
    /// Time until the next period begins.
    pub reset_after: Duration,
}

/// Limits of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// The longest pause of our own.
    pub retry_max: Duration,
    /// Time after which a failing event becomes a dead letter.
    pub give_up_after: Duration,
}

/// The reaction to a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this pause.
    Wait(Duration),
    /// Make the event a dead letter.
    GiveUp,
}

/// The pause after the `failures`th failure in a row (from 1). Exponential with full jitter: `jitter` is 0 to 1.
pub fn backoff(failures: u32, retry_max: Duration, jitter: f64) -> Duration {
    spread(Backoff::new(FIRST, retry_max).pause(failures), &FULL, jitter).max(LEAST)
}

/// The part of a receiver's wish for a pause that is respected: up to an hour, even if `retry_max` is shorter.
pub fn respected(wish: Duration) -> Duration {
    wish.clamp(LEAST, LONGEST_WISH)
}

/// Whether to try an event again that has been failing for `failing_for`, and after which pause.
pub fn decide(failures: u32, failing_for: Duration, limits: RetryLimits, jitter: f64) -> Decision {
    let Some(left) = limits.give_up_after.checked_sub(failing_for).filter(|left| !left.is_zero()) else {
        return Decision::GiveUp;
    };
    // The last try comes when the time is up, not a whole pause later.
    Decision::Wait(backoff(failures, limits.retry_max, jitter).min(left))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RetryLimits =
        RetryLimits { retry_max: Duration::from_secs(300), give_up_after: Duration::from_secs(86_400) };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pause = |failures| match decide(failures, Duration::from_secs(1), LIMITS, 1.0) {
            Decision::Wait(pause) => pause.as_millis(),
            Decision::GiveUp => panic!("too early"),
        };
        assert_eq!([1, 2, 3, 4].map(pause), [500, 1_000, 2_000, 4_000]);
        assert_eq!([11, 40, u32::MAX].map(pause), [300_000; 3]);
    }

    #[test]
    fn a_wish_is_respected_for_up_to_an_hour() {
        assert_eq!(respected(Duration::from_secs(1_800)), Duration::from_secs(1_800));
        assert_eq!(respected(Duration::from_secs(1_000_000)), LONGEST_WISH);
        assert_eq!(respected(Duration::ZERO), LEAST);
    }

    proptest! {
        #[test]
        fn retries_end_and_always_pause(
            failures in 1..u32::MAX, failing_ms in 0..200_000_000_u64, jitter in -1.0..2.0_f64,
        ) {
            let failing_for = Duration::from_millis(failing_ms);
            match decide(failures, failing_for, LIMITS, jitter) {
                Decision::GiveUp => prop_assert!(failing_for >= LIMITS.give_up_after),
                Decision::Wait(pause) => {
                    prop_assert!(pause <= LIMITS.retry_max);
                    prop_assert!(failing_for + pause <= LIMITS.give_up_after);
                    prop_assert!(!pause.is_zero());
                }
            }
        }
    }
}
