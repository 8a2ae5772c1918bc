//! The place of a sink in the shared log, and the worker that may move it. ◆
//!
//! A worker writes its id into the place before it delivers anything, on top of the revision that it has read; so what it
//! delivers begins where the place was at that moment. Every later write is on top of the revision before. A write of
//! anybody else ends the worker: what it has delivered and not written down comes again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lease::{Answer, Moment};
use crate::model::event::Seq;

/// Least pause between two writes of a place.
const PACE: Duration = Duration::from_millis(100);
/// The same while the sink wants none of the events.
const LAZY_PACE: Duration = Duration::from_secs(1);
/// Pause after a request that was not answered.
const RETRY: Duration = Duration::from_millis(500);
/// Period of looking whether another worker has finished.
const LOOK: Duration = Duration::from_millis(250);
/// Time for a worker on another host to finish what it has under way, once the sink was moved here.
const PATIENCE: Duration = Duration::from_secs(6);

/// A message of the shared log, as a worker has read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub seq: Seq,
    pub message_id: String,
    /// When the log got it, by the servers' clock: milliseconds since 1970.
    pub published: u64,
}

/// The value of the key of a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceValue {
    /// Revision of the assignment under which the worker was started.
    #[serde(default)]
    pub assigned: u64,
    /// Host of the worker.
    #[serde(default)]
    pub host: String,
    /// Id of the worker; empty if no worker has the place.
    #[serde(default)]
    pub worker: String,
    /// When the stream was made, in milliseconds since 1970: the numbers of another one mean other events.
    #[serde(default)]
    pub stream: u64,
    /// The last event up to which the sink is done with everything.
    pub cursor: Seq,
    /// Events after it that the sink is done with as well, ascending.
    #[serde(default)]
    pub done: Vec<Seq>,
    /// The last event that the worker has read: it must still be in the log.
    #[serde(default)]
    pub read: Option<Mark>,
    #[serde(default)]
    pub replays: u64,
    /// The last event that the sink was done with before the last replay.
    #[serde(default)]
    pub replay_until: Seq,
    /// Number of events that retention has ever removed before the sink had them.
    #[serde(default)]
    pub lost: u64,
}

impl PlaceValue {
    /// Sets the place back to `to`, for the next worker.
    #[must_use]
    pub fn set_back(self, to: Seq) -> Self {
        let last = self.done.last().copied().unwrap_or_default();
        Self {
            host: String::new(),
            worker: String::new(),
            replay_until: self.replay_until.max(self.cursor).max(last),
            cursor: self.cursor.min(to),
            done: Vec::new(),
            replays: self.replays + 1,
            ..self
        }
    }
}

/// Progress of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub stream: u64,
    pub cursor: Seq,
    pub done: Vec<Seq>,
    pub read: Option<Mark>,
    pub lost: u64,
    /// Whether the sink got events since the last one: they come again if the place is lost.
    pub is_urgent: bool,
}

/// The next step with the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlaceStep {
    Read,
    /// Writes it on top of this revision; 0 stands for none.
    Write {
        expected: u64,
        value: PlaceValue,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The key has to be read.
    Unread,
    /// Another worker had it last, or none.
    Foreign,
    Held,
    /// Another writer has changed the place after this worker had it.
    Lost,
    /// Given up by this worker.
    Released,
}

/// One worker's view of a place.
#[derive(Clone, Debug)]
pub(super) struct Ownership {
    host: Arc<str>,
    worker: String,
    /// Revision of the assignment that names this host.
    assigned: u64,
    state: State,
    was_held: bool,
    /// The place as it is known to be in the bucket.
    found: (u64, PlaceValue),
    /// The place as it shall be, once this worker has it.
    place: PlaceValue,
    asked: Option<PlaceStep>,
    /// The earliest moment of the next step.
    next: Moment,
    written_at: Moment,
    /// When `place` has to be written.
    due: Option<Moment>,
    is_ending: bool,
    /// The worker that has the place, and since when this one waits for it.
    waits_for: Option<(String, Moment)>,
}

impl Ownership {
    /// A worker that was assigned the sink.
    pub(super) fn new(host: Arc<str>, worker: String, assigned: u64) -> Self {
        Self {
            host,
            worker,
            assigned,
            state: State::Unread,
            was_held: false,
            found: Default::default(),
            place: PlaceValue::default(),
            asked: None,
            next: Moment::ZERO,
            written_at: Moment::ZERO,
            due: None,
            is_ending: false,
            waits_for: None,
        }
    }

    /// The place that the worker begins with, once it has it.
    pub(super) fn held(&self) -> Option<&PlaceValue> {
        (self.state == State::Held).then_some(&self.place)
    }

    /// Whether nothing more can be done: the worker never gets the place back.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Lost | State::Released)
    }

    /// Takes the revision of a newer assignment, which names this host as well.
    pub(super) fn handle_assigned(&mut self, revision: u64) {
        self.assigned = self.assigned.max(revision);
    }

    /// Whether another worker has a newer assignment than this one.
    fn is_outdated(&self) -> bool {
        self.found.1.assigned > self.assigned
    }

    fn may_claim(&mut self, now: Moment, is_up: impl Fn(&str) -> bool) -> bool {
        if self.is_outdated() {
            return false;
        }
        let value = &self.found.1;
        if value.worker.is_empty() || *value.host == *self.host || !is_up(&value.host) {
            return true;
        }
        match &self.waits_for {
            Some((worker, since)) if *worker == value.worker => now.saturating_sub(*since) >= PATIENCE,
            _ => {
                self.waits_for = Some((value.worker.clone(), now));
                false
            }
        }
    }

    /// The next step. It counts as begun.
    pub(super) fn poll(&mut self, now: Moment, is_up: impl Fn(&str) -> bool) -> Option<PlaceStep> {
        if self.asked.is_some() || now < self.next {
            return None;
        }
        let step = match self.state {
            State::Unread => PlaceStep::Read,
            State::Foreign if self.is_ending => {
                self.state = State::Released;
                return None;
            }
            State::Foreign => {
                if !self.may_claim(now, is_up) {
                    (self.state, self.next) = (State::Unread, now + LOOK);
                    return None;
                }
                let found = self.found.1.clone();
                let (host, worker) = (self.host.to_string(), self.worker.clone());
                let value = PlaceValue { assigned: self.assigned, host, worker, ..found };
                PlaceStep::Write { expected: self.found.0, value }
            }
            State::Held if self.is_ending => {
                let (host, worker) = (String::new(), String::new());
                let value = PlaceValue { host, worker, ..self.place.clone() };
                PlaceStep::Write { expected: self.found.0, value }
            }
            State::Held => {
                self.due.filter(|due| *due <= now)?;
                PlaceStep::Write { expected: self.found.0, value: self.place.clone() }
            }
            State::Lost | State::Released => return None,
        };
        self.asked = Some(step.clone());
        Some(step)
    }

    /// When to poll again.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        match self.state {
            State::Unread | State::Foreign => Some(self.next),
            State::Held if self.is_ending => Some(self.next),
            State::Held => self.due.map(|due| due.max(self.next)),
            State::Lost | State::Released => None,
        }
    }

    /// Takes the place as the bucket has it; `None` if there was no answer.
    pub(super) fn handle_read(&mut self, found: Option<(u64, PlaceValue)>, now: Moment) {
        self.asked = None;
        let Some((revision, value)) = found else {
            self.next = now + RETRY;
            return;
        };
        let is_own = value.worker == self.worker;
        self.state = match (is_own, self.was_held) {
            (true, _) => State::Held,
            (false, true) => State::Lost,
            (false, false) => State::Foreign,
        };
        if is_own && !self.was_held {
            // The answer to the first write was lost.
            (self.was_held, self.place) = (true, value.clone());
        }
        if is_own && value != self.place {
            self.due = Some(now);
        }
        self.found = (revision, value);
    }

    /// Takes the answer to the last write.
    pub(super) fn handle_answer(&mut self, answer: Answer, now: Moment) {
        let Some(PlaceStep::Write { value, .. }) = self.asked.take() else { return };
        match answer {
            Answer::Done(revision) => {
                self.written_at = now;
                if value.worker.is_empty() {
                    self.state = State::Released;
                } else if !std::mem::replace(&mut self.was_held, true) {
                    (self.state, self.place) = (State::Held, value.clone());
                } else if value == self.place {
                    self.due = None;
                }
                self.found = (revision, value);
            }
            Answer::Refused => self.state = State::Unread,
            Answer::Unknown => (self.state, self.next) = (State::Unread, now + RETRY),
        }
    }

    /// Takes a change of the key that the watch has told.
    pub(super) fn handle_change(&mut self, revision: u64, value: &PlaceValue, now: Moment) {
        if revision <= self.found.0 || value.worker == self.worker || self.is_over() {
            return;
        }
        if !self.was_held {
            self.next = self.next.min(now);
        } else if !self.is_ending {
            self.state = State::Lost;
        }
    }

    /// Has the key read again, as the bucket is another one.
    pub(super) fn doubt(&mut self) {
        if !self.is_over() {
            self.state = State::Unread;
        }
    }

    /// Takes the worker's progress.
    pub(super) fn record(&mut self, progress: &Progress) {
        let Progress { stream, cursor, done, read, lost, is_urgent } = progress;
        let place = PlaceValue {
            stream: *stream,
            cursor: *cursor,
            done: done.clone(),
            read: read.clone(),
            lost: *lost,
            ..self.place.clone()
        };
        if place != self.place {
            self.place = place;
            let at = self.written_at + if *is_urgent { PACE } else { LAZY_PACE };
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    /// Has the place given up, with the last progress.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
        if !self.was_held && self.asked.is_none() {
            self.state = State::Released;
        }
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
