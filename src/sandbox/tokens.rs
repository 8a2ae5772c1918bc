//! Access tokens and refresh tokens (Twitch: "Getting OAuth Access Tokens", "Refreshing Access Tokens").

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Lifetime of a user access token.
pub(super) const USER_TOKEN: Duration = Duration::from_secs(4 * 3600);
/// Lifetime of a refresh token that a client without a secret got.
const PUBLIC_REFRESH: Duration = Duration::from_secs(30 * 86_400);
/// Access tokens of one refresh token that are valid at a time; the oldest one goes.
const PER_REFRESH: usize = 50;

/// An access token that is valid.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) client_id: String,
    /// `None` for an app access token.
    pub(super) user: Option<UserScopes>,
    pub(super) until: Instant,
}

/// A user and the scopes that a token of that user has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserScopes {
    pub(super) id: String,
    pub(super) scopes: Vec<String>,
}

/// A user's tokens as the token endpoint hands them out.
#[derive(Clone, Debug)]
pub(super) struct UserTokens {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) scopes: Vec<String>,
}

#[derive(Clone, Debug)]
struct Refresh {
    client_id: String,
    user: UserScopes,
    /// `None` for clients with a secret: theirs do not expire.
    until: Option<Instant>,
    /// The access tokens made with it, oldest first.
    access: VecDeque<String>,
}

/// Whether the client proved itself with its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientKind {
    Confidential,
    /// Without a secret: a refresh token can be used once, and lives for 30 days.
    Public,
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    access: HashMap<String, Token>,
    refresh: HashMap<String, Refresh>,
}

impl Tokens {
    /// Makes an app access token.
    pub(super) fn issue_app(&mut self, client_id: &str, life: Duration, now: Instant) -> String {
        let text = random(30);
        self.access
            .insert(text.clone(), Token { client_id: client_id.to_owned(), user: None, until: now + life });
        text
    }

    /// Makes an access token and a refresh token of a user.
    pub(super) fn issue_user(
        &mut self,
        client_id: &str,
        user: UserScopes,
        kind: ClientKind,
        now: Instant,
    ) -> UserTokens {
        let refresh = random(50);
        let until = (kind == ClientKind::Public).then_some(now + PUBLIC_REFRESH);
        let entry = Refresh { client_id: client_id.to_owned(), user, until, access: VecDeque::new() };
        self.add_access(refresh, entry, now)
    }

    /// Makes a further access token. `None` if the refresh token is not valid for this client.
    pub(super) fn refresh(
        &mut self,
        client_id: &str,
        refresh: &str,
        kind: ClientKind,
        now: Instant,
    ) -> Option<UserTokens> {
        let known = self.refresh.get(refresh)?;
        let is_public = known.until.is_some();
        if known.client_id != client_id
            || known.until.is_some_and(|until| until <= now)
            || (!is_public && kind == ClientKind::Public)
        {
            return None;
        }
        let mut entry = self.refresh.remove(refresh)?;
        if !is_public {
            return Some(self.add_access(refresh.to_owned(), entry, now));
        }
        entry.until = Some(now + PUBLIC_REFRESH);
        Some(self.add_access(random(50), entry, now))
    }

    fn add_access(&mut self, refresh: String, mut entry: Refresh, now: Instant) -> UserTokens {
        let access = random(30);
        let token = Token {
            client_id: entry.client_id.clone(),
            user: Some(entry.user.clone()),
            until: now + USER_TOKEN,
        };
        self.access.insert(access.clone(), token);
        entry.access.push_back(access.clone());
        if entry.access.len() > PER_REFRESH
            && let Some(oldest) = entry.access.pop_front()
        {
            self.access.remove(&oldest);
        }
        let scopes = entry.user.scopes.clone();
        self.refresh.insert(refresh.clone(), entry);
        UserTokens { access, refresh, scopes }
    }

    /// The token with this text, if it is still valid.
    pub(super) fn get(&self, text: &str, now: Instant) -> Option<&Token> {
        self.access.get(text).filter(|token| token.until > now)
    }

    /// Destroys an access token or a refresh token of a client; false if there is no such token.
    pub(super) fn revoke(&mut self, client_id: &str, text: &str) -> bool {
        if self.access.get(text).is_some_and(|known| known.client_id == client_id) {
            self.access.remove(text);
            return true;
        }
        if self.refresh.get(text).is_some_and(|known| known.client_id == client_id) {
            self.refresh.remove(text);
            return true;
        }
        false
    }

    /// Destroys every token of a user, as when the user disconnects the application.
    pub(super) fn disconnect(&mut self, user_id: &str) {
        self.access.retain(|_, token| token.user.as_ref().is_none_or(|user| user.id != user_id));
        self.refresh.retain(|_, refresh| refresh.user.id != user_id);
    }

    /// Destroys every access token.
    pub(super) fn clear(&mut self) {
        self.access.clear();
    }

    /// The texts of all access tokens.
    pub(super) fn texts(&self) -> Vec<String> {
        self.access.keys().cloned().collect()
    }
}

/// Lower-case letters and digits that nobody can guess.
fn random(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> UserScopes {
        UserScopes { id: "7".to_owned(), scopes: vec!["bits:read".to_owned()] }
    }

    #[test]
    fn confidential_clients_keep_their_refresh_token_and_have_fifty_access_tokens() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let first = tokens.issue_user("c", ann(), ClientKind::Confidential, now);
        assert_eq!(tokens.get(&first.access, now).and_then(|token| token.user.clone()), Some(ann()));
        assert!(tokens.get(&first.access, now + USER_TOKEN).is_none());
        assert!(tokens.refresh("other", &first.refresh, ClientKind::Confidential, now).is_none());
        assert!(tokens.refresh("c", &first.refresh, ClientKind::Public, now).is_none(), "without the secret");
        for _ in 0..PER_REFRESH {
            let next = tokens.refresh("c", &first.refresh, ClientKind::Confidential, now).expect("valid");
            assert_eq!(next.refresh, first.refresh);
        }
        assert!(tokens.get(&first.access, now).is_none(), "the oldest of 51");
        tokens.disconnect("7");
        assert!(tokens.refresh("c", &first.refresh, ClientKind::Confidential, now).is_none());
        assert!(tokens.texts().is_empty());
    }

    #[test]
    fn a_refresh_token_of_a_public_client_can_be_used_once_within_thirty_days() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let first = tokens.issue_user("c", ann(), ClientKind::Public, now);
        let next = tokens.refresh("c", &first.refresh, ClientKind::Public, now).expect("valid");
        assert_ne!(next.refresh, first.refresh);
        assert!(tokens.refresh("c", &first.refresh, ClientKind::Public, now).is_none(), "used");
        assert!(tokens.refresh("c", &next.refresh, ClientKind::Public, now + PUBLIC_REFRESH).is_none());
        assert!(tokens.revoke("c", &next.refresh) && !tokens.revoke("c", &next.refresh));
    }
}
