//! Webhook secrets, and callbacks that name their secret. ◆
//!
//! Twitch never tells which secret a subscription or a shard was made with, and a secret cannot be changed in place.
//! Every callback therefore carries the fingerprint of its secret as `key` in the query. Twitch's own list then shows
//! the secret of every subscription, even after a backup was restored. During a rotation old and new callbacks
//! differ, which avoids the 409 for equal ones.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::hex;
use super::secret::Secret;
use super::shard_id::ShardId;
use super::signature::Signer;

/// Length of a secret, in characters (Twitch: "Create EventSub Subscription").
pub const SECRET_LENGTH: std::ops::RangeInclusive<usize> = 10..=100;

/// Where the daemon listens for webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    Address(SocketAddr),
    /// On the sockets that systemd passes.
    Systemd,
}

/// The word of the file for [`Listen::Systemd`].
const SYSTEMD: &str = "systemd";

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Systemd => f.write_str(SYSTEMD),
        }
    }
}

impl FromStr for Listen {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        if text == SYSTEMD { Ok(Self::Systemd) } else { text.parse().map(Self::Address) }
    }
}

/// Paths of the certificate and the key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead to the root.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A secret that Twitch would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret has 10 to 100 visible ASCII characters")]
pub struct InvalidSecret;

/// Fingerprint of a secret: 8 hexadecimal digits, which distinguish a handful of secrets and are too few to find a
/// secret by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(8);
        hex::push(&mut text, &self.0);
        f.write_str(&text)
    }
}

impl FromStr for KeyId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 8 || !text.bytes().all(lower) {
            return Err(());
        }
        u32::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(drop)
    }
}

/// A secret with its fingerprint and its signer.
#[derive(Clone, Debug)]
pub struct WebhookKey {
    pub id: KeyId,
    pub secret: Secret,
    pub signer: Signer,
}

impl WebhookKey {
    /// Checks a secret and computes its fingerprint.
    ///
    /// # Errors
    /// Twitch would refuse the secret.
    pub fn new(secret: Secret) -> Result<Self, InvalidSecret> {
        let text = secret.expose();
        if !SECRET_LENGTH.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidSecret);
        }
        let digest = Sha256::new().chain_update(b"eventsubd webhook key id\0").chain_update(text).finalize();
        let id = KeyId([digest[0], digest[1], digest[2], digest[3]]);
        Ok(Self { id, signer: Signer::new(&secret), secret })
    }
}

impl PartialEq for WebhookKey {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl Eq for WebhookKey {}

/// The accepted secrets: the current one, which everything moves to, and older ones until nothing uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookKeys(Arc<[WebhookKey]>);

impl WebhookKeys {
    /// Keeps the current one, then older ones; duplicates count once.
    pub fn new(current: WebhookKey, older: impl IntoIterator<Item = WebhookKey>) -> Self {
        let mut keys = vec![current];
        for key in older {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Self(keys.into())
    }

    /// Returns the secret for new subscriptions and shards.
    pub fn current(&self) -> &WebhookKey {
        &self.0[0]
    }

    /// Returns all accepted secrets, the current one first.
    pub fn all(&self) -> &[WebhookKey] {
        &self.0
    }
}

/// A callback as given to Twitch: the public URL with the fingerprint of the secret and, for a shard of a conduit,
/// its number, because notifications do not name it.
///
/// `https://example.org/eventsubd?key=0f3c2a19&shard=0`
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Callback {
    /// Public URL from the configuration, without a query.
    pub url: Arc<str>,
    /// Fingerprint of the secret.
    pub key: KeyId,
    /// Number of the shard, if it belongs to one.
    pub shard: Option<ShardId>,
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}?key={}", self.url, self.key)?;
        match self.shard {
            Some(shard) => write!(f, "&shard={shard}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Callback {
    type Err = ();

    /// Accepts only texts that this type has written: a callback without a key is not ours.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (url, query) = text.split_once('?').ok_or(())?;
        let (key, shard) = parse_query(query)?;
        Ok(Self { url: url.into(), key, shard })
    }
}

/// Returns the key and the shard in the query of a request.
///
/// # Errors
/// The query is not one that we have given to Twitch.
#[allow(clippy::result_unit_err, reason = "there is one reason only")]
pub fn parse_query(query: &str) -> Result<(KeyId, Option<ShardId>), ()> {
    let (key, shard) = match query.split_once('&') {
        None => (query, None),
        Some((key, shard)) => (key, Some(shard)),
    };
    let key = key.strip_prefix("key=").ok_or(())?.parse()?;
    let shard = match shard {
        None => None,
        Some(shard) => {
            let digits = shard.strip_prefix("shard=").ok_or(())?;
            let number: u32 = digits.parse().map_err(drop)?;
            if number.to_string() != digits {
                return Err(());
            }
            Some(ShardId(number))
        }
    };
    Ok((key, shard))
}

/// Secrets and callbacks in use, as of the last complete run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// The secrets, as far as the callbacks of our subscriptions and shards say.
    pub keys: BTreeSet<KeyId>,
    /// Whether anything calls us.
    pub calls: bool,
    /// Whether subscriptions do, and not only shards.
    pub subscriptions: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> WebhookKey {
        WebhookKey::new(Secret::new(text)).expect("valid")
    }

    #[test]
    fn fingerprints_follow_the_secret() {
        assert_eq!(key("0123456789").id, key("0123456789").id);
        assert_ne!(key("0123456789").id, key("0123456780").id);
        for bad in ["short", &"x".repeat(101), "with a space in it", "tab\tinside it", "ümlautümlaut"] {
            assert_eq!(WebhookKey::new(Secret::new(bad)), Err(InvalidSecret), "{bad}");
        }
        let keys = WebhookKeys::new(key("0123456789"), [key("abcdefghij"), key("0123456789")]);
        assert_eq!(keys.all().len(), 2);
        assert!(!format!("{keys:?}").contains("abcdefghij"));
    }

    #[test]
    fn only_our_own_callbacks_are_parsed() {
        for text in [
            "https://a.example/e",
            "https://a.example/e?",
            "https://a.example/e?key=",
            "https://a.example/e?key=0123456",
            "https://a.example/e?key=0123456G",
            "https://a.example/e?key=+1234567",
            "https://a.example/e?key=0123456A",
            "https://a.example/e?key=01234567&shard=",
            "https://a.example/e?key=01234567&shard=01",
            "https://a.example/e?key=01234567&shard=-1",
            "https://a.example/e?key=01234567&other=1",
        ] {
            assert_eq!(text.parse::<Callback>(), Err(()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn callbacks_round_trip(key: [u8; 4], shard: Option<u32>) {
            let callback = Callback {
                url: "https://example.org/eventsub".into(), key: KeyId(key), shard: shard.map(ShardId),
            };
            prop_assert_eq!(callback.to_string().parse::<Callback>(), Ok(callback));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            if let Ok(callback) = text.parse::<Callback>() {
                prop_assert_eq!(callback.to_string(), text);
            }
        }
    }
}
