//! Times as Twitch writes them. ◆

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// A time in RFC 3339 with up to nine decimals and no zeros at their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub SystemTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_rfc3339_nanos(self.0).to_string();
        let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
        write!(f, "{digits}Z")
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn zeros_at_the_end_of_a_fraction_are_left_out() {
        for (nanos, text) in [
            (441_930_118, "1970-01-01T00:00:10.441930118Z"),
            (512_000_000, "1970-01-01T00:00:10.512Z"),
            (0, "1970-01-01T00:00:10Z"),
        ] {
            assert_eq!(Moment(UNIX_EPOCH + Duration::new(10, nanos)).to_string(), text);
        }
    }
}
