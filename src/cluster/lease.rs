//! A lease on one key of the shared bucket: whether this process holds it, until when, and what to write next. ◆
//!
//! Only an acknowledged write proves anything. A read may be old, and a write without an answer may have been carried
//! out. The server drops the key [`Times::ttl`] after the last write; the holder stops [`Times::hold`] after it *sent*
//! the last write that was acknowledged, so nobody else can hold the key before that.
//!
//! All times are times since the boot of the machine, which go on while the process or the machine is suspended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time since the boot of the machine.
pub(super) type Moment = Duration;

/// The times of a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Time after which the server drops a key that nobody writes.
    pub(super) ttl: Duration,
    /// Pause between two writes of the holder.
    pub(super) renew: Duration,
    /// Time after sending an acknowledged write for which the lease counts as held.
    pub(super) hold: Duration,
    /// Pause between two attempts to get a lease that may be free.
    pub(super) retry: Duration,
}

impl Times {
    /// The times of the daemon. Between `hold` and `ttl` lie 0.8 s for clocks of servers that differ.
    pub(super) const DEFAULT: Self = Self {
        ttl: Duration::from_secs(3),
        renew: Duration::from_millis(500),
        hold: Duration::from_millis(2_200),
        retry: Duration::from_secs(1),
    };
}

/// A process that can hold a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// Name of the state directory, which only one process uses at a time: it is the same after a restart.
    pub(super) instance: String,
    /// Name of the process.
    pub(super) run: String,
}

/// A state of the key, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Revision of the last write or of the marker of its end; 0 if there is nothing.
    pub(super) revision: u64,
    /// `None` means that the key is free.
    pub(super) holder: Option<Holder>,
}

/// A write of the key, to be carried out only if its last revision is the expected one; 0 stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Writes the key with the time to live.
    Put { expected: u64 },
    /// Removes the key.
    Purge { expected: u64 },
}

/// The outcome of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Carried out, with this revision.
    Done(u64),
    /// The last revision is another one.
    Refused,
    /// No answer: carried out or not.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// Revision of the first write.
    epoch: u64,
    /// Revision of the last write that is known.
    revision: u64,
    good_until: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Moment,
    is_purge: bool,
}

/// One lease, from the point of view of one process.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    me: Holder,
    times: Times,
    seen: Option<Seen>,
    /// When the key was last seen to change, or this process last tried to get it.
    seen_at: Moment,
    held: Option<Held>,
    asked: Option<Asked>,
    next_ask: Moment,
    is_wanted: bool,
    /// Whether the lease of an earlier process of this instance may be taken over: that process has ended.
    may_reclaim: bool,
}

impl Lease {
    pub(super) fn new(me: Holder, times: Times, now: Moment) -> Self {
        Self {
            me,
            times,
            seen: None,
            seen_at: now,
            held: None,
            asked: None,
            next_ask: now,
            is_wanted: true,
            may_reclaim: true,
        }
    }

    /// A lease of the same process in another bucket, where it holds nothing. Another process of this instance that is met
    /// there lives.
    pub(super) fn anew(&self, now: Moment) -> Self {
        Self { may_reclaim: false, ..Self::new(self.me.clone(), self.times, now) }
    }

    /// The first revision of the lease, if it is held now.
    pub(super) fn epoch(&self, now: Moment) -> Option<u64> {
        self.held.filter(|held| now < held.good_until).map(|held| held.epoch)
    }

    /// The end of the time for which the lease is held for sure.
    pub(super) fn good_until(&self) -> Option<Moment> {
        self.held.map(|held| held.good_until)
    }

    /// The last known holder, this process or another one.
    pub(super) fn holder(&self) -> Option<&Holder> {
        self.seen.as_ref().and_then(|seen| seen.holder.as_ref())
    }

    /// Whether another process is the last known holder.
    pub(super) fn is_taken(&self) -> bool {
        self.holder().is_some_and(|holder| *holder != self.me)
    }

    /// Whether the key was seen to be held by another process of the same instance: the state directory was copied.
    pub(super) fn is_doubled(&self) -> bool {
        !self.may_reclaim
            && self.holder().is_some_and(|holder| *holder != self.me && holder.instance == self.me.instance)
    }

    /// Has the lease written as soon as possible, because its value has changed.
    pub(super) fn renew_now(&mut self, now: Moment) {
        if self.held.is_some() {
            self.next_ask = self.next_ask.min(now);
        }
    }

    /// Gives the lease up, and does not try to get it again until [`Self::contend`].
    pub(super) fn resign(&mut self, now: Moment) {
        self.is_wanted = false;
        self.next_ask = self.next_ask.min(now);
    }

    /// Tries to get the lease.
    pub(super) fn contend(&mut self, now: Moment) {
        if !self.is_wanted {
            self.is_wanted = true;
            self.next_ask = self.next_ask.min(now);
        }
    }

    /// Whether there is nothing to give up.
    pub(super) fn is_given_up(&self) -> bool {
        self.held.is_none() && self.asked.is_none()
    }

    /// The next write, if one is due. It counts as sent now.
    pub(super) fn poll(&mut self, now: Moment) -> Option<Write> {
        if self.asked.is_some() || now < self.next_ask {
            return None;
        }
        let write = self.due(now)?;
        let is_purge = matches!(write, Write::Purge { .. });
        if is_purge && let Some(held) = &mut self.held {
            held.good_until = held.good_until.min(now);
        }
        self.asked = Some(Asked { at: now, is_purge });
        self.next_ask = now + if self.held.is_some() { self.times.renew } else { self.times.retry };
        Some(write)
    }

    fn due(&self, now: Moment) -> Option<Write> {
        match (self.held, self.is_wanted) {
            (Some(held), true) => return Some(Write::Put { expected: held.revision }),
            (Some(held), false) => return Some(Write::Purge { expected: held.revision }),
            (None, false) => return None,
            (None, true) => {}
        }
        let Some(seen) = &self.seen else { return Some(Write::Put { expected: 0 }) };
        let Some(holder) = &seen.holder else { return Some(Write::Put { expected: seen.revision }) };
        let is_of_us = holder.instance == self.me.instance && self.may_reclaim;
        if *holder == self.me || is_of_us {
            return Some(Write::Put { expected: seen.revision });
        }
        // The end of a key may come without a marker.
        (now >= self.expected_end()).then_some(Write::Put { expected: 0 })
    }

    fn expected_end(&self) -> Moment {
        self.seen_at + self.times.ttl + self.times.renew
    }

    /// When [`Self::poll`] may have something to do; `None` while it waits for an answer or a change.
    pub(super) fn next_poll(&self) -> Option<Moment> {
        if self.asked.is_some() || (!self.is_wanted && self.held.is_none()) {
            return None;
        }
        let is_free = self.held.is_some() || self.due(self.next_ask).is_some();
        Some(if is_free { self.next_ask } else { self.next_ask.max(self.expected_end()) })
    }

    /// Takes the answer to the last write. After [`Answer::Refused`] the key has to be read.
    pub(super) fn handle_answer(&mut self, answer: Answer, now: Moment) {
        let Some(asked) = self.asked.take() else { return };
        match answer {
            Answer::Done(revision) if asked.is_purge => {
                self.held = None;
                self.see(Seen { revision, holder: None }, now);
            }
            Answer::Done(revision) => {
                let epoch = self.held.map_or(revision, |held| held.epoch);
                let good_until = asked.at + self.times.hold;
                self.held = Some(Held { epoch, revision, good_until });
                self.next_ask = asked.at + self.times.renew;
                self.may_reclaim = false;
                self.see(Seen { revision, holder: Some(self.me.clone()) }, now);
            }
            // A lease that ran out must not be kept by a purge that nobody answers.
            Answer::Unknown if asked.is_purge => self.held = None,
            Answer::Refused | Answer::Unknown => {}
        }
    }

    /// Takes a state of the key that a watch has told. Older ones than the last are left out.
    pub(super) fn handle_watch(&mut self, seen: Seen, now: Moment) {
        if self.seen.as_ref().is_none_or(|known| seen.revision > known.revision) {
            self.handle_read(seen, now);
        }
    }

    /// Takes a state of the key that was asked for after a refused write, even if its revision is lower than one known
    /// before: the bucket may have been made anew.
    pub(super) fn handle_read(&mut self, seen: Seen, now: Moment) {
        if let Some(held) = &mut self.held {
            if seen.holder.as_ref() == Some(&self.me) {
                // A write of ours whose answer was lost: it extends nothing until one is acknowledged.
                held.revision = seen.revision;
            } else {
                self.held = None;
            }
        }
        if seen.holder.is_none() && self.is_wanted && self.held.is_none() {
            self.next_ask = self.next_ask.min(now);
        }
        self.see(seen, now);
    }

    fn see(&mut self, seen: Seen, now: Moment) {
        self.seen = Some(seen);
        self.seen_at = now;
    }
}
