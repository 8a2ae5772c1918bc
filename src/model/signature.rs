//! The signature of a webhook request: HMAC-SHA256 over message id, timestamp and body, as they stand in the
//! request (Twitch: "Handling Webhook Events", verifying the event message). ◆

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::hex;
use super::secret::Secret;

/// Prefix of the header's value.
const SCHEME: &str = "sha256=";

const BYTES: usize = 32;

/// Length of the header's value: `sha256=` and 64 hexadecimal digits.
const LENGTH: usize = SCHEME.len() + 2 * BYTES;

/// Signs requests with one secret, and verifies their signatures. Its `Debug` prints nothing secret.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[signer]")
    }
}

impl Signer {
    pub fn new(secret: &Secret) -> Self {
        Self(Hmac::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of every length"))
    }

    fn mac(&self, message_id: &[u8], timestamp: &[u8], body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in [message_id, timestamp, body] {
            mac.update(part);
        }
        mac
    }

    /// Returns the value of the header `Twitch-Eventsub-Message-Signature`.
    pub fn sign(&self, message_id: &[u8], timestamp: &[u8], body: &[u8]) -> String {
        let bytes = self.mac(message_id, timestamp, body).finalize().into_bytes();
        let mut text = String::with_capacity(LENGTH);
        text.push_str(SCHEME);
        hex::push(&mut text, &bytes);
        text
    }

    /// Returns whether this is the signature of the request, compared in constant time. Any bytes are accepted as
    /// header.
    pub fn verify(&self, message_id: &[u8], timestamp: &[u8], body: &[u8], header: &[u8]) -> bool {
        // Twitch writes lower-case digits only.
        let Some(sent) = header.strip_prefix(SCHEME.as_bytes()).and_then(hex::decode::<BYTES>) else {
            return false;
        };
        self.mac(message_id, timestamp, body).verify_slice(&sent).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "s3cret-of-sandbox";

    #[test]
    fn the_signature_equals_that_of_openssl() {
        // printf '%s' 'id-12026-11-02T09:00:01.512Z{"a":1}' | openssl dgst -sha256 -hmac s3cret-of-sandbox
        let signer = Signer::new(&Secret::new(SECRET));
        let header = signer.sign(b"id-1", b"2026-11-02T09:00:01.512Z", b"{\"a\":1}");
        assert_eq!(header, KNOWN);
        assert!(signer.verify(b"id-1", b"2026-11-02T09:00:01.512Z", b"{\"a\":1}", header.as_bytes()));
        let upper = header.to_uppercase().replace("SHA256", "sha256");
        for wrong in ["", "sha256=", &header[..header.len() - 1], &format!("{header}0"), &upper, &header[7..]]
        {
            let wrong = wrong.as_bytes();
            assert!(!signer.verify(b"id-1", b"2026-11-02T09:00:01.512Z", b"{\"a\":1}", wrong), "{wrong:?}");
        }
        assert_eq!(format!("{signer:?}"), "[signer]");
    }

    const KNOWN: &str = "sha256=8b7f0d664aaa7c2b668ce630c93821defa357137bbb29c591f899a1d8dbdbfee";

    proptest! {
        #[test]
        fn changed_bytes_do_not_verify(
            id in proptest::collection::vec(any::<u8>(), 0..40),
            time in proptest::collection::vec(any::<u8>(), 0..40),
            body in proptest::collection::vec(any::<u8>(), 1..200),
            at in any::<prop::sample::Index>(),
            junk in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let signer = Signer::new(&Secret::new(SECRET));
            let header = signer.sign(&id, &time, &body);
            prop_assert!(signer.verify(&id, &time, &body, header.as_bytes()));
            prop_assert!(!signer.verify(&id, &time, &body, &junk));
            let mut other = body.clone();
            other[at.index(body.len())] ^= 1;
            prop_assert!(!signer.verify(&id, &time, &other, header.as_bytes()));
            let other = Signer::new(&Secret::new("another secret"));
            prop_assert!(!other.verify(&id, &time, &body, header.as_bytes()));
        }
    }
}
