//! Wall-clock times for people and JSON.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in wall-clock time, written as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub SystemTime);

impl Timestamp {
    /// Converts milliseconds since the Unix epoch.
    pub fn from_unix_millis(millis: u64) -> Self {
        Self(UNIX_EPOCH + Duration::from_millis(millis))
    }

    /// Returns milliseconds since the Unix epoch; 0 for times before it.
    pub fn unix_millis(self) -> u64 {
        self.0.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    /// Parses RFC 3339 in UTC with up to nine decimals, as Twitch writes it.
    pub fn parse(text: &str) -> Option<Self> {
        humantime::parse_rfc3339(text).ok().map(Self)
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.duration_since(earlier.0).unwrap_or_default()
    }
}

/// The end of the year 9999, the last one in RFC 3339, in milliseconds since the Unix epoch.
const LAST: u64 = 253_402_300_799_999;

impl fmt::Display for Timestamp {
    /// Times beyond RFC 3339 are written as the nearest one within.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = UNIX_EPOCH + Duration::from_millis(self.unix_millis().min(LAST));
        write!(f, "{}", humantime::format_rfc3339_millis(shown))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time in UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twitch_times_with_nanoseconds_parse_and_print() {
        let time = Timestamp::parse("2026-11-02T08:15:27.441930118Z").expect("valid");
        assert_eq!(time.to_string(), "2026-11-02T08:15:27.441Z");
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp::from_unix_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp(UNIX_EPOCH - Duration::from_secs(1)).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_unix_millis(time.unix_millis()).to_string(), time.to_string());
    }
}
