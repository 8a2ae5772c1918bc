//! What each thing that happens makes of the session.

use std::time::{Duration, Instant};

use super::follow::may_follow;
use super::{Input, Live, Opening, Output, Session, SocketId, State, Timings, Wish};
use crate::model::backoff::{Backoff, FULL, UPPER_HALF, spread};
use crate::model::shard::{BindOutcome, Binding, LiveSession};
use crate::model::tally::ReconnectCause;

/// Reconnects in a row that are followed at once. Twitch asks for one in hours.
const FREE_WISHES: u32 = 3;
/// After this time without one, reconnects are followed at once again.
const CALM: Duration = Duration::from_secs(600);

impl Session {
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
        if !self.is_current(socket) || self.wish.is_some() {
            return;
        }
        let url = url.filter(|url| {
            let fits = may_follow(&self.base, url);
            if !fits {
                let text = "Twitch gave an address for the reconnect that is not its own; the configured one is used";
                self.problem = Some(text.into());
                out.push(Output::Warn { kind: "reconnect address", text: text.into() });
            }
            fits
        });
        if self.wished_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM) {
            self.wishes = 0;
        }
        self.wishes = self.wishes.saturating_add(1);
        self.wished_at = Some(now);
        if self.wishes <= FREE_WISHES {
            return self.hand_over(url, now, out);
        }
        let Timings { backoff, longest_wish, .. } = self.timings;
        let pause = Backoff::new(backoff.first, longest_wish).pause(self.wishes - FREE_WISHES);
        let text = format!(
            "Twitch asks for reconnects again and again, {} times by now; the next one waits {} s",
            self.wishes,
            pause.as_secs_f64().ceil()
        );
        self.problem = Some(text.as_str().into());
        out.push(Output::Warn { kind: "reconnect storm", text: text.into() });
        self.wish = Some(Wish { socket, url, at: now + pause });
    }

    fn is_current(&self, socket: SocketId) -> bool {
        match &self.state {
            State::Live(live) | State::Overlapping { current: live, .. } => live.socket == socket,
            _ => false,
        }
    }

    /// Opens the successor of the current socket.
    fn hand_over(&mut self, url: Option<Box<str>>, now: Instant, out: &mut Vec<Output>) {
        let current = match &self.state {
            State::Live(live) => live.clone(),
            State::Overlapping { current, old, .. } => {
                out.push(Output::Close(*old));
                current.clone()
            }
            _ => return,
        };
        let next = self.open(url, now + self.timings.handover, out);
        self.state = State::Reconnecting { current: Live { heard: now, ..current }, next };
    }

    /// The binding is over. One that held for long enough begins the backoff anew.
    fn end_binding(&mut self, now: Instant) {
        let stable = |since: Instant| now.saturating_duration_since(since) >= self.timings.stable;
        if self.bound && self.bound_since.is_some_and(stable) {
            self.attempts = 0;
        }
        self.bound = false;
        self.bound_since = None;
        self.bind_until = None;
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
                let next = next.clone();
                self.end_binding(now);
                self.state = State::Opening(next);
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
        self.end_binding(now);
        self.wish = None;
        let pause = if self.attempts == 0 {
            spread(self.timings.first, &FULL, jitter)
        } else {
            spread(self.timings.backoff.pause(self.attempts), &UPPER_HALF, jitter)
        };
        self.attempts = self.attempts.saturating_add(1);
        self.problem = Some(why.1.into());
        self.state = State::Waiting { until: now + pause };
    }

    fn told(&mut self, binding: Option<Binding>, now: Instant, jitter: f64, out: &mut Vec<Output>) {
        let Some(live) = self.live() else { return };
        let socket = live.socket;
        let Some(binding) = binding.filter(|b| b.session_id == live.session.session_id) else { return };
        match binding.outcome {
            BindOutcome::Bound => {
                self.bound = true;
                self.bound_since.get_or_insert(now);
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
        if let Some(wish) = self.wish.take_if(|wish| now >= wish.at)
            && self.is_current(wish.socket)
        {
            return self.hand_over(wish.url, now, out);
        }
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
