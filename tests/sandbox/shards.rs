//! Shards of a conduit behind a callback.

use eventsubd::sandbox::ChallengeTiming;

use super::callback::*;
use super::*;

async fn notification(socket: &mut Socket) -> Value {
    loop {
        let message = next(socket).await.unwrap();
        if message["metadata"]["message_type"] == "notification" {
            return message["payload"].clone();
        }
    }
}

#[tokio::test]
async fn a_shard_is_challenged_and_signs_with_its_own_secret() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let conduit = client.conduit(2).await;
    let shards = json!([
        {"id": "0", "transport": {"method": "webhook", "callback": callback.at("/0"), "secret": "secret of shard 0"}},
        {"id": "1", "transport": {"method": "webhook", "callback": callback.at("/1"), "secret": "short"}},
        {"id": "2", "transport": {"method": "webhook", "callback": callback.at("/2"), "secret": SECRET}},
        {"id": "1", "transport": {"method": "webhook", "secret": SECRET}},
    ]);
    let body = Some(json!({"conduit_id": conduit, "shards": shards}));
    let (status, answer) = client.call(reqwest::Method::PATCH, "/helix/eventsub/conduits/shards", body).await;
    let row = |status: &str| {
        let transport = json!({"method": "webhook", "callback": callback.at("/0")});
        json!({"id": "0", "status": status, "transport": transport})
    };
    assert_eq!((status, &answer["data"]), (202, &json!([row(PENDING)])), "{answer}");
    let messages: Vec<_> =
        answer["errors"].as_array().unwrap().iter().map(|error| error["message"].as_str().unwrap()).collect();
    assert_eq!(messages.len(), 3);
    for (message, part) in messages.iter().zip(["length of secret", "range", "callback"]) {
        assert!(message.contains(part), "{message}");
    }
    client.shard_becomes(&conduit, 0, "enabled").await;
    let path = format!("/helix/eventsub/conduits/shards?conduit_id={conduit}");
    assert_eq!(client.get(&path).await.1["data"], json!([row("enabled")]));
    let challenge = callback.challenges().remove(0);
    assert!(challenge.is_signed("secret of shard 0"));
    assert_eq!(challenge.header("subscription-type"), "", "there is no subscription");
    assert_eq!(challenge.json()["conduit_shard"], json!({"conduit_id": conduit, "shard": "0"}));

    let (_, answer) = client.create(online(&conduit, "1")).await;
    assert_eq!(answer["data"][0]["status"], "enabled", "without a challenge of its own");
    let id = answer["data"][0]["id"].as_str().unwrap().to_owned();
    client.sandbox.send_event(&id, "{}").await.unwrap();
    let got = callback.notified(&client.sandbox, 1).await.remove(0);
    assert_eq!(got.path, "/0");
    assert!(got.is_signed("secret of shard 0"));
    let transport = json!({"method": "conduit", "conduit_id": conduit});
    assert_eq!(got.json()["subscription"]["transport"], transport);
    client.sandbox.revoke_subscription(&id, "authorization_revoked").await;
    assert!(client.sandbox.wait_for(LIMIT, |_| callback.got("revocation").len() == 1).await);
    assert!(callback.got("revocation")[0].is_signed("secret of shard 0"));

    let (_, answer) = client.create(online(&conduit, "2")).await;
    let id = answer["data"][0]["id"].as_str().unwrap().to_owned();
    callback.be(Manner::Status(500));
    client.sandbox.revoke_subscription(&id, "user_removed").await;
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.stats().undeliverable == 1).await);
    assert_eq!(callback.got("revocation").len(), 2, "a revocation is not tried again");

    // Answers of an older callback do not count for the present one.
    let later = ChallengeTiming::Later(Duration::from_millis(20));
    client.sandbox.set_webhooks(|webhook| webhook.challenge = later);
    client.bind_webhook(&conduit, "0", &callback.at("/old"), SECRET).await;
    client.sandbox.set_webhooks(|webhook| webhook.challenge = ChallengeTiming::Never);
    client.bind_webhook(&conduit, "0", &callback.at("/0"), SECRET).await;
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.stats().challenges_passed == 2).await);
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.stats().challenges_judged == 2).await);
    client.shard_becomes(&conduit, 0, PENDING).await;

    client.sandbox.set_webhooks(|webhook| webhook.challenge = ChallengeTiming::Soon);
    callback.be(Manner::Challenge(403));
    client.bind_webhook(&conduit, "0", &callback.at("/0"), "another secret of shard 0").await;
    client.shard_becomes(&conduit, 0, FAILED).await;
    let (_, list) = client.get(&format!("{path}&status={FAILED}")).await;
    assert_eq!(list["data"], json!([row(FAILED)]));
}

#[tokio::test]
async fn the_hash_chooses_among_shards_of_both_kinds() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let conduit = client.conduit(2).await;
    let (mut socket, welcome) = open(&client.sandbox.eventsub_url()).await;
    let session = welcome["payload"]["session"]["id"].as_str().unwrap();
    client.bind(&conduit, "0", session).await;
    client.bind_webhook(&conduit, "1", &callback.at("/"), SECRET).await;
    client.shard_becomes(&conduit, 1, "enabled").await;
    let disabled = json!({"type": "conduit.shard.disabled", "version": "1",
        "condition": {"client_id": "sandbox"}, "transport": {"method": "conduit", "conduit_id": conduit}});
    assert_eq!(client.create(disabled).await.0, 202);
    let mut ids = Vec::new();
    for broadcaster in 1..=8 {
        let (_, answer) = client.create(online(&conduit, &broadcaster.to_string())).await;
        let id = answer["data"][0]["id"].as_str().unwrap().to_owned();
        client.sandbox.send_event(&id, "{}").await.unwrap();
        ids.push(id);
    }
    let by_hook = callback.notified(&client.sandbox, 4).await;
    for _ in 0..4 {
        let got = notification(&mut socket).await["subscription"]["id"].clone();
        assert!(by_hook.iter().all(|request| request.json()["subscription"]["id"] != got));
    }

    // A callback that fails is tried again, and its messages are not moved while the shard is enabled.
    let theirs = by_hook[0].json()["subscription"]["id"].as_str().unwrap().to_owned();
    client.sandbox.set_webhooks(|webhook| webhook.most_failures = 2);
    callback.be(Manner::Status(500));
    for nth in 1..=2 {
        let lost = client.sandbox.stats().undeliverable;
        let sent = client.sandbox.send_event(&theirs, "{}").await.unwrap();
        assert!(client.sandbox.wait_for(LIMIT, |s| s.stats().undeliverable == lost + 1).await);
        let tries = callback.got("notification").iter().filter(|request| request.id() == sent).count();
        assert_eq!(tries, 3, "of message {nth}");
    }
    client.shard_becomes(&conduit, 1, EXCEEDED).await;
    let told = notification(&mut socket).await;
    assert_eq!(told["subscription"]["type"], "conduit.shard.disabled", "and nothing of what failed: {told}");
    assert_eq!((&told["event"]["shard_id"], &told["event"]["status"]), (&json!("1"), &json!(EXCEEDED)));
    assert_eq!(told["event"]["transport"]["callback"], callback.at("/"));
    client.sandbox.send_event(&theirs, r#"{"n":1}"#).await.unwrap();
    assert_eq!(notification(&mut socket).await["event"]["n"], 1, "the other shard is tried");

    callback.be(Manner::Good);
    client.bind_webhook(&conduit, "1", &callback.at("/again"), SECRET).await;
    client.shard_becomes(&conduit, 1, "enabled").await;
    let before = callback.got("notification").len();
    client.sandbox.send_event(&theirs, "{}").await.unwrap();
    assert_eq!(callback.notified(&client.sandbox, before + 1).await[before].path, "/again");

    // A message that waits for another try goes to the new callback of its shard.
    client.sandbox.set_webhooks(|webhook| {
        webhook.retries = vec![Duration::from_millis(1); 100_000];
        webhook.challenge = ChallengeTiming::Never;
    });
    callback.be(Manner::Status(500));
    let sent = client.sandbox.send_event(&theirs, "{}").await.unwrap();
    callback.notified(&client.sandbox, before + 3).await;
    client.bind_webhook(&conduit, "1", &callback.at("/third"), SECRET).await;
    callback.be(Manner::Good);
    for _ in 0..30 {
        client.shard_becomes(&conduit, 1, PENDING).await;
        client.get("/helix/users?login=ann").await;
    }
    client.sandbox.send_challenges().await;
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.accepted().contains(&sent)).await);
    assert_eq!(callback.got("notification").last().unwrap().path, "/third");
}
