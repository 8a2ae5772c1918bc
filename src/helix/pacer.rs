//! Paces requests: uses the rate limit up to a small reserve and never exceeds it. ◆
//!
//! The bucket refills continuously ("Twitch API Concepts", rate limits). Between answers its level is
//! computed; the headers of each answer then bound it from both sides. An answer describes the moment when
//! Twitch handled the request. Since then later requests may have taken points, and points may have come in.
//! Contradictory headers (more left than the bucket holds, answers out of order) only move the level within
//! those bounds.
//!
//! The number of requests in flight follows Little's law: as many as the refill of the bucket needs at the answer
//! times of late, so that the bucket is what bounds, and neither a distant Twitch nor our own caution.

use std::time::{Duration, Instant};

/// Bounds of the wait after a 429 (Twitch's reset times have been seen to be wrong).
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Size of a bucket before an answer has told it (Twitch: "Twitch API Concepts").
const DEFAULT_LIMIT: u32 = 800;
/// Largest plausible bucket; a header with more is wrong.
const MAX_LIMIT: u32 = 1_000_000;

/// Part of the bucket that background requests leave to others.
const BACKGROUND_FLOOR: f64 = 0.5;
/// Part of the bucket above which background requests go without a pause. Below it they take half the refill.
const BACKGROUND_BURST: f64 = 0.75;
/// Requests in flight, as a multiple of what Little's law asks for: answer times vary.
const HEADROOM: f64 = 1.25;
/// Weight of the newest answer time in their average.
const NEWEST: f64 = 0.1;

/// Settings of the pacer.
#[derive(Clone, Copy, Debug)]
pub struct PacerOptions {
    /// Requests in flight that are always allowed. Urgent ones may exceed the limit by [`Self::URGENT_EXTRA`].
    pub in_flight: u32,
    /// Most requests in flight, however fast the bucket refills.
    pub most_in_flight: u32,
    /// Points that only urgent requests use.
    pub reserve: u32,
    /// Time in which an empty bucket refills.
    pub refill_window: Duration,
}

impl PacerOptions {
    /// Urgent requests that may be in flight besides the others.
    pub const URGENT_EXTRA: u32 = 4;
}

/// Importance of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Uses what others leave, down to half of the bucket: other programs may share it.
    Background,
    Ordinary,
    /// May use the reserve, and a few more places in flight.
    Urgent,
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
    /// Average answer time, in seconds; 0 before the first answer.
    answer_time: f64,
    /// Requests that may be in flight. Grows by at most one with each answer.
    window: f64,
    /// When a background request may go while the bucket is not nearly full.
    next_background: Instant,
}

impl Pacer {
    /// Before any answer the level is unknown: only as many requests go as may be in flight.
    pub fn new(options: PacerOptions, now: Instant) -> Self {
        let level = f64::from(options.in_flight + options.reserve);
        Self {
            options,
            limit: DEFAULT_LIMIT,
            level,
            as_of: now,
            given: 0,
            returned: 0,
            closed_until: None,
            answer_time: 0.0,
            window: f64::from(options.in_flight.max(1)),
            next_background: now,
        }
    }

    /// Decides whether a request may be sent.
    pub fn ask(&mut self, priority: Priority, now: Instant) -> Decision {
        self.refill(now);
        if let Some(until) = self.closed_until.filter(|until| *until > now) {
            return Decision::At(until);
        }
        let is_urgent = priority == Priority::Urgent;
        let extra = if is_urgent { PacerOptions::URGENT_EXTRA } else { 0 };
        if self.given - self.returned >= u64::from(self.window() + extra) {
            return Decision::Later;
        }
        // A bucket smaller than the reserve must still serve ordinary requests.
        let reserve = match priority {
            Priority::Urgent => 0.0,
            Priority::Ordinary => f64::from(self.options.reserve.min(self.limit / 2)),
            Priority::Background => f64::from(self.limit) * BACKGROUND_FLOOR,
        };
        let missing = 1.0 + reserve - self.level;
        if missing > 0.0 {
            let wait = Duration::from_secs_f64(missing / self.rate());
            // A zero wait would spin on rounding errors.
            return Decision::At(now + wait.max(Duration::from_millis(1)));
        }
        if priority == Priority::Background {
            if self.level < f64::from(self.limit) * BACKGROUND_BURST && self.next_background > now {
                return Decision::At(self.next_background);
            }
            self.next_background = now + Duration::from_secs_f64(2.0 / self.rate());
        }
        self.level -= 1.0;
        self.given += 1;
        Decision::Go(Permit { sent_at: now, returned_before: self.returned })
    }

    /// Number of requests that may be in flight now.
    pub fn window(&self) -> u32 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the options")]
        let window = self.window as u32;
        window
    }

    /// Lets the window follow the answer times.
    fn adapt(&mut self, answer_time: Duration) {
        let newest = answer_time.as_secs_f64();
        self.answer_time = match self.answer_time {
            0.0 => newest,
            average => average + (newest - average) * NEWEST,
        };
        let least = f64::from(self.options.in_flight.max(1));
        let most = f64::from(self.options.most_in_flight).max(least);
        let needed = (self.rate() * self.answer_time * HEADROOM).ceil().clamp(least, most);
        self.window = needed.min(self.window + 1.0);
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
        self.adapt(now.saturating_duration_since(permit.sent_at));
    }

    /// Processes the end of a request without an answer; its point counts as spent.
    #[allow(clippy::needless_pass_by_value, reason = "a permit is handed back once")]
    pub fn abandoned(&mut self, _permit: Permit) {
        self.returned += 1;
        self.window = (self.window / 2.0).max(f64::from(self.options.in_flight.max(1)));
    }

    /// Twitch answered 429: nothing goes before `reset_in`, within bounds. `jitter` (0 to 1) spreads
    /// several daemons by a second.
    pub fn limited(&mut self, reset_in: Option<Duration>, jitter: f64, now: Instant) {
        self.refill(now);
        self.level = self.level.min(0.0);
        self.window = f64::from(self.options.in_flight.max(1));
        let wait = reset_in.unwrap_or(WAIT.0).clamp(WAIT.0, WAIT.1)
            + Duration::from_secs_f64(jitter.clamp(0.0, 1.0));
        self.closed_until = self.closed_until.max(Some(now + wait));
    }

    /// Refill rate in points per second.
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

    const OPTIONS: PacerOptions = PacerOptions {
        in_flight: 10,
        most_in_flight: 64,
        reserve: 20,
        refill_window: Duration::from_secs(60),
    };

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
            match pacer.ask(Priority::Ordinary, start) {
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
            let permit = go(pacer.ask(Priority::Urgent, start));
            pacer.answered(permit, bucket.take(start).unwrap(), start);
        }
        assert!(matches!(pacer.ask(Priority::Urgent, start), Decision::At(_)), "the reserve is used up too");
    }

    #[test]
    fn flights_are_bounded_and_urgent_ones_have_room() {
        let now = Instant::now();
        let mut pacer = Pacer::new(OPTIONS, now);
        let permits: Vec<_> = (0..10).map(|_| go(pacer.ask(Priority::Ordinary, now))).collect();
        assert_eq!(pacer.ask(Priority::Ordinary, now), Decision::Later);
        let _urgent = go(pacer.ask(Priority::Urgent, now));
        for permit in permits {
            pacer.abandoned(permit);
        }
        assert!(!matches!(pacer.ask(Priority::Ordinary, now), Decision::Later));
    }

    #[test]
    fn a_429_closes_for_a_bounded_time() {
        let now = Instant::now();
        for (reset_in, least, most) in
            [(None, 1, 2), (Some(0), 1, 2), (Some(20), 20, 21), (Some(86_400), 60, 61)]
        {
            let mut pacer = Pacer::new(OPTIONS, now);
            pacer.limited(reset_in.map(Duration::from_secs), 0.5, now);
            let Decision::At(at) = pacer.ask(Priority::Urgent, now) else { panic!("closed") };
            assert!((least..=most).contains(&(at - now).as_secs()), "{reset_in:?}");
        }
    }

    #[test]
    fn headers_that_make_no_sense_do_no_harm() {
        let now = Instant::now();
        let mut pacer = Pacer::new(OPTIONS, now);
        for (limit, remaining) in [(0, 0), (u32::MAX, u32::MAX), (800, 4_000), (1, 0)] {
            let permit = match pacer.ask(Priority::Urgent, now) {
                Decision::Go(permit) => permit,
                Decision::At(at) => go(pacer.ask(Priority::Urgent, at)),
                Decision::Later => panic!("nothing is in flight"),
            };
            pacer.answered(permit, Headers { limit: Some(limit), remaining: Some(remaining) }, now);
            assert!(pacer.level <= f64::from(pacer.limit));
        }
        assert!(
            matches!(pacer.ask(Priority::Ordinary, now + Duration::from_secs(61)), Decision::Go(_)),
            "a bucket of one serves"
        );
    }

    #[test]
    fn the_window_follows_refill_and_answer_times_and_shrinks_in_trouble() {
        let start = Instant::now();
        let mut pacer = Pacer::new(OPTIONS, start);
        let mut now = start;
        let mut answer = |pacer: &mut Pacer, limit: u32, millis: u64| {
            now += Duration::from_secs(1);
            let permit = go(pacer.ask(Priority::Ordinary, now));
            let headers = Headers { limit: Some(limit), remaining: Some(limit / 2) };
            now += Duration::from_millis(millis);
            pacer.answered(permit, headers, now);
            now
        };
        for _ in 0..100 {
            answer(&mut pacer, 800, 40);
        }
        assert_eq!(pacer.window(), 10, "13 a second need one place");
        answer(&mut pacer, 60_000, 40);
        assert_eq!(pacer.window(), 11, "one more with each answer");
        for _ in 0..100 {
            answer(&mut pacer, 60_000, 40);
        }
        assert_eq!(pacer.window(), 50, "1,000 a second for 40 ms, and a quarter more");
        for _ in 0..100 {
            answer(&mut pacer, 60_000, 400);
        }
        assert_eq!(pacer.window(), 64, "never more");
        let at = now + Duration::from_secs(1);
        let permit = go(pacer.ask(Priority::Ordinary, at));
        pacer.abandoned(permit);
        assert_eq!(pacer.window(), 32);
        pacer.limited(None, 0.0, at);
        assert_eq!(pacer.window(), 10);
    }

    proptest! {
        // Each case simulates two minutes, a millisecond at a time.
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Background requests leave half of the bucket, use what comes in, and never delay others.
        #[test]
        fn background_leaves_half_of_the_bucket(
            start_level in 0..=800_u32, others in 0..=10_u64, slow in 1..200_u64
        ) {
            let origin = Instant::now();
            let mut bucket = Bucket { limit: 800, level: f64::from(start_level), as_of: origin };
            let mut pacer = Pacer::new(OPTIONS, origin);
            let mut flight: VecDeque<(u64, Permit, Headers)> = VecDeque::new();
            let mut background_back = 0;
            let (mut sent, mut foreign, mut refused) = (0_u32, 0_u64, 0_u32);
            prop_assume!(start_level > 40);
            for ms in 0..120_000_u64 {
                let now = origin + Duration::from_millis(ms);
                while flight.front().is_some_and(|answer| answer.0 <= ms) {
                    let (_, permit, headers) = flight.pop_front().unwrap();
                    pacer.answered(permit, headers, now);
                }
                // Another program with the same client id.
                if others > 0 && ms % (1_000 / others) == 0 {
                    foreign += 1;
                    refused += u32::from(bucket.take(now).is_none());
                }
                // An ordinary request of ours from time to time, which also tells the level.
                if ms % 10_000 == 0 {
                    let permit = go(pacer.ask(Priority::Ordinary, now));
                    flight.push_front((ms, permit, bucket.take(now).unwrap()));
                }
                if background_back <= ms
                    && let Decision::Go(permit) = pacer.ask(Priority::Background, now)
                {
                    sent += 1;
                    let headers = bucket.take(now);
                    prop_assert!(headers.is_some(), "429 after {ms} ms");
                    let headers = headers.unwrap();
                    // Points that other programs take are unknown until the next answer.
                    let unseen = f64::from(u32::try_from(others).unwrap()) * (slow as f64 / 1_000.0 + 10.0);
                    let floor = if others == 0 { 399.0 } else { 399.0 - unseen };
                    prop_assert!(f64::from(headers.remaining.unwrap()) >= floor, "{headers:?} after {ms} ms");
                    background_back = ms + slow;
                    flight.push_back((background_back, permit, headers));
                }
            }
            prop_assert_eq!(refused, 0, "of {} requests of another program", foreign);
            if others == 0 {
                let refill = 800.0 / 60.0 * 120.0;
                let usable = f64::from(start_level) + refill - 600.0;
                // A bucket that is nearly empty fills to half in 30 s, in which nothing goes.
                let carried = 90_000.0 / (slow as f64 + 1.0).max(150.0);
                prop_assert!(f64::from(sent) > usable.min(carried) * 0.9 - 40.0, "{sent} of {usable}");
            }
        }

        /// For any latencies and any order of answers: no 429, and the bucket is used fully.
        #[test]
        fn it_never_overruns_and_keeps_up(
            seed in any::<u64>(), start_level in 0..=800_u32, limit in 60..20_000_u32, slow in 1..400_u64
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
                while let Decision::Go(permit) = pacer.ask(Priority::Ordinary, now) {
                    sent += 1;
                    let there = ms + 1 + next(slow);
                    travelling.push((there, there + 1 + next(slow), permit));
                }
                prop_assert!(travelling.len() + handled.len() <= 64);
            }
            let seconds = f64::from(u32::try_from(length / 1_000).unwrap());
            let given = start_level + f64::from(limit) / 60.0 * seconds;
            // Requests that so many connections of this latency can carry, at worst.
            let carried = |connections: f64| connections * seconds * 1_000.0 / (2.0 * slow as f64 + 2.0);
            // The refill is used whatever the latency; the first level at least as fast as ten connections can.
            let refilled = (f64::from(limit) / 60.0 * seconds).min(carried(64.0));
            let reachable = given.min(carried(10.0).max(refilled));
            prop_assert!(f64::from(sent) > reachable * 0.95 - 60.0, "{sent} of {reachable}");
        }
    }
}
