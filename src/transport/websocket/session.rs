//! The life of one shard's connection, without any I/O: what happened goes in, with the time; what
//! to do comes out. ◆
//!
//! At most two sockets exist at once: the current one, and either its successor on the way to its
//! welcome or its predecessor, read until the successor is bound and a little longer. The successor takes over only once
//! it is welcomed, so that nothing that Twitch sends on either is missed (Twitch: "Handling
//! WebSocket Events", "Reconnect message").

mod follow;
mod step;

use std::time::{Duration, Instant};

use http::Uri;

use crate::model::backoff::Backoff;
use crate::model::shard::{Binding, LiveSession, SessionId};
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
    /// Pauses before the second attempt and later ones: 1 s to 60 s. Each is shortened by up to a half.
    pub backoff: Backoff,
    /// Pause before the first attempt after a loss, at most: 1 s.
    pub first: Duration,
    /// How long a session must have been bound for its loss to begin the backoff anew: 60 s. A server that takes
    /// every session and drops it at once is not asked again without a pause.
    pub stable: Duration,
    /// Longest pause before a reconnect that Twitch asks for, if it asks again and again: 20 s. It waits 30 s.
    pub longest_wish: Duration,
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
            backoff: Backoff::new(seconds(1), seconds(60)),
            first: seconds(1),
            stable: seconds(60),
            longest_wish: seconds(20),
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
    /// Log a warning; `kind` names it for the limit on log lines.
    Warn { kind: &'static str, text: Box<str> },
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

/// A reconnect that Twitch asked for, and that waits.
#[derive(Clone, Debug)]
struct Wish {
    socket: SocketId,
    url: Option<Box<str>>,
    at: Instant,
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
    bound_since: Option<Instant>,
    bind_until: Option<Instant>,
    wish: Option<Wish>,
    /// Reconnects that Twitch asked for without a longer break, and the last of them.
    wishes: u32,
    wished_at: Option<Instant>,
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
            bound_since: None,
            bind_until: None,
            wish: None,
            wishes: 0,
            wished_at: None,
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
        let bind = self.bind_until.map_or(own, |until| own.min(until));
        self.wish.as_ref().map_or(bind, |wish| bind.min(wish.at))
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

    /// The socket that is read, and its session.
    pub fn current(&self) -> Option<(SocketId, &SessionId)> {
        self.live().map(|live| (live.socket, &live.session.session_id))
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
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
