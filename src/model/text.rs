//! Formatting of figures, times, errors and text from strangers for people.

use std::time::Duration;

use serde::Serialize;

use super::time::Timestamp;

/// Returns an error with its sources, as `a: b: c`; a source that repeats its parent is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Maximum length of a line of text from outside, in characters.
pub const LONGEST_LINE: usize = 4_096;

/// Masks text from outside for one line of a terminal or a log: control characters, line breaks and characters that
/// change the direction of writing become escapes such as `\n`, `\x1b` and `\u{202e}`. Text longer than `longest`
/// characters ends with `…`. Idempotent.
pub fn one_line(text: &str, longest: usize) -> String {
    let mut line = String::with_capacity(text.len().min(4 * longest));
    let mut shown = 0;
    for c in text.chars() {
        let escape = match c {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
            c if changes_lines(c) => format!("\\u{{{:x}}}", u32::from(c)),
            _ => String::new(),
        };
        let width = escape.len().max(1);
        if shown + width > longest {
            line.push('…');
            break;
        }
        shown += width;
        if escape.is_empty() {
            line.push(c);
        } else {
            line.push_str(&escape);
        }
    }
    line
}

/// Returns whether this is a line or paragraph separator, or a formatting character of the Unicode Bidirectional
/// Algorithm (UAX #9, section 2).
fn changes_lines(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// Masks a text of several lines with [`one_line`], line by line.
pub fn lines(text: &str) -> String {
    text.split('\n').map(|line| one_line(line, LONGEST_LINE)).collect::<Vec<_>>().join("\n")
}

/// Returns the JSON name of a state, in words.
pub fn word(state: &impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        _ => "unknown".to_owned(),
    }
}

pub fn ago(now: Timestamp, then: Timestamp) -> String {
    format!("{} ago", duration(now.since(then)))
}

/// Returns the time until then, in whole seconds that are rounded up: a try that is due in 300 ms is `1 s` away.
pub fn left(now: Timestamp, then: Timestamp) -> String {
    let left = then.since(now);
    duration(Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0)))
}

/// Returns a duration in its two largest units: `59 days`, `2 h 5 min`, `4 min`, `30 s`. Days are the largest unit,
/// and stand alone from a week on.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 && !duration.is_zero() {
        return format!("{} ms", duration.as_millis().max(1));
    }
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let (large, small) = match (days, hours, minutes) {
        (7.., ..) => (counted(days, "day"), None),
        (1.., hours, _) => (counted(days, "day"), Some(format!("{hours} h")).filter(|_| hours > 0)),
        (0, 1.., minutes) => (format!("{hours} h"), Some(format!("{minutes} min")).filter(|_| minutes > 0)),
        (0, 0, 1..) => (
            format!("{minutes} min"),
            Some(format!("{} s", seconds % 60)).filter(|_| !seconds.is_multiple_of(60)),
        ),
        _ => (format!("{seconds} s"), None),
    };
    match small {
        Some(small) => format!("{large} {small}"),
        None => large,
    }
}

/// Returns a number and its noun: `1 shard`, `2 shards`, `1,200 shards`.
pub fn counted(number: u64, noun: &str) -> String {
    let end = match noun {
        _ if number == 1 => "",
        noun if noun.ends_with(['s', 'x']) || noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {noun}{end}", count(number))
}

/// Returns a size in bytes in a readable unit.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// Returns a number with commas between its thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_strangers_is_masked_to_one_line() {
        for (text, expected) in [
            ("channel.follow", "channel.follow"),
            ("a\nWARN forged", "a\\nWARN forged"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("\u{1b}[2J\u{1b}]0;x\u{7}", "\\x1b[2J\\x1b]0;x\\x07"),
            ("\u{9b}31m\u{7f}\0", "\\x9b31m\\x7f\\x00"),
            ("abc\u{202e}fed\u{2069}", "abc\\u{202e}fed\\u{2069}"),
            ("a\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}b", "a\\u{61c}\\u{200e}\\u{200f}\\u{2028}\\u{2029}b"),
            (
                "ünïcödé ❤\u{fe0f} \u{1f469}\u{200d}\u{1f467} עברית",
                "ünïcödé ❤\u{fe0f} \u{1f469}\u{200d}\u{1f467} עברית",
            ),
            ("", ""),
        ] {
            assert_eq!(one_line(text, 100), expected, "{text:?}");
            assert_eq!(one_line(expected, 100), expected, "a second time: {text:?}");
        }
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(one_line("äöüß", 3), "äöü…");
        assert_eq!(one_line("a\u{1b}b", 4), "a…", "an escape is not cut");
        assert_eq!(lines("a\u{1b}\nb\r"), "a\\x1b\nb\\r");
    }

    #[test]
    fn the_time_left_is_in_whole_seconds() {
        let at = |millis| Timestamp(std::time::UNIX_EPOCH + Duration::from_millis(millis));
        for (millis, text) in [(0, "0 s"), (1, "1 s"), (872, "1 s"), (1_000, "1 s"), (59_001, "1 min")] {
            assert_eq!(left(at(0), at(millis)), text, "{millis}");
        }
        assert_eq!(left(at(5_000), at(0)), "0 s", "it is due");
    }

    #[test]
    fn figures_are_formatted_for_people() {
        let counts = [0, 12, 999, 1_000, 12_345, 1_234_567].map(count);
        assert_eq!(counts, ["0", "12", "999", "1,000", "12,345", "1,234,567"]);
        for (millis, text) in [
            (0, "0 s"),
            (20, "20 ms"),
            (30_900, "30 s"),
            (240_000, "4 min"),
            (245_000, "4 min 5 s"),
            (7_500_000, "2 h 5 min"),
            (7_205_000, "2 h"),
            (93_784_900, "1 day 2 h"),
            (172_800_000, "2 days"),
            (5_100_000_000, "59 days"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        let shards = [0, 1, 5, 1_200].map(|number| counted(number, "shard"));
        assert_eq!(shards, ["0 shards", "1 shard", "5 shards", "1,200 shards"]);
        assert_eq!((counted(2, "address"), counted(1, "batch")), ("2 addresses".into(), "1 batch".into()));
        assert_eq!(size(40_960), "40.0 KiB");
        assert_eq!(word(&crate::model::status::ShardState::AwaitingWelcome), "awaiting welcome");
    }
}
