//! What opens the endpoint: the token itself, or a cookie that a right token has bought.
//!
//! Pure. The cookie is no token: it says until when it is good, and is signed with a key that the token
//! makes. So it ends by itself and with the token, survives a restart, and nothing has to be remembered.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::secret::Secret;

/// How long a cookie opens the endpoint.
pub(super) const SESSION: Duration = Duration::from_secs(12 * 3600);
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

    fn session(&self, until: &str) -> Hmac<Sha256> {
        self.signer.clone().chain_update(PURPOSES[1]).chain_update(until)
    }

    /// The value of a cookie, good from now on (in seconds since the epoch) for [`SESSION`].
    pub(super) fn cookie(&self, now: u64) -> String {
        let until = now.saturating_add(SESSION.as_secs()).to_string();
        let mac = self.session(&until).finalize().into_bytes();
        let mut text = format!("{until}.");
        for byte in mac {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// Whether the value of a cookie is ours and still good. Total.
    pub(super) fn remembers(&self, cookie: &str, now: u64) -> bool {
        let Some((until, digits)) = cookie.split_once('.') else { return false };
        let Ok(end) = until.parse::<u64>() else { return false };
        let digits = digits.as_bytes();
        let mut told = [0_u8; 32];
        if digits.len() != 2 * told.len() {
            return false;
        }
        for (byte, pair) in told.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble =
                |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else { return false };
            *byte = high << 4 | low;
        }
        self.session(until).verify_slice(&told).is_ok() && now < end
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
        let cookie = keeper().cookie(1_000);
        assert!(!cookie.contains("0123456789abcdef"));
        let end = 1_000 + SESSION.as_secs();
        assert!(keeper().remembers(&cookie, 1_000) && keeper().remembers(&cookie, end - 1));
        assert!(!keeper().remembers(&cookie, end));
        let other = Keeper::new(&Secret::new("another-token-that-is-right"));
        assert!(!other.remembers(&cookie, 1_000));
        let longer = cookie.replacen(&end.to_string(), &(end + 1).to_string(), 1);
        assert!(!keeper().remembers(&longer, 1_000), "nobody can lengthen it");
        let header = format!("a=b; eventsubd={cookie};eventsubd=x; eventsubdx=y; c");
        assert_eq!(cookies(&header, "eventsubd").collect::<Vec<_>>(), [cookie.as_str(), "x"]);
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_cookie(text in "\\PC{0,120}", hex in "[0-9a-f]{64}", until in any::<u64>()) {
            prop_assert!(!keeper().remembers(&text, 0));
            let forged = format!("{until}.{hex}");
            prop_assert!(!keeper().remembers(&forged, 0));
        }
    }
}
