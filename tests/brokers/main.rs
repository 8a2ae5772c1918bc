//! Sinks against real brokers, without a daemon round them: a store, the delivery, and a server that `tests/run` installs.
//! A file for each kind of broker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../common/broker.rs"]
#[allow(unreachable_pub, reason = "the other tests may use it too")]
mod broker;
#[path = "../common/certificate.rs"]
#[allow(unreachable_pub, reason = "the other tests use it too")]
mod certificate;
mod mqtt;
mod nats;
mod redis;
#[path = "../common/nats.rs"]
#[allow(unreachable_pub, reason = "the other tests use it too")]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use eventsubd::auth::{http_client, tls_config};
use eventsubd::delivery::format::Format;
use eventsubd::delivery::{DeliveryHandle, DeliveryOptions, SinkKind, SinkOptions, delivery};
use eventsubd::model::event::{Event, MessageId};
use eventsubd::model::route::{Routes, SinkName};
use eventsubd::model::status::{SinkState, SinkStatus};
use eventsubd::store::{StartAt, Store, StoreOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(20);

fn sink(name: &str, kind: SinkKind) -> SinkOptions {
    SinkOptions {
        name: SinkName::new(name),
        types: vec!["*".into()],
        format: Format::Eventsub,
        start: StartAt::Present,
        retry_max: Duration::from_millis(100),
        give_up_after: Duration::from_secs(3600),
        kind,
    }
}

fn options() -> DeliveryOptions {
    let tls = tls_config().unwrap();
    let options = DeliveryOptions::new(http_client("test", tls.clone()).unwrap(), tls);
    DeliveryOptions { stdout: Arc::new(|| Box::new(std::io::sink())), ..options }
}

/// The message ids of these events.
fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|id| format!("m{id}")).collect()
}

/// Message ids without repetitions, sorted; fails unless the first ones of each channel came in order.
fn in_order_for_each_channel(ids: &[String]) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let mut last = [0; 7];
    for id in ids {
        let number: usize = id[1..].parse().unwrap();
        if seen.insert(number) {
            assert!(last[number % 7] <= number, "{id} comes after m{}", last[number % 7]);
            last[number % 7] = number;
        }
    }
    seen.into_iter().map(|number| format!("m{number}")).collect()
}

/// TLS that trusts this certificate.
fn trusting(certificate: &str) -> rustls::ClientConfig {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A store and the delivery that reads it.
struct Bench {
    store: Store,
    handle: DeliveryHandle,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    /// Delivery ends if one of these two is dropped.
    _sinks: watch::Sender<Arc<[SinkOptions]>>,
    _routes: watch::Sender<Option<Arc<Routes>>>,
}

impl Bench {
    async fn start(folder: &Path, sinks: &[SinkOptions], options: DeliveryOptions) -> Self {
        let hour = Duration::from_secs(3600);
        let store = StoreOptions::new(folder.join("events.db"), hour, 1 << 30, 10_000, 64 << 20);
        let store = Store::open(store).unwrap();
        // A sink that is not known yet starts at the present.
        for sink in sinks {
            store.sink(&sink.name, sink.start).await.unwrap();
        }
        let (_sinks, sinks) = watch::channel(Arc::from(sinks));
        let (_routes, routes) = watch::channel(Some(Arc::new(Routes::default())));
        let (delivery, handle) = delivery(store.clone(), routes, sinks, options);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(delivery.run(cancel.clone()));
        Self { store, handle, cancel, task, _sinks, _routes }
    }

    /// Stores events with these numbers, of seven channels in turn.
    async fn push(&self, range: std::ops::Range<usize>, kind: &str) {
        let mut last = None;
        for id in range {
            let payload = format!(
                r#"{{"subscription":{{"type":"{kind}","condition":{{"broadcaster_user_id":"{}"}}}},"event":{{"n":{id}}}}}"#,
                id % 7
            );
            let event = Event {
                message_id: MessageId::new(&format!("m{id}")).unwrap(),
                message_timestamp: "2026-11-02T09:00:01Z".into(),
                subscription_type: kind.into(),
                subscription_version: "1".into(),
                subscription_id: "s".into(),
                payload: payload.into_bytes().into(),
            };
            last = Some(self.store.push(event).await.unwrap());
        }
        last.expect("some events").stored().await.unwrap();
    }

    async fn status(&self, name: &str, like: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
        let mut status = self.handle.status.clone();
        let name = SinkName::new(name);
        let found =
            tokio::time::timeout(WAIT, status.wait_for(|all| all.get(&name).is_some_and(&like))).await;
        match found {
            Ok(all) => all.unwrap()[&name].clone(),
            Err(_) => panic!("never: {:?}", self.handle.status.borrow()),
        }
    }

    async fn caught_up(&self, name: &str) -> SinkStatus {
        let newest = *self.store.last_seq().borrow();
        self.status(name, |status| status.cursor == newest && status.state == SinkState::Idle).await
    }

    async fn end(self) {
        self.cancel.cancel();
        tokio::time::timeout(WAIT, self.task).await.expect("ends").expect("no panic");
    }
}
