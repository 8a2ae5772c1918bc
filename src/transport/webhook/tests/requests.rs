//! Answers to requests of all kinds.

use super::*;
use crate::model::webhook::WebhookKeys;
use std::time::Duration;
use std::time::SystemTime;

const CHALLENGE: &str = r#"{"challenge":"k3 ex\u00e4mple\nChallenge","subscription":{"id":"s-1","status":"webhook_callback_verification_pending","type":"channel.follow","version":"2"}}"#;

#[tokio::test]
async fn a_notification_is_answered_once_it_is_on_disk_byte_for_byte() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let body = " {\"subscription\" : {\"id\":\"s-1\",\"version\":\"2\",\"type\":\"channel.follow\"},\n\
                \"event\":{\"n\":1.50,\"\\u00e9\":\"\u{e9}\"}}\r\n";
    let answer = client.ask(&Post::new("notification", "m-1", body)).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", answer.head);
    let stored = server.stored().await;
    assert_eq!(stored.len(), 1);
    let event = &stored[0].event;
    assert_eq!(event.payload, body.trim().as_bytes());
    assert_eq!((&*event.subscription_type, &*event.subscription_version), ("channel.follow", "2"));
    assert_eq!((event.message_id.as_str(), &*event.subscription_id), ("m-1", "s-1"));

    // The same again, on the same connection and on another.
    assert_eq!(client.ask(&Post::new("notification", "m-1", body)).await.status, 204);
    let again = server.connect().await.ask(&Post::new("notification", "m-1", body)).await;
    assert_eq!(again.status, 204);
    assert_eq!(server.ids().await, ["m-1"]);
    let status = server.until("counts", |s| s.requests == 3).await;
    assert_eq!((status.keys, status.tls, status.rejected.len()), (1, false, 0));
    assert!(status.clock_skew_seconds.is_some_and(|skew| skew.abs() < 60), "{status:?}");
    assert_eq!(status.problem, None);
    assert_eq!(server.handle.intake.borrow().received, 3);
    server.end().await;
}

#[tokio::test]
async fn challenges_get_their_text_and_nothing_else() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for (kind, body, text, hints) in [
        (0, CHALLENGE, "k3 ex\u{e4}mple\nChallenge", vec![Hint::Verified]),
        (
            1,
            r#"{"challenge":"z81","conduit_shard":{"conduit_id":"c","shard":"1"}}"#,
            "z81",
            vec![Hint::Verified, Hint::Shards],
        ),
        // Somebody with the secret asks whether we can be reached.
        (2, r#"{"challenge":"probe"}"#, "probe", vec![Hint::Verified, Hint::Shards]),
    ] {
        let answer =
            client.ask(&Post::new("webhook_callback_verification", &format!("c-{kind}"), body)).await;
        assert_eq!((answer.status, &*answer.body), (200, text.as_bytes()));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("content-length"), Some(&*text.len().to_string()));
        assert_eq!(*server.hints.lock().unwrap(), hints);
    }
    assert_eq!(server.until("challenges", |s| s.challenges == 3).await.requests, 3);
    assert!(server.ids().await.is_empty());
    server.end().await;
}

#[tokio::test]
async fn revocations_are_stored_and_wake_the_reconciler_and_unknown_messages_are_passed_over() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let body =
        r#"{"subscription":{"id":"s-1","status":"user_removed","type":"channel.follow","version":"2"}}"#;
    assert_eq!(client.ask(&Post::new("revocation", "r-1", body)).await.status, 204);
    let ended = Hint::Ended { id: "s-1".into(), status: "user_removed".into() };
    assert_eq!(*server.hints.lock().unwrap(), [ended]);
    assert_eq!(client.ask(&Post::new("something_new", "u-1", body)).await.status, 204);
    server.until("counts", |s| s.requests == 2).await;
    let intake = server.handle.intake.borrow().clone();
    assert_eq!((intake.revocations, intake.unknown, intake.received), (1, 1, 0));
    assert_eq!(server.ids().await, ["r-1"], "the sinks get it too");
    server.end().await;
}

#[tokio::test]
async fn events_tell_the_daemon_something_and_shards_are_counted() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let body = r#"{"subscription":{"id":"s","type":"user.authorization.grant","version":"1"},"event":{"user_id":"7"}}"#;
    let mut post = Post::new("notification", "g-1", body);
    post.query.push_str("&shard=3");
    assert_eq!(client.ask(&post).await.status, 204);
    assert_eq!(*server.hints.lock().unwrap(), [Hint::Grants { user_id: "7".into() }]);
    let mut shards = server.handle.shards.clone();
    soon("the count", shards.wait_for(|shards| *shards == BTreeMap::from([(ShardId(3), 1)]))).await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn older_secrets_are_accepted_while_they_are_in_force() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let old =
        |id, query: &str| Post { secret: "the-secret-before-it", query: query.to_owned(), ..Post::event(id) };
    assert_eq!(client.ask(&old("a", "")).await.status, 403);
    let mut client = server.connect().await;
    server.change(|o| o.keys = WebhookKeys::new(key(SECRET), [key("the-secret-before-it")]));
    server.until("both", |s| s.keys == 2).await;
    let named = format!("?key={}", key("the-secret-before-it").id);
    let wrong = format!("?key={}&shard=1", key(SECRET).id);
    for (id, query) in [("b", ""), ("c", &*named), ("d", &*wrong), ("e", "?whatever")] {
        assert_eq!(client.ask(&old(id, query)).await.status, 204, "{query}");
        assert_eq!(client.ask(&Post { query: query.to_owned(), ..Post::event(id) }).await.status, 204);
    }
    server.change(|o| o.keys = WebhookKeys::new(key(SECRET), []));
    server.until("one", |s| s.keys == 1).await;
    assert_eq!(client.ask(&old("f", &named)).await.status, 403);
    assert_eq!(server.ids().await, ["b", "c", "d", "e"]);
    server.end().await;
}

#[tokio::test]
async fn what_twitch_did_not_sign_changes_nothing() {
    let server = Server::start().await;
    let post = Post::event("m-1");
    let length = format!("Content-Length: {}", post.body.len());
    let signature = post.signature();
    let signed_as = |signature: &str| post.head_signed(&length, signature);
    let head = post.head(&length);
    let without =
        |name: &str| -> String { head.split_inclusive("\r\n").filter(|line| !line.contains(name)).collect() };
    let repeated = |name: &str| -> String {
        head.split_inclusive("\r\n")
            .flat_map(|line| std::iter::repeat_n(line, 1 + usize::from(line.contains(name))))
            .collect()
    };
    let mut refused: Vec<(u16, String)> = vec![
        (403, signed_as("sha256=")),
        (403, signed_as("")),
        (403, signed_as(&signature[..70])),
        (403, signed_as(&format!("{signature}0"))),
        (403, signed_as(&signature.to_uppercase().replace("SHA256", "sha256"))),
        (403, signed_as(&signature.replace("sha256", "sha1"))),
        (403, signed_as(&signature[7..])),
        (403, Post { secret: "another-secret", ..post.clone() }.head(&length)),
        (403, head.replace("m-1", "m-2")),
        (404, head.replace(PATH, "/")),
        (404, head.replace(PATH, "/twitch/main/")),
        (405, head.replace("POST ", "GET ")),
        (405, head.replace("POST ", "HEAD ")),
        (405, head.replace("POST ", "PUT ")),
        (413, post.head("Content-Length: 1048577")),
    ];
    for name in ["Message-Id", "Message-Timestamp", "Message-Signature", "Message-Type"] {
        refused.push((403, without(name)));
        refused.push((403, repeated(name)));
    }
    let many = refused.len() as u64;
    for (status, head) in refused {
        let mut client = server.connect().await;
        client.send([head.as_bytes(), &post.body].concat()).await;
        let answer = client.answer().await.expect("an answer");
        assert_eq!(answer.status, status, "{head}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("POST"));
        assert!(answer.body.is_empty());
    }
    let status = server.until("refusals", |s| s.requests == many).await;
    let rejected: Vec<(&str, u64)> = status.rejected.iter().map(|(reason, n)| (&**reason, *n)).collect();
    assert_eq!(rejected, [("headers", 8), ("method", 3), ("path", 2), ("signature", 9), ("size", 1)]);
    assert!(server.ids().await.is_empty());
    assert!(server.hints.lock().unwrap().is_empty());
    assert_eq!(*server.handle.intake.borrow(), IntakeStatus::default());
    server.end().await;
}

#[tokio::test]
async fn signed_messages_that_cannot_be_read_are_400() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let subscription = r#""subscription":{"id":"s","type":"t","version":"1"}"#;
    let challenge = "webhook_callback_verification";
    let no_time = Post { timestamp: "yesterday".to_owned(), ..Post::event("m") };
    let no_id = Post { id: "with space".to_owned(), ..Post::event("m") };
    let mut posts = vec![no_time, no_id];
    for (kind, body) in [
        ("notification", "".to_owned()),
        ("notification", "[]".to_owned()),
        ("notification", format!("{{{subscription}}}")),
        ("notification", format!("{{{subscription},\"event\":{{}}")),
        ("notification", format!("{{{subscription},\"event\":{{}}}}x")),
        ("notification", r#"{"event":{}}"#.to_owned()),
        ("notification", r#"{"subscription":{"id":"s"},"event":{}}"#.to_owned()),
        ("revocation", "{}".to_owned()),
        (challenge, format!("{{{subscription}}}")),
        (challenge, r#"{"challenge":{}}"#.to_owned()),
    ] {
        posts.push(Post::new(kind, "m", body));
    }
    posts.push(Post::new("notification", "m", [b"{\"event\":\"".as_slice(), &[0xff], b"\"}"].concat()));
    for post in &posts {
        assert_eq!(client.ask(post).await.status, 400, "{}", String::from_utf8_lossy(&post.body));
    }
    server.until("all", |s| s.rejected.get("unreadable") == Some(&(posts.len() as u64))).await;
    assert_eq!(server.handle.intake.borrow().malformed, posts.len() as u64);
    assert!(server.ids().await.is_empty());
    server.end().await;
}

#[tokio::test]
async fn bodies_may_come_in_pieces() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let post = Post::event("m-1");
    client.send(post.head("Transfer-Encoding: chunked")).await;
    for piece in post.body.chunks(7) {
        client.send(format!("{:x}\r\n", piece.len())).await;
        client.send(piece).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 204);
    // Somewhat larger than the largest of Twitch's.
    let padding = " ".repeat(400_000);
    let large = Post::new("notification", "m-2", notification("m-2") + &padding);
    assert_eq!(client.ask(&large).await.status, 204);
    assert_eq!(server.ids().await, ["m-1", "m-2"]);
    assert_eq!(server.stored().await[1].event.payload, notification("m-2").as_bytes());

    // Larger than what is accepted, and not announced.
    client.send(post.head("Transfer-Encoding: chunked")).await;
    let piece = vec![b' '; 1 << 16];
    for _ in 0..17 {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
        if client.stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    server.until("the refusal", |s| s.rejected.get("size") == Some(&1)).await;
    server.end().await;
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told() {
    for (hours, direction) in [(1, "ahead of"), (-1, "behind")] {
        let server = Server::with(|options| {
            let off = Duration::from_secs(3_600);
            options.clock =
                Arc::new(move || if hours > 0 { SystemTime::now() + off } else { SystemTime::now() - off });
        })
        .await;
        let mut client = server.connect().await;
        assert_eq!(client.ask(&Post::event("m-1")).await.status, 503, "Twitch sends it again");
        let status = server.until("the problem", |s| s.problem.is_some()).await;
        let problem = status.problem.unwrap();
        assert!(problem.contains("clock of this machine") && problem.contains(direction), "{problem}");
        assert_eq!((status.stale, status.unavailable), (0, 1));
        let skew = status.clock_skew_seconds.unwrap();
        assert!((skew + hours * 3_600).abs() < 60, "{skew}");
        assert!(server.ids().await.is_empty());

        // Six minutes are listened to, and told.
        server.change(|options| {
            options.clock = Arc::new(|| SystemTime::now() + Duration::from_secs(360));
        });
        assert_eq!(client.ask(&Post::event("m-2")).await.status, 204);
        let like = |s: &WebhookStatus| s.problem.as_ref().is_some_and(|p| p.contains("6 min ahead"));
        assert_eq!(server.until("the other problem", like).await.stale, 0);
        // A refused event comes again.
        assert_eq!(client.ask(&Post::event("m-1")).await.status, 204);
        assert_eq!(server.ids().await, ["m-2", "m-1"]);

        // A message that was late says nothing about a clock that others have shown to be right.
        server.change(|options| options.clock = Arc::new(SystemTime::now));
        assert_eq!(client.ask(&Post::event("m-3")).await.status, 204);
        server.until("no problem", |s| s.problem.is_none()).await;
        let late = Timestamp(SystemTime::now() - Duration::from_secs(1_000)).to_string();
        assert_eq!(client.ask(&Post { timestamp: late, ..Post::event("m-4") }).await.status, 204);
        let status = server.until("the late one", |s| s.stale == 1).await;
        assert_eq!(status.problem, None);
        server.end().await;
    }
}
