use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::catalog::{self, TypeVersion};

/// More serials than any type has variants, by far.
const SERIALS: std::ops::Range<u64> = 0..60;

fn user(id: &str) -> SampleUser {
    SampleUser { id: id.to_owned(), login: format!("login_{id}"), name: format!("Name_{id}") }
}

fn sample(row: &TypeVersion, condition: &Condition, serial: u64) -> String {
    let now = Timestamp::parse("2026-11-02T08:15:27.441Z").expect("valid");
    let (subscription_type, version) = (row.name.as_str(), row.version.as_str());
    event(&SampleRequest { subscription_type, version, condition, user: &user, now, serial })
}

/// All fields of the row, each with a value of its own.
fn full_condition(row: &TypeVersion) -> Condition {
    let fields: BTreeMap<&str, String> =
        row.condition.keys().zip(7001..).map(|(field, n)| (field.as_str(), format!("{n}"))).collect();
    Condition::from_pairs(fields.iter().map(|(field, value)| (*field, value.as_str())))
}

fn parse(row: &TypeVersion, text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{} {}: {error}: {text}", row.name, row.version))
}

/// The strings in the value, each with the name of the member that holds it.
fn strings<'a>(name: &'a str, value: &'a Value, out: &mut Vec<(&'a str, &'a str)>) {
    match value {
        Value::String(text) => out.push((name, text)),
        Value::Array(items) => items.iter().for_each(|item| strings(name, item, out)),
        Value::Object(members) => members.iter().for_each(|(name, value)| strings(name, value, out)),
        _ => {}
    }
}

/// Condition fields that decide who may see the events, and are not in them (Twitch: "EventSub Reference").
fn is_absent(row: &TypeVersion, field: &str) -> bool {
    match field {
        "user_id" => {
            row.name.starts_with("channel.chat") && !row.name.starts_with("channel.chat.user_message_")
        }
        "moderator_user_id" => matches!(
            row.name.as_str(),
            "automod.message.hold"
                | "channel.follow"
                | "channel.guest_star_session.begin"
                | "channel.guest_star_session.end"
                | "channel.guest_star_settings.update"
                | "channel.shoutout.receive"
                | "channel.suspicious_user.message"
                | "channel.unban_request.create"
                | "channel.warning.acknowledge"
        ),
        "client_id" => row.name == "conduit.shard.disabled",
        _ => false,
    }
}

#[test]
fn templates_and_catalogue_have_the_same_rows() {
    let rows: HashSet<String> =
        catalog::all().iter().map(|row| format!("{} {}", row.name, row.version)).collect();
    let templates: HashSet<String> = TEMPLATES.keys().map(|&key| key.to_owned()).collect();
    assert_eq!(rows, templates);
    assert!(TEMPLATES.values().all(|variants| !variants.is_empty()));
    let texts: usize = FAMILIES.iter().map(|text| text.matches("\n  \"").count()).sum();
    assert_eq!(texts, rows.len(), "a row stands in one family only");
}

#[test]
fn every_row_gives_json_of_the_right_shape_without_placeholders() {
    for row in catalog::all() {
        for condition in [full_condition(row), Condition::default()] {
            for serial in SERIALS {
                let text = sample(row, &condition, serial);
                assert!(!text.contains("{{") && !text.contains('\n'), "{}: {text}", row.name);
                let value = parse(row, &text);
                assert_eq!(value.is_array(), row.batched, "{}", row.name);
                assert_eq!(value.is_object(), !row.batched, "{}", row.name);
            }
        }
    }
}

#[test]
fn values_of_the_condition_are_in_the_event() {
    for row in catalog::all() {
        let condition = full_condition(row);
        for serial in SERIALS {
            let value = parse(row, &sample(row, &condition, serial));
            let mut found = Vec::new();
            strings("", &value, &mut found);
            for (field, wanted) in condition.iter().filter(|(field, _)| !is_absent(row, field)) {
                assert!(
                    found.iter().any(|(_, text)| *text == wanted),
                    "{} {}: no {field} in {value}",
                    row.name,
                    row.version
                );
            }
        }
    }
}

#[test]
fn logins_and_names_belong_to_their_ids() {
    fn check(members: &serde_json::Map<String, Value>, checked: &mut usize) {
        for (key, value) in members {
            if let (Some(prefix), Some(login)) = (key.strip_suffix("_login"), value.as_str()) {
                let id = members[&format!("{prefix}_id")].as_str().expect("an id beside a login");
                assert_eq!(login, user(id).login);
                assert_eq!(members[&format!("{prefix}_name")], user(id).name.as_str());
                *checked += 1;
            }
        }
    }
    fn walk(value: &Value, checked: &mut usize) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, checked)),
            Value::Object(members) => {
                check(members, checked);
                members.values().for_each(|value| walk(value, checked));
            }
            _ => {}
        }
    }
    let mut checked = 0;
    for row in catalog::all() {
        for serial in SERIALS {
            walk(&parse(row, &sample(row, &full_condition(row), serial)), &mut checked);
        }
    }
    assert!(checked > 5_000, "{checked}");
}

#[test]
fn text_of_a_chat_message_is_the_sum_of_its_fragments() {
    let mut checked = 0;
    for row in catalog::all() {
        for serial in SERIALS {
            let value = parse(row, &sample(row, &full_condition(row), serial));
            let message = &value["message"];
            if let Some(fragments) = message["fragments"].as_array() {
                let text: String =
                    fragments.iter().filter_map(|fragment| fragment["text"].as_str()).collect();
                assert_eq!(message["text"], text.as_str(), "{}", row.name);
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn serials_make_ids_differ_and_reach_all_variants() {
    let row = catalog::lookup("channel.chat.message", "1").expect("known");
    let condition = full_condition(row);
    assert_eq!(sample(row, &condition, 5), sample(row, &condition, 5));
    let values: Vec<Value> = SERIALS.map(|serial| parse(row, &sample(row, &condition, serial))).collect();
    let ids: HashSet<&str> = values.iter().filter_map(|value| value["message_id"].as_str()).collect();
    assert_eq!(ids.len(), values.len());
    for row in catalog::all() {
        let variants = &TEMPLATES[format!("{} {}", row.name, row.version).as_str()];
        let shapes = |step: u64| -> HashSet<usize> {
            let condition = &Condition::default();
            let request = |serial| SampleRequest {
                subscription_type: &row.name,
                version: &row.version,
                condition,
                user: &user,
                now: Timestamp::from_unix_millis(0),
                serial,
            };
            (0..200).map(|n| Values::new(&request(n * step)).variant(variants.len())).collect()
        };
        assert_eq!(shapes(1).len(), variants.len(), "{}", row.name);
        assert_eq!(shapes(84).len(), variants.len(), "{}", row.name);
    }
}

#[test]
fn every_variant_of_every_row_comes_once_and_in_the_same_way_each_time() {
    let condition = Condition::default();
    let now = Timestamp::from_unix_millis(0);
    let mut variants = 0;
    for row in catalog::all() {
        let (subscription_type, version) = (row.name.as_str(), row.version.as_str());
        let request =
            SampleRequest { subscription_type, version, condition: &condition, user: &user, now, serial: 1 };
        let texts = every_variant(&request);
        assert_eq!(texts.len(), templates(&request).expect("a row has templates").len());
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len(), "{subscription_type}");
        assert_eq!(texts, every_variant(&request));
        assert!(texts.contains(&event(&request)));
        variants += texts.len();
        let field = if row.batched { "events" } else { "event" };
        for text in texts {
            let message = message(&request, &text);
            let payload: Value = serde_json::from_slice(&message.payload).expect("JSON");
            assert_eq!(payload[field], parse(row, &text));
            assert_eq!(payload["subscription"]["type"], subscription_type);
        }
    }
    assert!(variants > catalog::all().len(), "{variants}");
}

#[test]
fn an_event_keeps_the_order_of_the_reference() {
    let row = catalog::lookup("channel.follow", "2").expect("known");
    let condition = Condition::from_pairs([("broadcaster_user_id", "12"), ("moderator_user_id", "34")]);
    let text = sample(row, &condition, 1);
    let value = parse(row, &text);
    let (id, at) = (value["user_id"].as_str().expect("text"), value["followed_at"].as_str().expect("text"));
    assert_eq!(
        text,
        format!(
            "{{\"user_id\":\"{id}\",\"user_login\":\"login_{id}\",\"user_name\":\"Name_{id}\",\
             \"broadcaster_user_id\":\"12\",\"broadcaster_user_login\":\"login_12\",\
             \"broadcaster_user_name\":\"Name_12\",\"followed_at\":\"{at}\"}}"
        )
    );
    let now = Timestamp::parse("2026-11-02T08:15:27.441Z").expect("valid");
    let at = Timestamp::parse(at).expect("a time");
    assert!(at < now && now.since(at).as_millis() < 2, "{at}");
}

#[test]
fn a_raid_is_filled_from_either_side() {
    let row = catalog::lookup("channel.raid", "1").expect("known");
    for (field, other) in [
        ("from_broadcaster_user_id", "to_broadcaster_user_id"),
        ("to_broadcaster_user_id", "from_broadcaster_user_id"),
    ] {
        let value = parse(row, &sample(row, &Condition::from_pairs([(field, "99")]), 3));
        assert_eq!(value[field], "99");
        assert!(value[other].as_str().is_some_and(|id| id != "99" && !id.is_empty()));
        assert!(value["viewers"].is_u64());
    }
}

#[test]
fn unknown_types_get_the_fields_of_the_condition() {
    let mut row = catalog::lookup("channel.follow", "2").expect("known").clone();
    row.name = "channel.of_tomorrow".to_owned();
    let condition = Condition::from_pairs([("broadcaster_user_id", "12"), ("pet_id", "a\"b")]);
    assert_eq!(
        sample(&row, &condition, 1),
        r#"{"broadcaster_user_id":"12","broadcaster_user_login":"login_12","broadcaster_user_name":"Name_12","pet_id":"a\"b"}"#
    );
}

proptest! {
    // Each case makes an event of every row.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_values_stay_values(
        id in r#"[\PC"\\{}=:.\n\u{0}\u{2028}é]{1,12}"#,
        name in r#"[\PC"\\{}=:.\n\u{0}\u{2028}é]{0,12}|\{\{=int:a:1:2\}\}"#,
        serial: u64,
        millis: u64,
    ) {
        let look_up = |_: &str| SampleUser { id: id.clone(), login: name.clone(), name: name.clone() };
        for row in catalog::all() {
            let fields = row.condition.keys().map(|field| (field.as_str(), id.as_str()));
            let condition = &Condition::from_pairs(fields);
            let now = Timestamp::from_unix_millis(millis);
            let (subscription_type, version) = (row.name.as_str(), row.version.as_str());
            let request = SampleRequest { subscription_type, version, condition, user: &look_up, now, serial };
            let text = event(&request);
            prop_assert_eq!(&text, &event(&request));
            let value = parse(row, &text);
            let mut found = Vec::new();
            strings("", &value, &mut found);
            for (member, text) in found {
                if member.ends_with("user_login") {
                    prop_assert_eq!(text, name.as_str());
                }
            }
        }
    }
}
