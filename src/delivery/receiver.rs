//! Which sinks have the same receiver, and so pause together.

use reqwest::Url;
use sha2::{Digest, Sha256};

/// A part of a path that is at least this long and has digits is taken for a credential.
const OPAQUE: usize = 16;

/// A receiver as its rate limit sees it: a host, and who asks. It can be compared and not read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Receiver([u8; 32]);

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[receiver]")
    }
}

impl Receiver {
    /// The receiver behind a URL, asked with these credentials in headers. A long opaque part of the URL is a
    /// credential as well.
    pub(super) fn new<'a>(url: &Url, credentials: impl IntoIterator<Item = &'a str>) -> Self {
        let mut digest = Sha256::new();
        let mut add = |part: &str| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        add(url.host_str().unwrap_or_default());
        add(&url.port_or_known_default().unwrap_or_default().to_string());
        add(url.username());
        add(url.password().unwrap_or_default());
        add(url.query().unwrap_or_default());
        add(if url.path().split('/').any(is_opaque) { url.path() } else { "" });
        let mut credentials: Vec<&str> = credentials.into_iter().collect();
        credentials.sort_unstable();
        for credential in credentials {
            add(credential);
        }
        Self(digest.finalize().into())
    }
}

fn is_opaque(part: &str) -> bool {
    part.len() >= OPAQUE && part.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_with_the_same_host_and_credential_have_the_same_receiver() {
        let of = |url: &str, credentials: &[&str]| {
            Receiver::new(&Url::parse(url).unwrap(), credentials.iter().copied())
        };
        let api = of("https://api.example/a", &["Bearer x"]);
        assert_eq!(api, of("https://api.example:443/b", &["Bearer x"]));
        assert_ne!(api, of("https://api.example/a", &["Bearer y"]));
        assert_ne!(api, of("https://other.example/a", &["Bearer x"]));
        assert_ne!(api, of("https://api.example:8443/a", &["Bearer x"]));
        assert_ne!(of("https://a:b@api.example/", &[]), of("https://a:c@api.example/", &[]));
        let hook = "https://discord.example/api/webhooks/1234567890123456789/token-abcdef0123456789";
        assert_eq!(of(hook, &[]), of(hook, &[]));
        assert_ne!(of(hook, &[]), of(&hook.replace("token", "nekot"), &[]));
        assert!(!format!("{api:?}").contains("Bearer"));
    }
}
