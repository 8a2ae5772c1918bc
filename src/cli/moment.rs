//! Times as people type and read them: `15m`, `10:00`, `yesterday`, in the time zone that is given. ◆

use std::time::SystemTime;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::model::time::Timestamp;

/// Returns the time that a text means: RFC 3339, how long ago (`15m`), `now`, `today`, `yesterday`, a time of the last 24
/// hours (`10:00`), a day (`2026-11-26`), or a day and a time.
pub(super) fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if let Some(time) = Timestamp::parse(text) {
        return Some(time);
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        return now.0.checked_sub(ago).map(Timestamp);
    }
    let here = zoned(now, zone);
    let start_of = |date: Date| timestamp(date.to_datetime(Time::midnight()), zone);
    match text {
        "now" => return Some(now),
        "today" => return start_of(here.date()),
        "yesterday" => return start_of(here.date().yesterday().ok()?),
        _ => {}
    }
    if text.contains('+') || text.ends_with('Z') {
        let time: jiff::Timestamp = text.parse().ok()?;
        return Some(Timestamp(SystemTime::from(time)));
    }
    let is_time = text.contains(':') && !text.contains('-');
    if let Some(time) = is_time.then(|| text.parse::<Time>().ok()).flatten() {
        let today = timestamp(here.date().to_datetime(time), zone)?;
        let date = if today <= now { here.date() } else { here.date().yesterday().ok()? };
        return timestamp(date.to_datetime(time), zone);
    }
    if text.contains(':') {
        return timestamp(text.parse::<DateTime>().ok()?, zone);
    }
    (text.len() == 10).then(|| text.parse::<Date>().ok()).flatten().and_then(start_of)
}

/// The date, the time and the offset, for example `2026-11-26T10:05:27.123+01:00`; `Z` stands for UTC.
pub(super) fn stamp(time: Timestamp, zone: &TimeZone) -> String {
    if *zone == TimeZone::UTC {
        return time.to_string();
    }
    zoned(time, zone).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

/// The time of the day, for example `10:05:27`.
pub(super) fn clock(time: Timestamp, zone: &TimeZone) -> String {
    zoned(time, zone).strftime("%H:%M:%S").to_string()
}

fn zoned(time: Timestamp, zone: &TimeZone) -> jiff::Zoned {
    let millis = i64::try_from(time.unix_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX).to_zoned(zone.clone())
}

fn timestamp(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    Some(Timestamp(SystemTime::from(time.to_zoned(zone.clone()).ok()?.timestamp())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Central Europe, with the change of the clock in March and October.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn times_are_read_in_the_zone_of_the_reader() {
        let now = Timestamp::parse("2026-11-26T09:30:00Z").unwrap();
        for (text, expected) in [
            ("2026-11-02T08:15:00Z", "2026-11-02T08:15:00.000Z"),
            ("2026-11-02T08:15:00+02:00", "2026-11-02T06:15:00.000Z"),
            ("15m", "2026-11-26T09:15:00.000Z"),
            ("now", "2026-11-26T09:30:00.000Z"),
            ("today", "2026-11-25T23:00:00.000Z"),
            ("yesterday", "2026-11-24T23:00:00.000Z"),
            ("10:00", "2026-11-26T09:00:00.000Z"),
            ("10:30:01", "2026-11-25T09:30:01.000Z"),
            ("2026-11-26", "2026-11-25T23:00:00.000Z"),
            ("2026-07-01", "2026-06-30T22:00:00.000Z"),
            ("2026-07-01 10:00", "2026-07-01T08:00:00.000Z"),
            ("2026-07-01T10:00:05", "2026-07-01T08:00:05.000Z"),
        ] {
            assert_eq!(
                parse(text, now, &zone()).map(|time| time.to_string()).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        for wrong in ["", "tomorrow", "25:00", "2026-13-01", "20261126", "10", "ago"] {
            assert_eq!(parse(wrong, now, &zone()), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_shown_with_their_offset() {
        let time = Timestamp::parse("2026-07-01T08:00:05.25Z").unwrap();
        assert_eq!(stamp(time, &zone()), "2026-07-01T10:00:05.250+02:00");
        assert_eq!(stamp(time, &TimeZone::UTC), "2026-07-01T08:00:05.250Z");
        assert_eq!(clock(time, &zone()), "10:00:05");
    }

    proptest! {
        #[test]
        fn any_text_and_any_time_are_taken(text in "\\PC{0,20}", millis in any::<u64>()) {
            let now = Timestamp::from_unix_millis(millis % (1 << 50));
            let _ = parse(&text, now, &zone());
            let _ = stamp(Timestamp::from_unix_millis(millis % (1 << 50)), &zone());
        }
    }
}
