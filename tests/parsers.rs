//! The seeds of the fuzz targets for what Twitch sends and people write, replayed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../fuzz/parsers_harness.rs"]
mod parsers_harness;

use std::fs;
use std::path::PathBuf;

use eventsubd::model::arrival::Arrival;
use eventsubd::model::catalog;
use eventsubd::model::subscription::Condition;
use eventsubd::model::time::Timestamp;
use eventsubd::samples::{self, SampleRequest, SampleUser};
use eventsubd::transport::websocket::frame::{self, Message};

/// Name and bytes of every seed of a target.
fn seeds(target: &str, least: usize) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let seeds: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    assert!(seeds.len() >= least, "{target}: {} seeds", seeds.len());
    seeds
}

/// The first part of a seed's name: its outcome. What a fuzzer found has no such part, and is only survived.
fn expected(name: &str) -> Option<&str> {
    name.split_once('-').map(|(outcome, _)| outcome)
}

#[test]
fn every_frame_has_the_outcome_that_its_name_says() {
    for (name, bytes) in seeds("frames", 20) {
        let outcome = match parsers_harness::frame(&bytes) {
            Ok(Message::Welcome { .. }) => "welcome",
            Ok(Message::Keepalive) => "keepalive",
            Ok(Message::Notification(_)) => "notification",
            Ok(Message::Reconnect { .. }) => "reconnect",
            Ok(Message::Revocation(_)) => "revocation",
            Ok(Message::Unknown { .. }) => "unknown",
            Err(_) => "error",
        };
        if let Some(expected) = expected(&name) {
            assert_eq!(outcome, expected, "{name}");
        }
    }
}

#[test]
fn every_answer_has_as_many_rows_as_its_name_says() {
    for (name, bytes) in seeds("helix_answers", 15) {
        let outcomes = parsers_harness::helix_answer(&bytes);
        let Some(expected) = expected(&name) else { continue };
        let [outcome] = &outcomes[..] else { panic!("{name} names no call") };
        let found = outcome.as_ref().map_or("error".to_owned(), ToString::to_string);
        assert_eq!(found, expected, "{name}: {outcome:?}");
    }
}

#[test]
fn every_configuration_has_the_outcome_that_its_name_says() {
    for (name, bytes) in seeds("configuration", 10) {
        let outcome = parsers_harness::configuration(&bytes);
        if let Some(expected) = expected(&name) {
            assert_eq!(if outcome.is_ok() { "valid" } else { "error" }, expected, "{name}: {outcome:?}");
        }
    }
    let example = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml.example")).unwrap();
    parsers_harness::configuration(&example).unwrap();
}

#[test]
fn every_template_has_the_outcome_that_its_name_says() {
    for (name, bytes) in seeds("templates", 10) {
        let outcome = parsers_harness::template(&bytes);
        let kind = match &outcome {
            Ok(text) if serde_json::from_str::<serde_json::Value>(text).is_ok() => "json",
            Ok(_) => "text",
            Err(_) => "error",
        };
        if let Some(expected) = expected(&name) {
            assert_eq!(kind, expected, "{name}: {outcome:?}");
        }
    }
}

#[test]
fn configurations_and_templates_cut_or_changed_anywhere_are_survived() {
    survives("configuration", |bytes| drop(parsers_harness::configuration(bytes)));
    survives("templates", |bytes| drop(parsers_harness::template(bytes)));
}

fn survives(target: &str, check: impl Fn(&[u8])) {
    for (_, bytes) in seeds(target, 10) {
        // Every seventh place: a template that uses all its fuel takes a while.
        for at in (0..bytes.len().min(200)).step_by(7) {
            for changed in [b'"', b'{', 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = changed;
                check(&bytes);
            }
            check(&bytes[..at]);
        }
    }
}

#[test]
fn bytes_cut_or_changed_anywhere_are_survived() {
    for (name, bytes) in seeds("frames", 20).into_iter().chain(seeds("helix_answers", 15)) {
        for at in 0..bytes.len().min(300) {
            for changed in [b'"', b'9', 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = changed;
                let _ = parsers_harness::frame(&bytes);
                assert!(!parsers_harness::helix_answer(&bytes).is_empty(), "{name}");
            }
            let _ = parsers_harness::frame(&bytes[..at]);
            let _ = parsers_harness::helix_answer(&bytes[..at]);
        }
    }
}

/// Each sample of each type, as a frame and as a message of its own.
#[test]
fn a_frame_says_the_same_as_the_payload_alone() {
    let user = |id: &str| SampleUser { id: id.to_owned(), login: "ann".to_owned(), name: "Ann".to_owned() };
    let (mut frames, mut identities) = (0, 0);
    for row in catalog::all() {
        let condition = Condition::from_pairs(row.condition.keys().map(|field| (field.as_str(), "7")));
        let request = SampleRequest {
            subscription_type: &row.name,
            version: &row.version,
            condition: &condition,
            user: &user,
            now: Timestamp::from_unix_millis(1_793_610_000_000),
            serial: 1,
            happening: None,
        };
        for text in samples::every_variant(&request) {
            let event = samples::message(&request, &text);
            let metadata = serde_json::json!({"message_id": event.message_id.as_str(), "message_type": "notification",
                "message_timestamp": event.message_timestamp, "subscription_type": row.name,
                "subscription_version": row.version});
            let payload = std::str::from_utf8(&event.payload).unwrap();
            // As Twitch writes it, and otherwise.
            for frame in [
                format!(r#"{{"metadata":{metadata},"payload":{payload}}}"#),
                format!(r#"{{"metadata":{metadata},"payload": {payload} }}"#),
                format!(r#"{{ "payload":{payload},"metadata":{metadata}}}"#),
                format!(r#"{{"metadata":{metadata},"payload":{payload},"more":{payload}}}"#),
            ] {
                let Ok(Message::Notification(arrival)) = frame::parse(frame.as_bytes()) else {
                    panic!("{frame}")
                };
                assert_eq!(arrival, Arrival::from(event.clone()), "{frame}");
                frames += 1;
            }
            for broken in [
                format!(r#"{{"metadata":{metadata},"payload":{payload},"payload":{payload}}}"#),
                format!(r#"{{"metadata":{metadata},"payload":{payload}}}}}"#),
                format!(r#"{{"metadata":[{metadata}],"payload":{payload}}}"#),
                format!(r#"{{"metadata":{metadata},"payload":{payload}"#),
                format!(r#"{{"metadata":{metadata},"payload":{payload}]"#),
                format!("{{\"metadata\":{metadata},\"payload\":\u{c}{payload}}}"),
            ] {
                assert!(frame::parse(broken.as_bytes()).is_err(), "{broken}");
            }
            let (_, identity, _) = Arrival::from(event).into_parts();
            assert_eq!(identity.is_some(), !row.identity.is_empty(), "{} {}: {text}", row.name, row.version);
            identities += usize::from(identity.is_some());
        }
    }
    assert!(frames > 4 * 89 && identities > 45, "{frames} {identities}");
}
