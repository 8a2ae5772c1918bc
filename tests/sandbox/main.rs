//! The stand-in for Twitch: what a client meets at Twitch it must meet here.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod callback;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod oauth;
mod protocol;
mod shards;
mod trust;
mod webhooks;

use std::time::Duration;

use eventsubd::sandbox::{Sandbox, SandboxOptions, Users};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const LIMIT: Duration = Duration::from_secs(20);

/// A client that knows nothing of the daemon.
struct Client {
    http: reqwest::Client,
    sandbox: Sandbox,
    token: String,
}

impl Client {
    async fn new(options: SandboxOptions) -> Self {
        let http = eventsubd::daemon::connections().unwrap().client();
        let sandbox = Sandbox::start(SandboxOptions { http: Some(http.clone()), ..options }).await.unwrap();
        let mut client = Self { http, sandbox, token: String::new() };
        let (status, body) = client.mint("/oauth2/token", "sandbox", "sandbox-secret").await;
        assert_eq!(status, 200, "{body}");
        client.token = body["access_token"].as_str().unwrap().to_owned();
        client
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.sandbox.address())
    }

    async fn mint(&self, path: &str, id: &str, secret: &str) -> (u16, Value) {
        let form = [("client_id", id), ("client_secret", secret), ("grant_type", "client_credentials")];
        read(self.http.post(self.url(path)).form(&form)).await
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self
            .http
            .request(method, self.url(path))
            .bearer_auth(&self.token)
            .header("Client-Id", self.sandbox.client_id());
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(reqwest::Method::GET, path, None).await
    }

    async fn create(&self, body: Value) -> (u16, Value) {
        self.call(reqwest::Method::POST, "/helix/eventsub/subscriptions", Some(body)).await
    }

    async fn conduit(&self, shards: u32) -> String {
        let body = Some(json!({"shard_count": shards}));
        let (status, answer) = self.call(reqwest::Method::POST, "/helix/eventsub/conduits", body).await;
        assert_eq!(status, 200, "{answer}");
        answer["data"][0]["id"].as_str().unwrap().to_owned()
    }

    async fn bind(&self, conduit: &str, shard: &str, session: &str) -> (u16, Value) {
        let body = json!({"conduit_id": conduit, "shards": [
            {"id": shard, "transport": {"method": "websocket", "session_id": session}},
        ]});
        self.call(reqwest::Method::PATCH, "/helix/eventsub/conduits/shards", Some(body)).await
    }
}

async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn online(conduit: &str, broadcaster: &str) -> Value {
    json!({"type": "stream.online", "version": "1", "condition": {"broadcaster_user_id": broadcaster},
        "transport": {"method": "conduit", "conduit_id": conduit}})
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(url: &str) -> (Socket, Value) {
    let (mut socket, _) = connect_async(url).await.unwrap();
    let welcome = next(&mut socket).await.unwrap();
    (socket, welcome)
}

/// The next message, or the code that the socket was closed with.
async fn next(socket: &mut Socket) -> Result<Value, u16> {
    loop {
        match tokio::time::timeout(LIMIT, socket.next()).await.expect("in time") {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(1006),
        }
    }
}

fn quick() -> SandboxOptions {
    SandboxOptions {
        keepalive_unit: Duration::from_millis(20),
        unused_timeout: Duration::from_secs(2),
        reconnect_grace: Duration::from_secs(1),
        pong_timeout: Duration::from_millis(300),
        ..SandboxOptions::default()
    }
}

#[tokio::test]
async fn tokens_and_their_errors() {
    let client = Client::new(quick()).await;
    for path in ["/oauth2/token", "/auth/token"] {
        let (status, body) = client.mint(path, "sandbox", "wrong").await;
        assert_eq!((status, body), (403, json!({"status": 403, "message": "invalid client secret"})));
        let (status, body) = client.mint(path, "nobody", "wrong").await;
        assert_eq!((status, body), (400, json!({"status": 400, "message": "invalid client"})));
        assert_eq!(client.mint(path, "sandbox", "").await.1["message"], "missing client secret");
    }
    let validate = |token: String| {
        read(
            client.http.get(client.url("/oauth2/validate")).header("Authorization", format!("OAuth {token}")),
        )
    };
    let (status, body) = validate(client.token.clone()).await;
    assert_eq!((status, &body["client_id"]), (200, &json!("sandbox")));
    client.sandbox.revoke_all_tokens();
    let (status, body) = validate(client.token.clone()).await;
    assert_eq!((status, body), (401, json!({"status": 401, "message": "invalid access token"})));
    let (status, body) = client.get("/helix/users?login=ann").await;
    assert_eq!((status, &body["message"]), (401, &json!("Invalid OAuth token")));
    let form = [("client_id", "sandbox"), ("token", "unknown")];
    let (status, body) = read(client.http.post(client.url("/oauth2/revoke")).form(&form)).await;
    assert_eq!((status, &body["message"]), (400, &json!("Invalid token")));
}

#[tokio::test]
async fn users_exist_or_are_left_out() {
    let users = Users::Listed(vec![("7".into(), "ann".into())]);
    let client = Client::new(SandboxOptions { users, require_grants: true, ..quick() }).await;
    let (_, body) = client.get("/helix/users?login=ann&login=bob&id=7").await;
    assert_eq!(body["data"].as_array().unwrap().len(), 1);
    assert_eq!(body["data"][0]["id"], "7");
    assert_eq!(client.get("/helix/users").await.0, 400);
    let many: Vec<String> = (0..101).map(|n| format!("id={n}")).collect();
    assert_eq!(client.get(&format!("/helix/users?{}", many.join("&"))).await.0, 400);
    assert_eq!(client.get("/mock/users?login=ann").await.0, 200, "the mock of Twitch's CLI");
    let (_, body) = client.get("/helix/authorization/users?user_id=7").await;
    let row = json!({"user_id": "7", "user_login": "ann", "user_name": "ann", "scopes": [], "has_authorized": false});
    assert_eq!(body["data"], json!([row]));
    let (_, body) = client.get("/helix/authorization/users?user_id=8").await;
    assert_eq!(body["data"], json!([]), "there is no such user");
    client.sandbox.grant("ann", &["bits:read"]).await;
    let (_, body) = client.get("/helix/authorization/users?user_id=7").await;
    assert_eq!(body["data"][0]["scopes"], json!(["bits:read"]));
}

#[tokio::test]
async fn only_users_that_are_named_exist() {
    let any = Client::new(quick()).await.sandbox.user_id("ann").unwrap();
    let users = Users::only(&["Ann".to_owned(), "bob".to_owned()]);
    let client = Client::new(SandboxOptions { users, ..quick() }).await;
    let conduit = client.conduit(1).await;
    let ann = client.sandbox.user_id("ann").unwrap();
    assert_eq!(ann, any, "an id is made from its login");
    let (_, found) = client.get("/helix/users?login=ann&login=carol&id=41001").await;
    assert_eq!(found["data"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(client.create(online(&conduit, &ann)).await.0, 202);
    let (status, refused) = client.create(online(&conduit, "41001")).await;
    let message = "user in the condition does not exist: broadcaster_user_id";
    assert_eq!((status, &refused["message"]), (400, &json!(message)));
}

#[tokio::test]
async fn subscriptions_are_refused_for_every_documented_reason() {
    let options = SandboxOptions { require_grants: true, max_total_cost: 2, ..quick() };
    let client = Client::new(options).await;
    let conduit = client.conduit(1).await;
    let (status, body) = client.create(online(&conduit, "1")).await;
    assert_eq!(
        (status, &body["data"][0]["status"], &body["total_cost"]),
        (202, &json!("enabled"), &json!(1))
    );
    let id = body["data"][0]["id"].as_str().unwrap().to_owned();
    let (status, body) = client.create(online(&conduit, "1")).await;
    assert_eq!(
        (status, body["message"].as_str().unwrap()),
        (409, format!("subscription already exists; id={id}").as_str())
    );
    for (mut body, expected, part) in [
        (online("nowhere", "3"), 400, "conduit"),
        (online(&conduit, "not a user"), 400, "does not exist"),
        (
            json!({"type": "stream.onlin", "version": "1", "condition": {}, "transport": {}}),
            400,
            "type and version",
        ),
        (
            json!({"type": "channel.follow", "version": "1", "condition": {"broadcaster_user_id": "1"}, "transport": {}}),
            410,
            "removed",
        ),
        (json!({"type": "stream.online", "version": "1", "condition": {}}), 400, "condition"),
        (
            json!({"type": "channel.subscribe", "version": "1", "condition": {"broadcaster_user_id": "1"}}),
            403,
            "authorization",
        ),
    ] {
        if body.get("transport").is_none() {
            body["transport"] = json!({"method": "conduit", "conduit_id": conduit});
        }
        let (status, answer) = client.create(body).await;
        assert_eq!(status, expected, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    assert_eq!(client.create(online(&conduit, "2")).await.0, 202);
    let (status, body) = client.create(online(&conduit, "3")).await;
    assert_eq!((status, body["message"].as_str().unwrap()), (429, "subscriptions total cost exceeded"));
    let delete = |id: &str| {
        client.call(
            reqwest::Method::DELETE,
            Box::leak(format!("/helix/eventsub/subscriptions?id={id}").into_boxed_str()),
            None,
        )
    };
    assert_eq!(delete(&id).await.0, 204);
    assert_eq!(delete(&id).await.0, 404);
}

#[tokio::test]
async fn equal_subscriptions_are_capped_and_optional_fields_come_back_empty() {
    let client = Client::new(quick()).await;
    for nth in 0..4 {
        let conduit = client.conduit(1).await;
        let raid = json!({"type": "channel.raid", "version": "1", "condition": {"to_broadcaster_user_id": "1"},
            "transport": {"method": "conduit", "conduit_id": conduit}});
        let (status, body) = client.create(raid).await;
        if nth == 3 {
            assert_eq!(
                (status, body["message"].as_str().unwrap()),
                (429, "maximum subscriptions with type and condition exceeded")
            );
        } else {
            let condition = json!({"from_broadcaster_user_id": "", "to_broadcaster_user_id": "1"});
            assert_eq!((status, &body["data"][0]["condition"]), (202, &condition));
        }
    }
    client.conduit(1).await;
    let body = Some(json!({"shard_count": 1}));
    assert_eq!(
        client.call(reqwest::Method::POST, "/helix/eventsub/conduits", body).await.0,
        429,
        "five at most"
    );
}

#[tokio::test]
async fn lists_come_in_pages_and_take_one_filter() {
    let client = Client::new(SandboxOptions { page_size: 2, ..quick() }).await;
    let conduit = client.conduit(1).await;
    for id in 1..=5 {
        assert_eq!(client.create(online(&conduit, &id.to_string())).await.0, 202);
    }
    let (mut seen, mut after) = (0, String::new());
    loop {
        let (status, page) =
            client.get(&format!("/eventsub/subscriptions?conduit_id={conduit}{after}")).await;
        assert_eq!(status, 200);
        seen += page["data"].as_array().unwrap().len();
        assert_eq!(page["total_cost"], 5);
        match page["pagination"]["cursor"].as_str() {
            Some(cursor) => after = format!("&after={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, 5);
    assert_eq!(client.get("/helix/eventsub/subscriptions?status=enabled&type=x").await.0, 400);
    assert_eq!(client.get("/helix/eventsub/subscriptions?after=nonsense").await.0, 400);
    let (_, page) = client.get("/helix/eventsub/subscriptions?user_id=3").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_bucket_runs_dry_and_says_so() {
    let client = Client::new(SandboxOptions { bucket: 3, refill_per_minute: 1, ..quick() }).await;
    for left in [2, 1, 0] {
        let answer = client
            .http
            .get(client.url("/helix/users?login=ann"))
            .bearer_auth(&client.token)
            .header("Client-Id", "sandbox");
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.headers()["Ratelimit-Remaining"], left.to_string().as_str());
        assert_eq!(answer.headers()["Ratelimit-Limit"], "3");
        assert!(answer.headers().contains_key("Ratelimit-Reset"));
    }
    assert_eq!(client.get("/helix/users?login=ann").await.0, 429);
}

#[tokio::test]
async fn shards_are_bound_one_by_one_and_fall_over_once() {
    let client = Client::new(quick()).await;
    let conduit = client.conduit(2).await;
    let shards = format!("/helix/eventsub/conduits/shards?conduit_id={conduit}");
    assert_eq!(client.get(&shards).await.1["data"], json!([]), "a new conduit lists none");
    let (mut socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    let session = welcome["payload"]["session"]["id"].as_str().unwrap();
    let (status, body) = client.bind(&conduit, "0", session).await;
    assert_eq!((status, &body["data"][0]["status"], &body["errors"]), (202, &json!("enabled"), &json!([])));
    for (shard, session) in [("2", session), ("1", "AgoUnknown"), ("x", session)] {
        let (status, body) = client.bind(&conduit, shard, session).await;
        assert_eq!((status, &body["errors"][0]["code"]), (202, &json!("invalid_parameter")), "{shard}");
    }
    assert_eq!(client.bind("nowhere", "0", session).await.0, 404);
    // The other shard is tried once, for either shard of the channel.
    for broadcaster in ["1", "2", "3", "4"] {
        let (_, body) = client.create(online(&conduit, broadcaster)).await;
        let id = body["data"][0]["id"].as_str().unwrap();
        let message = client.sandbox.send_event(id, r#"{"n":1.50}"#).await.unwrap();
        let got = next(&mut socket).await.unwrap();
        assert_eq!(got["metadata"]["message_id"], message.as_str());
        assert_eq!(got["payload"]["subscription"]["condition"]["broadcaster_user_id"], broadcaster);
    }
    drop(socket);
    let gone = |sandbox: &Sandbox| {
        sandbox.shards(&conduit).iter().all(|(_, status, _)| status == "websocket_disconnected")
    };
    assert!(client.sandbox.wait_for(LIMIT, gone).await);
    let id = client.sandbox.subscriptions()[0].id.clone();
    assert!(client.sandbox.send_event(&id, "{}").await.is_err(), "nobody is there");
    client.sandbox.delete_conduit(&conduit);
    assert!(client.sandbox.subscriptions().iter().all(|s| s.status == "conduit_deleted"));
}

#[tokio::test]
async fn sockets_are_closed_by_the_rules() {
    let client = Client::new(quick()).await;
    let url = client.sandbox.eventsub_url();

    let (mut unused, _) = open(&url).await;
    let (mut talker, _) = open(&url).await;
    talker.send(Message::text("hello")).await.unwrap();
    assert_eq!(next(&mut talker).await, Err(4001));

    // Keepalives come until the time to be bound is over.
    let ended = loop {
        match next(&mut unused).await {
            Ok(message) => assert_eq!(message["metadata"]["message_type"], "session_keepalive"),
            Err(code) => break code,
        }
    };
    assert_eq!(ended, 4003);

    let (mut stranger, _) = connect_async(format!("{url}?challenge=x&id=AgoNobody")).await.unwrap();
    assert_eq!(next(&mut stranger).await, Err(4007));
}

#[tokio::test]
async fn a_reconnect_overlaps_and_has_its_limit() {
    let client = Client::new(quick()).await;
    let conduit = client.conduit(1).await;
    let (mut old, welcome) = open(&client.sandbox.eventsub_url()).await;
    let session = welcome["payload"]["session"]["id"].as_str().unwrap().to_owned();
    client.bind(&conduit, "0", &session).await;
    let (_, body) = client.create(online(&conduit, "1")).await;
    let id = body["data"][0]["id"].as_str().unwrap().to_owned();

    client.sandbox.ask_reconnect(&session);
    let url = loop {
        let message = next(&mut old).await.unwrap();
        if message["metadata"]["message_type"] == "session_reconnect" {
            break message["payload"]["session"]["reconnect_url"].as_str().unwrap().to_owned();
        }
    };
    client.sandbox.send_event(&id, "{}").await.unwrap();
    assert_eq!(
        next(&mut old).await.unwrap()["metadata"]["message_type"],
        "notification",
        "the old one goes on"
    );
    let (mut new, welcome) = open(&url).await;
    assert_eq!(welcome["payload"]["session"]["id"], session.as_str());
    client.sandbox.send_event(&id, "{}").await.unwrap();
    assert_eq!(next(&mut new).await.unwrap()["metadata"]["message_type"], "notification");

    client.sandbox.ask_reconnect(&session);
    let code = loop {
        if let Err(code) = next(&mut new).await {
            break code;
        }
    };
    assert_eq!(code, 4004, "nobody came");
}
