//! The HTTP client for requests to Twitch, and reading answers without trusting their size.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connections cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The HTTP library refuses its settings.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// TLS with the certificates that this machine trusts. Without any, only `http://` works.
///
/// # Errors
/// The TLS library refuses its own defaults.
pub fn tls_config() -> Result<ClientConfig, HttpError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_added, _ignored) = roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(HttpError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// A client that follows no redirects: a token must not wander. Header names go out in title case, as Twitch's webhooks
/// have them: not every receiver knows that case does not count.
///
/// # Errors
/// The HTTP library refuses its settings.
pub fn http_client(user_agent: &str, tls: ClientConfig) -> Result<reqwest::Client, HttpError> {
    reqwest::Client::builder()
        .user_agent(user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .http1_title_case_headers()
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(Duration::from_secs(60))
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(HttpError::Client)
}

/// An answer's body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than anything Twitch sends.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// What is accepted.
        limit: usize,
    },
    /// The connection broke, or time ran out.
    #[error("the answer broke off")]
    Broken(#[source] reqwest::Error),
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// It is larger, or breaks off.
pub async fn read_bounded(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let announced = response.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Err(BodyError::TooLarge { limit });
    }
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(part) = response.chunk().await.map_err(|e| BodyError::Broken(e.without_url()))? {
        if body.len() + part.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn header_names_go_out_in_title_case() {
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
}
