//! A program behind a callback, and what a client does about it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::*;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

pub(super) const SECRET: &str = "s3cret-of-these tests!";
pub(super) const PENDING: &str = "webhook_callback_verification_pending";
pub(super) const FAILED: &str = "webhook_callback_verification_failed";
pub(super) const EXCEEDED: &str = "notification_failures_exceeded";

/// Checks a signature with a program that knows nothing of this project.
pub(super) const CHECK: &str = r#"
import hashlib, hmac, json, sys
request = json.load(sys.stdin)
header = {name.lower(): value for name, value in request["headers"].items()}
signed = header["twitch-eventsub-message-id"] + header["twitch-eventsub-message-timestamp"] + request["body"]
expected = "sha256=" + hmac.new(sys.argv[1].encode(), signed.encode(), hashlib.sha256).hexdigest()
sys.exit(0 if hmac.compare_digest(expected, header["twitch-eventsub-message-signature"]) else 3)
"#;

/// A request that a callback got.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> &str {
        let name = format!("twitch-eventsub-{name}");
        self.headers.get(&name).map_or("", String::as_str)
    }

    pub(super) fn id(&self) -> &str {
        self.header("message-id")
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether it is signed with this secret.
    pub(super) fn is_signed(&self, secret: &str) -> bool {
        let mut python = Command::new("python3")
            .args(["-c", CHECK, secret])
            .stdin(Stdio::piped())
            .spawn()
            .expect("python3 is installed by tests/run");
        let input = json!({"headers": self.headers, "body": self.body}).to_string();
        python.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        match python.wait().unwrap().code() {
            Some(0) => true,
            Some(3) => false,
            other => panic!("the check ended with {other:?}"),
        }
    }
}

/// How a callback answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Challenges as they must be, all else with 204.
    Good,
    /// This status and no body, to all but challenges.
    Status(u16),
    /// This status, to challenges with the right body.
    Challenge(u16),
    /// Something before the challenge and something after it.
    Padded(&'static str, &'static str),
    /// The challenge with this content type.
    ContentType(&'static str),
    /// The challenge without its length.
    Chunked,
    /// To a good place.
    Redirect,
    /// Not at all.
    Hang,
}

/// A program behind a callback.
#[derive(Clone)]
pub(super) struct Callback {
    pub(super) url: String,
    pub(super) requests: Arc<Mutex<Vec<Request>>>,
    pub(super) manner: Arc<Mutex<Manner>>,
}

impl Callback {
    pub(super) async fn start(manner: Manner) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let this = Self { url, requests: Arc::default(), manner: Arc::new(Mutex::new(manner)) };
        let routes = axum::Router::new().fallback(take).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        this
    }

    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(super) fn be(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Requests of this kind that came.
    pub(super) fn got(&self, kind: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.header("message-type") == kind).cloned().collect()
    }

    pub(super) fn challenges(&self) -> Vec<Request> {
        self.got("webhook_callback_verification")
    }

    /// Waits until this many notifications were there.
    pub(super) async fn notified(&self, sandbox: &Sandbox, count: usize) -> Vec<Request> {
        let there = sandbox.wait_for(LIMIT, |_| self.got("notification").len() >= count).await;
        assert!(there, "{} instead of {count}", self.got("notification").len());
        self.got("notification")
    }
}

async fn take(State(of): State<Callback>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let request = Request { path: uri.path().to_owned(), headers, body };
    let challenge = request.json()["challenge"].as_str().map(str::to_owned);
    of.requests.lock().unwrap().push(request);
    let manner = *of.manner.lock().unwrap();
    let good = manner == Manner::Good || uri.path() == "/good";
    let answer = |status, content_type: &str, body: String| {
        Response::builder().status(status).header("Content-Type", content_type).body(body.into()).unwrap()
    };
    match (challenge, manner) {
        (_, Manner::Hang) => std::future::pending().await,
        (Some(challenge), _) if good => answer(200, "text/plain", challenge),
        (Some(challenge), Manner::Challenge(status)) => answer(status, "text/plain", challenge),
        (Some(challenge), Manner::Padded(before, after)) => {
            answer(200, "text/plain", format!("{before}{challenge}{after}"))
        }
        (Some(challenge), Manner::ContentType(content_type)) => answer(200, content_type, challenge),
        (Some(challenge), Manner::Chunked) => {
            let parts = futures_util::stream::iter([Ok::<_, std::io::Error>(challenge)]);
            let builder = Response::builder().header("Content-Type", "text/plain");
            builder.body(Body::from_stream(parts)).unwrap()
        }
        (Some(_), Manner::Redirect) => {
            Response::builder().status(307).header("Location", of.at("/good")).body(Body::empty()).unwrap()
        }
        (Some(challenge), _) => answer(200, "text/plain", challenge),
        (None, Manner::Status(status)) => Response::builder().status(status).body(Body::empty()).unwrap(),
        (None, _) => Response::builder().status(204).body(Body::empty()).unwrap(),
    }
}

/// Settings without a long wait in them.
pub(super) fn impatient() -> SandboxOptions {
    let mut options = quick();
    options.webhook.retries = vec![Duration::from_millis(5); 2];
    options.webhook.answer_limit = LIMIT;
    options
}

pub(super) fn hook(callback: &str, broadcaster: &str) -> Value {
    json!({"type": "stream.online", "version": "1", "condition": {"broadcaster_user_id": broadcaster},
        "transport": {"method": "webhook", "callback": callback, "secret": SECRET}})
}

impl Client {
    /// Creates a subscription, which must be accepted.
    pub(super) async fn subscribe(&self, body: Value) -> String {
        let (status, answer) = self.create(body).await;
        assert_eq!((status, &answer["data"][0]["status"]), (202, &json!(PENDING)), "{answer}");
        assert!(!answer.to_string().contains(SECRET), "{answer}");
        answer["data"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a subscription has this status.
    pub(super) async fn becomes(&self, id: &str, status: &str) {
        let is = |sandbox: &Sandbox| sandbox.subscriptions().iter().any(|s| s.id == id && s.status == status);
        assert!(self.sandbox.wait_for(LIMIT, is).await, "{:?}", self.sandbox.subscriptions());
    }

    /// Creates a subscription and waits until it is enabled.
    pub(super) async fn enabled(&self, body: Value) -> String {
        let id = self.subscribe(body).await;
        self.becomes(&id, "enabled").await;
        id
    }

    pub(super) async fn bind_webhook(
        &self,
        conduit: &str,
        shard: &str,
        callback: &str,
        secret: &str,
    ) -> (u16, Value) {
        let body = json!({"conduit_id": conduit, "shards": [
            {"id": shard, "transport": {"method": "webhook", "callback": callback, "secret": secret}},
        ]});
        self.call(reqwest::Method::PATCH, "/helix/eventsub/conduits/shards", Some(body)).await
    }

    pub(super) async fn shard_becomes(&self, conduit: &str, number: u32, status: &str) {
        let is = |sandbox: &Sandbox| {
            sandbox.shard_infos(conduit).iter().any(|s| s.number == number && s.status == status)
        };
        assert!(self.sandbox.wait_for(LIMIT, is).await, "{:?}", self.sandbox.shard_infos(conduit));
    }
}
