use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::catalog::{self, TypeVersion};
use crate::model::subscription::Condition;
use crate::model::time::Timestamp;

/// Enough serials for most variants of each type.
const SERIALS: std::ops::Range<u64> = 0..60;

fn user(id: &str) -> SampleUser {
    SampleUser { id: id.to_owned(), login: format!("login_{id}"), name: format!("Name_{id}") }
}

fn sample(row: &TypeVersion, condition: &Condition, serial: u64) -> String {
    let now = Timestamp::parse("2026-11-02T08:15:27.441Z").expect("valid");
    let (subscription_type, version) = (row.name.as_str(), row.version.as_str());
    event(&SampleRequest { subscription_type, version, condition, user: &user, now, serial, happening: None })
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
    let templates: HashSet<String> = templates::rows().map(str::to_owned).collect();
    assert_eq!(rows, templates);
    for row in catalog::all() {
        let names: Vec<&str> = variants(&row.name, &row.version).collect();
        assert!(!names.is_empty(), "{}", row.name);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{}: a name twice", row.name);
    }
    let texts: usize = templates::FAMILIES.iter().map(|text| text.matches("\n  \"").count()).sum();
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
        let list = description(&row.name, &row.version).expect("listed");
        let may_be_null =
            |field: &str| list.members.iter().any(|member| member.name == field && member.may_be_null);
        let mut shown = HashSet::new();
        for serial in SERIALS {
            let value = parse(row, &sample(row, &condition, serial));
            let mut found = Vec::new();
            strings("", &value, &mut found);
            for (field, wanted) in condition.iter().filter(|(field, _)| !is_absent(row, field)) {
                let is_there = found.iter().any(|(_, text)| *text == wanted);
                assert!(is_there || may_be_null(field), "{}: no {field} in {value}", row.name);
                if is_there {
                    shown.insert(field.to_owned());
                }
            }
        }
        let wanted = condition.iter().map(|(field, _)| field.to_owned());
        assert_eq!(shown, wanted.filter(|field| !is_absent(row, field)).collect(), "{}", row.name);
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
        let variants = variants(&row.name, &row.version).count();
        let shapes = |step: u64| -> HashSet<usize> {
            let condition = &Condition::default();
            let request = |serial| SampleRequest {
                subscription_type: &row.name,
                version: &row.version,
                condition,
                user: &user,
                now: Timestamp::from_unix_millis(0),
                serial,
                happening: None,
            };
            (0..1_500).map(|n| Values::new(&request(n * step)).variant(variants)).collect()
        };
        assert_eq!(shapes(1).len(), variants, "{}", row.name);
        assert_eq!(shapes(84).len(), variants, "{}", row.name);
    }
}

#[test]
fn every_variant_of_every_row_comes_once_and_in_the_same_way_each_time() {
    let condition = Condition::default();
    let now = Timestamp::from_unix_millis(0);
    let mut variants = 0;
    for row in catalog::all() {
        let (subscription_type, version) = (row.name.as_str(), row.version.as_str());
        let request = SampleRequest {
            subscription_type,
            version,
            condition: &condition,
            user: &user,
            now,
            serial: 1,
            happening: None,
        };
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

/// Values of a member over all variants.
#[derive(Default)]
struct Seen {
    filled: bool,
    null: bool,
    absent: bool,
    values: BTreeSet<String>,
}

/// Holds an object against its list of members, and notes what it shows.
fn hold(place: &str, members: &[Member], value: &Value, seen: &mut BTreeMap<String, Seen>) {
    let object = value.as_object().unwrap_or_else(|| panic!("{place}: no object: {value}"));
    for name in object.keys() {
        assert!(members.iter().any(|member| member.name == *name), "{place}: {name} is not in the list");
    }
    for member in members {
        let path = format!("{place}.{}", member.name);
        let note = seen.entry(path.clone()).or_default();
        match object.get(&member.name) {
            None => {
                assert!(member.may_be_absent, "{path} is missing");
                note.absent = true;
            }
            Some(Value::Null) => {
                assert!(member.may_be_null, "{path} is null");
                note.null = true;
            }
            Some(Value::Array(items)) => {
                assert!(member.is_list, "{path} is a list");
                note.filled |= !items.is_empty();
                for item in items {
                    single(&path, member, item, seen);
                }
            }
            Some(value) => {
                assert!(!member.is_list, "{path} is not a list: {value}");
                note.filled |= value != "";
                single(&path, member, value, seen);
            }
        }
    }
}

fn single(path: &str, member: &Member, value: &Value, seen: &mut BTreeMap<String, Seen>) {
    let fits = match &member.kind {
        Kind::Text => value.is_string(),
        Kind::Int => value.is_i64() || value.is_u64(),
        Kind::Bool => value.is_boolean(),
        Kind::Time => value.as_str().is_some_and(|text| Timestamp::parse(text).is_some()),
        Kind::Null => false,
        Kind::Object(members) => return hold(path, members, value, seen),
    };
    assert!(fits, "{path}: {value} is not of the kind {:?}", member.kind);
    if let (false, Some(text)) = (member.values.is_empty(), value.as_str()) {
        assert!(member.values.contains(&text), "{path}: {text} is not a listed value");
        seen.entry(path.to_owned()).or_default().values.insert(text.to_owned());
    }
}

/// Finds the members that are filled in no variant, or null or absent in none though they may be.
fn uncovered(place: &str, members: &[Member], seen: &BTreeMap<String, Seen>, problems: &mut Vec<String>) {
    for member in members {
        let path = format!("{place}.{}", member.name);
        let Some(note) = seen.get(&path) else {
            problems.push(format!("{path} is in no variant"));
            continue;
        };
        let mut demand = |holds: bool, what: &str| {
            if !holds {
                problems.push(format!("{path} is {what} no variant"));
            }
        };
        demand(note.filled || matches!(member.kind, Kind::Null), "filled in");
        demand(note.null || !member.may_be_null, "null in");
        demand(note.absent || !member.may_be_absent, "left out of");
        for value in &member.values {
            demand(note.values.contains(*value), &format!("`{value}` in"));
        }
        if let Kind::Object(inner) = &member.kind {
            uncovered(&path, inner, seen, problems);
        }
    }
}

fn count(members: &[Member]) -> usize {
    let inner = |member: &Member| if let Kind::Object(inner) = &member.kind { count(inner) } else { 0 };
    members.iter().map(|member| 1 + inner(member)).sum()
}

/// The names of the members of all objects in a JSON text, in the order of the text.
fn names_in_order(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        rest = &rest[start + 1..];
        let mut end = 0;
        while !rest[end..].starts_with('"') {
            end += if rest[end..].starts_with('\\') { 2 } else { 1 };
        }
        if rest[end + 1..].starts_with(':') {
            names.push(&rest[..end]);
        }
        rest = &rest[end + 1..];
    }
    names
}

/// The names that the list has for a value, in its order.
fn names_listed<'a>(members: &'a [Member], value: &Value, names: &mut Vec<&'a str>) {
    for member in members {
        let Some(value) = value.get(&member.name) else { continue };
        names.push(&member.name);
        if let Kind::Object(inner) = &member.kind {
            match value {
                Value::Array(items) => items.iter().for_each(|item| names_listed(inner, item, names)),
                value => names_listed(inner, value, names),
            }
        }
    }
}

#[test]
fn every_member_of_the_list_is_in_the_samples_and_no_other() {
    let (mut members, mut problems) = (0, Vec::new());
    for row in catalog::all() {
        let place = format!("{} {}", row.name, row.version);
        let description =
            description(&row.name, &row.version).unwrap_or_else(|| panic!("{place} has no list"));
        assert!(description.sentence.ends_with('.'), "{place}: {}", description.sentence);
        let condition = full_condition(row);
        let request = SampleRequest {
            subscription_type: &row.name,
            version: &row.version,
            condition: &condition,
            user: &user,
            now: Timestamp::parse("2026-11-02T08:15:27.441Z").expect("valid"),
            serial: 1,
            happening: None,
        };
        let mut seen = BTreeMap::new();
        for text in every_variant(&request) {
            let value = parse(row, &text);
            let events = if row.batched { value.as_array().expect("a list").clone() } else { vec![value] };
            let mut listed = Vec::new();
            for event in &events {
                hold(&place, &description.members, event, &mut seen);
                names_listed(&description.members, event, &mut listed);
            }
            assert_eq!(names_in_order(&text), listed, "{place}: order of the members");
        }
        uncovered(&place, &description.members, &seen, &mut problems);
        members += count(&description.members);
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(members > 1_000, "{members}");
}

#[test]
fn the_list_has_no_type_that_the_catalogue_lacks() {
    let list = members::read(include_str!("members.txt")).expect("readable");
    let rows: HashSet<String> =
        catalog::all().iter().map(|row| format!("{} {}", row.name, row.version)).collect();
    assert_eq!(list.keys().cloned().collect::<HashSet<_>>(), rows);
}

#[test]
fn a_list_of_members_that_cannot_be_read_is_an_error() {
    for text in [
        "  id",
        "channel.x | No version.\n",
        "channel.x 1 | Unknown shape.\n  a:nothing",
        "channel.x 1 | Open.\n  a:(b",
        "channel.x 1 | Closed twice.\n  a)",
        "channel.x 1 | Odd mark.\n  a!",
        "= a\n  b\n= a\n",
    ] {
        assert!(members::read(text).is_err(), "{text}");
    }
}

/// One event of each type, of the same happening where the types share one.
fn told(happenings: &mut Happenings, name: &str, version: &str, broadcaster: &str, second: u64) -> Value {
    let row = catalog::lookup(name, version).expect("known");
    let condition = Condition::from_pairs(row.condition.keys().map(|field| match field.as_str() {
        "broadcaster_user_id" => ("broadcaster_user_id", broadcaster),
        field => (field, "4711"),
    }));
    let now = Timestamp::from_unix_millis(1_780_000_000_000 + second * 1_000);
    let happening = happenings.record(name, &condition, now);
    let request = SampleRequest {
        subscription_type: name,
        version,
        condition: &condition,
        user: &user,
        now,
        serial: second,
        happening,
    };
    parse(row, &event(&request))
}

#[test]
fn events_of_one_happening_share_ids_users_and_its_beginning() {
    let polls: [(&str, &str); 3] =
        [("channel.poll.begin", "1"), ("channel.poll.progress", "1"), ("channel.poll.end", "1")];
    let mut happenings = Happenings::default();
    let mut second = 0;
    let mut tell = |name: &str, version: &str| {
        second += 1;
        told(&mut happenings, name, version, "12", second)
    };
    let (first, second): (Vec<Value>, Vec<Value>) = (
        polls.iter().map(|(name, version)| tell(name, version)).collect(),
        polls.iter().map(|(name, version)| tell(name, version)).collect(),
    );
    for poll in [&first, &second] {
        for member in ["id", "title", "started_at"] {
            assert!(poll.iter().all(|event| event[member] == poll[0][member]), "{member}: {poll:?}");
        }
        assert_eq!(poll[0]["choices"][0]["id"], poll[2]["choices"][0]["id"]);
        assert_eq!(poll[0]["ends_at"], poll[1]["ends_at"]);
    }
    assert_ne!(first[0]["id"], second[0]["id"]);
    let (online, offline, again) =
        (tell("stream.online", "1"), tell("stream.offline", "1"), tell("stream.online", "1"));
    assert_eq!(online["id"], offline["id"]);
    assert_ne!(online["id"], again["id"]);
    for _ in 0..12 {
        let (sub, message) = (tell("channel.subscribe", "1"), tell("channel.subscription.message", "1"));
        assert_eq!(sub["user_id"], message["user_id"]);
        if sub["is_gift"] == false {
            assert_eq!(sub["tier"], message["tier"]);
        }
        let (begin, end) = (tell("channel.goal.begin", "1"), tell("channel.goal.end", "1"));
        assert_eq!((&begin["id"], &begin["type"]), (&end["id"], &end["type"]));
        let (said, deleted) = (tell("channel.chat.message", "1"), tell("channel.chat.message_delete", "1"));
        assert_eq!(said["message_id"], deleted["message_id"]);
        assert_eq!(said["chatter_user_id"], deleted["target_user_id"]);
    }
    assert_ne!(
        told(&mut Happenings::default(), "stream.online", "1", "12", 1)["id"],
        told(&mut Happenings::default(), "stream.online", "1", "13", 1)["id"],
        "channels have streams of their own"
    );
}

#[test]
fn a_happening_whose_beginning_was_not_sent_has_events_all_the_same() {
    let mut happenings = Happenings::default();
    let ends: HashSet<String> = (1..20)
        .map(|second| told(&mut happenings, "channel.poll.end", "1", "12", second)["id"].to_string())
        .collect();
    assert_eq!(ends.len(), 19);
}

#[test]
fn the_next_type_of_a_series_is_the_one_that_comes_next_in_the_channel() {
    let mut happenings = Happenings::default();
    let condition = Condition::from_pairs([("broadcaster_user_id", "12")]);
    let now = Timestamp::from_unix_millis(0);
    let listed = |kind: &str| kind != "channel.poll.progress";
    for _ in 0..3 {
        assert_eq!(happenings.next("channel.poll.end", &condition, listed), "channel.poll.begin");
        happenings.record("channel.poll.begin", &condition, now);
        assert_eq!(happenings.next("channel.poll.begin", &condition, listed), "channel.poll.end");
        happenings.record("channel.poll.end", &condition, now);
    }
    assert_eq!(happenings.next("channel.follow", &condition, listed), "channel.follow");
    assert_eq!(happenings.next("channel.poll.end", &condition, |_| false), "channel.poll.end");
}

#[test]
fn a_variant_is_found_by_its_name() {
    let row = catalog::lookup("channel.moderate", "2").expect("known");
    let condition = full_condition(row);
    let request = SampleRequest {
        subscription_type: &row.name,
        version: &row.version,
        condition: &condition,
        user: &user,
        now: Timestamp::from_unix_millis(0),
        serial: 1,
        happening: None,
    };
    for name in variants(&row.name, &row.version) {
        let event = parse(row, &variant(&request, name).expect("listed"));
        assert!(name.starts_with(event["action"].as_str().expect("text")), "{name}: {event}");
    }
    assert!(variant(&request, "dance").is_none());
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
            let request = SampleRequest { subscription_type, version, condition, user: &look_up, now, serial, happening: None };
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

#[test]
fn samples_have_the_identity_that_the_catalogue_names() {
    let mut seen = 0;
    for row in catalog::all().iter().filter(|row| !row.identity.is_empty()) {
        let condition = full_condition(row);
        let now = Timestamp::parse("2026-11-02T08:15:27.441Z").expect("valid");
        let (subscription_type, version) = (row.name.as_str(), row.version.as_str());
        for serial in [1, 2] {
            let request = SampleRequest {
                subscription_type,
                version,
                condition: &condition,
                user: &user,
                now,
                serial,
                happening: None,
            };
            let sent = message(&request, &event(&request));
            let identity = crate::model::happening::identity(&sent);
            assert!(
                identity.is_some(),
                "{} {}: {:?} in {:?}",
                row.name,
                row.version,
                row.identity,
                sent.payload
            );
        }
        seen += 1;
    }
    assert!(seen > 30, "only {seen} types have one");
}
