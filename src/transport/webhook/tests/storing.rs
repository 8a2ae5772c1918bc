//! A store that is busy, fails, or hangs.

use super::*;
use std::time::Duration;

#[tokio::test]
async fn the_same_message_over_many_connections_is_stored_once() {
    let server = Server::start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut client = server.connect().await;
        tasks.spawn(async move {
            for id in 0..5 {
                assert_eq!(client.ask(&Post::event(&format!("m-{id}"))).await.status, 204);
            }
        });
    }
    soon("all answers", async { while tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {} }).await;
    let mut ids = server.ids().await;
    ids.sort();
    assert_eq!(ids, ["m-0", "m-1", "m-2", "m-3", "m-4"]);
    server.until("all", |s| s.requests == 200).await;
    server.end().await;
}

#[tokio::test]
async fn a_store_that_fails_is_503_and_the_resend_is_stored_once() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    server.store.limit_pages(Some(1)).await.unwrap();
    let body = notification("m-1").replace("\"viewers\"", &format!("\"x\":\"{}\",\"v\"", "x".repeat(50_000)));
    let post = Post::new("notification", "m-1", body);
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = client.ask(&post).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
        assert!(begun.elapsed() < Limits::default().answer, "promptly");
    }
    // Challenges are answered from memory all the same.
    let challenge = Post::new("webhook_callback_verification", "c", r#"{"challenge":"x"}"#);
    assert_eq!(client.ask(&challenge).await.status, 200);
    assert!(server.ids().await.is_empty());
    server.store.limit_pages(None).await.unwrap();
    // Only our own attempts can find out that the disk works again.
    soon("storing again", async {
        while client.ask(&post).await.status != 204 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(client.ask(&post).await.status, 204);
    assert_eq!(server.ids().await, ["m-1"]);
    assert!(server.until("the failures", |s| s.unavailable >= 3).await.problem.is_none());
    server.end().await;
}

#[tokio::test]
async fn a_store_that_hangs_is_503_in_time() {
    let server = Server::with(|options| options.limits.answer = Duration::from_millis(200)).await;
    let mut client = server.connect().await;
    // The slowest disk possible: another process has locked the database.
    let path = server.folder.path().join("events.db");
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(client.ask(&Post::event("m-1")).await.status, 503);
    other.execute_batch("COMMIT").unwrap();
    soon("storing again", async {
        while client.ask(&Post::event("m-1")).await.status != 204 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(server.ids().await, ["m-1"]);
    server.end().await;
}

#[tokio::test]
async fn a_store_that_is_closed_is_503() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    server.store.close().await.unwrap();
    assert_eq!(client.ask(&Post::event("m-1")).await.status, 503);
    server.end().await;
}
