//! How the answer of an HTTP receiver is classified, by its status, and the pause that it asks for. ◆

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use serde::Deserialize;

use super::retry::Allowance;

/// Subject of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has the event.
    Accepted,
    /// The receiver refuses this event and would refuse it again.
    Event,
    /// The receiver, or the way to it, does not work.
    Receiver,
    /// The receiver works, and wants no requests for a while. Without a wish for a pause it counts as
    /// [`Self::Receiver`].
    Busy,
    /// The receiver is elsewhere. Redirects are not followed: a POST would become a GET, and headers with secrets would
    /// go to another host.
    Moved,
}

/// Classifies every status.
pub fn classify(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Accepted,
        300..=399 => Verdict::Moved,
        // A program that is just starting (twurple answers 410 until its handlers are registered), a proxy during a
        // deployment, and credentials that have to be corrected.
        401 | 403 | 404 | 405 | 407 | 410 | 421 | 426 => Verdict::Receiver,
        408 | 425 | 429 | 503 => Verdict::Busy,
        400..=499 => Verdict::Event,
        500..=599 => Verdict::Receiver,
        // Not HTTP.
        ..=199 | 600.. => Verdict::Receiver,
    }
}

/// Advice for people about an answer.
pub fn advice(status: u16) -> Option<&'static str> {
    match (classify(status), status) {
        (Verdict::Moved, _) => Some("redirects are not followed: set `url` to where it leads"),
        (_, 401 | 403 | 407) => Some("check the credentials in `url` and in the headers"),
        (_, 404 | 410 | 421) => Some("check `url`"),
        (_, 405) => Some("check `method` and `url`"),
        (Verdict::Event, _) => Some("`eventsubd dead-letters list --verbose` shows what it said"),
        (Verdict::Accepted | Verdict::Receiver | Verdict::Busy, _) => None,
    }
}

/// The pause that a receiver asks for: `X-RateLimit-Reset-After`, else `Retry-After` in seconds or as a date, else
/// `retry_after` in a JSON body. Seconds may have decimals.
pub fn wish(headers: &HeaderMap, body: &[u8], now: SystemTime) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Body {
        retry_after: f64,
    }
    if let Some(wish) = text(headers, RESET_AFTER).and_then(seconds) {
        return Some(wish);
    }
    if let Some(value) = text(headers, RETRY_AFTER.as_str()) {
        let date = || httpdate::parse_http_date(value).ok();
        let wish = seconds(value).or_else(|| Some(date()?.duration_since(now).unwrap_or_default()));
        if wish.is_some() {
            return wish;
        }
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    duration(body.retry_after)
}

/// Returns how many more requests the receiver takes, if the answer says so.
pub fn allowance(headers: &HeaderMap) -> Option<Allowance> {
    Some(Allowance {
        limit: text(headers, "x-ratelimit-limit").and_then(|value| value.parse().ok()),
        remaining: text(headers, "x-ratelimit-remaining")?.parse().ok()?,
        reset_after: text(headers, RESET_AFTER).and_then(seconds)?,
    })
}

const RESET_AFTER: &str = "x-ratelimit-reset-after";

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn seconds(text: &str) -> Option<Duration> {
    duration(text.parse().ok()?)
}

fn duration(seconds: f64) -> Option<Duration> {
    /// Longer pauses are not respected anyway.
    const LONGEST: f64 = 1e6;
    (seconds >= 0.0 && seconds.is_finite()).then(|| Duration::from_secs_f64(seconds.min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_status_is_about_the_event_or_the_receiver() {
        for (verdict, statuses) in [
            (Verdict::Accepted, &[200, 201, 202, 204, 299][..]),
            (Verdict::Event, &[400, 402, 406, 409, 411, 413, 414, 415, 418, 422, 451, 499]),
            (
                Verdict::Receiver,
                &[401, 403, 404, 405, 407, 410, 421, 426, 500, 501, 502, 504, 599, 0, 101, 700],
            ),
            (Verdict::Busy, &[408, 425, 429, 503]),
            (Verdict::Moved, &[300, 301, 302, 303, 304, 307, 308]),
        ] {
            for status in statuses {
                assert_eq!(classify(*status), verdict, "{status}");
            }
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn wishes_are_read_wherever_they_stand() {
        let now = UNIX_EPOCH + Duration::from_secs(1_445_412_470);
        let read = |pairs: &[(&'static str, &'static str)], body: &str| {
            wish(&headers(pairs), body.as_bytes(), now).map(|wish| wish.as_millis())
        };
        let date = ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT");
        for (pairs, body, expected) in [
            (&[("retry-after", "120")][..], "", Some(120_000)),
            (&[("retry-after", " 2.5 ")], "", Some(2_500)),
            (&[date], "", Some(10_000)),
            (&[("x-ratelimit-reset-after", "0.25"), ("retry-after", "1")], "", Some(250)),
            (
                &[],
                r#"{"message":"You are being rate limited.","retry_after":1.337,"global":false}"#,
                Some(1_337),
            ),
            (&[("retry-after", "soon")], r#"{"retry_after":3}"#, Some(3_000)),
            (&[("retry-after", "-1")], "", None),
            (&[("retry-after", "NaN")], "", None),
            (&[("retry-after", "1e999")], "", None),
            (&[], "retry_after", None),
            (&[], "", None),
        ] {
            assert_eq!(read(pairs, body), expected, "{pairs:?} {body}");
        }
        assert_eq!(wish(&headers(&[date]), b"", now + Duration::from_secs(60)), Some(Duration::ZERO));
    }

    #[test]
    fn an_allowance_needs_what_is_left_and_until_when() {
        let limit = ("x-ratelimit-limit", "5");
        let left = ("x-ratelimit-remaining", "1");
        let reset = ("x-ratelimit-reset-after", "1.5");
        let expected = Allowance { limit: Some(5), remaining: 1, reset_after: Duration::from_millis(1_500) };
        assert_eq!(allowance(&headers(&[limit, left, reset])), Some(expected));
        assert_eq!(allowance(&headers(&[left, reset])), Some(Allowance { limit: None, ..expected }));
        assert_eq!(allowance(&headers(&[limit, left])), None);
        assert_eq!(allowance(&headers(&[limit, reset])), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read(value in "[ -~]{0,20}", body in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut headers = HeaderMap::new();
            for name in ["retry-after", "x-ratelimit-reset-after", "x-ratelimit-remaining"] {
                headers.insert(name, HeaderValue::from_str(&value).unwrap());
            }
            wish(&headers, &body, UNIX_EPOCH);
            allowance(&headers);
        }
    }
}
