//! Details in which other stand-ins differ from Twitch, and that clients depend on.

use super::callback::*;
use super::*;

impl Client {
    /// A user's token with these scopes.
    async fn user_token(&self, login: &str, scope: &str) -> String {
        let id = self.sandbox.user_id(login).unwrap();
        let query = format!("client_id=sandbox&client_secret=sandbox-secret&user_id={id}&scope={scope}");
        let path = format!("/auth/authorize?grant_type=user_token&{query}");
        let (status, tokens) = read(self.http.post(self.url(&path))).await;
        assert_eq!(status, 200, "{tokens}");
        tokens["access_token"].as_str().unwrap().to_owned()
    }

    async fn with_token(
        &self,
        token: &str,
        method: reqwest::Method,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let request =
            self.http.request(method, self.url(path)).bearer_auth(token).header("Client-Id", "sandbox");
        read(if body.is_null() { request } else { request.json(&body) }).await
    }

    async fn create_as(&self, token: &str, body: Value) -> (u16, Value) {
        self.with_token(token, reqwest::Method::POST, "/helix/eventsub/subscriptions", body).await
    }
}

fn session_of(welcome: &Value) -> String {
    welcome["payload"]["session"]["id"].as_str().unwrap().to_owned()
}

fn on_session(kind: &str, version: &str, condition: &Value, session: &str) -> Value {
    json!({"type": kind, "version": version, "condition": condition,
        "transport": {"method": "websocket", "session_id": session}})
}

async fn message_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let message = next(socket).await.unwrap();
        if message["metadata"]["message_type"] == kind {
            return message;
        }
    }
}

async fn closed(socket: &mut Socket) -> u16 {
    loop {
        if let Err(code) = next(socket).await {
            return code;
        }
    }
}

#[tokio::test]
async fn members_and_headers_are_spelt_and_ordered_as_at_twitch() {
    let client = Client::new(quick()).await;
    let conduit = client.conduit(1).await;
    client.create(online(&conduit, "1")).await;
    let exchange = async |path: &str, token: &str| {
        let mut socket = TcpStream::connect(client.sandbox.address()).await.unwrap();
        let head = "Host: localhost\r\nConnection: close\r\nClient-Id: sandbox\r\n";
        let request = format!("GET {path} HTTP/1.1\r\n{head}Authorization: Bearer {token}\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut answer).await.unwrap();
        answer
    };
    let list = exchange("/helix/eventsub/subscriptions", &client.token).await;
    for header in ["\r\nContent-Type: application/json", "\r\nRatelimit-Remaining: 797\r\n"] {
        assert!(list.contains(header), "{list}");
    }
    assert!(list.contains(r#"{"total":1,"data":[{"id":""#), "{list}");
    let row = r#""status":"enabled","type":"stream.online","version":"1","condition":{"broadcaster_user_id":"1"},"created_at":""#;
    assert!(list.contains(row), "{list}");
    let end = r#""cost":1}],"total_cost":1,"max_total_cost":10000,"pagination":{}}"#;
    assert!(list.ends_with(end), "{list}");
    let refused = exchange("/helix/eventsub/subscriptions?status=foo", &client.token).await;
    assert!(
        refused.ends_with(r#"{"error":"Bad Request","status":400,"message":"invalid status"}"#),
        "{refused}"
    );
    let dead = exchange("/oauth2/validate", "dead").await;
    assert!(dead.ends_with(r#"{"status":401,"message":"invalid access token"}"#), "{dead}");
}

#[tokio::test]
async fn requests_of_real_libraries_are_understood() {
    let client = Client::new(quick()).await;
    let call = |method: reqwest::Method, path: String, body: Option<Value>| {
        let client = &client;
        async move { client.call(method, &path, body).await }
    };
    let conduits = "/helix/eventsub/conduits";
    let (status, body) = call(reqwest::Method::POST, format!("{conduits}?shard_count=2"), None).await;
    assert_eq!((status, &body["data"][0]["shard_count"]), (200, &json!(2)), "{body}");
    let id = body["data"][0]["id"].as_str().unwrap().to_owned();
    let (status, body) =
        call(reqwest::Method::PATCH, format!("{conduits}?id={id}&shard_count=3"), None).await;
    assert_eq!((status, &body["data"][0]["shard_count"]), (200, &json!(3)), "{body}");

    let (_socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    let transport = json!({"method": "websocket", "session_id": session_of(&welcome)});
    let shards = json!({"shards": [{"id": "0", "transport": transport}]});
    let update = async |id: &str| {
        let path = format!("{conduits}/shards?conduit_id={id}");
        call(reqwest::Method::PATCH, path, Some(shards.clone())).await
    };
    let (status, body) = update(&id).await;
    assert_eq!((status, &body["errors"]), (202, &json!([])), "{body}");
    let (status, body) = update("unknown").await;
    assert_eq!((status, &body["message"]), (404, &json!("conduit not found")));

    let mut with_empty_members = online(&id, "1");
    for name in ["moderator_user_id", "reward_id", "client_id", "from_broadcaster_user_id"] {
        with_empty_members["condition"][name] = json!("");
    }
    let (status, body) = client.create(with_empty_members).await;
    assert_eq!(
        (status, &body["data"][0]["condition"]),
        (202, &json!({"broadcaster_user_id": "1"})),
        "{body}"
    );
}

#[tokio::test]
async fn a_users_token_subscribes_over_its_own_websocket() {
    let client = Client::new(SandboxOptions { require_grants: true, ..quick() }).await;
    let (ann, bob) = (client.sandbox.user_id("ann").unwrap(), client.sandbox.user_id("bob").unwrap());
    let token = client.user_token("ann", "user:read:chat").await;
    let (mut socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    let session = session_of(&welcome);
    let chat = json!({"broadcaster_user_id": bob, "user_id": ann});
    let body = on_session("channel.chat.message", "1", &chat, &session);
    let (status, answer) = client.create_as(&token, body.clone()).await;
    let row = &answer["data"][0];
    assert_eq!(
        (status, &row["status"], &answer["max_total_cost"]),
        (202, &json!("enabled"), &json!(10)),
        "{answer}"
    );
    assert_eq!(row["transport"]["connected_at"], welcome["payload"]["session"]["connected_at"]);
    let id = row["id"].as_str().unwrap().to_owned();
    assert_eq!(client.create_as(&token, body.clone()).await.0, 409);

    let refused = async |token: &str, body: Value, status: u16, part: &str| {
        let (got, answer) = client.create_as(token, body).await;
        let message = answer["message"].as_str().unwrap();
        assert!(got == status && message.contains(part), "{got} {message}");
    };
    let other = client.user_token("bob", "user:read:chat").await;
    let stranger = |id: &str| json!({"broadcaster_user_id": id});
    let stream = |id: &str| on_session("stream.online", "1", &stranger(id), &session);
    refused(&client.token, body.clone(), 400, "invalid transport and auth combination").await;
    refused(
        &token,
        on_session("stream.online", "1", &stranger("1"), "gone"),
        400,
        "does not exist or has already",
    )
    .await;
    refused(&other, stream("1"), 400, "different users").await;
    refused(&token, on_session("channel.subscribe", "1", &stranger(&ann), &session), 403, "authorization")
        .await;
    refused(
        &token,
        on_session("user.authorization.grant", "1", &json!({"client_id": "sandbox"}), &session),
        400,
        "transport",
    )
    .await;
    refused(&token, hook("http://localhost:1/", "1"), 400, "auth must use app access token").await;
    let conduit = client.conduit(1).await;
    refused(&token, online(&conduit, "1"), 400, "invalid transport and auth combination").await;
    assert_eq!(
        client.with_token(&token, reqwest::Method::GET, "/helix/eventsub/conduits", Value::Null).await.0,
        401
    );

    // Strangers cost 1, up to 10; the user of the token and what needs a scope cost nothing.
    assert_eq!(client.create_as(&token, stream(&ann)).await.1["total_cost"], 0);
    for stranger in 101..=110 {
        assert_eq!(client.create_as(&token, stream(&stranger.to_string())).await.0, 202);
    }
    refused(&token, stream("111"), 429, "websocket transport subscriptions total cost exceeded").await;
    for _ in 0..2 {
        let (socket, welcome) = open(&client.sandbox.eventsub_url()).await;
        let body = on_session("channel.chat.message", "1", &chat, &session_of(&welcome));
        assert_eq!(client.create_as(&token, body).await.0, 202);
        std::mem::forget(socket);
    }
    let (_fourth, welcome) = open(&client.sandbox.eventsub_url()).await;
    let own = json!({"broadcaster_user_id": ann, "user_id": ann});
    let body = on_session("channel.chat.message", "1", &own, &session_of(&welcome));
    refused(&token, body, 429, "number of websocket transports limit exceeded").await;

    client.sandbox.send_event(&id, "{\"z\":1,\"a\":2}").await.unwrap();
    let message = message_of(&mut socket, "notification").await;
    let transport = &message["payload"]["subscription"]["transport"];
    assert_eq!(*transport, json!({"method": "websocket", "session_id": session}));

    // Each kind of token sees its own subscriptions, and those of a lost session are dead.
    assert_eq!(client.get("/helix/eventsub/subscriptions").await.1["total"], 0);
    drop(socket);
    let gone = async || {
        let path = format!("/helix/eventsub/subscriptions?subscription_id={id}");
        client.with_token(&token, reqwest::Method::GET, &path, Value::Null).await.1["data"][0].clone()
    };
    let begun = std::time::Instant::now();
    while gone().await["status"] != "websocket_disconnected" {
        assert!(begun.elapsed() < LIMIT, "{}", gone().await);
    }
    assert!(gone().await["transport"]["disconnected_at"].is_string());
}

#[tokio::test]
async fn pings_and_messages_of_a_client_close_the_socket_and_pongs_do_not() {
    let client = Client::new(quick()).await;
    for sent in [Message::Ping(vec![1].into()), Message::text("{}"), Message::Binary(vec![1].into())] {
        let (mut socket, _) = open(&client.sandbox.eventsub_url()).await;
        socket.send(Message::Pong(Vec::new().into())).await.unwrap();
        socket.send(sent).await.unwrap();
        assert_eq!(closed(&mut socket).await, 4001);
    }
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.stats().inbound_traffic == 3).await);
}

#[tokio::test]
async fn both_sockets_of_a_reconnect_get_events_and_a_wrong_url_gets_4007() {
    let client = Client::new(SandboxOptions { reconnect_grace: LIMIT, ..quick() }).await;
    let conduit = client.conduit(1).await;
    let (mut old, welcome) = open(&client.sandbox.eventsub_url()).await;
    client.bind(&conduit, "0", &session_of(&welcome)).await;
    let (_, body) = client.create(online(&conduit, "1")).await;
    let id = body["data"][0]["id"].as_str().unwrap().to_owned();
    client.sandbox.ask_reconnect(&session_of(&welcome));
    let asked = message_of(&mut old, "session_reconnect").await;
    let url = asked["payload"]["session"]["reconnect_url"].as_str().unwrap().to_owned();
    let (mut new, _) = open(&url).await;
    client.sandbox.send_event(&id, "{}").await.unwrap();
    let (first, second) =
        (message_of(&mut old, "notification").await, message_of(&mut new, "notification").await);
    assert_eq!(first["metadata"]["message_id"], second["metadata"]["message_id"]);
    assert_eq!(client.sandbox.sent().len(), 1, "counted once");
    let (mut again, _) = connect_async(&url).await.unwrap();
    assert_eq!(closed(&mut again).await, 4007, "a reconnect URL serves once");
}

#[tokio::test]
async fn message_ids_are_uuids_over_websockets_and_base64_over_webhooks() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let id = client.enabled(hook(&callback.at("/"), "1")).await;
    client.sandbox.send_event(&id, "{}").await.unwrap();
    let notified = callback.notified(&client.sandbox, 1).await.remove(0);
    for request in [notified.clone(), callback.challenges().remove(0)] {
        let id = request.id();
        assert!(id.len() == 44 && id.ends_with('='), "{id}");
    }
    assert!(notified.body.starts_with(r#"{"subscription":{"id":""#), "{}", notified.body);
    let (_socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    assert_eq!(welcome["metadata"]["message_id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn a_grant_makes_a_users_types_free_until_it_is_taken_back() {
    let client = Client::new(SandboxOptions { require_grants: true, ..quick() }).await;
    let conduit = client.conduit(1).await;
    let ann = client.sandbox.user_id("ann").unwrap();
    let grants = json!({"type": "user.authorization.grant", "version": "1", "condition": {"client_id": "sandbox"},
        "transport": {"method": "conduit", "conduit_id": conduit}});
    assert_eq!(client.create(grants).await.1["data"][0]["cost"], 1);
    assert_eq!(client.create(online(&conduit, &ann)).await.1["total_cost"], 2);
    client.sandbox.grant("ann", &[]).await;
    let total = async || client.get("/helix/eventsub/subscriptions").await.1["total_cost"].clone();
    assert_eq!(total().await, 1, "any scope will do, also none");
    client.sandbox.revoke_grants("ann").await;
    assert_eq!(total().await, 2);
}

#[tokio::test]
async fn a_bot_needs_the_broadcasters_leave_or_a_moderators_place() {
    let client = Client::new(SandboxOptions { require_grants: true, ..quick() }).await;
    let conduit = client.conduit(1).await;
    let (ann, bot) = (client.sandbox.user_id("ann").unwrap(), client.sandbox.user_id("bot").unwrap());
    let chat = json!({"type": "channel.chat.message", "version": "1",
        "condition": {"broadcaster_user_id": ann, "user_id": bot},
        "transport": {"method": "conduit", "conduit_id": conduit}});
    client.sandbox.grant("bot", &["user:read:chat", "user:bot"]).await;
    assert_eq!(client.create(chat.clone()).await.0, 403);
    client.sandbox.set_moderator("ann", "bot");
    assert_eq!(client.create(chat).await.0, 202);
}

#[tokio::test]
async fn a_moderators_type_needs_a_moderator_of_the_channel() {
    let client = Client::new(SandboxOptions { require_grants: true, ..quick() }).await;
    let conduit = client.conduit(1).await;
    let (mut socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    client.bind(&conduit, "0", &session_of(&welcome)).await;
    let (ann, bot) = (client.sandbox.user_id("ann").unwrap(), client.sandbox.user_id("bot").unwrap());
    let follow = |moderator: &str| {
        json!({"type": "channel.follow", "version": "2",
        "condition": {"broadcaster_user_id": ann, "moderator_user_id": moderator},
        "transport": {"method": "conduit", "conduit_id": conduit}})
    };
    client.sandbox.grant("ann", &["moderator:read:followers"]).await;
    client.sandbox.grant("bot", &["moderator:read:followers"]).await;
    let (status, answer) = client.create(follow(&bot)).await;
    assert_eq!(
        (status, &answer["message"]),
        (403, &json!("subscription missing proper authorization")),
        "{answer}"
    );
    assert_eq!(client.create(follow(&ann)).await.0, 202, "the owner of a channel moderates it");
    client.sandbox.set_moderator("ann", "bot");
    assert_eq!(client.create(follow(&bot)).await.0, 202);
    client.sandbox.remove_moderator("ann", "bot").await;
    let revocation = loop {
        let message = next(&mut socket).await.unwrap();
        if message["metadata"]["message_type"] == "revocation" {
            break message["payload"]["subscription"].clone();
        }
    };
    assert_eq!(
        (&revocation["status"], &revocation["condition"]["moderator_user_id"]),
        (&json!("moderator_removed"), &json!(bot))
    );
    let ended = client.sandbox.subscriptions();
    assert_eq!(ended.iter().filter(|subscription| subscription.status == "enabled").count(), 1);
}

#[tokio::test]
async fn what_has_ended_leaves_the_list_after_a_while() {
    let options = SandboxOptions {
        websocket_listed: Duration::from_millis(300),
        ended_listed: Duration::from_secs(600),
        ..quick()
    };
    let client = Client::new(options).await;
    let token = client.user_token("ann", "user:read:chat").await;
    let ann = client.sandbox.user_id("ann").unwrap();
    let (socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    let chat = json!({"broadcaster_user_id": ann, "user_id": ann});
    let body = on_session("channel.chat.message", "1", &chat, &session_of(&welcome));
    assert_eq!(client.create_as(&token, body).await.0, 202);
    let conduit = client.conduit(1).await;
    let (_, answer) = client.create(online(&conduit, &ann)).await;
    let other = answer["data"][0]["id"].as_str().unwrap().to_owned();
    client.sandbox.revoke_subscription(&other, "user_removed").await;
    drop(socket);
    let statuses = |sandbox: &Sandbox| {
        sandbox.subscriptions().into_iter().map(|subscription| subscription.status).collect::<Vec<_>>()
    };
    let is_listed = |sandbox: &Sandbox| statuses(sandbox) == ["websocket_disconnected", "user_removed"];
    assert!(client.sandbox.wait_for(LIMIT, is_listed).await, "{:?}", statuses(&client.sandbox));
    let is_gone = |sandbox: &Sandbox| statuses(sandbox) == ["user_removed"];
    assert!(client.sandbox.wait_for(LIMIT, is_gone).await, "{:?}", statuses(&client.sandbox));
}

#[tokio::test]
async fn a_conduit_without_an_enabled_shard_is_deleted_in_time() {
    let life = Duration::from_millis(500);
    let client = Client::new(SandboxOptions { conduit_life: life, ..quick() }).await;
    let (bound, unbound) = (client.conduit(1).await, client.conduit(1).await);
    let (socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    client.bind(&bound, "0", &session_of(&welcome)).await;
    assert_eq!(client.create(online(&bound, "1")).await.0, 202);
    let ids = |sandbox: &Sandbox| sandbox.conduits().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let is_deleted = |sandbox: &Sandbox| !ids(sandbox).contains(&unbound);
    assert!(client.sandbox.wait_for(LIMIT, is_deleted).await);
    assert_eq!(ids(&client.sandbox), [bound], "its shard is enabled");
    drop(socket);
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.conduits().is_empty()).await);
    assert_eq!(client.sandbox.subscriptions()[0].status, "conduit_deleted");
}
