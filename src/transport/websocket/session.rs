//! State machine of one shard's connection, without any I/O: `handle_*` take events and the time, `poll_*` return what
//! to do and when. ◆
//!
//! At most two sockets exist at once: the current one, and either its successor on the way to its
//! welcome or its predecessor, read until the successor is bound and a little longer. The successor takes over only once
//! it is welcomed, so that nothing that Twitch sends on either is missed (Twitch: "Handling
//! WebSocket Events", "Reconnect message").

mod follow;
mod handle;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use http::Uri;

use crate::model::backoff::Backoff;
use crate::model::shard::{Binding, LiveSession, SessionId};
use crate::model::status::ShardState;
use crate::model::tally::ReconnectCause;
use crate::model::timers::Timers;

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
    pub longest_delay: Duration,
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
            longest_delay: seconds(20),
            drain: seconds(1),
        }
    }
}

/// Names a socket within its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// Everything that changes a session, but for time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new connection may be opened; ignored unless [`Session::wants_connection`].
    MayConnect,
    /// Twitch's welcome on a socket.
    Welcome {
        socket: SocketId,
        session_id: SessionId,
        /// The session's keepalive timeout.
        keepalive: Duration,
    },
    /// Any other message on a socket, which shows that the connection works.
    Received(SocketId),
    /// Twitch asks for a reconnect.
    Reconnect {
        socket: SocketId,
        /// The address that Twitch gave.
        url: Option<Box<str>>,
    },
    /// A socket could not be opened, broke or was closed.
    Ended {
        socket: SocketId,
        cause: ReconnectCause,
        /// The cause in words.
        why: Box<str>,
    },
    /// The reconciler's newest result for the shard; `None` while there is none.
    Binding(Option<Binding>),
    /// The shard belongs to another conduit now, so its binding no longer counts.
    Unbound,
}

/// Actions for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Connect {
        socket: SocketId,
        /// `None` means the configured address.
        url: Option<Box<str>>,
    },
    /// Close a socket; what it still delivers is stored.
    Close(SocketId),
    /// Publish the session; `None` if there is none.
    Announce(Option<LiveSession>),
    /// Log a warning; `kind` names it for the limit on log lines.
    Warn { kind: &'static str, text: Box<str> },
}

/// Everything that a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The pause before the next connection.
    Connect,
    /// Time limit of the welcome on the socket that is opened.
    Welcome,
    /// Time limit of the next message on the current socket.
    Silence,
    /// Time limit of the binding of the current session.
    Bind,
    /// The pause before a reconnect that Twitch asks for again and again.
    Reconnect,
    /// The end of the time for which the predecessor is read on.
    Overlap,
}

#[derive(Clone, Debug)]
struct Live {
    socket: SocketId,
    session: LiveSession,
    keepalive: Duration,
}

#[derive(Clone, Debug)]
struct Opening {
    socket: SocketId,
    /// Whether the address is the configured one, not one that Twitch gave.
    fresh: bool,
}

#[derive(Clone, Debug)]
enum State {
    Waiting,
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
    },
}

/// A reconnect that Twitch asked for, and that waits for [`Timer::Reconnect`].
#[derive(Clone, Debug)]
struct DelayedReconnect {
    socket: SocketId,
    url: Option<Box<str>>,
}

/// State machine of one shard's connection.
#[derive(Clone, Debug)]
pub struct Session {
    timings: Timings,
    base: Uri,
    state: State,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
    next_socket: u64,
    /// Attempts since the last binding that lasted.
    attempts: u32,
    bound: bool,
    bound_since: Option<Instant>,
    delayed: Option<DelayedReconnect>,
    /// Reconnects that Twitch asked for without a longer break, and the last of them.
    requested: u32,
    requested_at: Option<Instant>,
    losses: u64,
    reconnects: u64,
    /// Causes of new connections that were not polled yet.
    causes: VecDeque<ReconnectCause>,
    problem: Option<Box<str>>,
}

impl Session {
    /// Creates a session that wants a connection now. `base` is the configured address.
    pub fn new(base: Uri, timings: Timings, now: Instant) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Connect, now);
        Self {
            timings,
            base,
            state: State::Waiting,
            timers,
            outputs: VecDeque::new(),
            next_socket: 0,
            attempts: 0,
            bound: false,
            bound_since: None,
            delayed: None,
            requested: 0,
            requested_at: None,
            losses: 0,
            reconnects: 0,
            causes: VecDeque::new(),
            problem: None,
        }
    }

    /// Returns the next action for the driver. To be called until `None` after each `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Session::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Returns the cause of a new connection, each once; failed attempts are among them.
    pub fn poll_cause(&mut self) -> Option<ReconnectCause> {
        self.causes.pop_front()
    }

    /// Returns whether a connection is to be opened as soon as that is allowed.
    pub fn wants_connection(&self, now: Instant) -> bool {
        self.timers.is_due(Timer::Connect, now)
    }

    /// Returns whether a connection that was allowed has not got its welcome yet.
    pub fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening(_))
    }

    /// Returns whether a connection is being opened.
    pub fn is_switching(&self) -> bool {
        matches!(self.state, State::Opening(_) | State::Reconnecting { .. })
    }

    pub fn shard_state(&self) -> ShardState {
        match &self.state {
            State::Waiting => ShardState::Waiting,
            State::Opening(_) => ShardState::AwaitingWelcome,
            State::Reconnecting { .. } | State::Overlapping { .. } => ShardState::HandingOver,
            State::Live(_) if self.bound => ShardState::Bound,
            State::Live(_) => ShardState::AwaitingBinding,
        }
    }

    /// Returns the session that is read.
    pub fn session(&self) -> Option<&SessionId> {
        self.live().map(|live| &live.session.session_id)
    }

    /// Returns the socket that is read, and its session.
    pub fn current(&self) -> Option<(SocketId, &SessionId)> {
        self.live().map(|live| (live.socket, &live.session.session_id))
    }

    /// Returns the number of lost connections, and of reconnects that Twitch asked for.
    pub fn counts(&self) -> (u64, u64) {
        (self.losses, self.reconnects)
    }

    /// Returns why the session is not delivering, or its last problem.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn live(&self) -> Option<&Live> {
        match &self.state {
            State::Live(live)
            | State::Reconnecting { current: live, .. }
            | State::Overlapping { current: live, .. } => Some(live),
            State::Waiting | State::Opening(_) => None,
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
