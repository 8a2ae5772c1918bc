//! Repair of JSON from Twitch that strict parsers refuse. ◆

use std::borrow::Cow;

/// Replaces half surrogates and invalid UTF-8 by U+FFFD. Borrows the text if there are none.
pub fn readable(json: &[u8]) -> Cow<'_, [u8]> {
    let text = String::from_utf8_lossy(json);
    let bytes = text.as_bytes();
    let hex = |at: usize| {
        let digits = bytes.get(at..at + 4).and_then(|digits| std::str::from_utf8(digits).ok())?;
        u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
    };
    let escape = |at: usize| bytes.get(at..at + 2).filter(|start| *start == b"\\u").and_then(|_| hex(at + 2));
    let (mut halves, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        at += match (bytes[at], escape(at)) {
            (_, Some(0xd800..=0xdbff)) if matches!(escape(at + 6), Some(0xdc00..=0xdfff)) => 12,
            (_, Some(0xd800..=0xdfff)) => {
                halves.push(at);
                6
            }
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    if halves.is_empty() {
        return match text {
            Cow::Borrowed(_) => Cow::Borrowed(json),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
    }
    let mut repaired = text.into_owned().into_bytes();
    for at in halves {
        repaired[at + 2..at + 6].copy_from_slice(b"fffd");
    }
    Cow::Owned(repaired)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::broadcaster::Broadcaster;

    #[test]
    fn half_surrogates_and_broken_utf8_are_readable() {
        let of = |json: &[u8]| serde_json::from_slice::<String>(&readable(json)).unwrap();
        assert_eq!(of(br#""a\ud83d b""#), "a\u{fffd} b");
        assert_eq!(of(br#""\uDE00\ud83d""#), "\u{fffd}\u{fffd}");
        assert_eq!(of(br#""\ud83d\uD83D\ude00""#), "\u{fffd}\u{1f600}");
        assert_eq!(of(br#""\\ud83d""#), "\\ud83d", "an escaped backslash begins no escape");
        assert_eq!(of(b"\"\xff\""), "\u{fffd}");
        assert!(matches!(readable(br#"{"a":"\ud83d\ude00"}"#), Cow::Borrowed(_)));
        let payload = br#"{"subscription":{"condition":{"user_id":"5"}},"event":{"user_login":"\udfff"}}"#;
        assert_eq!(Broadcaster::of(payload).id, "5");
    }

    proptest! {
        #[test]
        fn repaired_text_has_no_half_surrogates(text in r#"(\\\\|\\u[dD][89a-fA-F][0-9a-f]{2}|[a-z]){0,12}"#) {
            let json = format!("\"{text}\"");
            prop_assert!(serde_json::from_slice::<String>(&readable(json.as_bytes())).is_ok(), "{json}");
        }
    }
}
