//! Hints of events and requests that reach one host, told to all: whichever leads acts on them.
//!
//! Hints go over plain NATS and may be lost. A lost hint costs time only: a grant is noticed by the next comparison
//! (`reconcile.interval`), a disabled shard by the next look at the shards (two minutes), an answered challenge some seconds
//! later.

use async_nats::Client;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::debug;

use super::nats::Connection;
use crate::model::hint::Hint;

/// Hints that wait to be told, and those that wait to be acted on; more are dropped.
const WAITING: usize = 1_024;
/// The longest message of a hint, in bytes.
const LONGEST: usize = 1_024;
/// Pause before another subscription after one that has ended.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// A hint on its way, with the process that has told it.
#[derive(Debug, Serialize, Deserialize)]
struct Message<'a> {
    from: &'a str,
    #[serde(flatten)]
    about: About,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum About {
    Grants { user_id: Box<str> },
    Ended { id: Box<str>, status: Box<str> },
    Shards,
    Verified,
}

fn written(from: &str, hint: Hint) -> Option<Bytes> {
    let about = match hint {
        Hint::Grants { user_id } => About::Grants { user_id },
        Hint::Ended { id, status } => About::Ended { id: id.to_string().into(), status },
        Hint::Shards => About::Shards,
        Hint::Verified => About::Verified,
    };
    let text = serde_json::to_vec(&Message { from, about }).ok()?;
    (text.len() <= LONGEST).then(|| text.into())
}

/// Reads a message; `None` for one of this process, and for one that cannot be read.
fn read(own: &str, text: &[u8]) -> Option<Hint> {
    if text.len() > LONGEST {
        return None;
    }
    let Message { from, about } = serde_json::from_slice(text).ok()?;
    let hint = match about {
        About::Grants { user_id } => Hint::Grants { user_id },
        About::Ended { id, status } => Hint::Ended { id: (*id).into(), status },
        About::Shards => Hint::Shards,
        About::Verified => Hint::Verified,
    };
    (from != own).then_some(hint)
}

/// The end that tells the other hosts; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct HintSender(mpsc::Sender<Hint>);

impl HintSender {
    /// Tells the other hosts, unless too many hints wait already.
    pub(super) fn send(&self, hint: Hint) {
        // A hint that is lost costs time only.
        let _ = self.0.try_send(hint);
    }
}

/// The task's end of both ways.
#[derive(Debug)]
pub(super) struct HintExchange {
    to_tell: mpsc::Receiver<Hint>,
    heard: mpsc::Sender<Hint>,
}

/// Builds the ends: of the task, of this host's parts, and what the other hosts tell.
pub(super) fn hints() -> (HintExchange, HintSender, mpsc::Receiver<Hint>) {
    let (sender, to_tell) = mpsc::channel(WAITING);
    let (heard, others) = mpsc::channel(WAITING);
    (HintExchange { to_tell, heard }, HintSender(sender), others)
}

impl HintExchange {
    /// Tells and hears hints in the cluster `name`; never ends by itself. `own` names this process.
    pub(super) async fn run(self, connection: &Connection, name: &str, own: &str) {
        let Self { mut to_tell, heard } = self;
        let (client, subject) = (connection.client(), format!("{name}.hint"));
        let tell = async {
            while let Some(hint) = to_tell.recv().await {
                if let Some(text) = written(own, hint)
                    && let Err(error) = client.publish(subject.clone(), text).await
                {
                    debug!(%error, "a hint could not be told to the other hosts");
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::join!(tell, hear(&client, &subject, own, &heard));
    }
}

async fn hear(client: &Client, subject: &str, own: &str, heard: &mpsc::Sender<Hint>) {
    loop {
        if let Ok(mut messages) = client.subscribe(subject.to_owned()).await {
            while let Some(message) = messages.next().await {
                if let Some(hint) = read(own, &message.payload) {
                    // As above.
                    let _ = heard.try_send(hint);
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_hint_reaches_the_others_and_not_its_sender() {
        let hints = [
            Hint::Grants { user_id: "7".into() },
            Hint::Ended { id: "s".into(), status: "authorization_revoked".into() },
            Hint::Shards,
            Hint::Verified,
        ];
        for hint in hints {
            let text = written("me", hint.clone()).expect("short");
            assert_eq!(read("you", &text), Some(hint));
            assert_eq!(read("me", &text), None);
        }
        assert_eq!(written("me", Hint::Grants { user_id: "7".repeat(LONGEST).into() }), None);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(text in prop::collection::vec(any::<u8>(), 0..2_000), kind in "\\PC{0,9}") {
            let hint = read("me", &text);
            prop_assert!(text.len() <= LONGEST || hint.is_none());
            let text = serde_json::json!({ "from": "you", "kind": kind, "user_id": 7 }).to_string();
            prop_assert_eq!(read("me", text.as_bytes()).is_some(), kind == "shards" || kind == "verified");
        }
    }
}
