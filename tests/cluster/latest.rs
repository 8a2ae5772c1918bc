//! The newest events of channels in the shared log of real servers, for catch-ups.

use std::time::{Duration, Instant};

use eventsubd::model::event::StoredEvent;

use super::common::WAIT;
use super::letters::{event_with, log, until};
use super::servers::{OLDEST, Servers};

fn event(number: u64, kind: &str, broadcaster: &str) -> StoredEvent {
    let payload =
        format!(r#"{{"subscription":{{}},"event":{{"broadcaster_user_id":"{broadcaster}","n":{number}}}}}"#);
    event_with(number, kind, payload)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_events_of_channels_are_read_whichever_host_stored_them() {
    let servers = Servers::start(OLDEST, 3);
    let (one, two) = (log(&servers, "web-1", 1 << 30), log(&servers, "web-2", 1 << 30));
    for (log, number, kind, broadcaster) in [
        (&one, 1, "stream.online", "7"),
        (&one, 2, "stream.offline", "7"),
        (&one, 3, "channel.update", "8"),
        (&two, 4, "stream.online", "7"),
        (&two, 5, "channel.follow", "7"),
        (&two, 6, "stream.online", "9"),
    ] {
        until(async || log.publish(&event(number, kind, broadcaster)).await).await;
    }

    let types = ["stream.online", "stream.offline", "channel.update"];
    let channels: Vec<Box<str>> =
        (0..100).filter(|id| *id != 9).map(|id: u32| id.to_string().into()).collect();
    // Any copy of the stream may answer, and may be behind.
    let begun = Instant::now();
    let ids = loop {
        let events = until(async || one.latest(&types, &channels).await).await;
        let ids: Vec<String> = events.iter().map(|event| event.message_id.to_string()).collect();
        if ids == ["m-2", "m-3", "m-4"] || begun.elapsed() > WAIT {
            break ids;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(ids, ["m-2", "m-3", "m-4"], "in the order of the log");
    assert_eq!(until(async || two.latest(&types, &["10".into()]).await).await, []);
}
