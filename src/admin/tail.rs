//! Live tail of events for one client: selection, pace and format. ◆
//!
//! A client is a cursor into the store; its memory is one batch, and nothing queues for it. A client that falls
//! behind, or asks for more than a person or a small program can follow, is told how many events were skipped.

use std::time::Duration;

use crate::model::event::{Event, Seq, StoredEvent};

/// Events examined per turn; a client that is further behind is moved forward.
pub(super) const SCAN: usize = 200;
/// Bytes of payload read per turn.
pub(super) const SCAN_BYTES: usize = 1 << 20;
/// Events sent per turn.
const SEND: usize = 50;
/// The pause between two turns.
pub(super) const TURN: Duration = Duration::from_millis(200);
/// Events that a client still gets after it was moved forward.
const KEPT: u64 = SEND as u64;

/// Cursor of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    cursor: Seq,
}

impl Tail {
    /// Begins after `resume`, the last event that the client has seen, or with the next event.
    pub(super) fn new(resume: Option<Seq>, newest: Seq) -> Self {
        Self { cursor: resume.unwrap_or(newest).min(newest) }
    }

    /// Moves the cursor forward if it is too far behind; returns the number of events skipped.
    pub(super) fn catch_up(&mut self, newest: Seq) -> u64 {
        let behind = newest.0.saturating_sub(self.cursor.0);
        if behind <= SCAN as u64 {
            return 0;
        }
        self.cursor = Seq(newest.0 - KEPT);
        behind - KEPT
    }

    /// Returns the number of the last event handled.
    pub(super) fn cursor(self) -> Seq {
        self.cursor
    }

    /// Handles a batch; returns the text for the client, and the number of wanted events left out.
    pub(super) fn take(
        &mut self,
        batch: &[StoredEvent],
        mut wants: impl FnMut(&Event) -> bool,
    ) -> (String, u64) {
        let mut text = String::new();
        let (mut sent, mut skipped) = (0, 0);
        for stored in batch {
            self.cursor = self.cursor.max(stored.seq);
            if !wants(&stored.event) {
                continue;
            }
            if sent < SEND {
                sent += 1;
                write(stored, &mut text);
            } else {
                skipped += 1;
            }
        }
        (text, skipped)
    }
}

/// Writes one event as a server-sent event. Its data is the notification as Twitch's WebSocket sends it, with the
/// number and the time of storing added.
fn write(stored: &StoredEvent, text: &mut String) {
    let event = &stored.event;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let head = format!(
        "{{\"seq\":{},\"stored_at\":\"{}\",\"metadata\":{{\"message_id\":{},\"message_type\":\"notification\",\
         \"message_timestamp\":{},\"subscription_type\":{},\"subscription_version\":{}}},\"payload\":",
        stored.seq,
        stored.stored_at,
        quoted(event.message_id.as_str()),
        quoted(&event.message_timestamp),
        quoted(&event.subscription_type),
        quoted(&event.subscription_version),
    );
    text.push_str(&format!("id: {}\ndata: {head}", stored.seq));
    // Line breaks can only stand between the tokens of JSON, and each begins a new line of data.
    let payload = String::from_utf8_lossy(&event.payload);
    for (index, line) in payload.split(['\r', '\n']).enumerate() {
        if index > 0 {
            text.push_str("\ndata: ");
        }
        text.push_str(line);
    }
    text.push_str("}\n\n");
}

/// Says that no subscription of the file has a type that the client asks for.
pub(super) const UNMATCHED: &str = "event: unmatched\ndata: {}\n\n";

/// Writes the number of events not sent.
pub(super) fn skipped(count: u64) -> String {
    format!("event: skipped\ndata: {{\"count\":{count}}}\n\n")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use expect_test::expect;

    use super::*;
    use crate::model::event::MessageId;
    use crate::model::time::Timestamp;

    fn stored(seq: u64, kind: &str, payload: &str) -> StoredEvent {
        StoredEvent {
            seq: Seq(seq),
            stored_at: Timestamp::from_unix_millis(1_700_000_000_000),
            event: Event {
                message_id: MessageId::new(&format!("id-{seq}")).unwrap(),
                message_timestamp: "2026-11-02T08:15:27.441930118Z".into(),
                subscription_type: kind.into(),
                subscription_version: "1".into(),
                subscription_id: "s".into(),
                payload: Bytes::copy_from_slice(payload.as_bytes()),
            },
        }
    }

    #[test]
    fn an_event_has_id_data_and_time_of_storing() {
        let mut tail = Tail::new(None, Seq(6));
        let hostile = "{\"event\":{\"a\":\"<script>\"},\r\n \"subscription\":{}\rid: 9\n\nevent: x}";
        let batch = [stored(7, "stream.online", "{}"), stored(8, "a\"b", hostile)];
        let (text, skipped) = tail.take(&batch, |_| true);
        expect![[r#"
            id: 7
            data: {"seq":7,"stored_at":"2023-11-14T22:13:20.000Z","metadata":{"message_id":"id-7","message_type":"notification","message_timestamp":"2026-11-02T08:15:27.441930118Z","subscription_type":"stream.online","subscription_version":"1"},"payload":{}}

            id: 8
            data: {"seq":8,"stored_at":"2023-11-14T22:13:20.000Z","metadata":{"message_id":"id-8","message_type":"notification","message_timestamp":"2026-11-02T08:15:27.441930118Z","subscription_type":"a\"b","subscription_version":"1"},"payload":{"event":{"a":"<script>"},
            data: 
            data:  "subscription":{}
            data: id: 9
            data: 
            data: event: x}}

        "#]]
        .assert_eq(&text);
        assert_eq!((skipped, tail.cursor()), (0, Seq(8)));
        assert_eq!(super::skipped(3), "event: skipped\ndata: {\"count\":3}\n\n");
    }

    #[test]
    fn a_client_far_behind_is_moved_forward_and_told() {
        let mut tail = Tail::new(None, Seq(10));
        assert_eq!((tail.catch_up(Seq(10)), tail.cursor()), (0, Seq(10)));
        assert_eq!((tail.catch_up(Seq(210)), tail.cursor()), (0, Seq(10)));
        assert_eq!((tail.catch_up(Seq(211)), tail.cursor()), (151, Seq(161)));
        let resumed = |last| Tail::new(Some(Seq(last)), Seq(100)).cursor();
        assert_eq!([resumed(40), resumed(100), resumed(7_000)], [Seq(40), Seq(100), Seq(100)]);
    }

    #[test]
    fn a_turn_is_bounded_and_counts_the_wanted_events_left_out() {
        let mut tail = Tail::new(None, Seq(0));
        let batch: Vec<_> =
            (1..=SCAN as u64).map(|seq| stored(seq, if seq % 2 == 0 { "a" } else { "b" }, "{}")).collect();
        let (text, skipped) = tail.take(&batch, |event| &*event.subscription_type == "a");
        assert_eq!(text.matches("id: ").count(), SEND);
        assert_eq!(skipped, (SCAN / 2 - SEND) as u64);
        assert_eq!(tail.cursor(), Seq(SCAN as u64));
        assert_eq!(tail.take(&[], |_| true), (String::new(), 0));
    }
}
