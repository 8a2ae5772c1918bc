//! Connections and routes, and faults that concern the connection itself.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service as _;
use tracing::{debug, warn};

use super::api::{self, Helix};
use super::faults::{Fault, Route};
use super::state::Shared;
use super::{auth, authorize, command, device};
use crate::platform::{self, Answer, Call, EventSub, Operation};

/// The end of a connection, on purpose.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the connection is broken on purpose")]
struct Broken;

/// A request that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Helix(Helix),
    Token,
    Validate,
    Revoke,
    StartDevice,
    Authorize,
    UnknownAuth,
    Activate,
}

impl Target {
    /// Which faults concern it.
    fn route(self) -> Option<Route> {
        match self {
            Self::Helix(helix) => helix.route(),
            Self::Token => Some(Route::Token),
            Self::Validate => Some(Route::Validate),
            _ => None,
        }
    }

    async fn answer(self, world: &Shared, call: &Call) -> Answer {
        match self {
            Self::Helix(helix) => api::answer(world, helix, call).await,
            Self::Token => auth::token(world, call),
            Self::Validate => auth::validate(world, call),
            Self::Revoke => auth::revoke(world, call),
            Self::StartDevice => device::start(world, call),
            Self::Authorize => authorize::page(world, call).await,
            Self::UnknownAuth => auth::refusal(404, "not found"),
            Self::Activate => device::page(world, call).await,
        }
    }
}

impl EventSub for Shared {
    fn eventsub(&self, operation: Operation, call: Call) -> BoxFuture<'static, Response> {
        let world = Self::clone(self);
        Box::pin(async move { respond(&world, Target::Helix(Helix::EventSub(operation)), &call).await })
    }
}

type Handled = BoxFuture<'static, Response>;

fn at(target: Target) -> impl Fn(State<Shared>, Request) -> Handled + Clone + Send + Sync + 'static {
    move |State(world), request| {
        Box::pin(async move {
            match platform::read(request).await {
                Ok(call) => respond(&world, target, &call).await,
                Err(answer) => answer.into_response(),
            }
        })
    }
}

fn router(world: Shared) -> Router {
    let helix = |helix| at(Target::Helix(helix));
    let api = platform::routes::<Shared>()
        .route("/users", get(helix(Helix::Users)))
        .route("/streams", get(helix(Helix::Streams)))
        .route("/channels", get(helix(Helix::Channels)))
        .route("/authorization/users", get(helix(Helix::Authorizations)))
        .method_not_allowed_fallback(helix(Helix::Unknown));
    let auth = Router::new()
        .route("/token", post(at(Target::Token)))
        .route("/validate", get(at(Target::Validate)))
        .route("/revoke", post(at(Target::Revoke)))
        .route("/device", post(at(Target::StartDevice)))
        .route("/authorize", get(at(Target::Authorize)).post(at(Target::Authorize)))
        .method_not_allowed_fallback(at(Target::UnknownAuth))
        .fallback(at(Target::UnknownAuth));
    // The paths without `/helix` and those below `/auth` and `/mock` are those of the mock server of Twitch's CLI.
    Router::new()
        .nest("/oauth2", auth.clone())
        .nest("/auth", auth)
        .nest("/helix", api.clone())
        .nest("/mock", api.clone())
        .merge(api)
        .route("/ws", any(websocket))
        .route("/activate", get(at(Target::Activate)).post(at(Target::Activate)))
        .route("/sandbox/{command}", post(control))
        .fallback(helix(Helix::Unknown))
        .with_state(world)
}

async fn websocket(State(world): State<Shared>, request: Request) -> Response {
    let fault = world.lock().faults.take(Route::Connect);
    match fault {
        Some(Fault::Status(status, message)) => Answer::error(status, &message).into_response(),
        Some(Fault::Hang) => hang(&world).await,
        Some(_) => broken(),
        None => platform::upgrade(world, request),
    }
}

async fn control(State(world): State<Shared>, Path(name): Path<String>, request: Request) -> Response {
    match platform::read(request).await {
        Ok(call) => command::answer(&world, &name, &call).await.into_response(),
        Err(answer) => answer.into_response(),
    }
}

/// Answers a request, or has it fail as planned.
async fn respond(world: &Shared, target: Target, call: &Call) -> Response {
    let fault = target.route().and_then(|route| world.lock().faults.take(route));
    let latency = world.lock().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let answer = match fault {
        None => target.answer(world, call).await,
        Some(Fault::Status(status, message)) => api::with_level(world, call, Answer::error(status, &message)),
        Some(Fault::Unauthorized) => {
            world.count(|stats| stats.unauthorized += 1);
            Answer::error(401, "Invalid OAuth token")
        }
        Some(Fault::RateLimited) => api::rate_limited(world, call),
        Some(Fault::Hang) => return hang(world).await,
        Some(Fault::Reset) => return broken(),
        Some(Fault::Garbage) => Answer {
            content_type: platform::ContentType::Json,
            ..Answer::html(200, "<html>Service under maintenance</html>".to_owned())
        },
        Some(Fault::Truncate) => return truncated(&target.answer(world, call).await),
        Some(Fault::LoseAnswer) => {
            target.answer(world, call).await;
            return broken();
        }
    };
    answer.into_response()
}

/// Stands for the end of the connection without an answer.
fn broken() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Broken);
    response
}

async fn hang(world: &Shared) -> Response {
    world.stop.cancelled().await;
    broken()
}

/// Half of the answer, and then the end of the connection.
fn truncated(answer: &Answer) -> Response {
    let half = Bytes::copy_from_slice(&answer.body.as_bytes()[..answer.body.len() / 2]);
    let body = Body::from_stream(futures_util::stream::iter([Ok(half), Err(Broken)]));
    let response = Response::builder().status(answer.status).header("Content-Length", answer.body.len());
    response.body(body).unwrap_or_else(|_| broken())
}

pub(super) async fn serve(listener: TcpListener, world: Shared) {
    let router = router(Arc::clone(&world));
    loop {
        let accepted = tokio::select! {
            () = world.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(&world), router.clone()));
            }
            Err(error) => {
                warn!(%error, "the sandbox cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, world: Shared, router: Router) {
    let stop = world.stop.clone();
    let is_local = stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        world.count(|stats| stats.requests += 1);
        let mut router = router.clone();
        let is_strange = is_local && !is_own_host(&request);
        async move {
            if is_strange {
                let why = "the request is for another host; call the sandbox by its address or as localhost";
                return Ok(Answer::error(421, why).into_response());
            }
            let response = match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            match response.extensions().get::<Broken>() {
                Some(broken) => Err(broken.clone()),
                None => Ok(response),
            }
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        () = stop.cancelled() => {}
        result = serving => if let Err(error) = result {
            debug!(%error, "a connection to the sandbox ended");
        }
    }
}
/// Whether a request that came over loopback is meant for this machine. A page of a stranger may have its own name
/// point to 127.0.0.1 and then ask the sandbox from within a browser (DNS rebinding).
fn is_own_host(request: &hyper::Request<Incoming>) -> bool {
    let header = request.headers().get(hyper::header::HOST).and_then(|host| host.to_str().ok());
    header.is_none_or(is_own_name)
}

/// An address, or a name that every resolver keeps on this machine.
fn is_own_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_stranger_can_point_here_are_not_ours() {
        for (host, ours) in [
            ("127.0.0.1:8790", true),
            ("[::1]:8790", true),
            ("localhost", true),
            ("LOCALHOST:8790", true),
            ("twitch.localhost:1", true),
            ("evil.example:8790", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(is_own_name(host), ours, "{host}");
        }
    }
}
