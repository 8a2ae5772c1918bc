//! Figures, times and errors as people read them.

use std::time::Duration;

use serde::Serialize;

use super::time::Timestamp;

/// An error with its sources, as `a: b: c`; what a source only repeats is left out.
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

/// The name of a state as the JSON has it, in words.
pub fn word(state: &impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        _ => "unknown".to_owned(),
    }
}

/// How long ago it was.
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    format!("{} ago", short(now.since(then)))
}

/// The two largest units of a duration.
pub fn short(duration: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A size in bytes.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// A number with commas between its thousands.
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
    fn figures_are_easy_on_the_eye() {
        let counts = [0, 12, 999, 1_000, 12_345, 1_234_567].map(count);
        assert_eq!(counts, ["0", "12", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!(short(Duration::from_millis(93_784_900)), "1day 2h");
        assert_eq!(short(Duration::ZERO), "0s");
        assert_eq!(size(40_960), "40.0 KiB");
        assert_eq!(word(&crate::model::status::ShardState::AwaitingWelcome), "awaiting welcome");
    }
}
