//! Paces requests: uses the rate limit up to a small reserve and never exceeds it. ◆
//!
//! The bucket refills continuously ("Twitch API Concepts", rate limits). Between answers its level is
//! computed; the headers of each answer then bound it from both sides. An answer describes the moment when
//! Twitch handled the request. Since then later requests may have taken points, and points may have come in.
//! Contradictory headers (more left than the bucket holds, answers out of order) only move the level within
//! those bounds.

use std::time::{Duration, Instant};

/// Bounds of the wait after a 429 (Twitch's reset times have been seen to be wrong).
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Size of a bucket before an answer has told it (Twitch: "Twitch API Concepts").
const DEFAULT_LIMIT: u32 = 800;
/// Largest plausible bucket; a header with more is wrong.
const MAX_LIMIT: u32 = 1_000_000;

/// Settings of the pacer.
#[derive(Clone, Copy, Debug)]
pub struct PacerOptions {
    /// Most requests in flight. Urgent ones may exceed it by [`Self::URGENT_EXTRA`].
    pub in_flight: u32,
    /// Points that only urgent requests use.
    pub reserve: u32,
    /// Time in which an empty bucket refills.
    pub refill_window: Duration,
}

impl PacerOptions {
    /// Urgent requests that may be in flight besides the others.
    pub const URGENT_EXTRA: u32 = 4;
}

/// Rate-limit headers of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Ratelimit-Limit`.
    pub limit: Option<u32>,
    /// `Ratelimit-Remaining`.
    pub remaining: Option<u32>,
}

/// Whether a request may go.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it, and hand the permit back.
    Go(Permit),
    /// Ask again at this time, or once a permit is returned.
    At(Instant),
    /// Ask again once a permit is returned.
    Later,
}

/// A request in flight.
#[must_use = "a permit has to come back"]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    sent_at: Instant,
    /// Permits that had been returned when this one was given.
    returned_before: u64,
}

/// Model of Twitch's bucket.
#[derive(Clone, Debug)]
pub struct Pacer {
    options: PacerOptions,
    limit: u32,
    /// Points at `as_of`, requests in flight counted as paid.
    level: f64,
    as_of: Instant,
    given: u64,
    returned: u64,
    closed_until: Option<Instant>,
}

impl Pacer {
    /// Before any answer the level is unknown: only as many requests go as may be in flight.
    pub fn new(options: PacerOptions, now: Instant) -> Self {
        let level = f64::from(options.in_flight + options.reserve);
        Self { options, limit: DEFAULT_LIMIT, level, as_of: now, given: 0, returned: 0, closed_until: None }
    }

    /// Decides whether a request may be sent.
    pub fn ask(&mut self, urgent: bool, now: Instant) -> Decision {
        self.refill(now);
        if let Some(until) = self.closed_until.filter(|until| *until > now) {
            return Decision::At(until);
        }
        let extra = if urgent { PacerOptions::URGENT_EXTRA } else { 0 };
        if self.given - self.returned >= u64::from(self.options.in_flight.max(1) + extra) {
            return Decision::Later;
        }
        // A bucket smaller than the reserve must still serve ordinary requests.
        let reserve = if urgent { 0 } else { self.options.reserve.min(self.limit / 2) };
        let missing = 1.0 + f64::from(reserve) - self.level;
        if missing > 0.0 {
            let wait = Duration::from_secs_f64(missing / self.rate());
            // A zero wait would spin on rounding errors.
            return Decision::At(now + wait.max(Duration::from_millis(1)));
        }
        self.level -= 1.0;
        self.given += 1;
        Decision::Go(Permit { sent_at: now, returned_before: self.returned })
    }

    /// Processes an answer.
    #[allow(clippy::needless_pass_by_value, reason = "a permit is handed back once")]
    pub fn answered(&mut self, permit: Permit, headers: Headers, now: Instant) {
        self.refill(now);
        self.returned += 1;
        if let Some(limit) = headers.limit.filter(|limit| (1..=MAX_LIMIT).contains(limit)) {
            self.limit = limit;
            self.level = self.level.min(f64::from(limit));
        }
        if let Some(remaining) = headers.remaining {
            let remaining = f64::from(remaining.min(self.limit));
            // Requests whose flight overlapped: each may have been handled after this one.
            let others = (self.given - permit.returned_before).saturating_sub(1);
            #[allow(clippy::cast_precision_loss, reason = "a few requests")]
            let least = remaining - others as f64;
            let most = remaining + self.rate() * now.saturating_duration_since(permit.sent_at).as_secs_f64();
            self.level = self.level.max(least).min(most);
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "a permit is handed back once")]
    /// A request ended without an answer; its point counts as spent.
    pub fn abandoned(&mut self, _permit: Permit) {
        self.returned += 1;
    }

    /// Twitch answered 429: nothing goes before `reset_in`, within bounds. `jitter` (0 to 1) spreads
    /// several daemons by a second.
    pub fn limited(&mut self, reset_in: Option<Duration>, jitter: f64, now: Instant) {
        self.refill(now);
        self.level = self.level.min(0.0);
        let wait = reset_in.unwrap_or(WAIT.0).clamp(WAIT.0, WAIT.1)
            + Duration::from_secs_f64(jitter.clamp(0.0, 1.0));
        self.closed_until = self.closed_until.max(Some(now + wait));
    }

    /// Points per second.
    fn rate(&self) -> f64 {
        f64::from(self.limit) / self.options.refill_window.as_secs_f64().max(0.001)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.as_of);
        self.as_of = self.as_of.max(now);
        self.level = (self.level + self.rate() * passed.as_secs_f64()).min(f64::from(self.limit));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const OPTIONS: PacerOptions =
        PacerOptions { in_flight: 10, reserve: 20, refill_window: Duration::from_secs(60) };

    /// Twitch's side of the rate limit.
    struct Bucket {
        limit: u32,
        level: f64,
        as_of: Instant,
    }

    impl Bucket {
        fn take(&mut self, now: Instant) -> Option<Headers> {
            let passed = (now - self.as_of).as_secs_f64();
            self.as_of = now;
            self.level = (self.level + passed * f64::from(self.limit) / 60.0).min(f64::from(self.limit));
            if self.level < 1.0 {
                return None;
            }
            self.level -= 1.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small level")]
            Some(Headers { limit: Some(self.limit), remaining: Some(self.level as u32) })
        }
    }

    fn go(decision: Decision) -> Permit {
        match decision {
            Decision::Go(permit) => permit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_bucket_is_spent_at_once_and_the_reserve_stays() {
        let start = Instant::now();
        let mut pacer = Pacer::new(OPTIONS, start);
        let mut bucket = Bucket { limit: 800, level: 800.0, as_of: start };
        let mut sent = 0;
        loop {
            match pacer.ask(false, start) {
                Decision::Go(permit) => {
                    sent += 1;
                    pacer.answered(permit, bucket.take(start).unwrap(), start);
                }
                Decision::At(at) => {
                    assert!(at - start < Duration::from_millis(80), "one point comes in 75 ms");
                    break;
                }
                Decision::Later => panic!("nothing is in flight"),
            }
        }
        assert_eq!(sent, 780);
        for _ in 0..20 {
            let permit = go(pacer.ask(true, start));
            pacer.answered(permit, bucket.take(start).unwrap(), start);
        }
        assert!(matches!(pacer.ask(true, start), Decision::At(_)), "the reserve is used up too");
    }

    #[test]
    fn flights_are_bounded_and_urgent_ones_have_room() {
        let now = Instant::now();
        let mut pacer = Pacer::new(OPTIONS, now);
        let permits: Vec<_> = (0..10).map(|_| go(pacer.ask(false, now))).collect();
        assert_eq!(pacer.ask(false, now), Decision::Later);
        let _urgent = go(pacer.ask(true, now));
        for permit in permits {
            pacer.abandoned(permit);
        }
        assert!(!matches!(pacer.ask(false, now), Decision::Later));
    }

    #[test]
    fn a_429_closes_for_a_bounded_time() {
        let now = Instant::now();
        for (reset_in, least, most) in
            [(None, 1, 2), (Some(0), 1, 2), (Some(20), 20, 21), (Some(86_400), 60, 61)]
        {
            let mut pacer = Pacer::new(OPTIONS, now);
            pacer.limited(reset_in.map(Duration::from_secs), 0.5, now);
            let Decision::At(at) = pacer.ask(true, now) else { panic!("closed") };
            assert!((least..=most).contains(&(at - now).as_secs()), "{reset_in:?}");
        }
    }

    #[test]
    fn headers_that_make_no_sense_do_no_harm() {
        let now = Instant::now();
        let mut pacer = Pacer::new(OPTIONS, now);
        for (limit, remaining) in [(0, 0), (u32::MAX, u32::MAX), (800, 4_000), (1, 0)] {
            let permit = match pacer.ask(true, now) {
                Decision::Go(permit) => permit,
                Decision::At(at) => go(pacer.ask(true, at)),
                Decision::Later => panic!("nothing is in flight"),
            };
            pacer.answered(permit, Headers { limit: Some(limit), remaining: Some(remaining) }, now);
            assert!(pacer.level <= f64::from(pacer.limit));
        }
        assert!(
            matches!(pacer.ask(false, now + Duration::from_secs(61)), Decision::Go(_)),
            "a bucket of one serves"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// For any latencies and any order of answers: no 429, and the bucket is used fully.
        #[test]
        fn it_never_overruns_and_keeps_up(
            seed in any::<u64>(), start_level in 0..=800_u32, limit in 60..2_000_u32, slow in 1..400_u64
        ) {
            let mut random = seed | 1;
            let mut next = move |bound: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % bound
            };
            let origin = Instant::now();
            let start_level = f64::from(start_level.min(limit));
            // A bucket that is nearly empty at the start cannot be known before the first answer.
            prop_assume!(start_level > 40.0);
            let mut bucket = Bucket { limit, level: start_level, as_of: origin };
            let mut pacer = Pacer::new(OPTIONS, origin);
            // (time of handling, time of answer, permit)
            let mut handled: VecDeque<(u64, Permit, Headers)> = VecDeque::new();
            let mut travelling: Vec<(u64, u64, Permit)> = Vec::new();
            let mut sent = 0_u32;
            let length = 20_000_u64;
            for ms in 0..length {
                let now = origin + Duration::from_millis(ms);
                travelling.sort_by_key(|t| t.0);
                while travelling.first().is_some_and(|t| t.0 <= ms) {
                    let (_, back, permit) = travelling.remove(0);
                    let headers = bucket.take(now);
                    prop_assert!(headers.is_some(), "429 after {ms} ms and {sent} requests");
                    handled.push_back((back, permit, headers.unwrap()));
                }
                let (due, rest) = handled.into_iter().partition(|h| h.0 <= ms);
                handled = rest;
                let due: VecDeque<_> = due;
                for (_, permit, headers) in due {
                    pacer.answered(permit, headers, now);
                }
                while let Decision::Go(permit) = pacer.ask(false, now) {
                    sent += 1;
                    let there = ms + 1 + next(slow);
                    travelling.push((there, there + 1 + next(slow), permit));
                }
            }
            let seconds = f64::from(u32::try_from(length / 1_000).unwrap());
            let given = start_level + f64::from(limit) / 60.0 * seconds;
            // Requests that ten connections of this latency can carry.
            let carried = 10.0 * seconds * 1_000.0 / (2.0 * slow as f64 + 2.0);
            let reachable = given.min(carried);
            prop_assert!(f64::from(sent) > reachable * 0.95 - 60.0, "{sent} of {reachable}");
        }
    }
}
