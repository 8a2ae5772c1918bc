//! Verification of the admin token, and of session cookies given out for it. ◆
//!
//! A cookie does not contain the token: it has an expiry, and a signature with a key derived from the token. It
//! therefore ends at its expiry or when the token changes, and survives a restart. Only sessions that were ended
//! early have to be stored.

use std::collections::BTreeMap;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::model::hex;
use crate::model::secret::Secret;

/// Lifetime of a cookie.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Number of sessions stored as ended early. Only clients with the token can start one.
const MAX_ENDED: usize = 1_000;
/// Signed purposes: comparing tokens, cookies, and forms.
const PURPOSES: [&[u8]; 3] =
    [b"eventsubd admin token", b"eventsubd admin session ", b"eventsubd admin form "];

/// Verifies tokens and cookies. Its `Debug` prints nothing secret.
#[derive(Clone)]
pub(super) struct TokenVerifier {
    signer: Hmac<Sha256>,
    /// Tag of the right token.
    tag: [u8; 32],
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[verifier]")
    }
}

fn signer(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

impl TokenVerifier {
    pub(super) fn new(token: &Secret) -> Self {
        let signer = signer(token.expose().as_bytes());
        let tag = signer.clone().chain_update(PURPOSES[0]).finalize().into_bytes().into();
        Self { signer, tag }
    }

    /// Returns whether this is the token, in constant time.
    pub(super) fn is_token(&self, text: &[u8]) -> bool {
        signer(text).chain_update(PURPOSES[0]).verify_slice(&self.tag).is_ok()
    }

    fn session_mac(&self, text: &str) -> Hmac<Sha256> {
        self.signer.clone().chain_update(PURPOSES[1]).chain_update(text)
    }

    /// Returns the value of a new cookie, valid for [`SESSION_LIFETIME`]. `id` must be unique; `now` is in seconds
    /// since the epoch.
    pub(super) fn cookie(&self, id: &str, now: u64) -> String {
        let mut text = format!("{}.{id}", now.saturating_add(SESSION_LIFETIME.as_secs()));
        let mac = self.session_mac(&text).finalize().into_bytes();
        text.push('.');
        hex::push(&mut text, &mac);
        text
    }

    /// Returns the value that forms of this session carry. A page of another origin cannot know it.
    pub(super) fn form_key(&self, session: Session<'_>) -> String {
        let mac =
            self.signer.clone().chain_update(PURPOSES[2]).chain_update(session.id).finalize().into_bytes();
        hex::encode(&mac)
    }

    /// Returns the session of a valid cookie.
    pub(super) fn verify_session<'a>(&self, cookie: &'a str, now: u64) -> Option<Session<'a>> {
        let (text, digits) = cookie.rsplit_once('.')?;
        let (until, id) = text.split_once('.')?;
        let until = until.parse::<u64>().ok()?;
        let mac = hex::decode::<32>(digits.as_bytes())?;
        let is_good = self.session_mac(text).verify_slice(&mac).is_ok() && now < until;
        is_good.then_some(Session { id, until })
    }
}

/// A verified cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session<'a> {
    id: &'a str,
    /// Expiry, in seconds since the epoch.
    until: u64,
}

/// Sessions ended before their expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndedSessions {
    /// Expiry by session id.
    ended: BTreeMap<String, u64>,
    /// All sessions with an expiry up to this time have ended too.
    #[serde(default)]
    all_until: u64,
}

impl EndedSessions {
    pub(super) fn has(&self, session: Session<'_>) -> bool {
        session.until <= self.all_until || self.ended.contains_key(session.id)
    }

    /// Ends a session. When the list is full, ends all sessions started before now.
    pub(super) fn end(&mut self, session: Session<'_>, now: u64) {
        self.ended.retain(|_, until| *until > now);
        if self.ended.len() >= MAX_ENDED {
            self.ended.clear();
            self.all_until = now.saturating_add(SESSION_LIFETIME.as_secs());
        }
        self.ended.insert(session.id.to_owned(), session.until);
    }
}

/// Returns the values of the cookies with this name.
pub(super) fn cookies<'a>(header: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    header.split(';').filter_map(move |pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

/// Returns the token of an `Authorization` header.
pub(super) fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verifier() -> TokenVerifier {
        TokenVerifier::new(&Secret::new("0123456789abcdef"))
    }

    #[test]
    fn only_the_exact_token_is_accepted() {
        assert!(verifier().is_token(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"0123456789abcdeF", b"\xff"] {
            assert!(!verifier().is_token(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{:?}", verifier()), "[verifier]");
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for wrong in [&b"Basic abc"[..], b"Bearer", b"", b"Bearerabc"] {
            assert_eq!(bearer(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn each_session_has_a_form_key_of_its_own_that_tells_nothing_else() {
        let session = |id| Session { id, until: 1 };
        let key = verifier().form_key(session("a1"));
        assert_eq!((key.len(), &key), (64, &verifier().form_key(session("a1"))));
        assert_ne!(key, verifier().form_key(session("a2")));
        assert_ne!(
            key,
            TokenVerifier::new(&Secret::new("another-token-that-is-right")).form_key(session("a1"))
        );
        assert!(!verifier().cookie("a1", 0).contains(&key));
    }

    #[test]
    fn a_cookie_ends_at_its_expiry_and_when_the_token_changes() {
        let cookie = verifier().cookie("a1", 1_000);
        assert!(!cookie.contains("0123456789abcdef"));
        let end = 1_000 + SESSION_LIFETIME.as_secs();
        assert_eq!(verifier().verify_session(&cookie, 1_000), Some(Session { id: "a1", until: end }));
        assert!(verifier().verify_session(&cookie, end - 1).is_some());
        assert_eq!(verifier().verify_session(&cookie, end), None);
        let other = TokenVerifier::new(&Secret::new("another-token-that-is-right"));
        assert_eq!(other.verify_session(&cookie, 1_000), None);
        let longer = cookie.replacen(&end.to_string(), &(end + 1).to_string(), 1);
        assert_eq!(verifier().verify_session(&longer, 1_000), None, "nobody can lengthen it");
        let renamed = cookie.replacen("a1", "a2", 1);
        assert_eq!(verifier().verify_session(&renamed, 1_000), None, "nor make another session of it");
        let header = format!("a=b; eventsubd={cookie};eventsubd=x; eventsubdx=y; c");
        assert_eq!(cookies(&header, "eventsubd").collect::<Vec<_>>(), [cookie.as_str(), "x"]);
    }

    #[test]
    fn ending_a_session_leaves_the_others_valid() {
        let mut ended = EndedSessions::default();
        let cookies = ["a1", "b2"].map(|id| verifier().cookie(id, 1_000));
        let [one, two] = cookies.each_ref().map(|cookie| verifier().verify_session(cookie, 1_000).unwrap());
        ended.end(one, 1_000);
        assert!(ended.has(one) && !ended.has(two));
        let kept: EndedSessions = serde_json::from_str(&serde_json::to_string(&ended).unwrap()).unwrap();
        assert_eq!(kept, ended, "over a restart too");
        ended.end(two, one.until + 1);
        assert_eq!(ended.ended.len(), 1, "what has ended by itself is forgotten");
    }

    #[test]
    fn the_list_of_ended_sessions_is_bounded_and_none_becomes_valid_again() {
        let mut ended = EndedSessions::default();
        let ids: Vec<String> = (0..3 * MAX_ENDED).map(|nth| nth.to_string()).collect();
        let mut sessions = Vec::new();
        for (id, now) in ids.iter().zip(1_000..) {
            let session = Session { id, until: now + SESSION_LIFETIME.as_secs() };
            ended.end(session, now);
            sessions.push(session);
            assert!(ended.ended.len() <= MAX_ENDED);
        }
        assert!(sessions.iter().all(|session| ended.has(*session)));
        let now = 1_000 + sessions.len() as u64;
        assert!(!ended.has(Session { id: "new", until: now + SESSION_LIFETIME.as_secs() }));
    }

    proptest! {
        #[test]
        fn forged_cookies_are_refused(text in "\\PC{0,120}", hex in "[0-9a-f]{64}", until in any::<u64>(), id in "[0-9a-f]{0,32}") {
            prop_assert_eq!(verifier().verify_session(&text, 0), None);
            let forged = format!("{until}.{id}.{hex}");
            prop_assert_eq!(verifier().verify_session(&forged, 0), None);
        }
    }
}
