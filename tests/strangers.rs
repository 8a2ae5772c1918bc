//! Thousands of connections that strangers hold keep none of Twitch's requests out of the webhook listener.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::time::Duration;

use common::WAIT;
use common::certificate::certificate;
use common::strangers::{Kind, Listener, Twitch, address, stranger};
use eventsubd::admission::raise_descriptor_limit;

const SOCKETS: usize = 2_000;
/// A signed request after each of so many.
const EVERY: usize = 100;

async fn every_signed_request_is_answered(kind: Kind, addresses: usize) {
    raise_descriptor_limit();
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let tls = kind.needs_tls().then_some(folder.path());
    let listener = Listener::start(tls);
    let twitch = Twitch::new(listener.address, tls.map(|folder| folder.join("cert.pem")).as_deref());
    let bytes = kind.bytes();
    let (mut strangers, mut asked) = (Vec::new(), 0);
    for nth in 0..SOCKETS {
        // Connections that had to make room may be closed before they have sent anything.
        if let Ok(stream) = stranger(address(nth, addresses), listener.address, &bytes).await {
            strangers.push(stream);
        }
        if nth % EVERY == EVERY - 1 {
            asked += 1;
            let answer = tokio::time::timeout(WAIT, twitch.ask(&format!("m-{asked}"))).await;
            assert_eq!(answer.expect("in time").expect("an answer"), 204, "{kind:?}, {nth} sockets");
        }
    }
    assert!(strangers.len() > SOCKETS / 2, "only {} strangers came in", strangers.len());
    assert_eq!(listener.store.last_seq().borrow().0, asked);
    let mut status = listener.handle.status.clone();
    let crowded = status.wait_for(|status| status.as_ref().is_some_and(|status| status.problem.is_some()));
    let status = tokio::time::timeout(WAIT, crowded).await.expect("in time").unwrap().clone().unwrap();
    assert!(status.evicted > 0 && status.connections <= 2 * status.places, "{status:?}");
    let problem = status.problem.unwrap();
    assert!(problem.contains("connections are without a signed request"), "{problem}");
    drop(strangers);
    tokio::time::timeout(WAIT, listener.end()).await.expect("in time");
}

macro_rules! crowds {
    ($($name:ident: $kind:ident from $addresses:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            every_signed_request_is_answered(Kind::$kind, $addresses).await;
        }
    )*};
}

crowds! {
    half_open_handshakes_of_one_address: Handshake from 1;
    half_open_handshakes_of_200_addresses: Handshake from 200;
    client_hellos_of_one_address: Hello from 1;
    client_hellos_of_200_addresses: Hello from 200;
    half_heads_of_one_address: Head from 1;
    half_heads_of_200_addresses: Head from 200;
    bodies_of_one_byte_of_one_address: Body from 1;
    bodies_of_one_byte_of_200_addresses: Body from 200;
    silent_connections_of_one_address: Idle from 1;
    silent_connections_of_200_addresses: Idle from 200;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_forwards_strangers_forwards_twitch_too() {
    raise_descriptor_limit();
    let listener = Listener::start(None);
    let twitch = Twitch::new(listener.address, None);
    assert_eq!(twitch.ask("first").await.unwrap(), 204);
    // The same address as Twitch's requests have: that of the proxy.
    let bytes = Kind::Body.bytes();
    let mut strangers = Vec::new();
    for nth in 0..1_500 {
        strangers.push(stranger("127.0.0.1".parse().unwrap(), listener.address, &bytes).await);
        if nth % EVERY == 0 {
            let answer = tokio::time::timeout(WAIT, twitch.ask(&format!("m-{nth}"))).await;
            assert_eq!(answer.expect("in time").expect("an answer"), 204);
        }
    }
    let mut status = listener.handle.status.clone();
    let full = status.wait_for(|s| s.as_ref().is_some_and(|s| s.evicted > 0 && s.unproved > s.places / 2));
    tokio::time::timeout(Duration::from_secs(60), full)
        .await
        .expect("more than an unproved address has")
        .unwrap();
    drop(strangers);
    listener.end().await;
}
