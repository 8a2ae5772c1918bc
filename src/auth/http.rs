//! The HTTP client, and reading of responses with a bound on their size.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

use super::proxy::{Proxies, ProxyError};
use crate::model::connect::reason;

/// Time limit for making a connection.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connections cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The HTTP library refuses its settings.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
    #[error(transparent)]
    Proxy(ProxyError),
    #[error("no CA certificates: install ca-certificates or set SSL_CERT_FILE{why}")]
    NoCertificates {
        /// Empty, or the certificates that were found instead, in brackets.
        why: String,
    },
}

/// CA certificates that this machine trusts.
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    /// Reason for having none: empty, or what was found instead, in brackets. `None` if there are some.
    pub(super) problem: Option<String>,
}

impl Roots {
    pub(super) fn load() -> Self {
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (_added, ignored) = store.add_parsable_certificates(found.certs);
        let problem = store.is_empty().then(|| match found.errors.first() {
            Some(error) => format!(" ({})", reason(error)),
            None if ignored > 0 => " (what is there cannot be read)".to_owned(),
            None => String::new(),
        });
        Self { store, problem }
    }
}

/// Builds TLS with the CA certificates of this machine. Without any, only `http://` works.
///
/// # Errors
/// The TLS library refuses its own defaults.
pub fn tls_config() -> Result<ClientConfig, HttpError> {
    tls_with(Roots::load().store)
}

pub(super) fn tls_with(roots: RootCertStore) -> Result<ClientConfig, HttpError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(HttpError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Builds a client that uses no proxy and follows no redirects. Header names are sent in title case like those of
/// Twitch's webhooks, because some receivers compare them case-sensitively.
///
/// # Errors
/// The HTTP library refuses its settings.
pub fn http_client(user_agent: &str, tls: ClientConfig) -> Result<reqwest::Client, HttpError> {
    build_client(user_agent, tls, &Proxies::default())
}

pub(super) fn build_client(
    user_agent: &str,
    tls: ClientConfig,
    proxies: &Proxies,
) -> Result<reqwest::Client, HttpError> {
    let builder = reqwest::Client::builder()
        .user_agent(user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .http1_title_case_headers()
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(Duration::from_secs(60))
        .tls_backend_preconfigured(tls);
    // Our own rules choose the proxy, for HTTP and WebSockets alike.
    let builder = if proxies.all().next().is_none() {
        builder.no_proxy()
    } else {
        let proxies = proxies.clone();
        builder.proxy(reqwest::Proxy::custom(move |url| proxies.of_url(url)?.url()))
    };
    builder.build().map_err(HttpError::Client)
}

/// Builds a client for HTTP over a Unix socket. The host of its URLs is sent as `Host` and otherwise ignored.
///
/// # Errors
/// The HTTP library refuses its settings.
pub fn unix_client(socket: &Path) -> Result<reqwest::Client, HttpError> {
    let client = reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // Never used, but the library insists on having TLS.
        .tls_backend_preconfigured(tls_with(RootCertStore::empty())?);
    client.build().map_err(HttpError::Client)
}

/// The body of a response could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the answer has more than {limit} bytes")]
    TooLarge { limit: usize },
    /// The connection broke, or timed out. The error contains the URL: show it through [`super::explain`] only.
    #[error("the answer broke off")]
    Broken(reqwest::Error),
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// The body is larger, or incomplete.
pub async fn read_bounded(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let announced = response.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Err(BodyError::TooLarge { limit });
    }
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(part) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + part.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// Reads the first `limit` bytes of a body, for answers that are only quoted.
///
/// # Errors
/// The body is incomplete before the limit.
pub async fn read_start(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < limit
        && let Some(part) = response.chunk().await?
    {
        body.extend_from_slice(&part[..part.len().min(limit - body.len())]);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn header_names_are_sent_in_title_case() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let client = http_client("test", tls_config().unwrap()).unwrap();
        let request =
            tokio::spawn(client.post(url).header("twitch-eventsub-message-id", "m1").body("x").send());
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\nx") {
            head.push(socket.read_u8().await.unwrap());
        }
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert_eq!(request.await.unwrap().unwrap().status(), 204);
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("\r\nTwitch-Eventsub-Message-Id: m1\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Length: 1\r\n"), "{head}");
    }

    #[tokio::test]
    async fn the_start_of_a_body_is_read_without_its_end() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let client = http_client("test", tls_config().unwrap()).unwrap();
        let request = tokio::spawn(client.get(url).send());
        let (mut socket, _) = listener.accept().await.unwrap();
        // The announced end never comes.
        socket.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n0123456789").await.unwrap();
        let answer = request.await.unwrap().unwrap();
        assert_eq!(read_start(answer, 8).await.unwrap(), b"01234567");
    }
}
