//! Authentication at the endpoint: by the token itself, or by a cookie given out for a right token. ◆
//!
//! The cookie is no token: it says until when it is good, and is signed with a key that the token makes. So it ends
//! by itself and with the token, and survives a restart. Only sessions that were ended early have to be remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::model::secret::Secret;

/// How long a cookie opens the endpoint.
pub(super) const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Sessions that are remembered as ended early. Only who has the token can begin one.
const ENDED: usize = 1_000;
/// What is signed for a comparison of tokens, and for a cookie.
const PURPOSES: [&[u8]; 2] = [b"eventsubd admin token", b"eventsubd admin session "];

/// Knows the token. Nothing of it can be printed.
#[derive(Clone)]
pub(super) struct Keeper {
    signer: Hmac<Sha256>,
    /// What the right token makes.
    tag: [u8; 32],
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[keeper]")
    }
}

fn signer(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

impl Keeper {
    pub(super) fn new(token: &Secret) -> Self {
        let signer = signer(token.expose().as_bytes());
        let tag = signer.clone().chain_update(PURPOSES[0]).finalize().into_bytes().into();
        Self { signer, tag }
    }

    /// Whether this is the token. Takes as long for one that is nearly right as for any other.
    pub(super) fn opens(&self, text: &[u8]) -> bool {
        signer(text).chain_update(PURPOSES[0]).verify_slice(&self.tag).is_ok()
    }

    fn session(&self, text: &str) -> Hmac<Sha256> {
        self.signer.clone().chain_update(PURPOSES[1]).chain_update(text)
    }

    /// The value of a cookie, good from now on (in seconds since the epoch) for [`SESSION`]. `id` tells it from
    /// others, and is never used twice.
    pub(super) fn cookie(&self, id: &str, now: u64) -> String {
        let mut text = format!("{}.{id}", now.saturating_add(SESSION.as_secs()));
        let mac = self.session(&text).finalize().into_bytes();
        text.push('.');
        for byte in mac {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// The session of a cookie that is ours and still good. Total.
    pub(super) fn remembers<'a>(&self, cookie: &'a str, now: u64) -> Option<Session<'a>> {
        let (text, digits) = cookie.rsplit_once('.')?;
        let (until, id) = text.split_once('.')?;
        let until = until.parse::<u64>().ok()?;
        let digits = digits.as_bytes();
        let mut mac = [0_u8; 32];
        if digits.len() != 2 * mac.len() {
            return None;
        }
        for (byte, pair) in mac.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble =
                |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        let is_good = self.session(text).verify_slice(&mac).is_ok() && now < until;
        is_good.then_some(Session { id, until })
    }
}

/// Content of a cookie of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session<'a> {
    id: &'a str,
    /// When it ends by itself, in seconds since the epoch.
    until: u64,
}

/// Sessions that were ended before their time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndedSessions {
    /// By id, with when each would have ended by itself.
    ended: BTreeMap<String, u64>,
    /// Sessions that would end by themselves up to this time are ended too.
    #[serde(default)]
    all_until: u64,
}

impl EndedSessions {
    pub(super) fn has(&self, session: Session<'_>) -> bool {
        session.until <= self.all_until || self.ended.contains_key(session.id)
    }

    /// Ends a session. The list is bounded: beyond that, all sessions end that were begun before now.
    pub(super) fn end(&mut self, session: Session<'_>, now: u64) {
        self.ended.retain(|_, until| *until > now);
        if self.ended.len() >= ENDED {
            self.ended.clear();
            self.all_until = now.saturating_add(SESSION.as_secs());
        }
        self.ended.insert(session.id.to_owned(), session.until);
    }
}

/// The values of the cookies of this name.
pub(super) fn cookies<'a>(header: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    header.split(';').filter_map(move |pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

/// The token in the value of an `Authorization` header.
pub(super) fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keeper() -> Keeper {
        Keeper::new(&Secret::new("0123456789abcdef"))
    }

    #[test]
    fn the_token_opens_and_nothing_else() {
        assert!(keeper().opens(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"0123456789abcdeF", b"\xff"] {
            assert!(!keeper().opens(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{:?}", keeper()), "[keeper]");
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for wrong in [&b"Basic abc"[..], b"Bearer", b"", b"Bearerabc"] {
            assert_eq!(bearer(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_cookie_ends_by_itself_and_with_the_token() {
        let cookie = keeper().cookie("a1", 1_000);
        assert!(!cookie.contains("0123456789abcdef"));
        let end = 1_000 + SESSION.as_secs();
        assert_eq!(keeper().remembers(&cookie, 1_000), Some(Session { id: "a1", until: end }));
        assert!(keeper().remembers(&cookie, end - 1).is_some());
        assert_eq!(keeper().remembers(&cookie, end), None);
        let other = Keeper::new(&Secret::new("another-token-that-is-right"));
        assert_eq!(other.remembers(&cookie, 1_000), None);
        let longer = cookie.replacen(&end.to_string(), &(end + 1).to_string(), 1);
        assert_eq!(keeper().remembers(&longer, 1_000), None, "nobody can lengthen it");
        let renamed = cookie.replacen("a1", "a2", 1);
        assert_eq!(keeper().remembers(&renamed, 1_000), None, "nor make another session of it");
        let header = format!("a=b; eventsubd={cookie};eventsubd=x; eventsubdx=y; c");
        assert_eq!(cookies(&header, "eventsubd").collect::<Vec<_>>(), [cookie.as_str(), "x"]);
    }

    #[test]
    fn an_ended_session_stays_ended_and_the_others_go_on() {
        let mut ended = EndedSessions::default();
        let cookies = ["a1", "b2"].map(|id| keeper().cookie(id, 1_000));
        let [one, two] = cookies.each_ref().map(|cookie| keeper().remembers(cookie, 1_000).unwrap());
        ended.end(one, 1_000);
        assert!(ended.has(one) && !ended.has(two));
        let kept: EndedSessions = serde_json::from_str(&serde_json::to_string(&ended).unwrap()).unwrap();
        assert_eq!(kept, ended, "over a restart too");
        ended.end(two, one.until + 1);
        assert_eq!(ended.ended.len(), 1, "what has ended by itself is forgotten");
    }

    #[test]
    fn ended_sessions_are_bounded_and_none_comes_back() {
        let mut ended = EndedSessions::default();
        let ids: Vec<String> = (0..3 * ENDED).map(|nth| nth.to_string()).collect();
        let mut sessions = Vec::new();
        for (id, now) in ids.iter().zip(1_000..) {
            let session = Session { id, until: now + SESSION.as_secs() };
            ended.end(session, now);
            sessions.push(session);
            assert!(ended.ended.len() <= ENDED);
        }
        assert!(sessions.iter().all(|session| ended.has(*session)));
        let now = 1_000 + sessions.len() as u64;
        assert!(!ended.has(Session { id: "new", until: now + SESSION.as_secs() }));
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_cookie(text in "\\PC{0,120}", hex in "[0-9a-f]{64}", until in any::<u64>(), id in "[0-9a-f]{0,32}") {
            prop_assert_eq!(keeper().remembers(&text, 0), None);
            let forged = format!("{until}.{id}.{hex}");
            prop_assert_eq!(keeper().remembers(&forged, 0), None);
        }
    }
}
