//! Ids in the forms that Twitch gives them. Randomness is passed in. ◆

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The id of a subscription, a conduit or a message of a WebSocket: a UUID.
pub fn uuid(dice: u128) -> String {
    uuid::Builder::from_random_bytes(dice.to_be_bytes()).into_uuid().to_string()
}

/// The id of a message to a callback: 44 characters of URL-safe base64.
pub fn webhook_message_id(dice: [u128; 2]) -> String {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&dice[0].to_be_bytes());
    bytes[16..].copy_from_slice(&dice[1].to_be_bytes());
    URL_SAFE.encode(bytes)
}

/// The id of a WebSocket session.
pub fn session_id(dice: u128) -> String {
    format!("AgoQ{}EgZjZWxsLWI", random_text(20, dice))
}

/// Letters and digits, at most 20 of them worth their dice.
pub fn random_text(length: usize, dice: u128) -> String {
    let mut rest = dice;
    let mut next = || {
        let letter = char::from(LETTERS[usize::try_from(rest % 62).unwrap_or(0)]);
        rest /= 62;
        letter
    };
    (0..length).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_twitchs_lengths_and_alphabets() {
        let id = webhook_message_id([u128::MAX, 7]);
        assert_eq!((id.len(), id.ends_with('=')), (44, true), "{id}");
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)), "{id}");
        let id = uuid(u128::MAX);
        assert_eq!((id.len(), &id[14..15]), (36, "4"), "{id}");
        assert_ne!(session_id(1), session_id(2));
    }
}
