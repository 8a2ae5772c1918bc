//! A request in a file, and what becomes of it: for the fuzz target and for the test that replays its seeds.
//!
//! A file looks like a request: a line with the query, lines with headers, an empty line, the body. Line breaks
//! are single `\n`. It is verified as it is, and once more with a signature that holds, since no fuzzer finds one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use eventsubd::model::secret::Secret;
use eventsubd::model::webhook::{WebhookKey, WebhookKeys};
use eventsubd::transport::webhook::verify::{
    MESSAGE_ID, MESSAGE_SIGNATURE, MESSAGE_TIMESTAMP, Message, Rejection, Signed, verify,
};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The secret in force, and the one before it.
pub(crate) const SECRETS: [&str; 2] = ["the-secret-of-the-seeds", "the-secret-before-it"];

/// 2026-11-02T09:00:00Z.
pub(crate) const NOW: u64 = 1_793_610_000;

/// The secrets that are accepted.
pub(crate) fn keys() -> WebhookKeys {
    let [current, older] = SECRETS.map(|text| WebhookKey::new(Secret::new(text)).expect("valid"));
    WebhookKeys::new(current, [older])
}

/// A request.
pub(crate) struct Request {
    /// What stands behind the question mark, if there is one.
    pub(crate) query: Option<String>,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Request {
    /// Reads a file; what is no header is passed over.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let (head, body) = match bytes.windows(2).position(|two| two == b"\n\n") {
            Some(end) => (&bytes[..end], &bytes[end + 2..]),
            None => (bytes, &[][..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let query = lines.next().and_then(|line| line.strip_prefix(b"?"));
        let query = query.map(|query| String::from_utf8_lossy(query).into_owned());
        let mut headers = HeaderMap::new();
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let name = HeaderName::from_bytes(line[..colon].trim_ascii());
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        Self { query, headers, body: Bytes::copy_from_slice(body) }
    }

    /// Puts a signature in that holds.
    pub(crate) fn sign(&mut self) {
        let part = |name: &HeaderName| self.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        let signature = keys().current().signer.sign(part(&MESSAGE_ID), part(&MESSAGE_TIMESTAMP), &self.body);
        self.headers.insert(MESSAGE_SIGNATURE, HeaderValue::try_from(signature).expect("hexadecimal digits"));
    }

    /// What becomes of it.
    pub(crate) fn verify(&self) -> Result<Signed, Rejection> {
        let now: SystemTime = UNIX_EPOCH + Duration::from_secs(NOW);
        verify(&self.headers, self.query.as_deref(), &self.body, &keys(), now)
    }
}

/// What becomes of a file as it is, and with a signature that holds.
pub(crate) fn outcomes(bytes: &[u8]) -> [Result<Signed, Rejection>; 2] {
    let mut request = Request::read(bytes);
    let as_it_is = request.verify();
    request.sign();
    let signed = request.verify();
    // A signature that holds is never called a wrong one, and an event is a piece of the body.
    assert!(!matches!(signed, Err(Rejection::Signature)));
    if let Ok(Signed { message: Message::Notification(event), .. }) = &signed {
        assert_eq!(event.payload, request.body.trim_ascii());
    }
    [as_it_is, signed]
}
