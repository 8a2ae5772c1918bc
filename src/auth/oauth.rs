//! Requests to id.twitch.tv and what its answers mean. Classified by status first, by text never:
//! Twitch changes texts unannounced.

use std::time::Duration;

use serde::Deserialize;

use super::token::{MintOutcome, ValidateOutcome};
use crate::model::secret::Secret;

/// The longest part of a foreign text that is repeated to a person, in characters.
const EXCERPT: usize = 200;
/// The longest token that is accepted, in bytes. Twitch's have 30 and promise no length.
const MAX_TOKEN: usize = 4_096;

/// The form of the client credentials grant, sent as a body so that no log of URLs holds it.
pub fn mint_form<'a>(client_id: &'a str, client_secret: &'a Secret) -> [(&'static str, &'a str); 3] {
    [
        ("client_id", client_id),
        ("client_secret", client_secret.expose()),
        ("grant_type", "client_credentials"),
    ]
}

#[derive(Deserialize)]
struct Minted {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
struct Validated {
    client_id: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
}

/// 0 with status 200 stands for "no known expiry".
fn life(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.min(10 * 365 * 86_400)))
}

/// What an answer of the token endpoint means. `secret` is blanked should the answer repeat it.
pub fn parse_mint(status: u16, body: &[u8], secret: &Secret) -> MintOutcome {
    match status {
        200..=299 => match serde_json::from_slice::<Minted>(body) {
            Ok(minted) if is_token(&minted.access_token) => MintOutcome::Minted {
                secret: Secret::new(minted.access_token),
                expires_in: life(minted.expires_in),
            },
            _ => MintOutcome::Temporary(format!("the token endpoint answered {status} without a token")),
        },
        400 | 401 | 403 | 404 | 410 => MintOutcome::Refused(format!("{status} {}", message(body, secret))),
        _ => {
            MintOutcome::Temporary(format!("the token endpoint answered {status} {}", message(body, secret)))
        }
    }
}

/// What an answer of the validation endpoint means.
pub fn parse_validate(status: u16, body: &[u8]) -> ValidateOutcome {
    match status {
        200 => match serde_json::from_slice::<Validated>(body) {
            Ok(valid) => {
                ValidateOutcome::Valid { client_id: valid.client_id, expires_in: life(valid.expires_in) }
            }
            Err(_) => {
                ValidateOutcome::Temporary("the validation endpoint answered something else".to_owned())
            }
        },
        401 => ValidateOutcome::Dead,
        _ => ValidateOutcome::Temporary(format!("the validation endpoint answered {status}")),
    }
}

fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn message(body: &[u8], secret: &Secret) -> String {
    let text = serde_json::from_slice::<Refusal>(body).map(|r| r.message).unwrap_or_default();
    let text = if secret.expose().is_empty() { text } else { text.replace(secret.expose(), "[secret]") };
    text.chars().filter(|c| !c.is_control()).take(EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_of_the_token_endpoint() {
        let secret = Secret::new("s3cret");
        let good = br#"{"access_token":"abc","expires_in":5187744,"token_type":"bearer"}"#;
        assert_eq!(
            parse_mint(200, good, &secret),
            MintOutcome::Minted {
                secret: Secret::new("abc"),
                expires_in: Some(Duration::from_secs(5_187_744))
            }
        );
        let forever = br#"{"access_token":"abc","expires_in":0}"#;
        assert!(matches!(parse_mint(200, forever, &secret), MintOutcome::Minted { expires_in: None, .. }));
        assert_eq!(
            parse_mint(403, br#"{"status":403,"message":"invalid client secret"}"#, &secret),
            MintOutcome::Refused("403 invalid client secret".to_owned())
        );
        assert_eq!(
            parse_mint(400, br#"{"message":"no such s3cret\u0007"}"#, &secret),
            MintOutcome::Refused("400 no such [secret]".to_owned())
        );
        for (status, body) in
            [(500, &b""[..]), (429, b"{}"), (302, b""), (200, b"<html>"), (200, b"{\"access_token\":\"\"}")]
        {
            assert!(matches!(parse_mint(status, body, &secret), MintOutcome::Temporary(_)), "{status}");
        }
    }

    #[test]
    fn answers_of_the_validation_endpoint() {
        let app = br#"{"client_id":"us","login":null,"scopes":null,"expires_in":100}"#;
        assert_eq!(
            parse_validate(200, app),
            ValidateOutcome::Valid { client_id: "us".to_owned(), expires_in: Some(Duration::from_secs(100)) }
        );
        assert_eq!(
            parse_validate(401, br#"{"status":401,"message":"invalid access token"}"#),
            ValidateOutcome::Dead
        );
        assert!(matches!(parse_validate(200, b"nonsense"), ValidateOutcome::Temporary(_)));
        assert!(matches!(parse_validate(503, b""), ValidateOutcome::Temporary(_)));
    }

    proptest! {
        #[test]
        fn any_answer_is_understood_somehow(status in 100..600_u16, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let secret = Secret::new("x");
            let mint = parse_mint(status, &body, &secret);
            let minted = matches!(mint, MintOutcome::Minted { .. });
            prop_assert!(!minted || status < 300);
            prop_assert_eq!(parse_validate(status, &body) == ValidateOutcome::Dead, status == 401);
        }
    }
}
