//! Sinks against real brokers, without a daemon round them: a store, the delivery, and a server that `tests/run` installs.
//! A file for each kind of broker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../common/broker.rs"]
#[allow(unreachable_pub, reason = "the other tests may use it too")]
mod broker;
#[path = "../common/certificate.rs"]
#[allow(unreachable_pub, reason = "the other tests use it too")]
mod certificate;
#[path = "../common/delivery.rs"]
#[allow(dead_code, unreachable_pub, reason = "the unit tests of delivery use it too")]
mod delivery;
mod mqtt;
mod nats;
#[path = "../common/port.rs"]
#[allow(unreachable_pub, reason = "the other tests use it too")]
mod port;
mod redis;
#[path = "../common/nats.rs"]
#[allow(unreachable_pub, reason = "the other tests use it too")]
mod server;

use std::sync::Arc;

use delivery::{Bench, CHANNELS, WAIT, numbers, open, sink};
use eventsubd::auth::{http_client, tls_config};
use eventsubd::delivery::DeliveryOptions;

fn options() -> DeliveryOptions {
    let tls = tls_config().unwrap();
    let options = DeliveryOptions::new(http_client("test", tls.clone()).unwrap(), tls);
    DeliveryOptions { stdout: Arc::new(|| Box::new(std::io::sink())), ..options }
}

/// Message ids without repetitions, sorted; fails unless the first ones of each channel came in order.
fn in_order_for_each_channel(ids: &[String]) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let mut last = [0; CHANNELS];
    for id in ids {
        let number: usize = id[1..].parse().unwrap();
        if seen.insert(number) {
            assert!(last[number % CHANNELS] <= number, "{id} comes after m{}", last[number % CHANNELS]);
            last[number % CHANNELS] = number;
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
