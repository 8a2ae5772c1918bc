//! Reactions of a session to events and to time. ◆

use std::time::{Duration, Instant};

use super::follow::may_follow;
use super::{DelayedReconnect, Event, Live, Opening, Output, Session, SocketId, State, Timer, Timings};
use crate::model::backoff::{Backoff, FULL, UPPER_HALF, spread};
use crate::model::shard::{BindOutcome, Binding, LiveSession};
use crate::model::tally::ReconnectCause;
use crate::model::timers::Timers;

/// Reconnects in a row that are followed at once. Twitch asks for one in hours.
const FREE_RECONNECTS: u32 = 3;
/// After this time without one, reconnects are followed at once again.
const CALM: Duration = Duration::from_secs(600);
const SILENT: (ReconnectCause, &str) = (ReconnectCause::Keepalive, "the connection fell silent");

impl Session {
    /// Handles an event. `dice` is a fresh random number from 0 to 1.
    pub fn handle_event(&mut self, event: Event, now: Instant, dice: f64) {
        match event {
            Event::MayConnect => {
                if self.wants_connection(now) {
                    self.timers.stop(Timer::Connect);
                    self.state = State::Opening(self.open(None, now + self.timings.welcome));
                }
            }
            Event::Welcome { socket, session_id, keepalive } => {
                let session = LiveSession::new(session_id, now);
                self.handle_welcome(Live { socket, session, keepalive }, now);
            }
            Event::Received(socket) => {
                if self.live().is_some_and(|live| live.socket == socket) {
                    self.expect_message(now);
                }
            }
            Event::Reconnect { socket, url } => self.handle_reconnect(socket, url, now),
            Event::Ended { socket, cause, why } => self.handle_end(socket, (cause, &why), now, dice),
            Event::Binding(binding) => self.handle_binding(binding, now, dice),
            Event::Unbound => self.expect_binding(now),
        }
    }

    /// Handles that time has passed. `dice` is a fresh random number from 0 to 1.
    pub fn handle_timeout(&mut self, now: Instant, dice: f64) {
        if self.timers.is_due(Timer::Reconnect, now) {
            self.timers.stop(Timer::Reconnect);
            if let Some(DelayedReconnect { socket, url }) = self.delayed.take()
                && self.is_current(socket)
            {
                return self.hand_over(url, now);
            }
        }
        let is_due = |timer| self.timers.is_due(timer, now);
        let (cause, why) = match &self.state {
            State::Waiting => return,
            State::Opening(_) if is_due(Timer::Welcome) => (ReconnectCause::NoWelcome, "no welcome came"),
            State::Reconnecting { current, .. } if is_due(Timer::Silence) => {
                // The successor is on the way: no reason to begin anew.
                let socket = current.socket;
                self.outputs.push_back(Output::Close(socket));
                return self.handle_end(socket, SILENT, now, dice);
            }
            State::Reconnecting { next, .. } if is_due(Timer::Welcome) => {
                let socket = next.socket;
                self.outputs.push_back(Output::Close(socket));
                let why = (ReconnectCause::NoWelcome, "no welcome came on the reconnect");
                return self.handle_end(socket, why, now, dice);
            }
            State::Live(_) | State::Overlapping { .. } if is_due(Timer::Silence) => SILENT,
            _ if is_due(Timer::Bind) => (ReconnectCause::NotBound, "the shard was not bound in time"),
            State::Overlapping { old, .. } if is_due(Timer::Overlap) => {
                let old = *old;
                self.outputs.push_back(Output::Close(old));
                return self.end_overlap();
            }
            _ => return,
        };
        self.close_all();
        let why = self.problem.as_deref().filter(|_| why.contains("bound")).map_or_else(
            || why.to_owned(),
            |problem| if problem.starts_with(why) { problem.to_owned() } else { format!("{why}: {problem}") },
        );
        self.disconnect((cause, &why), now, dice);
    }

    fn open(&mut self, url: Option<Box<str>>, until: Instant) -> Opening {
        self.next_socket += 1;
        let socket = SocketId(self.next_socket);
        let fresh = url.is_none();
        self.outputs.push_back(Output::Connect { socket, url });
        self.timers.set(Timer::Welcome, until);
        Opening { socket, fresh }
    }

    /// Waits for the next message of the current socket.
    fn expect_message(&mut self, now: Instant) {
        if let Some(live) = self.live() {
            let at = now + live.keepalive + self.timings.keepalive_grace;
            self.timers.set(Timer::Silence, at);
        }
    }

    /// Waits for the binding of the current session, unless it waits already.
    fn expect_binding(&mut self, now: Instant) {
        self.bound = false;
        if self.live().is_some() {
            self.timers.set_earlier(Timer::Bind, now + self.timings.bind);
        }
    }

    fn handle_welcome(&mut self, mut live: Live, now: Instant) {
        match &self.state {
            State::Opening(opening) if opening.socket == live.socket => {
                self.outputs.push_back(Output::Announce(Some(live.session.clone())));
                self.state = State::Live(live);
                self.timers.set(Timer::Bind, now + self.timings.bind);
                self.bound = false;
            }
            State::Reconnecting { current, next } if next.socket == live.socket => {
                self.reconnects += 1;
                self.causes.push_back(ReconnectCause::Requested);
                let old = current.socket;
                if current.session.session_id == live.session.session_id {
                    live.session.welcomed_at = current.session.welcomed_at;
                    self.timers.set(Timer::Overlap, now + self.timings.linger);
                } else {
                    self.outputs.push_back(Output::Announce(Some(live.session.clone())));
                    self.timers.set(Timer::Overlap, now + self.timings.handover);
                    self.timers.set(Timer::Bind, now + self.timings.bind);
                    self.bound = false;
                }
                self.state = State::Overlapping { current: live, old };
            }
            // A second welcome, or one of a socket that was given up.
            _ => return,
        }
        self.timers.stop(Timer::Welcome);
        self.expect_message(now);
    }

    fn handle_reconnect(&mut self, socket: SocketId, url: Option<Box<str>>, now: Instant) {
        if !self.is_current(socket) || self.delayed.is_some() {
            return;
        }
        let url = url.filter(|url| {
            let fits = may_follow(&self.base, url);
            if !fits {
                let text = "Twitch gave an address for the reconnect that is not its own; the configured one is used";
                self.problem = Some(text.into());
                self.outputs.push_back(Output::Warn { kind: "reconnect address", text: text.into() });
            }
            fits
        });
        if self.requested_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM) {
            self.requested = 0;
        }
        self.requested = self.requested.saturating_add(1);
        self.requested_at = Some(now);
        if self.requested <= FREE_RECONNECTS {
            return self.hand_over(url, now);
        }
        let Timings { backoff, longest_delay, .. } = self.timings;
        let pause = Backoff::new(backoff.first, longest_delay).pause(self.requested - FREE_RECONNECTS);
        let text = format!(
            "Twitch asks for reconnects again and again, {} times by now; the next one waits {} s",
            self.requested,
            pause.as_secs_f64().ceil()
        );
        self.problem = Some(text.as_str().into());
        self.outputs.push_back(Output::Warn { kind: "reconnect storm", text: text.into() });
        self.delayed = Some(DelayedReconnect { socket, url });
        self.timers.set(Timer::Reconnect, now + pause);
    }

    fn is_current(&self, socket: SocketId) -> bool {
        match &self.state {
            State::Live(live) | State::Overlapping { current: live, .. } => live.socket == socket,
            _ => false,
        }
    }

    /// Opens the successor of the current socket.
    fn hand_over(&mut self, url: Option<Box<str>>, now: Instant) {
        let current = match &self.state {
            State::Live(live) => live.clone(),
            State::Overlapping { current, old } => {
                let (current, old) = (current.clone(), *old);
                self.outputs.push_back(Output::Close(old));
                self.timers.stop(Timer::Overlap);
                current
            }
            _ => return,
        };
        let next = self.open(url, now + self.timings.handover);
        self.state = State::Reconnecting { current, next };
        self.expect_message(now);
    }

    /// Handles the end of a socket, given the cause and its words.
    fn handle_end(&mut self, socket: SocketId, why: (ReconnectCause, &str), now: Instant, dice: f64) {
        match &self.state {
            State::Opening(opening) if opening.socket == socket => self.disconnect(why, now, dice),
            State::Live(live) if live.socket == socket => self.disconnect(why, now, dice),
            State::Reconnecting { next, .. } if next.socket == socket => {
                self.handle_failed_successor(why, now);
            }
            State::Reconnecting { current, next } if current.socket == socket => {
                self.losses += 1;
                self.causes.push_back(why.0);
                self.problem = Some(why.1.into());
                let next = next.clone();
                self.end_binding(now);
                self.timers.stop(Timer::Silence);
                self.state = State::Opening(next);
                self.outputs.push_back(Output::Announce(None));
            }
            State::Overlapping { old, .. } if *old == socket => self.end_overlap(),
            State::Overlapping { current, old } if current.socket == socket => {
                let old = *old;
                self.outputs.push_back(Output::Close(old));
                self.disconnect(why, now, dice);
            }
            _ => {}
        }
    }

    fn end_overlap(&mut self) {
        if let State::Overlapping { current, .. } = &self.state {
            self.state = State::Live(current.clone());
            self.timers.stop(Timer::Overlap);
        }
    }

    /// The address that Twitch gave does not work: a fresh connection is tried while the old one is
    /// still read. When that fails too, the old one is read to its end.
    fn handle_failed_successor(&mut self, why: (ReconnectCause, &str), now: Instant) {
        let State::Reconnecting { current, next } = &self.state else { return };
        let (current, fresh) = (current.clone(), next.fresh);
        self.causes.push_back(why.0);
        self.problem = Some(why.1.into());
        self.state = if fresh {
            self.timers.stop(Timer::Welcome);
            State::Live(current)
        } else {
            let next = self.open(None, now + self.timings.welcome);
            State::Reconnecting { current, next }
        };
    }

    /// Ends the binding. One that held for long enough begins the backoff anew.
    fn end_binding(&mut self, now: Instant) {
        let stable = |since: Instant| now.saturating_duration_since(since) >= self.timings.stable;
        if self.bound && self.bound_since.is_some_and(stable) {
            self.attempts = 0;
        }
        self.bound = false;
        self.bound_since = None;
        self.timers.stop(Timer::Bind);
    }

    /// Waits for the next connection: no socket is left.
    fn disconnect(&mut self, why: (ReconnectCause, &str), now: Instant, dice: f64) {
        self.causes.push_back(why.0);
        if self.live().is_some() {
            self.losses += 1;
            self.outputs.push_back(Output::Announce(None));
        }
        self.end_binding(now);
        self.delayed = None;
        let pause = if self.attempts == 0 {
            spread(self.timings.first, &FULL, dice)
        } else {
            spread(self.timings.backoff.pause(self.attempts), &UPPER_HALF, dice)
        };
        self.attempts = self.attempts.saturating_add(1);
        self.problem = Some(why.1.into());
        self.state = State::Waiting;
        self.timers = Timers::default();
        self.timers.set(Timer::Connect, now + pause);
    }

    fn handle_binding(&mut self, binding: Option<Binding>, now: Instant, dice: f64) {
        let Some(live) = self.live() else { return };
        let socket = live.socket;
        let Some(binding) = binding.filter(|b| b.session_id == live.session.session_id) else { return };
        match binding.outcome {
            BindOutcome::Bound => {
                self.bound = true;
                self.bound_since.get_or_insert(now);
                self.problem = None;
                self.timers.stop(Timer::Bind);
                if matches!(self.state, State::Overlapping { .. }) {
                    self.timers.set_earlier(Timer::Overlap, now + self.timings.linger);
                }
            }
            BindOutcome::SessionGone => {
                self.close_all();
                self.attempts = self.attempts.max(1);
                let why = format!("Twitch does not know the session of socket {} any more", socket.0);
                self.disconnect((ReconnectCause::SessionGone, &why), now, dice);
            }
            BindOutcome::Failed(why) => {
                self.expect_binding(now);
                self.problem = Some(why);
            }
        }
    }

    fn close_all(&mut self) {
        let (first, second) = match &self.state {
            State::Waiting => (None, None),
            State::Opening(opening) => (Some(opening.socket), None),
            State::Live(live) => (Some(live.socket), None),
            State::Reconnecting { current, next } => (Some(current.socket), Some(next.socket)),
            State::Overlapping { current, old } => (Some(current.socket), Some(*old)),
        };
        self.outputs.extend([first, second].into_iter().flatten().map(Output::Close));
    }
}
