//! The routes of EventSub subscriptions, conduits and shards.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};

use super::exchange::{Answer, Call, ContentType};

/// The largest request body, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    ListSubscriptions,
    CreateSubscription,
    DeleteSubscription,
    ListConduits,
    CreateConduit,
    ResizeConduit,
    DeleteConduit,
    ListShards,
    UpdateShards,
}

/// The world behind the routes.
pub trait EventSub: Clone + Send + Sync + 'static {
    fn eventsub(&self, operation: Operation, call: Call) -> BoxFuture<'static, Response>;
}

type Handled = BoxFuture<'static, Response>;

fn on<S: EventSub>(
    operation: Operation,
) -> impl Fn(State<S>, Request) -> Handled + Clone + Send + Sync + 'static {
    move |State(service), request| {
        Box::pin(async move {
            match read(request).await {
                Ok(call) => service.eventsub(operation, call).await,
                Err(answer) => answer.into_response(),
            }
        })
    }
}

/// The routes, relative to the API's base URL.
pub fn routes<S: EventSub>() -> Router<S> {
    use Operation::{
        CreateConduit, CreateSubscription, DeleteConduit, DeleteSubscription, ListConduits, ListShards,
        ListSubscriptions, ResizeConduit, UpdateShards,
    };
    Router::new()
        .route(
            "/eventsub/subscriptions",
            get(on::<S>(ListSubscriptions))
                .post(on::<S>(CreateSubscription))
                .delete(on::<S>(DeleteSubscription)),
        )
        .route(
            "/eventsub/conduits",
            get(on::<S>(ListConduits))
                .post(on::<S>(CreateConduit))
                .patch(on::<S>(ResizeConduit))
                .delete(on::<S>(DeleteConduit)),
        )
        .route("/eventsub/conduits/shards", patch(on::<S>(UpdateShards)).get(on::<S>(ListShards)))
}

/// Reads a request whole.
///
/// # Errors
/// 400: the body is too large, or breaks off.
pub async fn read(request: Request) -> Result<Call, Answer> {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let query =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(|_| Answer::error(400, "the request cannot be read"))?.to_bytes();
    Ok(Call {
        path: parts.uri.path().to_owned(),
        query,
        client_id: header("Client-Id"),
        authorization: header("Authorization"),
        method: parts.method,
        body,
    })
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut builder = Response::builder().status(self.status);
        if !self.body.is_empty() {
            let kind = match self.content_type {
                ContentType::Json => "application/json; charset=utf-8",
                ContentType::Html => "text/html; charset=utf-8",
            };
            builder = builder.header("Content-Type", kind);
        }
        for (name, value) in self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Body::from(self.body)).unwrap_or_else(|_| Response::new(Body::empty()))
    }
}
