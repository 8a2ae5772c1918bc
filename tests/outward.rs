//! Everything connects outward the same way: through a proxy of this test, which resolves names that nobody else
//! knows.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventsubd::auth::{Credentials, Keeper, Outward, Proxies, TokenOptions, tls_config};
use eventsubd::daemon::Caller;
use eventsubd::helix::{Helix, HelixOptions};
use eventsubd::model::secret::Secret;
use eventsubd::model::status::TokenState;
use eventsubd::model::webhook::{Callback, WebhookKey};
use eventsubd::reconcile::Reach;
use eventsubd::transport::websocket::try_welcome;
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, unless it fails.
const WAIT: Duration = Duration::from_secs(30);
const PASSWORD: &str = "pr0xy-s3cret";

/// The proxy's treatment of a request.
#[derive(Clone, Copy)]
enum Manner {
    /// Tunnels to this address, whatever name is asked for; answers plain requests itself.
    Serve(SocketAddr),
    Answer(&'static str),
}

/// The heads of all requests to a proxy.
type Heads = Arc<Mutex<Vec<String>>>;

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn proxy(manner: Manner) -> (SocketAddr, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heads) = (listener.local_addr().unwrap(), Heads::default());
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, manner, Arc::clone(&seen)));
        }
    });
    (address, heads)
}

async fn serve(mut stream: TcpStream, manner: Manner, heads: Heads) {
    let head = head(&mut stream).await;
    heads.lock().unwrap().push(head.clone());
    let to = match manner {
        Manner::Serve(to) => to,
        Manner::Answer(line) => {
            let _ =
                stream.write_all(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
            return;
        }
    };
    if head.starts_with("CONNECT ") {
        let mut target = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
        return;
    }
    let body = match head.split(' ').nth(1).unwrap_or_default() {
        "http://id.test/oauth2/token" => r#"{"access_token":"abc","expires_in":3600}"#,
        "http://api.test/helix/eventsub/conduits" => r#"{"data":[{"id":"c-1","shard_count":1}]}"#,
        _ => "{}",
    };
    let answer =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// A server that greets every WebSocket.
async fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                let welcome = r#"{"metadata":{"message_id":"m","message_type":"session_welcome","message_timestamp":"t"},"payload":{"session":{"id":"greeted"}}}"#;
                let _ = socket.send(Message::text(welcome)).await;
            });
        }
    });
    address
}

fn outward(variables: &[(&str, String)]) -> Outward {
    let variable =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    Outward::new("test", tls_config().unwrap(), Proxies::from_variables(variable).unwrap()).unwrap()
}

fn with_login(address: SocketAddr) -> String {
    format!("http://me:{PASSWORD}@{address}")
}

#[tokio::test]
async fn token_api_and_websocket_go_through_the_same_proxy() {
    let (address, heads) = proxy(Manner::Serve(greeter().await)).await;
    let outward = outward(&[("HTTP_PROXY", with_login(address))]);

    let options = TokenOptions {
        auth_url: "http://id.test/oauth2".to_owned(),
        validate_interval: Duration::from_secs(3600),
    };
    let (_options, options) = watch::channel(options);
    let credentials = Credentials { client_id: "id".to_owned(), client_secret: Secret::new("secret") };
    let (_credentials, credentials) = watch::channel(credentials);
    let (keeper, tokens) = Keeper::new(outward.clone(), options, credentials);
    let cancel = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run(cancel.clone()));
    let helix = Helix::new(outward.clone(), HelixOptions::new("http://api.test/helix"), tokens);
    let conduits = tokio::time::timeout(WAIT, helix.conduits()).await.unwrap().unwrap();
    assert_eq!(conduits[0].id, "c-1");
    cancel.cancel();
    keeper.await.unwrap();

    let session = try_welcome(&outward, "ws://eventsub.test/ws", WAIT).await.unwrap();
    assert_eq!(session.as_str(), "greeted");

    let heads = heads.lock().unwrap().clone();
    let basic = "proxy-authorization: basic ";
    for line in [
        "POST http://id.test/oauth2/token",
        "GET http://api.test/helix/eventsub/conduits",
        "CONNECT eventsub.test:80",
    ] {
        let head =
            heads.iter().find(|head| head.starts_with(line)).unwrap_or_else(|| panic!("{line}: {heads:?}"));
        assert!(head.to_ascii_lowercase().contains(basic), "{head}");
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_let_us_through_is_named_with_its_variable() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (wants_login, _) = proxy(Manner::Answer("407 Proxy Authentication Required")).await;
    let (refuses, _) = proxy(Manner::Answer("403 Forbidden")).await;
    let (speaks_no_tls, _) = proxy(Manner::Serve(greeter().await)).await;
    for (address, why) in [
        (gone, "connection refused"),
        (wants_login, "the proxy wants a user and a password"),
        (refuses, "the proxy refuses to connect there"),
        // The proxy takes the first bytes of TLS for a bad request.
        (speaks_no_tls, "the other side "),
    ] {
        let outward = outward(&[("https_proxy", with_login(address))]);
        let start = |to: &str| format!("cannot connect to {to} through the proxy {address} (https_proxy): ");
        let error = outward.client().get("https://api.test/helix/users?x=y").send().await.unwrap_err();
        let of_request = outward.explain(&error);
        assert!(of_request.starts_with(&start("api.test:443")) && of_request.contains(why), "{of_request}");
        let of_socket = try_welcome(&outward, "wss://eventsub.test/ws", WAIT).await.unwrap_err();
        assert!(of_socket.starts_with(&start("eventsub.test:443")) && of_socket.contains(why), "{of_socket}");
        for text in [of_request, of_socket] {
            assert!(!text.contains(PASSWORD) && !text.contains("os error"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_socks_proxy_serves_websockets_and_requests() {
    let target = greeter().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                // RFC 1928: one method, no login, a name to connect to.
                let mut greeting = [0; 3];
                stream.read_exact(&mut greeting).await.unwrap();
                stream.write_all(&[5, 0]).await.unwrap();
                let mut request = [0; 5];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request[3], 3, "a name");
                let mut name = vec![0; usize::from(request[4]) + 2];
                stream.read_exact(&mut name).await.unwrap();
                name.truncate(name.len() - 2);
                seen.lock().unwrap().push(String::from_utf8(name).unwrap());
                stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
                let mut target = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
            });
        }
    });
    let outward = outward(&[("ALL_PROXY", format!("socks5h://{address}"))]);
    let session = try_welcome(&outward, "ws://eventsub.test/ws", WAIT).await.unwrap();
    assert_eq!(session.as_str(), "greeted");
    // The greeter is no HTTP server; that the request came to it is enough.
    let _ = outward.client().get("http://api.test/").send().await;
    assert_eq!(*names.lock().unwrap(), ["eventsub.test", "api.test"]);
}

#[tokio::test]
async fn this_machine_is_reached_without_the_proxy() {
    let (address, heads) = proxy(Manner::Answer("403 Forbidden")).await;
    let outward = outward(&[("ALL_PROXY", with_login(address))]);
    let greeter = greeter().await;
    let session = try_welcome(&outward, &format!("ws://{greeter}/ws"), WAIT).await.unwrap();
    assert_eq!(session.as_str(), "greeted");
    assert!(heads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn whatever_is_away_is_named_with_its_address_and_port() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sentence = format!("cannot connect to {address}: connection refused");
    let outward = outward(&[]);

    let websocket = try_welcome(&outward, &format!("ws://{address}/ws"), WAIT).await.unwrap_err();
    assert!(websocket.ends_with(&sentence), "{websocket}");

    let reached = outward.reach(&format!("https://{address}/hook").parse().unwrap()).await.unwrap_err();
    assert_eq!(reached, sentence);

    let http = &outward;
    let refused = http.client().get(format!("http://{address}/helix?secret=x")).send().await.unwrap_err();
    assert_eq!(http.explain(&refused), sentence);

    let key = WebhookKey::new(Secret::new("0123456789abcdef")).unwrap();
    let url = format!("http://{address}/eventsub");
    let callback = Callback { url: url.as_str().into(), key: key.id, shard: None };
    let proved = Caller::new(http.clone()).prove(&callback, &key).await.unwrap_err();
    let expected = format!(
        "{url}: nothing answers there: is the proxy running, and port 443 open to the outside? ({sentence})"
    );
    assert_eq!(proved, expected);
}

#[tokio::test]
async fn a_token_endpoint_that_is_away_is_a_sentence_with_its_port() {
    let outward = outward(&[]);
    let options = TokenOptions {
        auth_url: "http://127.0.0.1:1/oauth2".to_owned(),
        validate_interval: Duration::from_secs(3600),
    };
    let (_options, options) = watch::channel(options);
    let credentials = Credentials { client_id: "id".to_owned(), client_secret: Secret::new("secret") };
    let (_credentials, credentials) = watch::channel(credentials);
    let (keeper, tokens) = Keeper::new(outward, options, credentials);
    let cancel = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run(cancel.clone()));
    let mut status = tokens.status();
    let status = tokio::time::timeout(WAIT, status.wait_for(|s| s.state == TokenState::Unavailable));
    let problem = status.await.unwrap().unwrap().problem.clone();
    assert_eq!(problem.as_deref(), Some("cannot connect to 127.0.0.1:1: connection refused"));
    cancel.cancel();
    keeper.await.unwrap();
}
