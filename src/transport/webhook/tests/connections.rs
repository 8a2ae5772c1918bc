//! Slow clients, many clients, changed sockets, and the stop.

use super::*;
use std::time::Duration;

fn quick(options: &mut WebhookOptions) {
    let limit = Duration::from_millis(200);
    options.limits.connections.head = limit;
    options.limits.connections.body = limit;
    options.limits.connections.handshake = limit;
}

#[tokio::test]
async fn slow_clients_are_cut_off_and_idle_ones_are_not() {
    let server = Server::with(quick).await;
    let post = Post::event("m-1");
    let mut idle = server.connect().await;
    assert_eq!(idle.ask(&Post::event("m-0")).await.status, 204);
    let mut slow_head = server.connect().await;
    slow_head.send("POST /").await;
    let mut slow_body = server.connect().await;
    slow_body.send(post.head(&format!("Content-Length: {}", post.body.len()))).await;
    slow_body.send(&post.body[..10]).await;
    // A byte now and then is no request either.
    let mut drops = server.connect().await;
    let head = post.head("Content-Length: 5");
    let dripping = tokio::spawn(async move {
        for byte in head.as_bytes() {
            if drops.stream.write_all(&[*byte]).await.is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drops.is_ended().await
    });
    assert!(slow_head.is_ended().await);
    assert!(slow_body.is_ended().await);
    assert!(soon("the cut", dripping).await.unwrap());
    server.until("the cuts", |s| s.rejected.get("slow") == Some(&3) && s.connections == 1).await;
    assert_eq!(idle.ask(&Post::event("m-2")).await.status, 204, "it was only idle");
    assert_eq!(server.ids().await, ["m-0", "m-2"]);
    server.end().await;
}

#[tokio::test]
async fn idle_connections_end_after_their_time() {
    let server = Server::with(|options| options.limits.connections.idle = Duration::from_millis(100)).await;
    let mut client = server.connect().await;
    assert_eq!(client.ask(&Post::event("m-1")).await.status, 204);
    assert!(client.is_ended().await);
    let status = server.until("no connection", |s| s.connections == 0).await;
    assert!(status.rejected.is_empty(), "nobody was refused: {status:?}");
    server.end().await;
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = Server::start().await;
    let post = Post::event("m-1");
    for filler in [format!("X-Long: {}", "x".repeat(40_000)), "X-Many: 1\r\n".repeat(100) + "X-Last: 1"] {
        let mut client = server.connect().await;
        let head = post.head(&format!("{filler}\r\nContent-Length: {}", post.body.len()));
        let _ = client.stream.write_all(head.as_bytes()).await;
        if let Some(answer) = client.answer().await {
            assert_eq!(answer.status, 431);
        }
        assert!(client.is_ended().await);
    }
    let mut client = server.connect().await;
    client.send("this is no HTTP\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 400);
    assert!(server.ids().await.is_empty());
    server.end().await;
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_one_that_proved_nothing_or_is_idle() {
    let server = Server::with(|options| options.limits.connections.places = 2).await;
    let mut first = server.connect().await;
    assert_eq!(first.ask(&Post::event("m-1")).await.status, 204);
    let mut stranger = server.connect().await;
    stranger.send("POST /").await;
    let mut second = server.connect().await;
    assert_eq!(second.ask(&Post::event("m-2")).await.status, 204);
    assert!(stranger.is_ended().await, "it made room");
    let mut third = server.connect().await;
    assert_eq!(third.ask(&Post::event("m-3")).await.status, 204);
    assert!(first.is_ended().await, "it was idle for longest");
    // Two proved connections with slow bodies lock nobody out either.
    let post = Post::event("slow");
    for client in [&mut second, &mut third] {
        client.send(post.head("Content-Length: 100000")).await;
    }
    let mut fourth = server.connect().await;
    assert_eq!(fourth.ask(&Post::event("m-4")).await.status, 204);
    let status = server.until("the count", |s| s.evicted == 3).await;
    assert_eq!((status.places, status.connections <= 3), (2, true), "{status:?}");
    let problem = status.problem.expect("a crowd");
    assert!(problem.contains("strangers compete for its 2 places"), "{problem}");
    assert_eq!(server.ids().await, ["m-1", "m-2", "m-3", "m-4"]);
    server.end().await;
}

#[tokio::test]
async fn an_address_that_proved_nothing_has_a_part_of_the_places() {
    let server = Server::with(|options| options.limits.connections.per_address = 3).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        let mut stranger = server.connect().await;
        stranger.send("POST /").await;
        strangers.push(stranger);
    }
    assert!(strangers[0].is_ended().await);
    let mut twitch = server.connect().await;
    assert_eq!(twitch.ask(&Post::event("m-1")).await.status, 204);
    assert!(strangers[1].is_ended().await);
    // The address has proved itself, as a proxy's does with the first signed request that it forwards.
    let mut more = Vec::new();
    for nth in 2..8 {
        let mut client = server.connect().await;
        assert_eq!(client.ask(&Post::event(&format!("m-{nth}"))).await.status, 204);
        more.push(client);
    }
    server.until("all of them", |s| s.connections >= 7 && s.evicted == 2).await;
    server.end().await;
}

#[tokio::test]
async fn unfinished_bodies_share_a_budget() {
    let server = Server::with(|options| options.limits.connections.bodies = 100_000).await;
    let post = Post::event("m-1");
    let mut strangers = Vec::new();
    for _ in 0..4 {
        let mut stranger = server.connect().await;
        stranger.send(post.head("Content-Length: 50000")).await;
        stranger.send(vec![b' '; 40_000]).await;
        strangers.push(stranger);
    }
    assert!(strangers[0].is_ended().await, "the oldest of them goes");
    // Twitch's largest body has room, however much others hold.
    let large = Post::new("notification", "m-2", notification("m-2") + &" ".repeat(90_000));
    let mut twitch = server.connect().await;
    assert_eq!(twitch.ask(&large).await.status, 204);
    assert_eq!(server.ids().await, ["m-2"]);
    server.end().await;
}

#[tokio::test]
async fn the_end_finishes_what_is_in_hand() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    assert_eq!(idle.ask(&Post::event("m-0")).await.status, 204);
    let post = Post::event("m-1");
    let mut client = server.connect().await;
    client.send(post.head(&format!("Expect: 100-continue\r\nContent-Length: {}", post.body.len()))).await;
    assert_eq!(client.answer().await.unwrap().status, 100, "it is in hand now");
    server.cancel.cancel();
    assert!(idle.is_ended().await);
    client.send(&post.body).await;
    assert_eq!(client.answer().await.unwrap().status, 204);
    assert!(client.is_ended().await);
    assert!(TcpStream::connect(server.address).await.is_ok(), "the socket is still the daemon's");
    assert_eq!(server.ids().await, ["m-0", "m-1"]);
    server.end().await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(Post::event("m-1").head("Content-Length: 50")).await;
    server.until("the connection", |s| s.connections == 1).await;
    let begun = Instant::now();
    server.end().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "it is bounded");
    assert!(client.is_ended().await);
}

#[tokio::test]
async fn another_socket_takes_over_without_losing_a_request() {
    let server = Server::start().await;
    let post = Post::event("in hand");
    let post = Post { id: "in-hand".to_owned(), ..post };
    let mut client = server.connect().await;
    client.send(post.head(&format!("Expect: 100-continue\r\nContent-Length: {}", post.body.len()))).await;
    assert_eq!(client.answer().await.unwrap().status, 100, "it is in hand now");
    let new = listener();
    let address = new.local_addr().unwrap();
    server.change(|options| options.listener = new);
    server.until("the new one", |s| s.listen == address.to_string() || s.listen.ends_with(":0")).await;
    assert_eq!(Client::to(address).await.ask(&Post::event("new")).await.status, 204);
    client.send(&post.body).await;
    assert_eq!(client.answer().await.unwrap().status, 204);
    assert_eq!(client.ask(&Post::event("kept-alive")).await.status, 204, "its connection goes on");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens there any more");
    assert_eq!(server.ids().await, ["new", "in-hand", "kept-alive"]);
    server.end().await;
}

#[tokio::test]
async fn without_options_nothing_is_served() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    assert_eq!(client.ask(&Post::event("m-1")).await.status, 204);
    let options = server.options.send_replace(None).unwrap();
    assert!(client.is_ended().await);
    let mut status = server.handle.status.clone();
    soon("no status", status.wait_for(Option::is_none)).await.unwrap();
    server.options.send_replace(Some(options));
    assert_eq!(server.connect().await.ask(&Post::event("m-2")).await.status, 204);
    assert_eq!(server.ids().await, ["m-1", "m-2"]);
    server.end().await;
}
