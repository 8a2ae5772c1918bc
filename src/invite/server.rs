//! The listener of the page, if it has one of its own. Follows the options to another address.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::request::MAX_FORM;
use super::work::{InviteOptions, Invited, Invites};
use crate::admission::{BoundAddress, ClientConnection, Counts, Limits, Phase, Serving, serve_configured};

/// Bounds for connections. Idle ones are kept for longer than proxies keep theirs.
const LIMITS: Limits = Limits {
    places: 256,
    per_address: 64,
    reserve: 0,
    bodies: 1 << 20,
    head: Duration::from_secs(10),
    body: Duration::from_secs(10),
    handshake: Duration::from_secs(10),
    idle: Duration::from_secs(180),
    scarce: Duration::from_secs(3),
};

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for invited users; is it taken by another program? if so, set another authorize.listen"
)]
pub struct InviteError {
    pub address: SocketAddr,
    #[source]
    pub source: std::io::Error,
}

/// Binds the address of the page. Connections wait in the system's queue until [`InviteListener::run`] serves them.
///
/// # Errors
/// The address is taken, or does not belong to this machine.
pub fn bind(address: SocketAddr) -> Result<BoundAddress, InviteError> {
    BoundAddress::bind(address).map_err(|source| InviteError { address, source })
}

/// The task that serves the page on an address of its own.
#[derive(Debug)]
pub struct InviteListener {
    invites: Invites,
    options: watch::Receiver<Option<InviteOptions>>,
    counts: watch::Sender<Option<Counts>>,
}

impl InviteListener {
    /// Returns the listener and its connection counts, which are `None` until it is served.
    pub fn new(invites: Invites) -> (Self, watch::Receiver<Option<Counts>>) {
        let options = invites.options();
        let (counts, receiver) = watch::channel(None);
        (Self { invites, options, counts }, receiver)
    }

    /// Serves until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let router = Router::new().fallback(handle).with_state(self.invites);
        let serving =
            Serving { name: "page for invited users", limits: LIMITS, probes: &[], counts: &self.counts };
        serve_configured(&mut self.options, listener, &router, serving, &cancel).await;
    }
}

fn listener(options: &Option<InviteOptions>) -> Option<BoundAddress> {
    options.as_ref()?.listener().cloned()
}

async fn handle(
    State(invites): State<Invites>,
    Extension(via): Extension<ClientConnection>,
    request: Request,
) -> Response {
    let is_page = {
        let options = invites.options();
        let options = options.borrow();
        options.as_ref().is_some_and(|options| options.path() == request.uri().path())
    };
    if !is_page {
        invites.refuse("path");
        return StatusCode::NOT_FOUND.into_response();
    }
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_FORM).await else {
        // The rest of the body stays unread.
        invites.refuse("body");
        return (StatusCode::PAYLOAD_TOO_LARGE, [(header::CONNECTION, "close")]).into_response();
    };
    via.connection.enter(Phase::Answer);
    let answer = invites.answer(&Request::from_parts(head, body)).await;
    if answer.extensions().get::<Invited>().is_some() {
        via.connection.prove();
    }
    answer.map(Body::from)
}
