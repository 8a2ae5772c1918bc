//! Addresses and login of NATS servers, and the library's words for a failed connection.

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

use crate::model::connect::address;
use crate::model::masking::Masking;
use crate::model::secret::Secret;

/// The servers of a list, and what opens them.
pub struct NatsServers {
    /// Without logins, as the library logs them.
    addresses: Vec<ServerAddr>,
    login: Option<Login>,
    credentials: Option<Secret>,
}

/// The login in a URL. The library logs URLs, so the URLs that it gets have none.
struct Login {
    /// A token when there is no password.
    user: Secret,
    password: Option<Secret>,
}

/// The reason for which servers cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsServersError {
    /// One of them is no URL with a host.
    #[error("no address of a NATS server, such as `nats://127.0.0.1:4222`")]
    Url,
    /// The text is no credentials file.
    #[error("no credentials file of NATS")]
    Credentials,
}

impl std::fmt::Debug for NatsServers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsServers").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Login {
    /// Takes it out of a URL.
    fn take(url: &mut reqwest::Url) -> Option<Self> {
        let decoded = |text: &str| Secret::new(percent_decode_str(text).decode_utf8_lossy().into_owned());
        let login = Self { user: decoded(url.username()), password: url.password().map(decoded) };
        if url.username().is_empty() && login.password.is_none() {
            return None;
        }
        // Only URLs without a host have no room for a login, and this one had it.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        Some(login)
    }
}

impl NatsServers {
    /// Reads a list of URLs, separated by commas, and the text of a credentials file.
    ///
    /// # Errors
    /// A URL or the credentials cannot be used.
    pub fn new(urls: &Secret, credentials: Option<&Secret>) -> Result<Self, NatsServersError> {
        let (mut addresses, mut login) = (Vec::new(), None);
        for text in urls.expose().split(',') {
            let mut url = reqwest::Url::parse(text.trim()).map_err(|_| NatsServersError::Url)?;
            let own = Login::take(&mut url);
            login = login.or(own);
            addresses.push(ServerAddr::from_url(url).map_err(|_| NatsServersError::Url)?);
        }
        let servers = Self { addresses, login, credentials: credentials.cloned() };
        servers.open(ConnectOptions::new())?;
        Ok(servers)
    }

    /// The addresses, for the library.
    pub fn addresses(&self) -> &[ServerAddr] {
        &self.addresses
    }

    /// The addresses, for people.
    pub fn names(&self) -> String {
        let all: Vec<String> =
            self.addresses.iter().map(|server| address(server.host(), server.port())).collect();
        all.join(", ")
    }

    /// Adds login and credentials to the options of a connection.
    ///
    /// # Errors
    /// The credentials cannot be used.
    pub fn open(&self, options: ConnectOptions) -> Result<ConnectOptions, NatsServersError> {
        let options = match &self.login {
            Some(Login { user, password: Some(password) }) => {
                options.user_and_password(user.expose().to_owned(), password.expose().to_owned())
            }
            Some(Login { user: token, password: None }) => options.token(token.expose().to_owned()),
            None => options,
        };
        match &self.credentials {
            Some(text) => {
                // The library wants an end of the last line, and the ends of secrets are trimmed.
                let text = zeroize::Zeroizing::new(format!("{}\n", text.expose()));
                options.credentials(&text).map_err(|_| NatsServersError::Credentials)
            }
            None => Ok(options),
        }
    }
}

/// The secrets of a list of URLs and of a credentials file: a server may repeat what it was sent.
pub fn nats_masking(urls: &Secret, credentials: Option<&Secret>) -> Masking {
    let mut masking = Masking::default();
    for url in urls.expose().split(',') {
        masking.add_url(url);
    }
    if let Some(credentials) = credentials {
        masking.add_opaque_words(credentials.expose());
    }
    masking
}

/// The cause in the library's words for a failed attempt.
pub fn explain_nats(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words = [
        ("connection refused", "connection refused"),
        ("connection reset", "the other side reset the connection"),
        ("timed out", "no answer in time"),
        ("no route to host", "there is no route to the host"),
        ("network is unreachable", "the network cannot be reached from here"),
        ("name or service not known", "there is no such name in DNS"),
        ("failed to lookup", "the name cannot be looked up in DNS"),
        ("unknownissuer", "its certificate is not trusted: no CA certificate of this machine vouches for it"),
        ("invalid peer certificate", "its certificate cannot be used"),
        ("tls", "TLS failed"),
        ("authorization violation", "it refuses the user, the password or the credentials file"),
        ("io error", "the connection broke"),
    ];
    let known = words.iter().find(|(part, _)| lower.contains(part));
    known.map_or_else(|| text.to_owned(), |(_, words)| (*words).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_leaves_the_address() {
        let take = |text: &str| {
            let mut url = reqwest::Url::parse(text).unwrap();
            let login = Login::take(&mut url).map(|login| {
                (login.user.expose().to_owned(), login.password.map(|password| password.expose().to_owned()))
            });
            (url.to_string(), login)
        };
        let some = |user: &str, password: Option<&str>| Some((user.to_owned(), password.map(str::to_owned)));
        assert_eq!(take("nats://me:p%40ss@host:1"), ("nats://host:1".to_owned(), some("me", Some("p@ss"))));
        assert_eq!(take("tls://token@host"), ("tls://host".to_owned(), some("token", None)));
        assert_eq!(take("nats://host:1"), ("nats://host:1".to_owned(), None));
    }

    #[test]
    fn servers_are_named_without_their_login() {
        let servers = NatsServers::new(&Secret::new("nats://me:secret-9@n1, tls://n2:5"), None).unwrap();
        assert_eq!(servers.names(), "n1:4222, n2:5");
        assert!(!format!("{servers:?}").contains("secret-9"));
        assert_eq!(NatsServers::new(&Secret::new("n1,"), None).map(|_| ()), Err(NatsServersError::Url));
    }
}
