//! The life of one WebSocket (Twitch: "Handling WebSocket Events"). Told of frames and times; says what to send and
//! when to look again. ◆

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Seconds between two pings.
const PING_SECONDS: u32 = 30;

/// The times of a session. At Twitch: 1 s, 10 s, 10 s, 30 s.
#[derive(Clone, Copy, Debug)]
pub struct SessionRules {
    /// The length of one second of `keepalive_timeout_seconds` and of the pings.
    pub second: Duration,
    /// Time that a session may stay unused: then 4003.
    pub unused: Duration,
    /// Time that a pong may take: then 4002.
    pub pong: Duration,
    /// Time until the socket must be left after a reconnect was asked for: then 4004.
    pub reconnect: Duration,
}

/// Parameters in the URL of a new WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub keepalive_timeout_seconds: u32,
    /// Session id and challenge of a reconnect URL.
    pub reconnect: Option<(String, String)>,
}

impl Opening {
    pub fn parse(query: &[(String, String)]) -> Self {
        let field = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let seconds =
            field("keepalive_timeout_seconds").and_then(|text| text.parse::<u32>().ok()).unwrap_or(10);
        let id = || field("id").unwrap_or_default().to_owned();
        Self {
            keepalive_timeout_seconds: seconds.clamp(10, 600),
            reconnect: field("challenge").map(|challenge| (id(), challenge.to_owned())),
        }
    }
}

/// Input from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    Pong,
    /// A close frame with this code.
    Close(Option<u16>),
    /// Text, binary or a ping of the client's own.
    Inbound,
    /// The connection broke.
    Lost,
}

/// Output to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Keepalive,
    Ping,
    /// A close frame; nothing comes after it.
    Close(u16),
}

/// The state of one socket.
#[derive(Clone, Debug)]
pub struct Machine {
    rules: SessionRules,
    keepalive: Duration,
    /// Time by which the session must be used; `None` once it was.
    use_by: Option<Instant>,
    ping_at: Instant,
    pong_by: Option<Instant>,
    /// Time by which the client must have left for another socket.
    leave_by: Option<Instant>,
    sent_at: Instant,
    output: VecDeque<Output>,
    ended: Option<u16>,
}

impl Machine {
    /// A socket whose welcome is sent now. One that came over a reconnect URL needs not be used again.
    pub fn new(rules: SessionRules, opening: &Opening, now: Instant) -> Self {
        Self {
            rules,
            keepalive: rules.second * opening.keepalive_timeout_seconds,
            use_by: opening.reconnect.is_none().then_some(now + rules.unused),
            ping_at: now + rules.second * PING_SECONDS,
            pong_by: None,
            leave_by: None,
            sent_at: now,
            output: VecDeque::new(),
            ended: None,
        }
    }

    pub fn handle_frame(&mut self, frame: Frame) {
        match frame {
            Frame::Pong => self.pong_by = None,
            Frame::Close(code) => self.end(code.unwrap_or(1005)),
            Frame::Inbound => self.close(4001),
            Frame::Lost => self.end(1006),
        }
    }

    /// A message went out.
    pub fn handle_sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    /// Something is due. `is_used` says whether the session has a subscription or backs a shard.
    pub fn handle_timeout(&mut self, now: Instant, is_used: impl FnOnce() -> bool) {
        let is_due = |time: Option<Instant>| time.is_some_and(|time| now >= time);
        if is_due(self.pong_by) {
            return self.close(4002);
        }
        if is_due(self.leave_by) {
            return self.close(4004);
        }
        if is_due(self.use_by) {
            self.use_by = None;
            if !is_used() {
                return self.close(4003);
            }
        }
        if is_due(Some(self.ping_at)) {
            self.ping_at = now + self.rules.second * PING_SECONDS;
            self.ping(now);
        }
        if is_due(Some(self.sent_at + self.keepalive)) {
            self.sent_at = now;
            self.output.push_back(Output::Keepalive);
        }
    }

    /// Pings the client, which must answer in time.
    pub fn ping(&mut self, now: Instant) {
        self.pong_by.get_or_insert(now + self.rules.pong);
        self.output.push_back(Output::Ping);
    }

    /// The client is asked to leave for another socket, or has opened it: this one ends in time.
    pub fn leave(&mut self, now: Instant) {
        self.leave_by = Some(now + self.rules.reconnect);
    }

    /// Closes the socket with this code.
    pub fn close(&mut self, code: u16) {
        if self.ended.is_none() {
            self.output.clear();
            self.output.push_back(Output::Close(code));
            self.ended = Some(code);
        }
    }

    fn end(&mut self, code: u16) {
        if self.ended.is_none() {
            self.output.clear();
            self.ended = Some(code);
        }
    }

    /// The next thing to send.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// The time of the next [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Instant {
        let always = self.ping_at.min(self.sent_at + self.keepalive);
        [self.use_by, self.pong_by, self.leave_by].into_iter().flatten().fold(always, Instant::min)
    }

    /// The code that the socket has ended with.
    pub fn ended(&self) -> Option<u16> {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: SessionRules = SessionRules {
        second: Duration::from_secs(1),
        unused: Duration::from_secs(10),
        pong: Duration::from_secs(10),
        reconnect: Duration::from_secs(30),
    };

    fn opening(query: &[(&str, &str)]) -> Opening {
        let owned: Vec<_> = query.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Opening::parse(&owned)
    }

    /// Runs until nothing is due before `until`; a pong answers each ping if `pongs`.
    fn run(machine: &mut Machine, start: Instant, until: Duration, pongs: bool) -> Vec<(u64, Output)> {
        let mut seen = Vec::new();
        while machine.ended().is_none() {
            let now = machine.poll_timeout();
            if now > start + until {
                break;
            }
            machine.handle_timeout(now, || true);
            while let Some(output) = machine.poll_output() {
                seen.push(((now - start).as_secs(), output));
                if pongs && output == Output::Ping {
                    machine.handle_frame(Frame::Pong);
                }
            }
        }
        seen
    }

    #[test]
    fn keepalives_and_pings_come_in_time() {
        let now = Instant::now();
        let mut machine = Machine::new(RULES, &opening(&[("keepalive_timeout_seconds", "20")]), now);
        let seen = run(&mut machine, now, Duration::from_secs(60), true);
        let keepalive = |at| (at, Output::Keepalive);
        let expected = [keepalive(20), (30, Output::Ping), keepalive(40), (60, Output::Ping), keepalive(60)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn every_rule_has_its_close_code() {
        let now = Instant::now();
        let new = || Machine::new(RULES, &opening(&[]), now);
        let mut unused = new();
        unused.handle_timeout(now + RULES.unused, || false);
        assert_eq!((unused.ended(), unused.poll_output()), (Some(4003), Some(Output::Close(4003))));
        let mut reconnected = Machine::new(RULES, &opening(&[("challenge", "c"), ("id", "i")]), now);
        reconnected.handle_timeout(now + RULES.unused, || false);
        assert_eq!(reconnected.ended(), None, "a session that goes on is in use");
        for (frame, code) in [
            (Frame::Inbound, 4001),
            (Frame::Close(Some(1001)), 1001),
            (Frame::Close(None), 1005),
            (Frame::Lost, 1006),
        ] {
            let mut machine = new();
            machine.handle_frame(frame);
            machine.close(4000);
            assert_eq!(machine.ended(), Some(code), "the first end counts");
        }
        let mut silent = new();
        let seen = run(&mut silent, now, Duration::from_secs(60), false);
        assert_eq!(seen.last(), Some(&(40, Output::Close(4002))));
        let mut left = new();
        left.leave(now + Duration::from_secs(5));
        let seen = run(&mut left, now, Duration::from_secs(60), true);
        assert_eq!(seen.last(), Some(&(35, Output::Close(4004))));
    }

    #[test]
    fn keepalive_times_are_clamped() {
        for (text, seconds) in [("1", 10), ("10", 10), ("45", 45), ("601", 600), ("-3", 10), ("x", 10)] {
            assert_eq!(
                opening(&[("keepalive_timeout_seconds", text)]).keepalive_timeout_seconds,
                seconds,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_client_hears_something_within_its_keepalive_time_until_the_end(
            steps in prop::collection::vec((0..40_u64, 0..5_u8), 0..60), seconds in 10..60_u32,
        ) {
            let start = Instant::now();
            let text = seconds.to_string();
            let mut machine = Machine::new(RULES, &opening(&[("keepalive_timeout_seconds", &text)]), start);
            let (mut now, mut heard) = (start, start);
            for (pause, what) in steps {
                let next = now + Duration::from_secs(pause);
                while machine.ended().is_none() && machine.poll_timeout() <= next {
                    now = machine.poll_timeout();
                    machine.handle_timeout(now, || true);
                    while let Some(output) = machine.poll_output() {
                        prop_assert!(machine.ended().is_none() || matches!(output, Output::Close(_)));
                        if output == Output::Keepalive { heard = now; }
                    }
                    prop_assert!(machine.ended().is_some() || now - heard <= Duration::from_secs(seconds.into()));
                    prop_assert!(machine.ended().is_some() || machine.poll_timeout() > now, "it moves on");
                }
                now = next;
                if machine.ended().is_some() { break; }
                match what {
                    0 => { machine.handle_sent(now); heard = now; }
                    1 => machine.handle_frame(Frame::Pong),
                    2 => machine.ping(now),
                    3 => machine.leave(now),
                    _ => {}
                }
            }
        }
    }
}
