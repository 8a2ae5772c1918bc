//! A store and the delivery that reads it, without a daemon. The unit tests of `delivery` and the tests against brokers
//! share it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use eventsubd::delivery::format::Format;
use eventsubd::delivery::{DeliveryHandle, DeliveryOptions, SinkKind, SinkOptions, delivery};
use eventsubd::model::event::{Event, MessageId};
use eventsubd::model::route::{Routes, SinkName};
use eventsubd::model::status::{SinkState, SinkStatus};
use eventsubd::store::{StartAt, Store, StoreOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub const WAIT: Duration = Duration::from_secs(60);
/// Number of channels that events are about, in turn.
pub const CHANNELS: usize = 7;

pub fn sink(name: &str, kind: SinkKind) -> SinkOptions {
    SinkOptions {
        name: SinkName::new(name),
        types: vec!["*".into()],
        format: Format::Eventsub,
        start: StartAt::Present,
        retry_max: Duration::from_millis(100),
        give_up_after: Duration::from_secs(3600),
        host: None,
        kind,
    }
}

/// The message ids of these events.
pub fn numbers(range: Range<usize>) -> Vec<String> {
    range.map(|id| format!("m{id}")).collect()
}

pub fn event(id: usize, kind: &str) -> Event {
    event_of(id, kind, id % CHANNELS)
}

/// An event of a channel.
pub fn event_of(id: usize, kind: &str, channel: usize) -> Event {
    let payload = format!(
        r#"{{"subscription":{{"type":"{kind}","condition":{{"broadcaster_user_id":"{channel}"}}}},"event":{{"n":{id}}}}}"#
    );
    Event {
        message_id: MessageId::new(&format!("m{id}")).unwrap(),
        message_timestamp: "2026-11-02T09:00:01Z".into(),
        subscription_type: kind.into(),
        subscription_version: "1".into(),
        subscription_id: "s".into(),
        payload: payload.into_bytes().into(),
    }
}

pub fn open(folder: &Path) -> Store {
    let hour = Duration::from_secs(3600);
    Store::open(StoreOptions::new(folder.join("events.db"), hour, 1 << 30, 10_000, 64 << 20)).unwrap()
}

pub struct Bench {
    pub store: Store,
    pub sinks: watch::Sender<Arc<[SinkOptions]>>,
    pub handle: DeliveryHandle,
    pub cancel: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
    /// Delivery ends if this is dropped.
    _routes: watch::Sender<Option<Arc<Routes>>>,
}

impl Bench {
    pub async fn start(store: Store, sinks: &[SinkOptions], options: DeliveryOptions) -> Self {
        // A sink that is not known yet starts at the present.
        for sink in sinks {
            store.sink(&sink.name, sink.start).await.unwrap();
        }
        let (sinks_in, sinks_out) = watch::channel(Arc::from(sinks));
        let (routes_in, routes_out) = watch::channel(Some(Arc::new(Routes::default())));
        let (delivery, handle) = delivery(store.clone(), routes_out, sinks_out, options);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(delivery.run(cancel.clone()));
        Self { store, sinks: sinks_in, handle, cancel, task, _routes: routes_in }
    }

    /// Stores events with these numbers.
    pub async fn push(&self, range: Range<usize>, kind: &str) {
        let mut last = None;
        for id in range {
            last = Some(self.store.push(event(id, kind)).await.unwrap());
        }
        last.expect("some events").stored().await.unwrap();
    }

    /// Waits for a status of a sink.
    pub async fn status(&self, name: &str, like: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
        let mut status = self.handle.status.clone();
        let name = SinkName::new(name);
        let found =
            tokio::time::timeout(WAIT, status.wait_for(|all| all.get(&name).is_some_and(&like))).await;
        match found {
            Ok(all) => all.unwrap()[&name].clone(),
            Err(_) => panic!("never: {:?}", self.handle.status.borrow()),
        }
    }

    /// Waits until a sink has every event.
    pub async fn caught_up(&self, name: &str) -> SinkStatus {
        let newest = *self.store.last_seq().borrow();
        self.status(name, |status| status.cursor == newest && status.state == SinkState::Idle).await
    }

    pub async fn end(self) -> Store {
        self.cancel.cancel();
        tokio::time::timeout(WAIT, self.task).await.expect("ends").expect("no panic");
        self.store
    }
}
