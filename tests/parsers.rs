//! The seeds of the fuzz targets for what Twitch sends and people write, replayed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../fuzz/parsers_harness.rs"]
mod parsers_harness;

use std::fs;
use std::path::PathBuf;

use eventsubd::transport::websocket::frame::Message;

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
