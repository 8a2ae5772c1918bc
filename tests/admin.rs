//! The admin endpoint over real sockets, request by request: who gets in, what is answered, what is bounded.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{Home, Running, WAIT, quick, tuning};
use eventsubd::admin::Control;
use eventsubd::daemon::{BuildError, Daemon, DaemonOptions, Exit};
use eventsubd::model::status::Status;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const TOKEN: &str = "an-admin-token-of-this-test";
const SUBSCRIPTION: &str = "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ninja\"\n";
const OPEN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";

/// An answer, as it came.
#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Sends these bytes, and reads until the daemon closes the connection.
async fn raw(address: &str, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    // The daemon may answer and close before it has read all.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(WAIT, stream.read_to_end(&mut bytes)).await.expect("an end");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(read.is_ok() || !text.is_empty(), "{read:?}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Answer { code, head: head.to_owned(), body: body.to_owned() }
}

/// A request with these headers beside the `Host`.
async fn ask(address: &str, line: &str, headers: &[&str]) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    raw(address, request.as_bytes()).await
}

async fn get(address: &str, path: &str) -> Answer {
    ask(address, &format!("GET {path}"), &[]).await
}

async fn post(address: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n{headers}\r\n{body}"
    );
    raw(address, request.as_bytes()).await
}

/// The header with the cookie that the token buys.
async fn cookie(address: &str) -> String {
    let answer = post(address, "/login", &[], &format!("token={TOKEN}")).await;
    let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie");
    format!("Cookie: {cookie}")
}

fn address(daemon: &Running) -> String {
    daemon.status().admin.expect("an endpoint").listen
}

/// A home whose configuration has this for its endpoint.
async fn home(admin: &str) -> Home {
    let home = Home::new(quick()).await;
    set_token(&home, TOKEN);
    configure(&home, admin);
    home
}

fn configure(home: &Home, admin: &str) {
    home.configure(&format!("{SUBSCRIPTION}\n{admin}"));
}

fn set_token(home: &Home, token: &str) {
    fs::write(home.path("token"), token).unwrap();
    fs::set_permissions(home.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn closed() -> String {
    format!("{OPEN}token_file = \"token\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_subscriptions_comes_in_pages_with_search_and_filter() {
    let home = Home::new(quick()).await;
    home.configure(&format!(
        "{OPEN}\n[[subscription]]\ntype = \"stream.online\"\n\
         broadcaster = [\"ann\", \"bob\", \"cat\", \"missing_dan\"]\n\n[sink.out]\ntype = \"stdout\"\n"
    ));
    let daemon = home.start().await;
    let address = address(&daemon);
    daemon.converged().await;
    let list = async |query: &str| -> Value {
        let answer = get(&address, &format!("/subscriptions?{query}")).await;
        assert_eq!(answer.code, 200, "{query}: {}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    };
    let count = |page: &Value| page["subscriptions"].as_array().expect("a list").len();
    let all = list("").await;
    assert_eq!((count(&all), &all["next"]), (4, &Value::Null));
    assert_eq!(count(&list("state=parked").await), 1);
    let bob = list("q=bob&state=enabled").await;
    assert_eq!((count(&bob), &bob["subscriptions"][0]["logins"][0]), (1, &"bob".into()));
    let first = list("limit=3").await;
    let next = first["next"].as_str().expect("another page");
    let after: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    let last = list(&format!("limit=3&after={after}")).await;
    assert_eq!((count(&first), count(&last), &last["next"]), (3, 1, &Value::Null));
    assert_eq!(last["subscriptions"][0], all["subscriptions"][3]);
    assert_eq!(get(&address, "/subscriptions?state=lost").await.code, 400);

    let status: Value = serde_json::from_str(&get(&address, "/status").await.body).expect("JSON");
    assert_eq!(status["subscription_counts"]["total"], 4);
    assert_eq!((&status["parked"][0]["obstacle"], &status["subscriptions"]), (&"login".into(), &Value::Null));
    let whole = common::subscriptions(&home).await;
    assert_eq!(serde_json::to_value(whole).unwrap(), all["subscriptions"]);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_this_machine_reads_and_nobody_else() {
    let home = home(OPEN).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    daemon.converged().await;

    let live = get(&address, "/livez").await;
    assert_eq!((live.code, live.body.as_str()), (200, "ok\n"));
    let ready = get(&address, "/readyz").await;
    assert_eq!((ready.code, ready.body.as_str()), (200, "ready\n"));
    let answer = get(&address, "/status").await;
    let status: Status = serde_json::from_str(&answer.body).expect("the status");
    assert!(answer.code == 200 && status.converged && status.subscription_counts.total == 1);
    let head = ask(&address, "HEAD /status", &[]).await;
    assert_eq!((head.code, head.body.as_str()), (200, ""));

    // A name that somebody has pointed to loopback, and a page of somebody.
    let port = address.rsplit(':').next().unwrap();
    for (host, code) in [
        ("rebound.example.org", 403),
        (&*format!("rebound.example.org:{port}"), 403),
        ("192.0.2.1", 403),
        (&*format!("localhost:{port}"), 200),
        ("LOCALHOST", 200),
        ("[::1]:1", 200),
        ("a b", 400),
    ] {
        let request = format!("GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(raw(&address, request.as_bytes()).await.code, code, "{host}");
    }
    for (header, code) in [
        ("Origin: http://example.org", 403),
        ("Origin: null", 403),
        ("Origin: http://localhost:1", 403),
        (&*format!("Origin: http://{address}"), 200),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-origin", 200),
    ] {
        assert_eq!(ask(&address, "GET /status", &[header]).await.code, code, "{header}");
    }
    let none = raw(&address, b"GET /status HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    let two = b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!([none.code, raw(&address, two).await.code], [400, 400]);
    let proxied = ask(&address, "GET http://localhost/status", &[]).await;
    assert_eq!(proxied.code, 400);
    assert_eq!(daemon.end().await, Exit::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changes_anything_over_tcp() {
    let home = home(OPEN).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    let before = daemon.status().config;
    let mut asked = 0;
    for path in ["/reload", "/apply", "/replay?sink=stdout&seq=1", "/grants?user_id=1", "/dead-letters/drop"]
    {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let answer = ask(&address, &format!("{method} {path}"), &["Content-Length: 0"]).await;
            assert!([404, 405].contains(&answer.code), "{method} {path}: {answer:?}");
            asked += 1;
        }
    }
    assert_eq!(asked, 40);
    assert_eq!(post(&address, "/status", &[], "").await.code, 405);
    assert_eq!(daemon.status().config, before);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_for_browsers_to_keep_to_themselves() {
    let home = home(OPEN).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    for (line, code) in
        [("GET /livez", 200), ("GET /status", 200), ("GET /nowhere", 404), ("DELETE /status", 405)]
    {
        let answer = ask(&address, line, &[]).await;
        assert_eq!(answer.code, code, "{line}");
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{line}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{line} {name}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_only_who_has_it_reads() {
    let home = home(&closed()).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    daemon.converged().await;
    let right = format!("Authorization: Bearer {TOKEN}");

    for path in ["/status", "/events", "/nowhere", &format!("/status?token={TOKEN}"), "/login/../status"] {
        let answer = get(&address, path).await;
        assert_eq!(answer.code, 401, "{path}");
        assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    }
    assert_eq!(ask(&address, "GET /status", &[&right]).await.code, 200);
    // With the token any host name is allowed; a foreign page is not.
    let request =
        format!("GET /status HTTP/1.1\r\nHost: twitch.example.org\r\nConnection: close\r\n{right}\r\n\r\n");
    assert_eq!(raw(&address, request.as_bytes()).await.code, 200);
    assert_eq!(ask(&address, "GET /status", &[&right, "Origin: http://example.org"]).await.code, 403);
    // Others learn whether it lives, and no more.
    assert_eq!(get(&address, "/livez").await.code, 200);
    assert_eq!(get(&address, "/readyz").await.body, "ready\n");
    home.sandbox.stop();
    daemon.until("not ready", |status| !status.ready).await;
    assert_eq!(get(&address, "/readyz").await.body, "not ready\n");
    let told = ask(&address, "GET /readyz", &[&right]).await;
    assert_eq!((told.code, told.body.as_str()), (503, "no shard delivers events\n"));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_turns_the_token_into_a_cookie() {
    let home = home(&closed()).await;
    let daemon = home.start().await;
    let address = address(&daemon);

    daemon.converged().await;
    let form = get(&address, "/").await;
    assert_eq!(form.code, 401);
    assert!(form.body.contains("<form method=\"post\" action=\"/login\""), "{}", form.body);
    let wrong = post(&address, "/login", &[], "token=wrong").await;
    assert!(wrong.code == 401 && wrong.header("set-cookie").is_none(), "{wrong:?}");
    let foreign = post(&address, "/login", &["Origin: http://example.org"], &format!("token={TOKEN}")).await;
    assert_eq!(foreign.code, 403);

    let origin = format!("Origin: http://{address}");
    let answer = post(&address, "/login", &[&origin], &format!("token={TOKEN}")).await;
    assert_eq!((answer.code, answer.header("location")), (303, Some("/")));
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax") && !cookie.contains("Secure"), "{cookie}");
    assert!(!cookie.contains(TOKEN), "a cookie is no token");
    let proxied = format!(
        "POST /login HTTP/1.1\r\nHost: e.org\r\nOrigin: https://e.org\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\ntoken={TOKEN}",
        6 + TOKEN.len()
    );
    let tls = raw(&address, proxied.as_bytes()).await;
    assert!(tls.header("set-cookie").is_some_and(|cookie| cookie.ends_with("; Secure")), "{tls:?}");

    let pair = cookie.split(';').next().unwrap();
    let sent = format!("Cookie: other=1; {pair}");
    assert_eq!(ask(&address, "GET /status", &[&sent]).await.code, 200);
    let forged = format!("Cookie: {}", pair.replace('.', "0."));
    assert_eq!(ask(&address, "GET /status", &[&forged]).await.code, 401);
    let out = post(&address, "/logout", &[&sent], "").await;
    assert!(out.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")), "{out:?}");

    // A new token ends what the old one has opened.
    let old = format!("Authorization: Bearer {TOKEN}");
    let mut tail = Tail::open(&address, "/events", &["Connection: close", &old]).await;
    // A reload without a change of the endpoint ends no session.
    home.configure(&format!("{SUBSCRIPTION}\n{}\n[log]\nlevel = \"debug\"\n", closed()));
    daemon.handle_reload().await;
    home.sandbox.trigger("stream.online", None).await.unwrap();
    assert_eq!(tail.event().await["metadata"]["subscription_type"], "stream.online");
    set_token(&home, "another-admin-token-of-this-test");
    daemon.handle_reload().await;
    assert_eq!(self::address(&daemon), address);
    assert_eq!(ask(&address, "GET /status", &[&sent]).await.code, 401);
    assert_eq!(ask(&address, "GET /status", &[&old]).await.code, 401);
    let new = "Authorization: Bearer another-admin-token-of-this-test";
    assert_eq!(ask(&address, "GET /status", &[new]).await.code, 200);
    tail.ended().await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_in_force_when_the_reload_is() {
    let home = home(&closed()).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    // Wrong tokens are counted; a cookie that is good no more is only refused.
    let old = cookie(&address).await;
    for token in 0..20 {
        set_token(&home, &format!("token-of-this-test-{token}"));
        daemon.handle_reload().await;
        assert_eq!(ask(&address, "GET /status", &[&old]).await.code, 401, "token {token}");
        let new = format!("Authorization: Bearer token-of-this-test-{token}");
        assert_eq!(ask(&address, "GET /status", &[&new]).await.code, 200, "token {token}");
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slow_and_holds_up_nobody_with_the_token() {
    let home = home(&closed()).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    let right = format!("Authorization: Bearer {TOKEN}");
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..14 {
        let address = address.clone();
        guesses.spawn(async move {
            let guess = format!("Authorization: Bearer wrong-{guess}");
            ask(&address, "GET /status", &[&guess]).await.code
        });
    }
    // Ten are answered at once, the others wait; the same address with the token does not.
    let mut codes = Vec::new();
    while codes.len() < 10 {
        codes.push(guesses.join_next().await.expect("a guess").unwrap());
    }
    assert_eq!(ask(&address, "GET /status", &[&right]).await.code, 200);
    let cookie = cookie(&address).await;
    assert_eq!(ask(&address, "GET /status", &[&cookie]).await.code, 200);
    let waiting = post(&address, "/login", &[], "token=wrong").await;
    assert_eq!(waiting.code, 401);
    codes.extend(guesses.join_all().await);
    assert_eq!(codes, [401; 14]);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_logout_and_stays_ended_after_a_restart() {
    let home = home(&closed()).await;
    let daemon = home.start().await;
    let first = address(&daemon);
    // Cookies are named after the port.
    let port = first.rsplit(':').next().unwrap().to_owned();
    configure(&home, &format!("[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken_file = \"token\"\n"));
    let [one, two] = [cookie(&first).await, cookie(&first).await];
    assert_ne!(one, two, "each login is a session of its own");
    let tail = Tail::open(&first, "/events", &["Connection: close", &one]).await;
    let out = post(&first, "/logout", &[&one], "").await;
    assert_eq!(out.code, 303);
    tail.ended().await;
    assert_eq!(ask(&first, "GET /status", &[&one]).await.code, 401);
    assert_eq!(ask(&first, "GET /status", &[&two]).await.code, 200, "the other goes on");
    daemon.end().await;

    let daemon = home.start().await;
    assert_eq!(address(&daemon), first);
    assert_eq!(ask(&first, "GET /status", &[&one]).await.code, 401);
    assert_eq!(ask(&first, "GET /status", &[&two]).await.code, 200);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_trusted_proxies_are_believed() {
    let home = home(&closed()).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    let secure = async |headers: &[&str]| {
        let answer = post(&address, "/login", headers, &format!("token={TOKEN}")).await;
        answer.header("set-cookie").expect("a cookie").ends_with("; Secure")
    };
    assert!(!secure(&["X-Forwarded-Proto: https"]).await, "anybody may say that");
    configure(&home, &format!("{}trusted_proxies = [\"127.0.0.0/8\"]\n", closed()));
    let accepted = daemon.handle.reload().await.expect("the file is good");
    assert_eq!(accepted.changes, ["trusted proxies of the admin endpoint changed"]);
    assert!(secure(&["X-Forwarded-Proto: https"]).await);
    assert!(!secure(&["X-Forwarded-Proto: http"]).await);
    // Wrong tokens count for the client, not for the proxy: none of these has to wait.
    for client in 0..200 {
        let from = format!("X-Forwarded-For: 192.0.2.{client}");
        let wrong = ask(&address, "GET /status", &["Authorization: Bearer wrong", &from]).await;
        assert_eq!(wrong.code, 401);
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_keep_no_probe_and_no_person_out() {
    let home = home(&closed()).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    let right = format!("Authorization: Bearer {TOKEN}");
    let mut strangers = Vec::new();
    for nth in 0..300 {
        let mut stranger = TcpStream::connect(&address).await.expect("the backlog takes it");
        let _ = stranger.write_all(b"GET /livez HTTP/1.1\r\nHost:").await;
        strangers.push(stranger);
        if nth % 50 == 49 {
            assert_eq!(get(&address, "/livez").await.code, 200, "{nth}");
            assert_eq!(ask(&address, "GET /status", &[&right]).await.code, 200, "{nth}");
        }
    }
    let status =
        daemon.until("the count", |status| status.admin.as_ref().is_some_and(|a| a.evicted > 0)).await;
    let admin = status.admin.expect("an endpoint");
    assert!(admin.connections <= admin.places + 4, "{admin:?}");
    let problem = admin.problem.expect("a crowd");
    assert!(problem.contains("without the token"), "{problem}");
    assert!(status.problems.iter().any(|p| p.part == "admin"), "{:?}", status.problems);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_small_and_do_not_dawdle() {
    let home = home(&closed()).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    let long = "x".repeat(20_000);
    assert_eq!(get(&address, &format!("/status?{long}")).await.code, 431);
    assert_eq!(ask(&address, "GET /livez", &[&format!("X-Long: {long}")]).await.code, 431);
    let many: Vec<String> = (0..100).map(|n| format!("X-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(ask(&address, "GET /livez", &many).await.code, 431);
    assert_eq!(post(&address, "/login", &[], &format!("token={long}")).await.code, 413);
    for nonsense in [&b"\x16\x03\x01\x00\xa5\x01"[..], b"GET\r\n\r\n", b"\r\n\r\n\r\n\r\nX\r\n\r\n"] {
        let answer = raw(&address, nonsense).await;
        assert!([0, 400].contains(&answer.code), "{answer:?}");
    }
    // Connections that say nothing take no more than their places, and are closed.
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(TcpStream::connect(&address).await.expect("the backlog takes it"));
    }
    let mut first = silent.swap_remove(0);
    let mut byte = [0];
    let read = tokio::time::timeout(WAIT, first.read(&mut byte)).await.expect("it is closed");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(silent);
    assert_eq!(get(&address, "/livez").await.code, 200);
    daemon.end().await;
}

/// Follows `/events`.
struct Tail {
    lines: BufReader<TcpStream>,
}

impl Tail {
    async fn open(address: &str, path: &str, headers: &[&str]) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut tail = Self { lines: BufReader::new(stream) };
        assert_eq!(tail.line().await, "HTTP/1.1 200 OK");
        tail.until("retry: 2000").await;
        tail
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(WAIT, self.lines.read_line(&mut line)).await.expect("a line");
        assert!(read.unwrap() > 0, "it goes on");
        line.trim_end().to_owned()
    }

    /// The first line that begins so.
    async fn until(&mut self, start: &str) -> String {
        loop {
            let line = self.line().await;
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// The data of the next event.
    async fn event(&mut self) -> serde_json::Value {
        let line = self.until("data: ").await;
        serde_json::from_str(line.strip_prefix("data: ").unwrap()).expect("JSON")
    }

    async fn ended(mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(WAIT, self.lines.read_to_end(&mut rest)).await;
        let _ = read.expect("it ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_live() {
    let home = Home::new(quick()).await;
    home.configure(&format!(
        "{OPEN}\n[[subscription]]\ntype = [\"stream.online\", \"stream.offline\"]\nbroadcaster = \"ninja\"\n"
    ));
    let daemon = home.start().await;
    let address = address(&daemon);
    daemon.converged().await;
    home.sandbox.trigger("stream.online", None).await.unwrap();
    daemon.until("stored", |status| status.store.last_seq.0 == 1).await;

    let mut all = Tail::open(&address, "/events", &[]).await;
    let mut some = Tail::open(&address, "/events?type=stream.off*&type=x", &[]).await;
    let mut again = Tail::open(&address, "/events", &["Last-Event-ID: 0"]).await;
    home.sandbox.trigger("stream.online", None).await.unwrap();
    daemon.until("stored", |status| status.store.last_seq.0 == 2).await;
    home.sandbox.trigger("stream.offline", None).await.unwrap();

    let event = all.event().await;
    assert_eq!(event["seq"], 2, "what was there before is not sent");
    assert_eq!(event["metadata"]["subscription_type"], "stream.online");
    assert_eq!(event["payload"]["subscription"]["type"], "stream.online");
    assert!(event["payload"]["event"]["broadcaster_user_id"].is_string(), "{event}");
    assert_eq!(all.until("id: ").await, "id: 3");
    assert_eq!(some.event().await["seq"], 3);
    for seq in 1..=3 {
        assert_eq!(again.event().await["seq"], seq);
    }
    assert_eq!(get(&address, "/events?type=[").await.code, 400);

    let mut others = Vec::new();
    for _ in 0..13 {
        others.push(Tail::open(&address, "/events", &[]).await);
    }
    let full = get(&address, "/events").await;
    assert_eq!((full.code, full.header("retry-after")), (503, Some("10")));
    assert_eq!(get(&address, "/livez").await.code, 200);

    // Stopping does not wait for those who follow.
    let stopping = tokio::spawn(daemon.end());
    all.ended().await;
    assert_eq!(stopping.await.unwrap(), Exit::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_keep_up_is_told_what_was_passed_over() {
    let home = home(OPEN).await;
    let daemon = home.start().await;
    let address = address(&daemon);
    daemon.converged().await;
    let mut tail = Tail::open(&address, "/events", &[]).await;
    for _ in 0..3_000 {
        home.sandbox.trigger("stream.online", None).await.unwrap();
    }
    daemon.delivered(3_000).await;
    let (mut seen, mut skipped) = (0, 0);
    while seen + skipped < 3_000 {
        let event = tail.event().await;
        match event["count"].as_u64() {
            Some(count) => skipped += count,
            None => seen += 1,
        }
    }
    assert_eq!(seen + skipped, 3_000, "none is counted twice or forgotten");
    assert!(seen > 0 && skipped > 0, "{seen} seen, {skipped} passed over");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_moves_opens_and_closes_it() {
    let home = home("").await;
    let daemon = home.start().await;
    assert_eq!(daemon.status().admin, None);
    let free = || async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    };

    let (listener, first) = free().await;
    configure(&home, &format!("[admin]\nlisten = \"{first}\"\n"));
    let refused = daemon.handle.reload().await.expect_err("the address is taken");
    assert!(refused.errors[0].contains(&format!("cannot listen on {first}")), "{refused:?}");
    assert_eq!(daemon.status().admin, None);
    drop(listener);
    let accepted = daemon.handle.reload().await.expect("it is free");
    assert_eq!(accepted.changes, [format!("admin.listen off -> {first}")]);
    assert_eq!(get(&first, "/livez").await.code, 200);

    let (listener, second) = free().await;
    drop(listener);
    configure(&home, &format!("[admin]\nlisten = \"{second}\"\ntoken_file = \"token\"\n"));
    let tail = Tail::open(&first, "/events", &[]).await;
    daemon.handle_reload().await;
    tail.ended().await;
    assert_eq!(get(&second, "/livez").await.code, 200);
    assert_eq!(get(&second, "/status").await.code, 401);
    assert_eq!(address(&daemon), second);
    assert!(TcpStream::connect(&first).await.is_err(), "the old one is closed");

    configure(&home, "");
    daemon.handle_reload().await;
    daemon.until("closed", |status| status.admin.is_none()).await;
    let begun = std::time::Instant::now();
    while TcpStream::connect(&second).await.is_ok() {
        assert!(begun.elapsed() < WAIT, "it stays open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_keeps_the_daemon_from_starting() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let home = home(&format!("[admin]\nlisten = \"{address}\"\n")).await;
    let mut options = DaemonOptions::new(home.load());
    options.tuning = tuning();
    let error = Daemon::build(options).await.expect_err("it is taken");
    let BuildError::Admin(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_answers_the_same() {
    let home = home("").await;
    let daemon = home.start().await;
    daemon.converged().await;
    for (path, start) in [("/livez", "ok"), ("/readyz", "ready"), ("/status", "{\"version\"")] {
        let mut stream = tokio::net::UnixStream::connect(home.path("state/control.sock")).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: eventsubd\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1;
        assert!(text.starts_with("HTTP/1.1 200") && body.starts_with(start), "{path}: {text}");
    }
    daemon.end().await;
}
