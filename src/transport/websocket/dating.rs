//! Dates Twitch's messages by the clock of this machine. ◆
//!
//! A message may be read long after it was sent: the machine slept, the process hung, the store had no room. So the
//! time of reading says little of how long a connection delivered. Twitch's own time does, once it is known how far
//! its clock is from ours: as far as for the message that came fastest.

use crate::model::time::Timestamp;

/// Length of the longest time that is read, in bytes; Twitch's have 30.
const LONGEST: usize = 40;

/// Twitch's time of a message, kept unread: of many messages only the last one's matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Stamp {
    /// `None` if the text is too long to be a time.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: text.len() })
    }

    fn unix_millis(&self) -> Option<i64> {
        let text = std::str::from_utf8(self.bytes.get(..self.length)?).ok()?;
        i64::try_from(Timestamp::parse(text)?.unix_millis()).ok()
    }
}

/// The difference of the two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dating {
    /// Our clock less Twitch's for the message that came fastest, in milliseconds.
    least: Option<i64>,
}

impl Dating {
    /// The time by our clock at which a message was sent that has been read by `now`; never later than `now`. `None`
    /// if Twitch's time cannot be read.
    pub(super) fn date(&mut self, stamp: &Stamp, now: u64) -> Option<u64> {
        let sent = stamp.unix_millis()?;
        let difference = i64::try_from(now).ok()?.checked_sub(sent)?;
        let least = self.least.map_or(difference, |least| least.min(difference));
        self.least = Some(least);
        u64::try_from(sent.checked_add(least)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(millis: u64) -> Stamp {
        Stamp::new(&Timestamp::from_unix_millis(millis).to_string()).expect("short")
    }

    #[test]
    fn a_message_that_was_read_late_is_dated_when_it_was_sent() {
        let mut dating = Dating::default();
        // The clocks differ by 1,000,000 ms; the way here takes 40 ms and more.
        assert_eq!(dating.date(&stamp(1_000_000), 40), Some(40));
        assert_eq!(dating.date(&stamp(1_010_000), 10_050), Some(10_040));
        assert_eq!(dating.date(&stamp(1_020_000), 95_000), Some(20_040), "read after 75 s of sleep");
        assert_eq!(dating.date(&stamp(1_096_000), 96_030), Some(96_030), "this one came faster");
        assert_eq!(dating.date(&stamp(1_097_000), 99_000), Some(97_030));
    }

    #[test]
    fn what_is_no_time_tells_nothing() {
        let mut dating = Dating::default();
        assert!(Stamp::new(&"9".repeat(LONGEST + 1)).is_none());
        assert_eq!(dating.date(&Stamp::new("yesterday").expect("short"), 7), None);
        assert_eq!(dating.date(&stamp(0), 7), Some(7));
        assert_eq!(dating.date(&stamp(9), 7), Some(7), "a clock that is ahead is the fastest");
        assert_eq!(dating.date(&stamp(0), 8), None, "then this one was sent before everything");
    }
}
