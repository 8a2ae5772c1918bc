//! The seeds of the fuzz target, and every event that Twitch has, through the verification of webhooks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../fuzz/webhook_harness.rs"]
mod webhook_harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use eventsubd::model::catalog::{self, TypeVersion};
use eventsubd::model::subscription::Condition;
use eventsubd::model::time::Timestamp;
use eventsubd::samples::{self, SampleRequest, SampleUser};
use eventsubd::transport::webhook::verify::{Challenged, Message, Rejection, Signed};
use eventsubd::transport::websocket::frame;
use webhook_harness::{NOW, Request, outcomes};

/// In a word.
fn word(outcome: &Result<Signed, Rejection>) -> &'static str {
    match outcome {
        Ok(signed) => match signed.message {
            Message::Challenge { .. } => "challenge",
            Message::Notification(_) => "notification",
            Message::Revocation(_) => "revocation",
            Message::Unknown { .. } => "unknown",
            Message::Stale => "stale",
        },
        Err(Rejection::Headers(_) | Rejection::Signature) => "refused",
        Err(Rejection::Unreadable(_)) => "unreadable",
    }
}

fn seeds() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/webhook_verify")
}

fn full_condition(row: &TypeVersion) -> Condition {
    let fields: Vec<(&str, String)> =
        row.condition.keys().zip(7001..).map(|(field, n)| (field.as_str(), n.to_string())).collect();
    Condition::from_pairs(fields.iter().map(|(field, value)| (*field, value.as_str())))
}

/// `"subscription":{…},"event":{…}` of a type.
fn members(row: &TypeVersion) -> String {
    let condition = full_condition(row);
    let user = |id: &str| SampleUser { id: id.to_owned(), login: format!("l{id}"), name: format!("L{id}") };
    let event = samples::event(&SampleRequest {
        subscription_type: &row.name,
        version: &row.version,
        condition: &condition,
        user: &user,
        now: Timestamp::from_unix_millis(NOW * 1_000),
        serial: 1,
        happening: None,
    });
    let condition: BTreeMap<&str, &str> = condition.iter().collect();
    let condition = serde_json::to_string(&condition).unwrap();
    let name = if event.starts_with('[') { "events" } else { "event" };
    format!(
        r#""subscription":{{"id":"0d9e4a52-0000-4000-8000-6f21c5b70002","status":"enabled","type":"{}","version":"{}","cost":0,"condition":{condition},"transport":{{"method":"webhook","callback":"https://hooks.example.net/twitch/main"}},"created_at":"2026-11-02T08:15:27.441930118Z"}},"{name}":{event}"#,
        row.name, row.version
    )
}

const TIME: &str = "2026-11-02T08:59:59.512345678Z";

/// A file with a signature that holds.
fn file(kind: &str, time: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "?key=0123abcd\ntwitch-eventsub-message-id: 2f6f0c1e-0000-4000-8000-70a1c2de0101\n\
         twitch-eventsub-message-type: {kind}\ntwitch-eventsub-message-timestamp: {time}"
    );
    let mut request = Request::read(format!("{head}\n\n{body}").as_bytes());
    request.sign();
    let signature = request.headers["twitch-eventsub-message-signature"].to_str().unwrap();
    format!("{head}\ntwitch-eventsub-message-signature: {signature}\n\n{body}").into_bytes()
}

#[test]
fn every_seed_has_the_outcome_that_its_name_says() {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    let mut total = 0;
    for entry in fs::read_dir(seeds()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let [as_it_is, _signed] = outcomes(&fs::read(&path).unwrap());
        total += 1;
        // Inputs that the fuzzer found have a number as their name; any answer to them is right.
        if let Some((expected, _)) = name.split_once('-') {
            assert_eq!(word(&as_it_is), expected, "{name}: {as_it_is:?}");
            *found.entry(word(&as_it_is)).or_default() += 1;
        }
    }
    let types = catalog::all().len();
    for (outcome, least) in [
        ("challenge", 3),
        ("notification", types),
        ("revocation", 1),
        ("unknown", 1),
        ("stale", 2),
        ("refused", 6),
        ("unreadable", 6),
    ] {
        let many = found.get(outcome).copied().unwrap_or_default();
        assert!(many >= least, "{many} seeds of {total} are called {outcome}-…, {least} are expected");
    }
}

#[test]
fn every_type_gives_the_event_that_the_websocket_gives() {
    assert!(catalog::all().len() > 80);
    for row in catalog::all() {
        let members = members(row);
        // Blanks between tokens are neither moved nor removed, except at the ends.
        for body in [format!("{{{members}}}"), format!("\r\n {{ {members}\n}} \n")] {
            let [Ok(Signed { message: Message::Notification(event), .. }), _] =
                outcomes(&file("notification", TIME, &body))
            else {
                panic!("{} {}: no notification", row.name, row.version)
            };
            let text = format!(
                r#"{{"metadata":{{"message_id":"2f6f0c1e-0000-4000-8000-70a1c2de0101","message_type":"notification","message_timestamp":"{TIME}","subscription_type":"{}","subscription_version":"{}"}},"payload":{}}}"#,
                row.name,
                row.version,
                body.trim()
            );
            let Ok(frame::Message::Notification(of_socket)) = frame::parse(&Bytes::from(text)) else {
                panic!("{}: no frame", row.name)
            };
            assert_eq!(event, of_socket);
        }
    }
}

#[test]
fn challenges_say_what_they_are_about() {
    for (name, about) in [
        ("challenge-subscription", Challenged::Subscription("s-1".into())),
        (
            "challenge-shard",
            Challenged::Shard { conduit_id: "c-1".into(), shard: Some(eventsubd::model::shard::ShardId(1)) },
        ),
        ("challenge-alone", Challenged::Nothing),
    ] {
        let [outcome, _] = outcomes(&fs::read(seeds().join(name)).unwrap());
        let Ok(Signed { message: Message::Challenge { about: found, .. }, .. }) = outcome else {
            panic!("{name}: {outcome:?}")
        };
        assert_eq!(found, about);
    }
}

/// Writes the seeds anew: `cargo test --test webhook_verify -- --ignored write_the_seeds`.
#[test]
#[ignore = "changes the seeds; to be called by hand when there are new types or new kinds of requests"]
fn write_the_seeds() {
    let folder = seeds();
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    for row in catalog::all() {
        let name = format!("notification-{}-{}", row.name, row.version);
        write(&name, &file("notification", TIME, &format!("{{{}}}", members(row))));
    }
    let body = r#"{"subscription":{"id":"s-1","status":"user_removed","type":"channel.follow","version":"2"},"event":{"n":1.50}}"#;
    let challenge = "webhook_callback_verification";
    for (name, kind, time, body) in [
        (
            "challenge-subscription",
            challenge,
            TIME,
            r#"{"challenge":"a\u00e4\n","subscription":{"id":"s-1"}}"#,
        ),
        (
            "challenge-shard",
            challenge,
            TIME,
            r#"{"challenge":"z81","conduit_shard":{"conduit_id":"c-1","shard":"1"}}"#,
        ),
        ("challenge-alone", challenge, TIME, r#"{"challenge":"probe"}"#),
        ("revocation-user", "revocation", TIME, body),
        ("unknown-type", "something_new", TIME, body),
        ("stale-old", "notification", "2026-11-02T08:49:59Z", body),
        ("stale-future", "notification", "2026-11-02T09:10:01Z", body),
        ("notification-oldest", "notification", "2026-11-02T08:50:00Z", body),
        ("notification-newest", "notification", "2026-11-02T09:10:00Z", body),
        ("unreadable-time", "notification", "yesterday", body),
        ("unreadable-empty", "notification", TIME, ""),
        ("unreadable-deep", "notification", TIME, &"[".repeat(1_000)),
        ("unreadable-event", "notification", TIME, r#"{"subscription":{"id":"s","type":"t","version":"1"}}"#),
        ("unreadable-challenge", challenge, TIME, r#"{"challenge":{}}"#),
        ("unreadable-revocation", "revocation", TIME, r#"{"subscription":[]}"#),
    ] {
        write(name, &file(kind, time, body));
    }
    let good = String::from_utf8(file("notification", TIME, body)).unwrap();
    for (name, text) in [
        ("refused-empty", String::new()),
        ("refused-body", good.replace("1.50", "1.51")),
        ("refused-id", good.replace("70a1c2de0101", "70a1c2de0102")),
        ("refused-unsigned", good.replace("message-signature", "message-nothing")),
        ("refused-upper", good.replace("sha256=", "SHA256=")),
        ("refused-short", good.replace("sha256=", "sha256=\nx: ")),
        (
            "refused-repeated",
            good.replace(
                "twitch-eventsub-message-type",
                "twitch-eventsub-message-type: a\ntwitch-eventsub-message-type",
            ),
        ),
    ] {
        write(name, text.as_bytes());
    }
}
