//! Invites, as they stand in a link. ◆
//!
//! An invite is signed with the client secret, so that a command on any host can write one and the daemon knows its
//! own; nothing is stored. It gives no right but to be asked for what the file needs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::model::secret::Secret;
use crate::model::signature::Signer;

/// Time until an invite expires.
pub const LIFE: Duration = Duration::from_secs(30 * 86_400);
/// The longest invite that is looked at, in bytes.
const MAX_LENGTH: usize = 2_048;
/// Keeps these signatures apart from others with the same secret.
const PURPOSE: &[u8] = b"eventsubd invitation 1";

/// The user whom an invite is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitedUser {
    #[serde(rename = "i")]
    pub id: Box<str>,
    /// The login when the invite was written, for people.
    #[serde(rename = "l")]
    pub login: Box<str>,
}

/// The content of an invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// `None` invites everyone of whom the file needs something.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<InvitedUser>,
    /// Globs of subscription types that the invite is limited to. Empty means all types of the file.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Time of expiry, in seconds since 1970.
    #[serde(rename = "e")]
    pub expires: u64,
}

/// Reason why an invite is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not written by us, or not with the present client secret.
    Unknown,
    Expired,
}

/// Writes and reads the invites of one application.
#[derive(Clone, Debug)]
pub struct InvitationKey {
    signer: Signer,
    client_id: Box<str>,
}

impl InvitationKey {
    pub fn new(client_id: &str, client_secret: &Secret) -> Self {
        Self { signer: Signer::new(client_secret), client_id: client_id.into() }
    }

    /// Returns the text for a link: letters, digits, `-`, `_`, `.` and `=`.
    pub fn write(&self, invitation: &Invitation) -> String {
        let content = serde_json::to_vec(invitation).unwrap_or_default();
        let content = URL_SAFE_NO_PAD.encode(content);
        let signature = self.sign(&content);
        format!("{content}.{}", signature.rsplit('=').next().unwrap_or_default())
    }

    fn sign(&self, content: &str) -> String {
        self.signer.sign(PURPOSE, &self.domain(), content.as_bytes())
    }

    /// The lengths of the parts are unambiguous: a client id has no line break.
    fn domain(&self) -> Vec<u8> {
        format!("\n{}\n", self.client_id).into_bytes()
    }

    /// Reads an invite.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(&self, text: &str, now: u64) -> Result<Invitation, Unusable> {
        if text.len() > MAX_LENGTH {
            return Err(Unusable::Unknown);
        }
        let (content, signature) = text.split_once('.').ok_or(Unusable::Unknown)?;
        let signature = format!("sha256={signature}");
        if !self.signer.verify(PURPOSE, &self.domain(), content.as_bytes(), signature.as_bytes()) {
            return Err(Unusable::Unknown);
        }
        let content = URL_SAFE_NO_PAD.decode(content).map_err(|_| Unusable::Unknown)?;
        let invitation: Invitation = serde_json::from_slice(&content).map_err(|_| Unusable::Unknown)?;
        if invitation.expires <= now { Err(Unusable::Expired) } else { Ok(invitation) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(client_id: &str, secret: &str) -> InvitationKey {
        InvitationKey::new(client_id, &Secret::new(secret))
    }

    fn ann() -> Invitation {
        let user = InvitedUser { id: "7".into(), login: "ann".into() };
        Invitation { user: Some(user), types: vec!["channel.*".to_owned()], expires: 1_000 }
    }

    #[test]
    fn an_invite_is_read_by_the_same_application_until_it_expires() {
        let ours = key("us", "s3cret");
        let text = ours.write(&ann());
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte)), "{text}");
        assert_eq!(ours.read(&text, 999), Ok(ann()));
        assert_eq!(ours.read(&text, 1_000), Err(Unusable::Expired));
        for other in [key("them", "s3cret"), key("us", "another")] {
            assert_eq!(other.read(&text, 0), Err(Unusable::Unknown));
        }
        let everyone = Invitation { user: None, types: Vec::new(), expires: 5 };
        assert_eq!(ours.read(&ours.write(&everyone), 0), Ok(everyone));
    }

    proptest! {
        #[test]
        fn a_changed_invite_is_unknown(at in any::<prop::sample::Index>(), with in any::<char>(), text in ".{0,80}") {
            let ours = key("us", "s3cret");
            prop_assert_eq!(ours.read(&text, 0), Err(Unusable::Unknown));
            let good = ours.write(&ann());
            let mut changed: Vec<char> = good.chars().collect();
            let at = at.index(changed.len());
            prop_assume!(changed[at] != with);
            changed[at] = with;
            let changed: String = changed.into_iter().collect();
            prop_assert_eq!(ours.read(&changed, 0), Err(Unusable::Unknown));
        }

        #[test]
        fn invites_round_trip(id in "[0-9]{1,12}", login in ".{0,30}", types in prop::collection::vec("[a-z.*]{1,20}", 0..4)) {
            let user = Some(InvitedUser { id: id.into(), login: login.into() });
            let invitation = Invitation { user, types, expires: 10 };
            let ours = key("us", "s3cret");
            prop_assert_eq!(ours.read(&ours.write(&invitation), 9), Ok(invitation));
        }
    }
}
