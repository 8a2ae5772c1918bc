//! Knowledge about the ways by which events come, at one moment. ◆

use std::collections::BTreeMap;
use std::time::Instant;

use super::timeline::Moment;
use crate::model::status::GapReason;

/// Time for which a callback may not answer before Twitch counts a delivery as failed for good (it tries again for a
/// while, and does not say for how long).
pub(super) const UNANSWERED: u64 = 10_000;

/// A way by which events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    Shard(u32),
    /// The callback that plain subscriptions call.
    Callback,
}

/// A time in which a way delivers without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Beginning by the process's clock, which names the stretch: no two of a way begin at the same instant.
    pub(super) name: Instant,
    /// Everything that Twitch sent up to here came in.
    pub(super) known: Moment,
}

/// Knowledge about the time from one stretch to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Between {
    /// Events may have been missed.
    #[default]
    Unknown,
    /// A proof may yet show that no event was missed.
    Open,
    /// Everything that Twitch sent came in: Twitch went from one to the other without a break, and both were read.
    Whole,
}

/// Knowledge about a way at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) present: Option<Stretch>,
    /// The stretch before it.
    pub(super) past: Option<Stretch>,
    /// The time from that one to the present one.
    pub(super) between: Between,
    /// Why that one ended.
    pub(super) reason: GapReason,
    /// Whether Twitch calls us, instead of being read.
    pub(super) calls: bool,
    /// Whether Twitch had the way all the while, so that only our own absence counts.
    pub(super) found: bool,
}

/// How things are at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// Every way that there shall be.
    pub(super) ways: BTreeMap<Way, Sight>,
    /// Up to when the listener accepted requests. `None` while it does not.
    pub(super) accepted_until: Option<Moment>,
    pub(super) conduit: Option<String>,
    /// When Twitch was last found to match the file.
    pub(super) matched_at: Option<Moment>,
}
