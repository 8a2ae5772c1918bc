//! Callbacks with their secrets, checked as Twitch does. ◆

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use http::Uri;

use crate::model::secret::Secret;
use crate::model::signature::Signer;
use crate::model::webhook::{KeyId, SECRET_LENGTH, WebhookKey};

/// A callback with its secret.
#[derive(Debug)]
pub struct Endpoint {
    pub callback: String,
    secret: Secret,
    pub(super) signer: Signer,
    /// Messages that failed since the last one that did not.
    failures: AtomicU32,
}

impl Endpoint {
    pub fn new(callback: &str, secret: &str) -> Arc<Self> {
        let secret = Secret::new(secret);
        let signer = Signer::new(&secret);
        Arc::new(Self { callback: callback.to_owned(), secret, signer, failures: AtomicU32::new(0) })
    }

    /// Checks a callback and its secret as Twitch does. Unless `strict`, any port and `http://` will do, for host
    /// names and addresses of this machine.
    pub fn check(
        strict: bool,
        callback: Option<&str>,
        secret: Option<&str>,
    ) -> Result<Arc<Self>, &'static str> {
        let callback = callback.filter(|callback| !callback.is_empty());
        let callback = callback.ok_or("callback is required for the webhook transport")?;
        if !is_callback(callback, strict) {
            return Err("callback must be an https URL on port 443");
        }
        let secret = secret.unwrap_or_default();
        if !SECRET_LENGTH.contains(&secret.chars().count()) {
            return Err("the length of secret must be between 10 and 100 characters");
        }
        if !secret.is_ascii() {
            return Err("secret must be ASCII");
        }
        Ok(Self::new(callback, secret))
    }

    /// The fingerprint of the secret; `None` for secrets that Twitch would refuse.
    pub fn key(&self) -> Option<KeyId> {
        WebhookKey::new(self.secret.clone()).ok().map(|key| key.id)
    }

    pub fn has_secret(&self, secret: &str) -> bool {
        self.secret == Secret::new(secret)
    }

    pub fn record_success(&self) {
        self.failures.store(0, Relaxed);
    }

    /// Returns how many messages have failed in a row.
    pub fn record_failure(&self) -> u32 {
        self.failures.fetch_add(1, Relaxed).saturating_add(1)
    }
}

/// Two are equal to Twitch by their callback alone.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.callback == other.callback
    }
}

impl Eq for Endpoint {}

pub(super) fn is_callback(text: &str, strict: bool) -> bool {
    let Ok(url) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else { return false };
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return false;
    }
    let place = Place::of(authority.host());
    match strict {
        true => {
            scheme == "https" && authority.port_u16().is_none_or(|port| port == 443) && place == Place::Named
        }
        false => ["http", "https"].contains(&scheme) && place != Place::Elsewhere,
    }
}

/// The host of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A host name.
    Named,
    /// A loopback address.
    Here,
    /// Another address.
    Elsewhere,
}

impl Place {
    fn of(host: &str) -> Self {
        let is_address = host.starts_with('[') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match host {
            _ if !is_address => Self::Named,
            "[::1]" => Self::Here,
            _ if host.starts_with("127.") => Self::Here,
            _ => Self::Elsewhere,
        }
    }
}
