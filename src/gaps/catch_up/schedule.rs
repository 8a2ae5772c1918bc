//! When which channels are asked about. ◆
//!
//! After a gap Twitch is asked three times: at once, and again after 60 and 180 seconds, since what happened right before
//! the end of the gap is not in Twitch's answers before. A new gap begins anew, for the channels of both.

use std::collections::BTreeSet;

use super::super::timeline::Moment;

/// Up to so many channels the second look is at all of them: ten requests.
const FEW: u64 = 1_000;
/// Gaps whose ids are kept; of more than that only the newest are.
const GAPS: usize = 100;

/// The channels of a gap, or of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    All,
    These(BTreeSet<Box<str>>),
}

impl Channels {
    fn join(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::These(these), Self::These(others)) => these.extend(others),
            (_, Self::All) => *self = Self::All,
            (Self::All, Self::These(_)) => {}
        }
    }
}

/// Gaps that are being mended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mending {
    gaps: Vec<Box<str>>,
    channels: Channels,
    /// Beginning of the first look after the newest gap.
    begun: Moment,
    /// The next look, or the one under way.
    look: usize,
    is_under_way: bool,
    /// A gap came during the look.
    again: bool,
    doubtful: BTreeSet<Box<str>>,
}

/// A look that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// 1 to 3; 0 is the first look at channels of which nothing is known, which tells nothing.
    pub(super) number: usize,
    pub(super) channels: Channels,
}

/// The state of all looks.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// Times of the looks after the end of a gap, in milliseconds.
    looks: [Moment; 3],
    mending: Option<Mending>,
    /// New channels may be in the list.
    first: bool,
    /// The look under way is such a one.
    is_first: bool,
}

impl Schedule {
    pub(super) fn new(looks: [Moment; 3]) -> Self {
        Self { looks, mending: None, first: false, is_first: false }
    }

    /// A gap was told.
    pub(super) fn add(&mut self, gap: &str, channels: Channels, now: Moment) {
        let mending = self.mending.get_or_insert_with(|| Mending {
            gaps: Vec::new(),
            channels: channels.clone(),
            begun: now,
            look: 0,
            is_under_way: false,
            again: false,
            doubtful: BTreeSet::new(),
        });
        mending.gaps.push(gap.into());
        if mending.gaps.len() > GAPS {
            mending.gaps.remove(0);
        }
        mending.channels.join(channels);
        if mending.is_under_way {
            mending.again = true;
        } else {
            mending.restart(now);
        }
    }

    /// The list of channels has changed.
    pub(super) fn list_changed(&mut self) {
        self.first = true;
    }

    /// Forgets all gaps: nothing is to be asked any more.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.looks);
    }

    /// Number of gaps that are being mended.
    pub(super) fn gaps(&self) -> usize {
        self.mending.as_ref().map_or(0, |mending| mending.gaps.len())
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Moment> {
        match &self.mending {
            _ if self.first => Some(0),
            Some(mending) => Some(mending.begun.saturating_add(self.looks[mending.look])),
            None => None,
        }
    }

    /// When the next look at channels of a gap is due.
    pub(super) fn next_look(&self) -> Option<Moment> {
        let mending = self.mending.as_ref()?;
        Some(mending.begun.saturating_add(self.looks[mending.look]))
    }

    /// Begins what is due. `channels` is the number of all channels.
    pub(super) fn begin(&mut self, now: Moment, channels: u64) -> Option<Look> {
        if let Some(mending) = &mut self.mending
            && mending.begun.saturating_add(self.looks[mending.look]) <= now
        {
            mending.is_under_way = true;
            let doubtful = std::mem::take(&mut mending.doubtful);
            let is_partial = mending.look == 1 && channels > FEW;
            if mending.look == 0 {
                mending.begun = now;
            }
            let channels = if is_partial { Channels::These(doubtful) } else { mending.channels.clone() };
            return Some(Look { number: mending.look + 1, channels });
        }
        if std::mem::take(&mut self.first) {
            self.is_first = true;
            return Some(Look { number: 0, channels: Channels::All });
        }
        None
    }

    /// A look is over. Returns the gaps that are mended with it.
    pub(super) fn end(&mut self, doubtful: BTreeSet<Box<str>>, now: Moment) -> Vec<Box<str>> {
        if std::mem::take(&mut self.is_first) {
            return Vec::new();
        }
        let Some(mending) = &mut self.mending else { return Vec::new() };
        mending.is_under_way = false;
        if std::mem::take(&mut mending.again) {
            mending.restart(now);
            return Vec::new();
        }
        mending.doubtful = doubtful;
        mending.look += 1;
        if mending.look < self.looks.len() {
            return Vec::new();
        }
        self.mending.take().map(|mending| mending.gaps).unwrap_or_default()
    }
}

impl Mending {
    fn restart(&mut self, now: Moment) {
        self.begun = now;
        self.look = 0;
        self.doubtful.clear();
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
