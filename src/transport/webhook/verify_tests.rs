use bytes::Bytes;
use http::header::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::model::json::testing::changes;
use crate::model::secret::Secret;
use crate::model::webhook::WebhookKey;

const NOW: u64 = 1_793_610_000_000;
const SECRETS: [&str; 3] = ["the-current-secret", "the-one-before-it", "somebody-else's"];

fn key(nth: usize) -> WebhookKey {
    WebhookKey::new(Secret::new(SECRETS[nth])).unwrap()
}

fn keys() -> WebhookKeys {
    WebhookKeys::new(key(0), [key(1)])
}

fn now() -> SystemTime {
    Timestamp::from_unix_millis(NOW).0
}

fn headers(signer: &WebhookKey, id: &[u8], kind: &str, time: &[u8], body: &[u8]) -> HeaderMap {
    let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(MESSAGE_ID, value(id));
    headers.insert(MESSAGE_TYPE, value(kind.as_bytes()));
    headers.insert(MESSAGE_TIMESTAMP, value(time));
    headers.insert(MESSAGE_SIGNATURE, value(signer.signer.sign(id, time, body).as_bytes()));
    headers
}

fn at(offset_millis: i64) -> String {
    Timestamp::from_unix_millis(NOW.saturating_add_signed(offset_millis)).to_string()
}

const BODY: &str = r#"{"subscription":{"id":"s","type":"t","version":"1"},"event":{}}"#;

#[test]
fn ten_minutes_either_way_are_listened_to() {
    for (offset, stale) in [
        (0, false),
        (-600_000, false),
        (-600_001, true),
        (600_000, false),
        (600_001, true),
        (-3_600_000, true),
    ] {
        let time = at(offset);
        let headers = headers(&key(0), b"m", "notification", time.as_bytes(), BODY.as_bytes());
        let signed = verify(&headers, None, &Bytes::from(BODY), &keys(), now()).unwrap();
        assert_eq!(signed.message == Message::Stale, stale, "{offset}");
        assert_eq!(signed.skew_millis, offset);
    }
    // The earliest and latest times that can be written.
    for time in ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"] {
        let headers = headers(&key(0), b"m", "notification", time.as_bytes(), BODY.as_bytes());
        for now in [SystemTime::UNIX_EPOCH, now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50)] {
            assert!(verify(&headers, None, &Bytes::from(BODY), &keys(), now).is_ok());
        }
    }
}

#[test]
fn what_is_not_signed_is_not_believed() {
    // A recorded message cannot be turned into one of another kind.
    let challenge = r#"{"challenge":"x","subscription":{"id":"s","type":"t","version":"1"}}"#;
    for (kind, body) in [("notification", challenge), ("webhook_callback_verification", BODY)] {
        let headers = headers(&key(0), b"m", kind, at(0).as_bytes(), body.as_bytes());
        let outcome = verify(&headers, None, &Bytes::from(body), &keys(), now());
        assert!(matches!(outcome, Err(Rejection::Unreadable(_))), "{outcome:?}");
    }
    let mut headers = headers(&key(0), b"m", "notification", at(0).as_bytes(), BODY.as_bytes());
    headers.insert("twitch-eventsub-subscription-type", HeaderValue::from_static("channel.cheer"));
    headers.insert("twitch-eventsub-subscription-version", HeaderValue::from_static("9"));
    let signed = verify(&headers, None, &Bytes::from(BODY), &keys(), now()).unwrap();
    let Message::Notification(event) = signed.message else { panic!("a notification") };
    assert_eq!((&*event.subscription_type, &*event.subscription_version), ("t", "1"));
}

/// JSON in all valid spellings.
#[test]
fn a_signed_body_with_a_changed_member_is_read_or_the_rejection_names_it() {
    let subscription = serde_json::json!({"id": "s-1", "status": "enabled", "type": "stream.online", "version": "1",
        "cost": 1, "condition": {"broadcaster_user_id": "1"}, "created_at": "2026-11-02T09:00:01Z",
        "transport": {"method": "webhook", "callback": "https://x"}});
    // The members without which a message of this type cannot be used.
    let bodies: [(&str, serde_json::Value, &[&str]); 4] = [
        (
            "notification",
            serde_json::json!({"subscription": subscription, "event": {"id": "9", "type": "live"}}),
            &["subscription", "subscription/id", "subscription/type", "subscription/version", "event"],
        ),
        ("revocation", serde_json::json!({"subscription": subscription}), &["subscription"]),
        (
            "webhook_callback_verification",
            serde_json::json!({"challenge": "pogchamp", "subscription": subscription}),
            &["challenge"],
        ),
        (
            "webhook_callback_verification",
            serde_json::json!({"challenge": "pogchamp", "conduit_shard": {"conduit_id": "c", "shard": "3"}}),
            &["challenge"],
        ),
    ];
    let (mut read, mut rejected) = (0, 0);
    for (kind, good, needed) in bodies {
        for changed in changes(&good) {
            let body = changed.row.to_string();
            let headers = headers(&key(0), b"m", kind, at(0).as_bytes(), body.as_bytes());
            let case = format!("{kind} {} {}", changed.path, changed.how);
            match verify(&headers, None, &Bytes::from(body), &keys(), now()) {
                Ok(_) => read += 1,
                Err(Rejection::Unreadable(what)) => {
                    assert!(needed.contains(&&changed.path[1..]), "{case}: {what}");
                    assert!(what.contains(changed.name()), "{case}: {what}");
                    rejected += 1;
                }
                Err(other) => panic!("{case}: {other}"),
            }
        }
    }
    assert!(read > 150 && rejected > 20, "{read} {rejected}");
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
        "\"([ !#-\\[\\]-~\u{e9}\u{1f600}]|\\\\[\"\\\\/bfnrt]|\\\\u00[0-9a-fA-F]{2}){0,12}\"",
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let space = "[ \t\r\n]{0,2}";
        let item = (space, inner, space).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let member = ("[a-z]{1,4}", item.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            prop::collection::vec(item, 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn a_correct_request_is_accepted_however_its_body_is_written(
        event in json(), batched: bool, spaces in prop::collection::vec("[ \t\r\n]{0,3}", 5), more in json(),
        first: bool, which in 0..2_usize, named in 0..4_usize, shard: Option<u32>,
        id in "[!-~]{1,255}", offset in -600_000..600_000_i64,
    ) {
        let name = if batched { "events" } else { "event" };
        let subscription = r#""subscription" : {"version":"1", "type":"t", "id":"s","transport":{}}"#;
        let event = format!("\"{name}\":{}{event}", spaces[0]);
        let more = format!("\"added_by_twitch\":{more}");
        let members = if first { [event, more, subscription.to_owned()] } else { [subscription.to_owned(), event, more] };
        let inner = members.join(&format!("{},{}", spaces[1], spaces[2]));
        let text = format!("{}{{{inner}}}{}", spaces[3], spaces[4]);
        let body = Bytes::from(text.clone());
        let time = at(offset);
        let headers = headers(&key(which), id.as_bytes(), "notification", time.as_bytes(), &body);
        let query = match named {
            0 => None,
            1 => Some("anything&at=all".to_owned()),
            nth => Some(format!("key={}{}", key(nth - 2).id, shard.map_or(String::new(), |s| format!("&shard={s}")))),
        };
        let signed = verify(&headers, query.as_deref(), &body, &keys(), now()).unwrap();
        prop_assert_eq!(signed.key, key(which).id);
        prop_assert_eq!(signed.shard, if named > 1 { shard.map(ShardId) } else { None });
        prop_assert_eq!(signed.skew_millis, offset);
        let Message::Notification(event) = signed.message else { panic!("a notification") };
        prop_assert_eq!(&event.payload, text.trim_ascii().as_bytes());
        prop_assert!(!body.as_ptr_range().contains(&event.payload.as_ptr()), "the buffer of the socket is free again");
        prop_assert_eq!(event.message_id.as_str(), id);
        prop_assert_eq!(&*event.message_timestamp, time);
    }

    #[test]
    fn no_request_makes_it_panic_and_only_signed_ones_are_read(
        which in 0..3_usize, kind in prop_oneof![
            Just("notification".to_owned()), Just("webhook_callback_verification".to_owned()),
            Just("revocation".to_owned()), "[ -~]{0,30}",
        ],
        id in prop::collection::vec(prop_oneof![32..127_u8, 128..=255_u8], 0..300),
        time in prop_oneof![Just(at(0).into_bytes()), prop::collection::vec(prop_oneof![32..127_u8, 128..=255_u8], 0..40)],
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), json().prop_map(String::into_bytes)],
        query in prop::option::of(".{0,40}"),
        twice in prop::option::of(0..4_usize), missing in prop::option::of(0..4_usize), garbled: bool,
    ) {
        let body = Bytes::from(body);
        let mut headers = headers(&key(which), &id, &kind, &time, &body);
        let names = [MESSAGE_ID, MESSAGE_TYPE, MESSAGE_TIMESTAMP, MESSAGE_SIGNATURE];
        if garbled {
            let mut signature = headers[MESSAGE_SIGNATURE].as_bytes().to_vec();
            let last = signature.len() - 1;
            signature[last] = if signature[last] == b'0' { b'1' } else { b'0' };
            headers.insert(MESSAGE_SIGNATURE, HeaderValue::from_bytes(&signature).unwrap());
        }
        if let Some(twice) = twice {
            let value = headers[&names[twice]].clone();
            headers.append(names[twice].clone(), value);
        }
        if let Some(missing) = missing {
            headers.remove(&names[missing]);
        }
        let outcome = verify(&headers, query.as_deref(), &body, &keys(), now());
        let whole = twice.is_none_or(|twice| missing == Some(twice)) && missing.is_none();
        match outcome {
            Err(Rejection::Headers(_)) => prop_assert!(!whole),
            Err(Rejection::Signature) => prop_assert!(whole && (garbled || which == 2)),
            _ => prop_assert!(whole && !garbled && which != 2),
        }
    }
}
