//! Connections, routes, and faults that concern the connection itself.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::fault::{self, Fault, Route};
use super::state::Shared;
use super::webhook::challenge::{self, Challenge};
use super::{api, auth, device, session, tell};

/// The largest request body, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A body, which may break off.
pub(super) type Body = BoxBody<Bytes, Broken>;

/// The end of a connection, on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the connection is broken on purpose")]
pub(super) struct Broken;

/// An answer before it is sent.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// A page, and no JSON.
    pub(super) html: bool,
    /// Challenges that the request leads to.
    pub(super) challenges: Vec<Challenge>,
}

impl Answer {
    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::text(status, body.to_string())
    }

    pub(super) fn text(status: u16, body: String) -> Self {
        Self { status, headers: Vec::new(), body, html: false, challenges: Vec::new() }
    }

    /// The API's form of an error.
    pub(super) fn error(status: u16, message: &str) -> Self {
        let error = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
        Self::json(status, &json!({"error": error, "status": status, "message": message}))
    }

    fn into_response(self) -> Response<Body> {
        let mut builder = Response::builder().status(self.status);
        if !self.body.is_empty() {
            let kind = if self.html { "text/html; charset=utf-8" } else { "application/json; charset=utf-8" };
            builder = builder.header("Content-Type", kind);
        }
        for (name, value) in self.headers {
            builder = builder.header(name, value);
        }
        let body = Full::new(Bytes::from(self.body)).map_err(|never: Infallible| match never {}).boxed();
        builder.body(body).unwrap_or_else(|_| Response::new(empty()))
    }

    /// Half of it, and then the end of the connection.
    fn into_broken(self) -> Response<Body> {
        let half = Bytes::from(self.body.as_bytes()[..self.body.len() / 2].to_vec());
        let parts = futures_util::stream::iter([Ok(Frame::data(half)), Err(Broken)]);
        let response = Response::builder().status(self.status).header("Content-Length", self.body.len());
        response.body(StreamBody::new(parts).boxed()).unwrap_or_else(|_| Response::new(empty()))
    }
}

pub(super) fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never: Infallible| match never {}).boxed()
}

/// A request, read whole.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Below the service's own prefix.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) client_id: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) body: Bytes,
}

impl Call {
    /// The first value of a field of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(super) async fn serve(listener: TcpListener, inner: Shared) {
    loop {
        let accepted = tokio::select! {
            () = inner.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&inner)))),
            Err(error) => {
                warn!(%error, "the sandbox cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, inner: Shared) {
    let _ = stream.set_nodelay(true);
    let stop = inner.stop.clone();
    let loopback = stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let service = service_fn(move |request: Request<Incoming>| {
        let inner = Arc::clone(&inner);
        async move {
            if loopback && !is_own_host(&request) {
                let why = "the request is for another host; call the sandbox by its address or as localhost";
                return Ok(Answer::error(421, why).into_response());
            }
            handle(inner, request).await
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
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
fn is_own_host(request: &Request<Incoming>) -> bool {
    let header = request.headers().get(hyper::header::HOST).and_then(|host| host.to_str().ok());
    header.is_none_or(is_own_name)
}

/// An address, or a name that every resolver keeps on this machine.
fn is_own_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

async fn handle(inner: Shared, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    inner.count(|stats| stats.requests += 1);
    if request.uri().path() == "/ws" {
        let fault = fault::take(&mut inner.lock().faults, Route::Connect);
        return match fault {
            Some(Fault::Status(status, message)) => Ok(Answer::error(status, &message).into_response()),
            Some(Fault::Hang) => hang(&inner).await,
            Some(_) => Err(Broken),
            None => Ok(session::accept(inner, request)),
        };
    }
    let Some(call) = read(request).await else {
        return Ok(Answer::error(400, "the request cannot be read").into_response());
    };
    let path = call.path.as_str();
    if path == "/sandbox/trigger" && call.method == Method::POST {
        return Ok(tell::trigger_request(&inner, &call).await.into_response());
    }
    if path == "/activate" {
        return Ok(device::page(&inner, &call).await.into_response());
    }
    let auth_path = path.strip_prefix("/oauth2").or_else(|| path.strip_prefix("/auth"));
    let api_path = path.strip_prefix("/helix").or_else(|| path.strip_prefix("/mock")).unwrap_or(path);
    let route = match auth_path {
        Some("/token") => Some(Route::Token),
        Some("/validate") => Some(Route::Validate),
        Some(_) => None,
        None => api::route(&call.method, api_path),
    };
    let fault = route.and_then(|route| fault::take(&mut inner.lock().faults, route));
    let answer = async || {
        let mut answer = match auth_path {
            Some(path) => auth::answer(&inner, path, &call).await,
            None => api::answer(&inner, api_path, &call),
        };
        challenge::send(&inner, std::mem::take(&mut answer.challenges)).await;
        answer
    };
    let latency = inner.lock().pace.latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let answer = match fault {
        None => answer().await,
        Some(Fault::Status(status, message)) => {
            api::with_bucket(&inner, &call, Answer::error(status, &message))
        }
        Some(Fault::Unauthorized) => {
            inner.count(|stats| stats.unauthorized += 1);
            Answer::error(401, "Invalid OAuth token")
        }
        Some(Fault::RateLimited) => api::rate_limited(&inner, &call),
        Some(Fault::Hang) => return hang(&inner).await,
        Some(Fault::Reset) => return Err(Broken),
        Some(Fault::Garbage) => Answer::text(200, "<html>Service under maintenance</html>".to_owned()),
        Some(Fault::Truncate) => return Ok(answer().await.into_broken()),
        Some(Fault::LoseAnswer) => {
            answer().await;
            return Err(Broken);
        }
    };
    Ok(answer.into_response())
}

async fn hang(inner: &Shared) -> Result<Response<Body>, Broken> {
    inner.stop.cancelled().await;
    Err(Broken)
}

async fn read(request: Request<Incoming>) -> Option<Call> {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let query =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let body = Limited::new(body, MAX_BODY).collect().await.ok()?.to_bytes();
    Some(Call {
        path: parts.uri.path().to_owned(),
        query,
        client_id: header("Client-Id"),
        authorization: header("Authorization"),
        method: parts.method,
        body,
    })
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
