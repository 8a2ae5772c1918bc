//! Settings that all sinks share.

use std::sync::Arc;

use super::children::Children;
use super::shared::SharedWork;
use super::sink::OpenStdout;
use crate::auth::Proxies;

/// Settings that all sinks share.
#[derive(Clone)]
pub struct DeliveryOptions {
    /// Output of `stdout` sinks.
    pub stdout: OpenStdout,
    /// HTTP client of `http` sinks. Must not follow redirects.
    pub http: reqwest::Client,
    /// TLS settings of sinks that connect to a broker.
    pub tls: rustls::ClientConfig,
    /// The running programs of `command` sinks.
    pub children: Children,
    /// Print what sinks that reach outside would get, instead of sending it.
    pub print: bool,
    /// The shared log of the cluster, if there is one: sinks are worked from it, each by one host.
    pub shared: Option<SharedWork>,
    /// The proxies that HTTP sinks go through, for messages; NATS sinks connect directly.
    pub proxies: Proxies,
}

impl DeliveryOptions {
    /// With the process's own standard output.
    pub fn new(http: reqwest::Client, tls: rustls::ClientConfig) -> Self {
        let stdout: OpenStdout = Arc::new(|| Box::new(std::io::stdout()));
        let (children, proxies) = (Children::default(), Proxies::default());
        Self { stdout, http, tls, children, print: false, shared: None, proxies }
    }
}

impl std::fmt::Debug for DeliveryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeliveryOptions")
    }
}
