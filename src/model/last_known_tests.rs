use proptest::prelude::*;

use super::*;
use crate::model::event::MessageId;

fn event(kind: &str, id: &str, sent: &str, members: &str) -> Event {
    Event {
        message_id: MessageId::new(id).expect("an id"),
        message_timestamp: sent.into(),
        subscription_type: kind.into(),
        subscription_version: "1".into(),
        subscription_id: "s".into(),
        payload: format!(r#"{{"subscription":{{}},"event":{{"broadcaster_user_id":"7"{members}}}}}"#)
            .into_bytes()
            .into(),
    }
}

const SENT: &str = "1970-01-01T00:00:09Z";

#[test]
fn events_of_three_types_say_what_their_channel_is() {
    let of = |kind, id, members| news(&event(kind, id, SENT, members)).map(|news| (news.change, news.source));
    let started = r#","id":"9001","started_at":"1970-01-01T00:00:05Z""#;
    let online = |since| Change::Online { id: "9001".into(), started: 5_000, since };
    assert_eq!(of(ONLINE, "m", started), Some((online(9_000), Source::Twitch)));
    assert_eq!(of(ONLINE, "catch-up-m", started), Some((online(5_000), Source::CatchUp)));
    assert_eq!(of(ONLINE, "m", ""), None, "a stream has an id");
    let offline = |id: Option<&str>, since| Change::Offline { id: id.map(Into::into), since };
    assert_eq!(of(OFFLINE, "m", ""), Some((offline(None, 9_000), Source::Twitch)));
    assert_eq!(of(OFFLINE, "catch-up-m", r#","id":"9""#), Some((offline(Some("9"), 0), Source::CatchUp)));
    let channel =
        r#","title":"t","language":"en","category_id":"5","content_classification_labels":["b","a"]"#;
    let digest = ChannelDigest::of("t", "en", "5", &["a", "b"]);
    assert_eq!(of(CHANNEL, "m", channel), Some((Change::Channel { digest, since: 9_000 }, Source::Twitch)));
    assert_eq!(of("channel.follow", "m", started), None);
    assert_eq!(news(&event(OFFLINE, "m", "yesterday", "")), None);
}

#[test]
fn fingerprints_tell_what_an_event_tells() {
    let of = |title, language, labels: &[&str]| ChannelDigest::of(title, language, "1", labels);
    assert_eq!(of("a", "en", &["x", "y"]), of("a", "en", &["y", "x"]));
    assert_ne!(of("a", "en", &[]), of("ae", "n", &[]), "parts do not run together");
    assert_ne!(of("a", "en", &[]), of("a", "en", &["x"]));
}

/// Streams `a`, `b`, … begin one after the other, and so do 0, 1, ….
fn start_of(id: &str) -> u64 {
    u64::from(id.as_bytes()[0])
}

fn stream(is_live: bool, id: &str, since: u64) -> LastKnown {
    let stream = StreamState { is_live, id: Some(id.into()), started: start_of(id), since, at: 1 };
    LastKnown { stream: Some(stream), channel: None }
}

fn apply(known: &LastKnown, source: Source, change: Change) -> Applied {
    known.apply(&News { broadcaster: "7".into(), change, source }, 1)
}

#[test]
fn old_events_of_streams_change_nothing() {
    let live = stream(true, "b", 20);
    let offline = |id: Option<&str>, since| Change::Offline { id: id.map(Into::into), since };
    assert_eq!(apply(&live, Source::Twitch, offline(Some("b"), 19)), Applied::Unchanged);
    assert_eq!(apply(&live, Source::Twitch, offline(Some("a"), 10)), Applied::Unchanged);
    assert_eq!(
        apply(&live, Source::Twitch, offline(Some("b"), 30)),
        Applied::Changed(stream(false, "b", 30))
    );
    assert_eq!(apply(&live, Source::Twitch, offline(None, 30)), Applied::Changed(stream(false, "b", 30)));
    let online = |id: &str, since| Change::Online { id: id.into(), started: start_of(id), since };
    assert_eq!(apply(&live, Source::Twitch, online("a", 10)), Applied::Unchanged);
    assert_eq!(apply(&live, Source::Twitch, online("c", 30)), Applied::Changed(stream(true, "c", 30)));
}

#[test]
fn a_catch_up_tells_nothing_that_was_told_or_never_known() {
    let offline = |id: &str| Change::Offline { id: Some(id.into()), since: 0 };
    let online = |id: &str, since| Change::Online { id: id.into(), started: start_of(id), since };
    let live = stream(true, "b", 20);
    for (known, change) in [
        (&LastKnown::default(), offline("a")),
        (&live, offline("a")),
        (&live, online("b", 20)),
        (&live, online("a", 10)),
        (&stream(false, "b", 30), online("b", 20)),
        (&stream(false, "b", 30), offline("b")),
    ] {
        assert_eq!(
            apply(known, Source::CatchUp, change.clone()),
            Applied::Told(None),
            "{known:?} {change:?}"
        );
    }
    assert_eq!(apply(&live, Source::CatchUp, offline("b")), Applied::Changed(stream(false, "b", 20)));
    assert_eq!(apply(&live, Source::CatchUp, online("c", 30)), Applied::Changed(stream(true, "c", 30)));
}

#[test]
fn one_update_of_twitch_is_what_a_catch_up_told_before() {
    let channel = |digest, since| Change::Channel { digest: ChannelDigest(digest), since };
    let changed = |applied| match applied {
        Applied::Changed(known) | Applied::Told(Some(known)) => known,
        other => panic!("{other:?}"),
    };
    let known = changed(apply(&LastKnown::default(), Source::Answer, channel(1, 0)));
    assert!(matches!(apply(&known, Source::Twitch, channel(1, 9)), Applied::Changed(_)), "nobody was told");
    assert_eq!(apply(&known, Source::CatchUp, channel(1, 0)), Applied::Told(None));
    let known = changed(apply(&known, Source::CatchUp, channel(2, 0)));
    let late = apply(&known, Source::Twitch, channel(2, 9));
    assert!(matches!(late, Applied::Told(Some(_))), "{late:?}");
    assert!(matches!(apply(&changed(late), Source::Twitch, channel(2, 10)), Applied::Changed(_)));
    let back = changed(apply(&known, Source::Twitch, channel(1, 12)));
    assert!(matches!(apply(&back, Source::Twitch, channel(2, 13)), Applied::Changed(_)), "it changed twice");
    assert_eq!(apply(&back, Source::Twitch, channel(2, 11)), Applied::Unchanged);
}

proptest! {
    /// Events of streams one after the other, told in any order and any number of times.
    #[test]
    fn the_newest_event_counts_in_whatever_order_they_come(
        order in Just((0..12_u64).collect::<Vec<_>>()).prop_shuffle(),
        again in proptest::collection::vec(0..12_u64, 0..6),
    ) {
        let mut known = LastKnown::default();
        for step in order.iter().chain(&again) {
            let id = Box::from((step / 2).to_string());
            let since = 10 * (step + 1);
            let change = match step % 2 {
                0 => Change::Online { started: start_of(&id), id, since },
                _ => Change::Offline { id: Some(id), since },
            };
            if let Applied::Changed(new) = apply(&known, Source::Twitch, change) {
                known = new;
            }
        }
        let known = known.stream.expect("it is known");
        prop_assert_eq!((known.is_live, known.id.as_deref(), known.since), (false, Some("5"), 120));
    }
}
