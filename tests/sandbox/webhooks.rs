//! Webhook subscriptions: challenges, notifications, revocations.

use std::collections::BTreeMap;

use eventsubd::model::secret::Secret;
use eventsubd::model::webhook::WebhookKey;
use eventsubd::sandbox::{ChallengeTiming, Fault, Route, TriggerError};

use super::callback::*;
use super::*;

#[tokio::test]
async fn a_challenge_enables_and_every_message_is_signed() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let id = client.enabled(hook(&callback.at("/hook?key=1"), "7")).await;
    let sent = client.sandbox.send_event(&id, r#"{"n":1.50}"#).await.unwrap();
    callback.notified(&client.sandbox, 1).await;
    client.sandbox.revoke_subscription(&id, "user_removed").await;
    let revoked = |_: &Sandbox| callback.got("revocation").len() == 1;
    assert!(client.sandbox.wait_for(LIMIT, revoked).await);

    let requests = callback.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 3, "{requests:?}");
    let statuses = [PENDING, "enabled", "user_removed"];
    for (request, status) in requests.iter().zip(statuses) {
        assert_eq!(request.path, "/hook");
        assert!(request.is_signed(SECRET), "{request:?}");
        assert!(!request.is_signed("another secret"), "the check can fail");
        assert_eq!(request.header("message-retry"), "0");
        assert_eq!(request.header("subscription-type"), "stream.online");
        assert_eq!(request.header("subscription-version"), "1");
        let (_, decimals) = request.header("message-timestamp").split_once('.').unwrap();
        // Nanoseconds, as Go writes them: without zeros at the end.
        let digits = decimals.strip_suffix('Z').unwrap();
        assert!((1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()), "{decimals}");
        assert_eq!(request.headers["content-type"], "application/json");
        let body = request.json();
        assert_eq!(body["subscription"]["id"], id.as_str());
        assert_eq!(body["subscription"]["status"], status);
        let transport = json!({"method": "webhook", "callback": callback.at("/hook?key=1")});
        assert_eq!(body["subscription"]["transport"], transport);
    }
    assert_eq!(requests[1].id(), sent);
    assert!(requests[1].body.ends_with(r#","event":{"n":1.50}}"#), "{}", requests[1].body);
    assert_eq!(requests[2].json().as_object().unwrap().len(), 1, "no event");
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.accepted().len() == 2).await);
    assert_eq!(client.sandbox.accepted()[0], sent);
    assert_eq!(client.sandbox.answers(), BTreeMap::from([(Some(204), 2)]));
    let (_, list) = client.get("/helix/eventsub/subscriptions").await;
    assert!(!list.to_string().contains(SECRET));
}

#[tokio::test]
async fn batched_types_come_as_an_array() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let mut body = json!({"type": "drop.entitlement.grant", "version": "1",
        "condition": {"organization_id": "9911", "category_id": "", "campaign_id": ""},
        "transport": {"method": "webhook", "callback": callback.at("/"), "secret": SECRET}});
    let (status, answer) = client.create(body.clone()).await;
    assert_eq!(status, 400, "{answer}");
    body["is_batching_enabled"] = json!(true);
    let id = client.enabled(body).await;
    client.sandbox.trigger("drop.entitlement.grant", None).await.unwrap();
    let requests = callback.notified(&client.sandbox, 1).await;
    assert!(requests[0].is_signed(SECRET));
    let got = requests[0].json();
    assert_eq!(got["subscription"]["id"], id.as_str());
    assert_eq!(got["subscription"]["is_batching_enabled"], true);
    assert!(got["events"][0]["id"].is_string(), "{got}");
    assert!(got.get("event").is_none());
}

#[tokio::test]
async fn callbacks_and_secrets_are_checked() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let good = callback.at("/");
    let with = |callback: Option<&str>, secret: Option<&str>, broadcaster: &str| {
        let mut body = hook("", broadcaster);
        body["transport"] = json!({"method": "webhook", "callback": callback, "secret": secret});
        body
    };
    for secret in ["x".repeat(10), "x".repeat(100)] {
        let body = with(Some(&good), Some(&secret), &secret.len().to_string());
        assert_eq!(client.create(body).await.0, 202, "{}", secret.len());
    }
    let (short, long) = ("x".repeat(9), "x".repeat(101));
    for (callback, secret, part) in [
        (None, Some(SECRET), "callback is required"),
        (Some(""), Some(SECRET), "callback is required"),
        (Some("ftp://a.example/"), Some(SECRET), "https"),
        (Some("http://192.0.2.1/"), Some(SECRET), "https"),
        (Some(good.as_str()), None, "length of secret"),
        (Some(good.as_str()), Some(short.as_str()), "length of secret"),
        (Some(good.as_str()), Some(long.as_str()), "length of secret"),
        (Some(good.as_str()), Some("ümlautümlaut"), "ASCII"),
    ] {
        let (status, answer) = client.create(with(callback, secret, "1")).await;
        assert_eq!(status, 400, "{callback:?} {answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    client.sandbox.set_webhooks(|webhook| webhook.strict = true);
    assert_eq!(client.create(with(Some(&good), Some(SECRET), "1")).await.0, 400);
    client.sandbox.set_webhooks(|webhook| webhook.challenge = ChallengeTiming::Never);
    assert_eq!(client.create(with(Some("https://a.example/"), Some(SECRET), "1")).await.0, 202);

    let alone = Sandbox::start(quick()).await.unwrap();
    let client = Client { sandbox: alone, ..client };
    let token = client.mint("/oauth2/token", "sandbox", "sandbox-secret").await.1;
    let client = Client { token: token["access_token"].as_str().unwrap().to_owned(), ..client };
    let (status, answer) = client.create(hook(&good, "1")).await;
    assert_eq!(status, 400);
    assert!(answer["message"].as_str().unwrap().contains("HTTP client"), "{answer}");
}

#[tokio::test]
async fn equal_ones_are_refused_while_they_live_and_three_are_the_cap() {
    let client = Client::new(impatient()).await;
    client.sandbox.set_webhooks(|webhook| webhook.challenge = ChallengeTiming::Never);
    let callback = Callback::start(Manner::Good).await;
    let first = client.subscribe(hook(&callback.at("/1"), "7")).await;
    let conflict = |id: &str| (409, json!(format!("subscription already exists; id={id}")));
    let create = async |path: &str| {
        let (status, answer) = client.create(hook(&callback.at(path), "7")).await;
        (status, answer["message"].clone())
    };
    assert_eq!(create("/1").await, conflict(&first), "a pending one lives");
    let second = client.subscribe(hook(&callback.at("/2"), "7")).await;
    client.sandbox.send_challenges().await;
    client.becomes(&first, "enabled").await;
    client.becomes(&second, "enabled").await;
    assert_eq!(create("/1").await, conflict(&first));
    let conduit = client.conduit(1).await;
    assert_eq!(client.create(online(&conduit, "7")).await.0, 202, "the third, of another transport");
    let full = (429, json!("maximum subscriptions with type and condition exceeded"));
    assert_eq!(create("/3").await, full);
    assert_eq!(create("/2").await, conflict(&second), "and still a conflict before that");
    client.sandbox.revoke_subscription(&first, EXCEEDED).await;
    client.subscribe(hook(&callback.at("/1"), "7")).await;
    assert_eq!(create("/3").await, full, "a pending one counts");
    client.sandbox.set_status(&second, FAILED);
    client.subscribe(hook(&callback.at("/3"), "7")).await;
}

#[tokio::test]
async fn only_the_right_answer_passes_a_challenge() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let manners = [
        Manner::Challenge(201),
        Manner::Challenge(204),
        Manner::Challenge(403),
        Manner::Padded("", "\n"),
        Manner::Padded("\"", "\""),
        Manner::ContentType("application/json"),
        Manner::Chunked,
        Manner::Redirect,
    ];
    for (nth, manner) in manners.into_iter().enumerate() {
        callback.be(manner);
        let id = client.subscribe(hook(&callback.at("/hook"), &nth.to_string())).await;
        client.becomes(&id, FAILED).await;
        assert_eq!(callback.challenges().len(), nth + 1, "{manner:?}");
        let error = client.sandbox.send_event(&id, "{}").await;
        assert_eq!(error, Err(TriggerError::NotEnabled(FAILED.to_owned())));
    }
    assert!(
        callback.challenges().iter().all(|request| request.path == "/hook"),
        "redirects are not followed"
    );
    callback.be(Manner::Hang);
    client.sandbox.set_webhooks(|webhook| webhook.answer_limit = Duration::from_millis(50));
    let id = client.subscribe(hook(&callback.at("/hook"), "100")).await;
    client.becomes(&id, FAILED).await;
    let id = client.subscribe(hook("http://127.0.0.1:1/", "100")).await;
    client.becomes(&id, FAILED).await;
    callback.be(Manner::ContentType("Text/Plain; charset=utf-8"));
    client.sandbox.set_webhooks(|webhook| webhook.answer_limit = LIMIT);
    client.enabled(hook(&callback.at("/hook"), "0")).await;
    let texts: Vec<_> =
        callback.challenges().iter().map(|request| request.json()["challenge"].clone()).collect();
    assert!(texts.iter().all(|text| texts.iter().filter(|other| *other == text).count() == 1));
}

#[tokio::test]
async fn a_challenge_comes_when_the_settings_say() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    client.sandbox.set_webhooks(|webhook| webhook.challenge = ChallengeTiming::First);
    let id = client.subscribe(hook(&callback.at("/"), "1")).await;
    assert_eq!(callback.challenges().len(), 1, "before the answer");
    assert_eq!(client.sandbox.subscriptions()[0].status, "enabled");
    assert_eq!(callback.challenges()[0].json()["subscription"]["id"], id.as_str());
    client.sandbox.fault(Route::Create, Fault::LoseAnswer, 1);
    let lost = client.http.post(client.url("/helix/eventsub/subscriptions"));
    let lost = lost.bearer_auth(&client.token).header("Client-Id", "sandbox");
    assert!(lost.json(&hook(&callback.at("/"), "2")).send().await.is_err());
    assert_eq!(callback.challenges().len(), 2, "the answer is lost, the challenge is not");

    client.sandbox.set_webhooks(|webhook| webhook.challenge = ChallengeTiming::Never);
    let never = client.subscribe(hook(&callback.at("/"), "3")).await;
    let later = ChallengeTiming::Later(Duration::from_millis(20));
    client.sandbox.set_webhooks(|webhook| webhook.challenge = later);
    let later = client.subscribe(hook(&callback.at("/"), "4")).await;
    client.becomes(&later, "enabled").await;
    client.becomes(&never, PENDING).await;
    let of = |id: &str| callback.challenges().iter().filter(|c| c.json()["subscription"]["id"] == id).count();
    assert_eq!((of(&never), of(&later)), (0, 1));
    client.sandbox.send_challenges().await;
    assert_eq!((of(&never), of(&later)), (1, 1));
    client.becomes(&never, "enabled").await;
}

#[tokio::test]
async fn what_is_not_accepted_comes_again_under_its_id() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let id = client.enabled(hook(&callback.at("/"), "1")).await;
    client.sandbox.set_webhooks(|webhook| webhook.retries = vec![Duration::from_millis(1); 100_000]);
    callback.be(Manner::Status(503));
    let sent = client.sandbox.send_event(&id, r#"{"n":1}"#).await.unwrap();
    callback.notified(&client.sandbox, 3).await;
    callback.be(Manner::Good);
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.accepted() == [sent.clone()]).await);
    let requests = callback.got("notification");
    for (retry, request) in requests.iter().enumerate() {
        assert_eq!((request.id(), request.header("message-retry")), (sent.as_str(), &*retry.to_string()));
        assert_eq!(request.body, requests[0].body);
    }
    assert!(requests.last().unwrap().is_signed(SECRET));
    let refused = requests.len() as u64 - 1;
    assert_eq!(client.sandbox.answers(), BTreeMap::from([(Some(204), 1), (Some(503), refused)]));

    // A redirect is no acceptance, nor is silence. What is deleted is not tried any more.
    client.sandbox.set_webhooks(|webhook| webhook.retries.truncate(1));
    for manner in [Manner::Status(307), Manner::Status(410), Manner::Hang] {
        callback.be(manner);
        if manner == Manner::Hang {
            client.sandbox.set_webhooks(|webhook| webhook.answer_limit = Duration::from_millis(50));
        }
        let lost = client.sandbox.stats().undeliverable;
        client.sandbox.send_event(&id, "{}").await.unwrap();
        assert!(client.sandbox.wait_for(LIMIT, |s| s.stats().undeliverable == lost + 1).await, "{manner:?}");
    }
    let answers = client.sandbox.answers();
    assert_eq!((answers[&Some(307)], answers[&Some(410)], answers[&None]), (2, 2, 2));
    callback.be(Manner::Status(500));
    client.sandbox.set_webhooks(|webhook| webhook.retries = vec![Duration::from_millis(1); 100_000]);
    let lost = client.sandbox.stats().undeliverable;
    client.sandbox.send_event(&id, "{}").await.unwrap();
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.answers().contains_key(&Some(500))).await);
    client.sandbox.remove_subscription(&id);
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.stats().undeliverable == lost + 1).await);
}

#[tokio::test]
async fn too_many_failures_end_a_subscription() {
    let client = Client::new(impatient()).await;
    let callback = Callback::start(Manner::Good).await;
    let id = client.enabled(hook(&callback.at("/failing"), "1")).await;
    let other = client.enabled(hook(&callback.at("/other"), "1")).await;
    client.sandbox.set_webhooks(|webhook| webhook.most_failures = 3);
    let fail = async |count: usize| {
        callback.be(Manner::Status(500));
        for _ in 0..count {
            let lost = client.sandbox.stats().undeliverable;
            client.sandbox.send_event(&id, "{}").await.unwrap();
            assert!(client.sandbox.wait_for(LIMIT, |s| s.stats().undeliverable == lost + 1).await);
        }
    };
    fail(2).await;
    callback.be(Manner::Good);
    client.sandbox.send_event(&id, "{}").await.unwrap();
    assert!(client.sandbox.wait_for(LIMIT, |sandbox| sandbox.accepted().len() == 1).await);
    fail(2).await;
    client.becomes(&id, "enabled").await;
    fail(1).await;
    client.becomes(&id, EXCEEDED).await;
    let revoked = |_: &Sandbox| callback.got("revocation").len() == 1;
    assert!(client.sandbox.wait_for(LIMIT, revoked).await);
    let revocation = callback.got("revocation").remove(0);
    assert_eq!(revocation.json()["subscription"]["status"], EXCEEDED);
    assert!(revocation.is_signed(SECRET));
    assert!(matches!(client.sandbox.send_event(&id, "{}").await, Err(TriggerError::NotEnabled(_))));
    // The other one is tried as often as before, while the revocation, which was refused, is not.
    let before = callback.got("notification").len();
    client.sandbox.send_event(&other, "{}").await.unwrap();
    callback.notified(&client.sandbox, before + 3).await;
    assert_eq!(callback.got("revocation").len(), 1, "once");
}

#[tokio::test]
async fn tests_see_secrets_by_their_fingerprints_and_resend() {
    let client =
        Client::new(SandboxOptions { sample_pace: Some(Duration::from_millis(20)), ..impatient() }).await;
    let callback = Callback::start(Manner::Good).await;
    let (old, new) = ("the-old-secret", "the-new-secret");
    let condition = [("broadcaster_user_id", "7")];
    let first = client.sandbox.add_webhook("stream.online", "1", &condition, &callback.at("/old"), old);
    let (_, body) = {
        let mut body = hook(&callback.at("/new"), "7");
        body["transport"]["secret"] = json!(new);
        client.create(body).await
    };
    let second = body["data"][0]["id"].as_str().unwrap().to_owned();
    client.becomes(&second, "enabled").await;
    let key = |text: &str| Some(WebhookKey::new(Secret::new(text)).unwrap().id);
    assert_eq!((client.sandbox.key_of(&first), client.sandbox.key_of(&second)), (key(old), key(new)));
    assert!(client.sandbox.lives_with(&second, new) && !client.sandbox.lives_with(&second, old));
    let conduit = client.conduit(1).await;
    client.bind_webhook(&conduit, "0", &callback.at("/shard"), old).await;
    assert_eq!(client.sandbox.key_of_shard(&conduit, 0), key(old));
    client.shard_becomes(&conduit, 0, "enabled").await;
    assert_eq!(client.create(online(&conduit, "7")).await.0, 202);

    // Samples go round by themselves, to callbacks as well.
    let sampled = |_: &Sandbox| {
        ["/old", "/new", "/shard"]
            .iter()
            .all(|path| callback.got("notification").iter().any(|r| r.path == *path))
    };
    assert!(client.sandbox.wait_for(LIMIT, sampled).await);

    let sent = client.sandbox.broadcast("stream.online", None, Some(r#"{"marked":true}"#)).await;
    assert_eq!(sent.len(), 3);
    let ids: Vec<String> = sent.into_iter().map(|(_, outcome)| outcome.unwrap()).collect();
    let marked = |_: &Sandbox| {
        let got = callback.got("notification");
        ids.iter().all(|id| got.iter().any(|r| r.id() == id && r.json()["event"]["marked"] == true))
    };
    assert!(client.sandbox.wait_for(LIMIT, marked).await);
    let answers = client.sandbox.resend_in_parallel(&ids[1], 20).await.unwrap();
    assert_eq!(answers, vec![Some(204); 20]);
    let again: Vec<_> = callback.got("notification").into_iter().filter(|r| r.id() == ids[1]).collect();
    assert_eq!(again.len(), 21);
    assert!(again.iter().all(|request| request.body == again[0].body));
    client.sandbox.resend(&ids[0]).await.unwrap();
    let twice = |_: &Sandbox| callback.got("notification").iter().filter(|r| r.id() == ids[0]).count() == 2;
    assert!(client.sandbox.wait_for(LIMIT, twice).await);
    let unknown = client.sandbox.resend_in_parallel("nothing", 2).await;
    assert_eq!(unknown, Err(TriggerError::NoSubscription));
}
