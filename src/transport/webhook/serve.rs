//! One connection from its handshake to its end.

use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::answer::answer;
use super::connection::{Entry, Order, Phase, Watched};
use super::shared::Shared;
use super::tls::Tls;

/// Headers of a request, at most. Twitch sends about a dozen, proxies add some.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head, at most.
const MAX_HEAD: usize = 32 << 10;

/// Serves one connection to its end.
pub(super) async fn connection<T>(shared: Arc<Shared>, entry: Entry, stream: T, tls: Option<Tls>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Some(tls) = tls else { return http(shared, &entry, stream).await };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = tokio::select! {
        biased;
        () = entry.connection.told(Order::Drain) => return,
        stream = handshake => stream,
    };
    match stream {
        Ok(stream) => {
            entry.connection.enter(Phase::Idle);
            http(shared, &entry, stream).await;
        }
        Err(error) => debug!(%error, "a TLS handshake failed"),
    }
}

async fn http<T>(shared: Arc<Shared>, entry: &Entry, stream: T)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connection = &entry.connection;
    let stream = Watched { stream, connection: Arc::clone(connection) };
    let service = service_fn(|request| answer(Arc::clone(&shared), Arc::clone(connection), request));
    let mut serving = pin!(
        http1::Builder::new()
            // `Connections::tick` keeps the time.
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        biased;
        () = connection.told(Order::Drain) => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                () = connection.told(Order::Cut) => return,
                ended = serving => ended,
            }
        }
        ended = &mut serving => ended,
    };
    if let Err(error) = ended {
        debug!(%error, "a webhook connection ended");
    }
}
