//! The news of other hosts that count.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::event::MessageId;
use crate::model::last_known::{CHANNEL, OFFLINE, ONLINE};

const CACHE: u64 = 120_000;

/// An event of channel 1, sent at this second. That of a catch-up has an id of its own kind.
fn event(kind: &str, second: u64, about: &str, is_caught_up: bool) -> Event {
    let event = format!(r#"{{"broadcaster_user_id":"1",{about}}}"#);
    let id = if is_caught_up { format!("catch-up-{second}") } else { format!("m-{second}") };
    let event = Event {
        message_id: MessageId::new(&id).unwrap(),
        message_timestamp: format!("2026-11-26T10:00:{second:02}Z").into(),
        subscription_type: kind.into(),
        subscription_version: "1".into(),
        subscription_id: "s".into(),
        payload: Bytes::from(format!(r#"{{"subscription":{{}},"event":{event}}}"#)),
    };
    assert_eq!(event.is_caught_up(), is_caught_up);
    event
}

fn online(second: u64) -> Event {
    let about = format!(r#""id":"stream-{second}","started_at":"2026-11-26T10:00:{second:02}Z""#);
    event(ONLINE, second, &about, false)
}

fn offline(second: u64) -> Event {
    event(OFFLINE, second, r#""id":null"#, false)
}

fn title(second: u64, title: &str, is_caught_up: bool) -> Event {
    event(CHANNEL, second, &format!(r#""title":"{title}""#), is_caught_up)
}

fn knows(events: &[Event], now: u64) -> BTreeMap<Box<str>, LastKnown> {
    let mut known = BTreeMap::from([("1".into(), LastKnown::default())]);
    learn(&mut known, events, now);
    known
}

fn learn(known: &mut BTreeMap<Box<str>, LastKnown>, events: &[Event], now: u64) -> usize {
    let news = newer(known, events, now, CACHE);
    for news in &news {
        if let Applied::Changed(new) = known[&news.broadcaster].apply(news, now) {
            known.insert(news.broadcaster.clone(), new);
        }
    }
    news.len()
}

#[test]
fn a_stream_that_another_host_has_told_is_known() {
    let mut known = knows(&[offline(1)], 0);
    assert_eq!(learn(&mut known, &[offline(1), online(2)], 500_000), 1);
    let stream = known["1"].stream.clone().unwrap();
    assert!(stream.is_live && stream.id.as_deref() == Some("stream-2") && stream.at == 500_000);
    // Read again, the same event does not count as stored a moment ago.
    assert_eq!(learn(&mut known, &[offline(1), online(2)], 900_000), 0);
    assert_eq!(known["1"].stream.as_ref().unwrap().at, 500_000);
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let mut known = knows(&[online(1), offline(5)], 0);
    assert_eq!(learn(&mut known, &[offline(3), online(4)], 500_000), 0);
}

#[test]
fn a_channel_that_is_not_asked_for_is_left_alone() {
    let known = BTreeMap::from([("2".into(), LastKnown::default())]);
    assert_eq!(newer(&known, &[online(1)], 0, CACHE), []);
}

#[test]
fn what_an_earlier_leader_has_caught_up_is_known_unless_this_host_has_stored_something_right_before() {
    let caught_up = [title(9, "new", true)];
    let mut known = knows(&[title(1, "old", false)], 1_000);
    assert_eq!(learn(&mut known, &caught_up, 1_000 + CACHE - 1), 0);
    assert_eq!(learn(&mut known, &caught_up, 1_000 + CACHE), 1);
    assert_eq!(learn(&mut known, &caught_up, 1_000 + 3 * CACHE), 0);
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u64..60).prop_map(online),
        (0_u64..60).prop_map(offline),
        (0_u64..60, "[ab]", any::<bool>()).prop_map(|(second, text, by_us)| title(second, &text, by_us)),
    ]
}

proptest! {
    /// Events that are read once more change nothing, at any time.
    #[test]
    fn news_are_learned_once(
        before in prop::collection::vec(any_event(), 0..6),
        read in prop::collection::vec(any_event(), 0..3),
        later in 0_u64..1_000_000,
    ) {
        // The log has one event of each type at most.
        let mut read = read;
        let mut kinds = std::collections::BTreeSet::new();
        read.retain(|event| kinds.insert(event.subscription_type.clone()));
        let mut known = knows(&before, 0);
        learn(&mut known, &read, 2 * CACHE);
        prop_assert_eq!(learn(&mut known, &read, 2 * CACHE + later), 0);
    }
}
