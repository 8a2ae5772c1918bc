//! The life of one shard's connection, without any I/O: what happened goes in, with the time; what
//! to do comes out.
//!
//! At most two sockets exist at once: the current one, and either its successor on the way to its
//! welcome or its predecessor, read until the successor is bound and a little longer. The successor takes over only once
//! it is welcomed, so that nothing that Twitch sends on either is missed (Twitch: "Handling
//! WebSocket Events", "Reconnect message").

use std::time::{Duration, Instant};

use http::Uri;

use crate::model::shard::{BindOutcome, Binding, LiveSession, SessionId};
use crate::model::status::ShardState;
use crate::model::tally::ReconnectCause;

/// Time limits; tests shorten them.
#[derive(Clone, Debug)]
pub struct Timings {
    /// From the beginning of a connection to its welcome: 15 s.
    pub welcome: Duration,
    /// From the welcome to the binding: 30 s. Twitch closes unused sessions after 10 s, but says that
    /// the figure may change.
    pub bind: Duration,
    /// Silence beyond the keepalive timeout that is still no death: 5 s.
    pub keepalive_grace: Duration,
    /// From a request to reconnect to the new welcome (Twitch: 4004): 30 s.
    pub handover: Duration,
    /// How long the predecessor is read on once its successor serves: what is on its way comes over it:
    /// 2 s.
    pub linger: Duration,
    /// Pause before the second attempt, and the longest pause: 1 s and 60 s. Each is spread by half.
    pub backoff: (Duration, Duration),
    /// Pause before the first attempt after a loss, at most: 1 s.
    pub first: Duration,
    /// From our close frame to the end of the connection: 1 s.
    pub drain: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            welcome: seconds(15),
            bind: seconds(30),
            keepalive_grace: seconds(5),
            handover: seconds(30),
            linger: seconds(2),
            backoff: (seconds(1), seconds(60)),
            first: seconds(1),
            drain: seconds(1),
        }
    }
}

/// Names a socket within its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A new connection may be opened now; only answered while [`Session::wants_connection`].
    MayConnect,
    /// A welcome came.
    Welcome {
        /// On this socket.
        socket: SocketId,
        /// The session's id.
        session_id: SessionId,
        /// Its keepalive timeout.
        keepalive: Duration,
    },
    /// Anything else came: the connection is alive.
    Heard(SocketId),
    /// Twitch asks for a reconnect.
    Reconnect {
        /// On this socket.
        socket: SocketId,
        /// Where to.
        url: Option<Box<str>>,
    },
    /// A socket could not be opened, broke or was closed.
    Ended {
        /// Which.
        socket: SocketId,
        /// Why.
        cause: ReconnectCause,
        /// Why, for a person.
        why: Box<str>,
    },
    /// The reconciler's last word on the shard's binding; none while there is none.
    Binding(Option<Binding>),
    /// The shard belongs to another conduit now: its binding counts no more.
    Unbound,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a socket.
    Connect {
        /// Its name.
        socket: SocketId,
        /// Where to: as given, or the configured address when none.
        url: Option<Box<str>>,
    },
    /// Close a socket; what it still delivers is wanted.
    Close(SocketId),
    /// Tell the reconciler of the session, or that there is none.
    Announce(Option<LiveSession>),
}

#[derive(Clone, Debug)]
struct Live {
    socket: SocketId,
    session: LiveSession,
    keepalive: Duration,
    heard: Instant,
}

#[derive(Clone, Debug)]
struct Opening {
    socket: SocketId,
    until: Instant,
    /// To the configured address, not to one that Twitch gave.
    fresh: bool,
}

#[derive(Clone, Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    Opening(Opening),
    Live(Live),
    /// Twitch asked for a reconnect: the successor is being opened.
    Reconnecting {
        current: Live,
        next: Opening,
    },
    /// The successor serves, or waits to be bound: the predecessor is read on until then.
    Overlapping {
        current: Live,
        old: SocketId,
        until: Instant,
    },
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Session {
    timings: Timings,
    base: Uri,
    state: State,
    next_socket: u64,
    /// Attempts since the last good binding.
    attempts: u32,
    bound: bool,
    bind_until: Option<Instant>,
    losses: u64,
    reconnects: u64,
    /// Why connections were made anew, until somebody takes it.
    causes: Vec<ReconnectCause>,
    problem: Option<Box<str>>,
}

impl Session {
    /// A shard without a connection, which wants one now. `base` is the configured address.
    pub fn new(base: Uri, timings: Timings, now: Instant) -> Self {
        Self {
            timings,
            base,
            state: State::Waiting { until: now },
            next_socket: 0,
            attempts: 0,
            bound: false,
            bind_until: None,
            losses: 0,
            reconnects: 0,
            causes: Vec::new(),
            problem: None,
        }
    }

    /// Whether a connection is to be opened as soon as that is allowed.
    pub fn wants_connection(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    /// Whether a connection that was allowed has not got its welcome yet.
    pub fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening(_))
    }

    /// When a tick is due.
    pub fn deadline(&self) -> Instant {
        let silence = |live: &Live| live.heard + live.keepalive + self.timings.keepalive_grace;
        let own = match &self.state {
            State::Waiting { until } => *until,
            State::Opening(opening) => opening.until,
            State::Live(live) => silence(live),
            State::Reconnecting { current, next } => silence(current).min(next.until),
            State::Overlapping { current, until, .. } => silence(current).min(*until),
        };
        self.bind_until.map_or(own, |until| own.min(until))
    }

    /// What the shard is doing.
    pub fn shard_state(&self) -> ShardState {
        match &self.state {
            State::Waiting { .. } => ShardState::Waiting,
            State::Opening(_) => ShardState::AwaitingWelcome,
            State::Reconnecting { .. } | State::Overlapping { .. } => ShardState::HandingOver,
            State::Live(_) if self.bound => ShardState::Bound,
            State::Live(_) => ShardState::AwaitingBinding,
        }
    }

    /// The session that is read.
    pub fn session(&self) -> Option<&SessionId> {
        self.live().map(|live| &live.session.session_id)
    }

    /// Connections lost, and server-asked reconnects.
    pub fn counts(&self) -> (u64, u64) {
        (self.losses, self.reconnects)
    }

    /// Why connections were made anew since the last call; attempts that failed are among them.
    pub fn take_causes(&mut self) -> Vec<ReconnectCause> {
        std::mem::take(&mut self.causes)
    }

    /// Why it is not delivering, or what happened last.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn live(&self) -> Option<&Live> {
        match &self.state {
            State::Live(live)
            | State::Reconnecting { current: live, .. }
            | State::Overlapping { current: live, .. } => Some(live),
            State::Waiting { .. } | State::Opening(_) => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.state {
            State::Live(live)
            | State::Reconnecting { current: live, .. }
            | State::Overlapping { current: live, .. } => Some(live),
            State::Waiting { .. } | State::Opening(_) => None,
        }
    }

    /// Takes in what happened. `jitter` is 0 to 1.
    pub fn step(&mut self, input: Input, now: Instant, jitter: f64) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::MayConnect => {
                if self.wants_connection(now) {
                    let opening = self.open(None, now + self.timings.welcome, &mut out);
                    self.state = State::Opening(opening);
                }
            }
            Input::Welcome { socket, session_id, keepalive } => {
                let session = LiveSession { session_id, welcomed_at: now };
                self.welcomed(Live { socket, session, keepalive, heard: now }, now, &mut out);
            }
            Input::Heard(socket) => {
                if let Some(live) = self.live_mut().filter(|live| live.socket == socket) {
                    live.heard = now;
                }
            }
            Input::Reconnect { socket, url } => self.asked_to_reconnect(socket, url, now, &mut out),
            Input::Ended { socket, cause, why } => self.ended(socket, (cause, &why), now, jitter, &mut out),
            Input::Binding(binding) => self.told(binding, now, jitter, &mut out),
            Input::Unbound => self.unbound(now),
            Input::Tick => self.tick(now, jitter, &mut out),
        }
        out
    }

    fn open(&mut self, url: Option<Box<str>>, until: Instant, out: &mut Vec<Output>) -> Opening {
        self.next_socket += 1;
        let socket = SocketId(self.next_socket);
        let fresh = url.is_none();
        out.push(Output::Connect { socket, url });
        Opening { socket, until, fresh }
    }

    fn unbound(&mut self, now: Instant) {
        self.bound = false;
        if self.live().is_some() {
            self.bind_until.get_or_insert(now + self.timings.bind);
        }
    }

    fn welcomed(&mut self, mut live: Live, now: Instant, out: &mut Vec<Output>) {
        match &self.state {
            State::Opening(opening) if opening.socket == live.socket => {
                out.push(Output::Announce(Some(live.session.clone())));
                self.state = State::Live(live);
                self.bound = false;
                self.bind_until = Some(now + self.timings.bind);
            }
            State::Reconnecting { current, next } if next.socket == live.socket => {
                self.reconnects += 1;
                self.causes.push(ReconnectCause::Requested);
                let old = current.socket;
                if current.session.session_id == live.session.session_id {
                    live.session.welcomed_at = current.session.welcomed_at;
                    self.state = State::Overlapping { current: live, old, until: now + self.timings.linger };
                } else {
                    out.push(Output::Announce(Some(live.session.clone())));
                    self.state =
                        State::Overlapping { current: live, old, until: now + self.timings.handover };
                    self.bound = false;
                    self.bind_until = Some(now + self.timings.bind);
                }
            }
            // A second welcome, or one of a socket that was given up.
            _ => {}
        }
    }

    fn asked_to_reconnect(
        &mut self,
        socket: SocketId,
        url: Option<Box<str>>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let current = match &mut self.state {
            State::Live(live) if live.socket == socket => live.clone(),
            State::Overlapping { current, old, .. } if current.socket == socket => {
                out.push(Output::Close(*old));
                current.clone()
            }
            _ => return,
        };
        let url = url.filter(|url| {
            let fits = may_follow(&self.base, url);
            if !fits {
                self.problem = Some("Twitch gave an address for the reconnect that is not its own".into());
            }
            fits
        });
        let next = self.open(url, now + self.timings.handover, out);
        self.state = State::Reconnecting { current: Live { heard: now, ..current }, next };
    }

    fn ended(
        &mut self,
        socket: SocketId,
        why: (ReconnectCause, &str),
        now: Instant,
        jitter: f64,
        out: &mut Vec<Output>,
    ) {
        match &self.state {
            State::Opening(opening) if opening.socket == socket => self.lost(why, now, jitter, out),
            State::Live(live) if live.socket == socket => self.lost(why, now, jitter, out),
            State::Reconnecting { next, .. } if next.socket == socket => self.next_failed(why, now, out),
            State::Reconnecting { current, next } if current.socket == socket => {
                self.losses += 1;
                self.causes.push(why.0);
                self.problem = Some(why.1.into());
                self.bound = false;
                self.bind_until = None;
                self.state = State::Opening(next.clone());
                out.push(Output::Announce(None));
            }
            State::Overlapping { current, old, .. } if *old == socket => {
                self.state = State::Live(current.clone());
            }
            State::Overlapping { current, old, .. } if current.socket == socket => {
                out.push(Output::Close(*old));
                self.lost(why, now, jitter, out);
            }
            _ => {}
        }
    }

    /// The address that Twitch gave does not work: a fresh connection is tried while the old one is
    /// still read. When that fails too, the old one is read to its end.
    fn next_failed(&mut self, why: (ReconnectCause, &str), now: Instant, out: &mut Vec<Output>) {
        let State::Reconnecting { current, next } = &self.state else { return };
        let (current, fresh) = (current.clone(), next.fresh);
        self.causes.push(why.0);
        self.problem = Some(why.1.into());
        self.state = if fresh {
            State::Live(current)
        } else {
            let next = self.open(None, now + self.timings.welcome, out);
            State::Reconnecting { current, next }
        };
    }

    /// There is no connection any more.
    fn lost(&mut self, why: (ReconnectCause, &str), now: Instant, jitter: f64, out: &mut Vec<Output>) {
        self.causes.push(why.0);
        if self.live().is_some() {
            self.losses += 1;
            out.push(Output::Announce(None));
        }
        let (first, longest) = self.timings.backoff;
        let pause = if self.attempts == 0 {
            self.timings.first.mul_f64(jitter.clamp(0.0, 1.0))
        } else {
            let pause = first.saturating_mul(1 << (self.attempts - 1).min(16)).min(longest);
            pause.mul_f64(f64::midpoint(1.0, jitter.clamp(0.0, 1.0)))
        };
        self.attempts = self.attempts.saturating_add(1);
        self.problem = Some(why.1.into());
        self.bound = false;
        self.bind_until = None;
        self.state = State::Waiting { until: now + pause };
    }

    fn told(&mut self, binding: Option<Binding>, now: Instant, jitter: f64, out: &mut Vec<Output>) {
        let Some(live) = self.live() else { return };
        let socket = live.socket;
        let Some(binding) = binding.filter(|b| b.session_id == live.session.session_id) else { return };
        match binding.outcome {
            BindOutcome::Bound => {
                self.bound = true;
                self.attempts = 0;
                self.bind_until = None;
                self.problem = None;
                let linger = self.timings.linger;
                if let State::Overlapping { until, .. } = &mut self.state {
                    *until = (*until).min(now + linger);
                }
            }
            BindOutcome::SessionGone => {
                self.close_all(out);
                self.attempts = self.attempts.max(1);
                let why = format!("Twitch does not know the session of socket {} any more", socket.0);
                self.lost((ReconnectCause::SessionGone, &why), now, jitter, out);
            }
            BindOutcome::Failed(why) => {
                self.unbound(now);
                self.problem = Some(why);
            }
        }
    }

    fn close_all(&self, out: &mut Vec<Output>) {
        let (first, second) = match &self.state {
            State::Waiting { .. } => (None, None),
            State::Opening(opening) => (Some(opening.socket), None),
            State::Live(live) => (Some(live.socket), None),
            State::Reconnecting { current, next } => (Some(current.socket), Some(next.socket)),
            State::Overlapping { current, old, .. } => (Some(current.socket), Some(*old)),
        };
        out.extend([first, second].into_iter().flatten().map(Output::Close));
    }

    fn tick(&mut self, now: Instant, jitter: f64, out: &mut Vec<Output>) {
        let silent = |live: &Live| now >= live.heard + live.keepalive + self.timings.keepalive_grace;
        const SILENT: (ReconnectCause, &str) = (ReconnectCause::Keepalive, "the connection fell silent");
        let (cause, why) = match &self.state {
            State::Waiting { .. } => return,
            State::Opening(opening) if now >= opening.until => (ReconnectCause::NoWelcome, "no welcome came"),
            State::Reconnecting { current, next } if silent(current) => {
                // Its successor is on the way: no reason to begin anew.
                let (socket, _) = (current.socket, next);
                out.push(Output::Close(socket));
                return self.ended(socket, SILENT, now, jitter, out);
            }
            State::Reconnecting { next, .. } if now >= next.until => {
                let socket = next.socket;
                out.push(Output::Close(socket));
                let why = (ReconnectCause::NoWelcome, "no welcome came on the reconnect");
                return self.ended(socket, why, now, jitter, out);
            }
            State::Live(live) | State::Overlapping { current: live, .. } if silent(live) => SILENT,
            _ if self.bind_until.is_some_and(|until| now >= until) => {
                (ReconnectCause::NotBound, "the shard was not bound in time")
            }
            State::Overlapping { current, old, until } if now >= *until => {
                out.push(Output::Close(*old));
                self.state = State::Live(current.clone());
                return;
            }
            _ => return,
        };
        self.close_all(out);
        let why = self.problem.as_deref().filter(|_| why.contains("bound")).map_or_else(
            || why.to_owned(),
            |problem| if problem.starts_with(why) { problem.to_owned() } else { format!("{why}: {problem}") },
        );
        self.lost((cause, &why), now, jitter, out);
    }
}

/// Whether an address that came over the wire may be connected to: encrypted when the configured one
/// is, on the configured host or one of the same domain.
fn may_follow(base: &Uri, url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let (Some(ours), Some(theirs)) = (base.host(), url.host()) else { return false };
    let scheme_fits = match url.scheme_str() {
        Some("wss") => true,
        Some("ws") => base.scheme_str() == Some("ws"),
        _ => false,
    };
    scheme_fits && (ours.eq_ignore_ascii_case(theirs) || same_domain(ours, theirs))
}

/// The last two labels are equal; addresses have none.
fn same_domain(ours: &str, theirs: &str) -> bool {
    let is_name = ours.bytes().any(|b| b.is_ascii_alphabetic()) && !ours.contains(':');
    let mut dots = ours.rmatch_indices('.').map(|(at, _)| at + 1);
    let Some(domain) =
        dots.nth(1).and_then(|at| ours.get(at..)).or_else(|| ours.contains('.').then_some(ours))
    else {
        return false;
    };
    let theirs = theirs.to_ascii_lowercase();
    let domain = domain.to_ascii_lowercase();
    is_name && (theirs == domain || theirs.ends_with(&format!(".{domain}")))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
