//! One connection from its handshake to its end.

use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::answer::answer;
use super::shared::Shared;
use super::tls::Tls;
use crate::admission::{Connection, Order, Phase, Watched};

/// Most headers of a request. Twitch sends about a dozen, and proxies add some.
const MAX_HEADERS: usize = 64;
/// Largest head of a request, in bytes. Also the size of a connection's read buffer.
const MAX_HEAD: usize = 16 << 10;

/// Serves one connection to its end.
pub(super) async fn serve<T>(shared: Arc<Shared>, connection: Arc<Connection>, stream: T, tls: Option<Tls>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Some(tls) = tls else { return http(shared, &connection, stream).await };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = tokio::select! {
        biased;
        () = connection.told(Order::Drain) => return,
        stream = handshake => stream,
    };
    match stream {
        Ok(stream) => {
            connection.enter(Phase::Idle);
            http(shared, &connection, stream).await;
        }
        Err(error) => shared.span.in_scope(|| debug!(%error, "a TLS handshake failed")),
    }
}

async fn http<T>(shared: Arc<Shared>, connection: &Arc<Connection>, stream: T)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let stream = Watched { stream, connection: Arc::clone(connection) };
    let service = service_fn(|request| answer(Arc::clone(&shared), Arc::clone(connection), request));
    let serving = http1::Builder::new()
        // The table of connections enforces this time limit.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.attend(serving).await {
        shared.span.in_scope(|| debug!(%error, "a webhook connection ended"));
    }
}
