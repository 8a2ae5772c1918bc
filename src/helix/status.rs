//! Classification of answers by status, and the labels that they are counted under. ◆

use serde_json::Value;

use super::error::HelixError;
use super::request::Call;
use crate::model::json::Members;
use crate::model::masking::Masking;
use crate::model::secret::Secret;
use crate::model::text::one_line;

/// The longest part of a foreign text that is repeated to a person, in characters.
const EXCERPT: usize = 300;

/// Stands for the status of a request that was not answered, or not to its end.
pub(super) const NO_ANSWER: &str = "none";

/// The statuses that Twitch documents, and those of proxies on the way; `other` for the rest, so that answers
/// are counted under few names.
pub(super) fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        202 => "202",
        204 => "204",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        409 => "409",
        410 => "410",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}

/// Body of an answer outside of 2xx.
#[derive(Default)]
struct Refusal {
    message: String,
    id: Option<String>,
    /// Whether the body is an object with a status, an error or a message.
    is_twitch: bool,
}

impl Refusal {
    fn read(body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let Ok(members) = Members::of(&body) else { return Self::default() };
        let text = |name: &str| members.text(name).ok().flatten();
        let is_twitch = ["status", "error", "message"].iter().any(|name| members.has(name));
        Self { message: text("message").unwrap_or_default(), id: text("id"), is_twitch }
    }
}

pub(super) fn garbled(call: Call, what: &str) -> HelixError {
    HelixError::Garbled { message: format!("{}: {what}", call.name()).into() }
}

pub(super) fn excerpt(text: &str) -> Box<str> {
    one_line(text, EXCERPT).into()
}

/// The body of an answer without the token that it was asked with, should Twitch or a proxy repeat it.
pub(super) fn without_token(body: &[u8], token: &Secret) -> Vec<u8> {
    Masking::of(token.expose()).hide(&String::from_utf8_lossy(body)).into_bytes()
}

/// Classifies an answer outside of 2xx. `remaining` is the `Ratelimit-Remaining` header: a 429 with 0
/// left is the rate limit; with points left it is a quota.
pub(super) fn classify(call: Call, status: u16, remaining: Option<u32>, body: &[u8]) -> HelixError {
    let refusal = Refusal::read(body);
    let message = excerpt(&refusal.message);
    // Twitch's refusals are JSON objects, even with an empty message. These three routes are never unknown to it.
    let always_there = matches!(call, Call::GetUsers | Call::GetGrants | Call::GetConduits);
    let foreign = !refusal.is_twitch && matches!(status, 300..=400 | 403..=499) && status != 429;
    if foreign || (status == 404 && always_there) {
        let what = format!(
            "it is a {status}, and not as Twitch refuses; does `twitch.api_url` lead to Twitch's API?"
        );
        return garbled(call, &what);
    }
    match status {
        400 | 405 | 413 | 414 | 415 | 422 => HelixError::Invalid { message },
        401 => HelixError::Unauthorized { message },
        403 => HelixError::Forbidden { message },
        404 => HelixError::NotFound { message },
        409 => HelixError::Conflict {
            id: refusal.id.filter(|id| is_uuid(id)).map(Into::into).or_else(|| find_uuid(&message)),
        },
        410 => HelixError::Gone { message },
        429 if is_quota(call, remaining, &message) => HelixError::Quota { message },
        429 => HelixError::RateLimited,
        500..=599 => HelixError::Outage { status, message },
        _ => garbled(call, &format!("unexpected status {status}")),
    }
}

/// By the header first, by the text second.
fn is_quota(call: Call, remaining: Option<u32>, message: &str) -> bool {
    let text = message.to_ascii_lowercase();
    let names_quota = ["exceeded", "maximum", "limit reached", "conduit limit", "total cost"]
        .iter()
        .any(|p| text.contains(p))
        && !text.contains("rate limit");
    match remaining {
        Some(0) => false,
        Some(_) => names_quota || matches!(call, Call::CreateSubscription | Call::CreateConduit),
        None => names_quota,
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn find_uuid(text: &str) -> Option<Box<str>> {
    (0..text.len()).find_map(|start| text.get(start..start + 36).filter(|part| is_uuid(part))).map(Into::into)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_counted_under_few_names() {
        let names: std::collections::BTreeSet<&str> = (0..=u16::MAX).map(status_label).collect();
        assert_eq!(names.len(), 15, "{names:?}");
        assert_eq!((status_label(418), status_label(202)), ("other", "202"));
    }

    #[test]
    fn an_answer_that_repeats_the_token_does_not_get_it_into_an_error() {
        let token = Secret::new("abcdefghijklmnopqrstuvwxyz0123");
        for said in
            ["abcdefghijklmnopqrstuvwxyz0123", "stuvwxyz0123", "ABCDEFGHIJ", r"\u0061bcdefgh", "%61bcdefghij"]
        {
            let body = format!(r#"{{"message":"bad token {said}"}}"#);
            let error = classify(Call::GetUsers, 401, None, &without_token(body.as_bytes(), &token));
            assert!(error.to_string().contains("bad token [secret];"), "{error}");
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let name = |status, remaining, message: &str| {
            let body = format!(r#"{{"message":"{message}"}}"#);
            let error = classify(Call::CreateSubscription, status, remaining, body.as_bytes());
            format!("{error:?}").split([' ', '{']).next().unwrap().to_owned()
        };
        for (status, remaining, message, expected) in [
            (400, Some(5), "bad", "Invalid"),
            (401, None, "Invalid OAuth token", "Unauthorized"),
            (403, None, "subscription missing proper authorization", "Forbidden"),
            (404, None, "", "NotFound"),
            (409, None, "subscription already exists", "Conflict"),
            (410, None, "", "Gone"),
            (429, Some(0), "maximum subscriptions with type and condition exceeded", "RateLimited"),
            (429, Some(7), "maximum subscriptions with type and condition exceeded", "Quota"),
            (429, None, "websocket transport subscriptions total cost exceeded", "Quota"),
            (429, None, "Too Many Requests", "RateLimited"),
            (500, None, "", "Outage"),
            (302, None, "", "Garbled"),
        ] {
            assert_eq!(name(status, remaining, message), expected, "{status} {remaining:?} {message}");
        }
    }

    #[test]
    fn a_refusal_that_is_not_twitchs_points_to_the_address() {
        for (status, body) in
            [(404, "404 page not found"), (404, ""), (403, "<html>"), (405, "{}"), (301, "")]
        {
            let error = classify(Call::GetUsers, status, None, body.as_bytes());
            let HelixError::Garbled { message } = &error else { panic!("{status} {body}: {error:?}") };
            assert!(message.contains(&status.to_string()) && message.contains("api_url"), "{message}");
        }
        let json = br#"{"error":"Not Found","status":404,"message":""}"#;
        let error = classify(Call::GetConduits, 404, None, json);
        assert!(matches!(&error, HelixError::Garbled { .. }), "another service may speak JSON: {error:?}");
        let known =
            classify(Call::GetShards, 404, None, br#"{"error":"Not Found","status":404,"message":""}"#);
        assert!(matches!(known, HelixError::NotFound { .. }), "{known:?}");
    }

    #[test]
    fn the_id_of_a_conflict_is_found_in_either_place() {
        let uuid = "0d9e4a52-0000-4000-8000-6f21c5b70002";
        for body in [
            format!(
                r#"{{"error":"Conflict","status":409,"message":"subscription already exists; id={uuid}"}}"#
            ),
            format!(r#"{{"message":"subscription already exists","id":"{uuid}"}}"#),
        ] {
            let error = classify(Call::CreateSubscription, 409, None, body.as_bytes());
            assert!(matches!(error, HelixError::Conflict { id: Some(id) } if *id == *uuid), "{body}");
        }
        let error = classify(Call::CreateSubscription, 409, None, b"{\"message\":\"\xc3\xa9 exists\"}");
        assert!(matches!(error, HelixError::Conflict { id: None }));
    }

    proptest! {
        #[test]
        fn any_failure_is_understood_somehow(
            status in 300..600_u16, remaining in prop::option::of(any::<u32>()), body in prop::collection::vec(any::<u8>(), 0..120)
        ) {
            classify(Call::CreateSubscription, status, remaining, &body);
        }
    }
}
