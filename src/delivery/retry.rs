//! What a failure means: when it is tried again, and when it is given up.

use std::time::Duration;

/// Ceiling of the pause after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(500);
/// The least pause, so that jitter never makes a tight loop.
const LEAST: Duration = Duration::from_millis(50);

/// What became of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it.
    Done,
    /// It may work later.
    Failed {
        /// What happened, and what to do; without secrets.
        error: String,
        /// The pause that the receiver asks for.
        after: Option<Duration>,
    },
    /// It will never work: a dead letter at once.
    Rejected(String),
}

impl Outcome {
    /// A failure after which the usual pauses hold.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::Failed { error: error.into(), after: None }
    }
}

/// How long failing events are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// The longest pause.
    pub retry_max: Duration,
    /// How long an event is tried before it goes to the dead letters.
    pub give_up_after: Duration,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this pause.
    Wait(Duration),
    /// Put it into the dead letters.
    GiveUp,
}

/// After the `failures`th failure (from 1) of something that has been failing for so long. Exponential
/// with full jitter: `jitter` is 0 to 1. `at_least` is the pause that the receiver asks for; it is
/// believed up to `retry_max`.
pub fn decide(
    failures: u32,
    failing_for: Duration,
    limits: RetryLimits,
    at_least: Option<Duration>,
    jitter: f64,
) -> Decision {
    let Some(left) = limits.give_up_after.checked_sub(failing_for).filter(|left| !left.is_zero()) else {
        return Decision::GiveUp;
    };
    let ceiling = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(24)).min(limits.retry_max);
    let asked = at_least.unwrap_or_default().min(limits.retry_max);
    let pause = ceiling.mul_f64(jitter.clamp(0.0, 1.0)).max(LEAST).max(asked);
    // The last try comes when the time is up, not a whole pause later.
    Decision::Wait(pause.min(left))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RetryLimits =
        RetryLimits { retry_max: Duration::from_secs(300), give_up_after: Duration::from_secs(86_400) };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pause = |failures| match decide(failures, Duration::from_secs(1), LIMITS, None, 1.0) {
            Decision::Wait(pause) => pause.as_millis(),
            Decision::GiveUp => panic!("too early"),
        };
        assert_eq!([1, 2, 3, 4].map(pause), [500, 1_000, 2_000, 4_000]);
        assert_eq!([11, 40, u32::MAX].map(pause), [300_000; 3]);
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_within_reason() {
        let wait = |asked| decide(1, Duration::ZERO, LIMITS, Some(Duration::from_secs(asked)), 0.0);
        assert_eq!(wait(30), Decision::Wait(Duration::from_secs(30)));
        assert_eq!(wait(1_000_000), Decision::Wait(LIMITS.retry_max));
    }

    proptest! {
        #[test]
        fn it_ends_and_never_spins(
            failures in 1..u32::MAX, failing_ms in 0..200_000_000_u64, jitter in -1.0..2.0_f64,
            asked in prop::option::of(0..1_000_000_u64),
        ) {
            let failing_for = Duration::from_millis(failing_ms);
            match decide(failures, failing_for, LIMITS, asked.map(Duration::from_secs), jitter) {
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
