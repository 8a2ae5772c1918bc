//! Webhooks: which callbacks Twitch takes, the headers of its requests, whether a challenge is answered, and when a
//! message is sent again (Twitch: "Handling Webhook Events"). ◆

use std::time::Duration;

use bytes::Bytes;

use super::endpoint::Endpoint;
use super::message::Message;

/// Characters of a challenge.
const CHALLENGE_LENGTH: usize = 43;

/// The headers of a request with this message, in Twitch's spelling, signed for this callback.
pub fn headers(
    endpoint: &Endpoint,
    message: &Message,
    retry: usize,
    clock_ahead: i64,
) -> Vec<(&'static str, String)> {
    let timestamp = message.timestamp(clock_ahead).to_string();
    let content = &message.content;
    let signature = endpoint.signer.sign(message.id.as_bytes(), timestamp.as_bytes(), &content.payload);
    let mut headers = vec![
        ("Content-Type", "application/json".to_owned()),
        ("Twitch-Eventsub-Message-Id", message.id.clone()),
        ("Twitch-Eventsub-Message-Retry", retry.to_string()),
        ("Twitch-Eventsub-Message-Type", content.kind.as_str().to_owned()),
        ("Twitch-Eventsub-Message-Signature", signature),
        ("Twitch-Eventsub-Message-Timestamp", timestamp),
    ];
    if let Some((kind, version)) = &content.subscription {
        headers.push(("Twitch-Eventsub-Subscription-Type", kind.clone()));
        headers.push(("Twitch-Eventsub-Subscription-Version", version.clone()));
    }
    headers
}

/// A callback's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    /// As the header has it.
    pub content_length: String,
    /// `None` if it is longer than any answer to a challenge.
    pub body: Option<Bytes>,
}

/// Whether a message with this answer has arrived.
pub fn is_accepted(status: Option<u16>) -> bool {
    status.is_some_and(|status| (200..300).contains(&status))
}

/// The text of a challenge. It is any text, not only letters and digits.
pub fn challenge_text(dice: [u128; 3]) -> String {
    const CHARACTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~+/=";
    let bytes = dice.iter().flat_map(|number| number.to_be_bytes());
    bytes
        .take(CHALLENGE_LENGTH)
        .map(|byte| char::from(CHARACTERS[usize::from(byte) % CHARACTERS.len()]))
        .collect()
}

/// Whether this is the answer that a challenge needs.
///
/// # Errors
/// Says what is wrong with it.
pub fn judge(reply: Option<&Reply>, challenge: &str) -> Result<(), &'static str> {
    let reply = reply.ok_or("there is no answer in time")?;
    if reply.status != 200 {
        return Err("the status is not 200");
    }
    if reply.body.as_deref() != Some(challenge.as_bytes()) {
        return Err("the body is not the challenge and nothing else");
    }
    if reply.content_length != challenge.len().to_string() {
        return Err("the header Content-Length is not that of the challenge");
    }
    let media_type = reply.content_type.split(';').next().unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("text/plain") {
        return Err("the content type is not text/plain");
    }
    Ok(())
}

/// The tries of one message after the first.
#[derive(Clone, Debug)]
pub struct Retries {
    pauses: std::vec::IntoIter<Duration>,
    made: usize,
}

impl Retries {
    pub fn new(pauses: Vec<Duration>) -> Self {
        Self { pauses: pauses.into_iter(), made: 0 }
    }
}

/// The pause before the next try and its number, which goes into a header; after the last one the message has failed.
impl Iterator for Retries {
    type Item = (Duration, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let pause = self.pauses.next()?;
        self.made += 1;
        Some((pause, self.made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::endpoint::is_callback;

    #[test]
    fn callbacks_are_checked_as_at_twitch_or_for_this_machine() {
        for (text, strict, lenient) in [
            ("https://hooks.example.net/twitch?key=1", true, true),
            ("https://hooks.example.net:443/", true, true),
            ("https://hooks.example.net:8443/", false, true),
            ("http://hooks.example.net/", false, true),
            ("http://127.0.0.1:8080/eventsub", false, true),
            ("https://[::1]:8080/eventsub", false, true),
            ("http://localhost:8080/eventsub", false, true),
            ("https://192.0.2.7/eventsub", false, false),
            ("https://user:word@hooks.example.net/", false, false),
            ("ftp://hooks.example.net/", false, false),
            ("hooks.example.net", false, false),
            ("https://", false, false),
        ] {
            assert_eq!((is_callback(text, true), is_callback(text, false)), (strict, lenient), "{text}");
        }
    }

    #[test]
    fn a_secret_has_10_to_100_ascii_characters() {
        let check =
            |secret: &str| Endpoint::check(true, Some("https://example.net/"), Some(secret)).map(drop);
        assert!(check("0123456789").is_ok() && check(&"x".repeat(100)).is_ok());
        assert!(
            check("012345678").is_err() && check(&"x".repeat(101)).is_err() && check("0123456789ü").is_err()
        );
        assert!(Endpoint::check(true, None, Some("0123456789")).expect_err("refused").contains("callback"));
    }

    #[test]
    fn only_the_very_challenge_is_an_answer() {
        let good = Reply {
            status: 200,
            content_type: "text/plain; charset=utf-8".to_owned(),
            content_length: "3".to_owned(),
            body: Some("a~b".into()),
        };
        assert_eq!(judge(Some(&good), "a~b"), Ok(()));
        let bad = |change: fn(&mut Reply)| {
            let mut reply = good.clone();
            change(&mut reply);
            judge(Some(&reply), "a~b").expect_err("refused")
        };
        assert!(bad(|reply| reply.status = 204).contains("status"));
        assert!(bad(|reply| reply.body = Some("a~b\n".into())).contains("body"));
        assert!(bad(|reply| reply.body = None).contains("body"));
        assert!(bad(|reply| reply.content_length.clear()).contains("Content-Length"));
        assert!(bad(|reply| reply.content_type = "text/plainish".to_owned()).contains("type"));
        assert!(bad(|reply| reply.content_type = "application/json".to_owned()).contains("type"));
        assert!(judge(None, "a~b").expect_err("refused").contains("in time"));
    }

    #[test]
    fn retries_end_after_the_last_pause() {
        let mut retries = Retries::new(vec![Duration::from_secs(1), Duration::from_secs(5)]);
        assert_eq!(retries.next(), Some((Duration::from_secs(1), 1)));
        assert_eq!(retries.next(), Some((Duration::from_secs(5), 2)));
        assert_eq!(retries.next(), None);
    }
}
