//! Invites: the page that asks users for what the file needs, in a real browser and without one, with the stand-in for
//! Twitch asking for consent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use common::browser::{Browser, axe, is_accessible};
use common::{Home, Process, Running, SECRET, WAIT, command, output, port, quick, text};
use eventsubd::auth::{http_client, tls_config};
use eventsubd::model::status::{Status, SubscriptionState};
use eventsubd::sandbox::SandboxOptions;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Response, Url};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FOLLOWS: &str = "[[subscription]]\ntype = \"channel.follow\"\nbroadcaster = [\"ann\", \"bob\"]\n\
                       [[subscription]]\ntype = \"channel.poll.begin\"\nbroadcaster = \"ann\"\n";

/// A home whose page has an address of its own.
async fn home() -> (Home, String) {
    let port = port();
    let uri = format!("http://localhost:{port}/authorize");
    let options = SandboxOptions { require_grants: true, redirect_uris: vec![uri.clone()], ..quick() };
    let home = Home::new(options).await;
    let page = format!("[authorize]\nredirect_uri = \"{uri}\"\nlisten = \"127.0.0.1:{port}\"\n");
    home.configure(&format!("{page}{FOLLOWS}"));
    (home, uri)
}

/// What `authorize --link` prints with these flags: an invite for each user.
async fn links(home: &Home, flags: &[&str]) -> Vec<String> {
    let done = output(command(home, &[&["authorize", "--link"], flags].concat())).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("OAuth Redirect URLs"), "{}", text(&done.stderr));
    let lines = text(&done.stdout);
    lines.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
}

async fn enabled(daemon: &Running, count: usize) {
    daemon
        .until("enabled", |status| {
            let entries = status.subscriptions.iter();
            entries.filter(|entry| entry.state == SubscriptionState::Enabled).count() == count
        })
        .await;
}

/// On the stand-in's page.
async fn answer(browser: &Browser, login: &str, answer: &str) {
    browser.until("document.querySelector('button[value=allow]')").await;
    browser.run("document.querySelector('input[name=login]').value = arguments[0]", json!([login])).await;
    browser.click(&format!("button[value={answer}]")).await;
}

async fn heading(browser: &Browser, title: &str) {
    browser.until(&format!("document.querySelector('h1')?.textContent === '{title}'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invited_user_consents_in_a_browser() {
    let (home, uri) = home().await;
    let daemon = home.start().await;
    daemon.converged().await;
    let link = links(&home, &["--user", "ann"]).await.remove(0);
    assert!(link.starts_with(&format!("{uri}?invite=")), "{link}");
    let browser = Browser::start().await;
    let axe = axe();
    browser.open(&link).await;
    heading(&browser, "You are asked for a permission").await;
    let said = browser.eval("document.body.innerText").await;
    for part in [
        "See the followers of the channels that you own or moderate moderator:read:followers",
        "See your polls channel:read:polls",
        "channel.follow",
        "channel.poll.begin",
        "ann",
    ] {
        assert!(said.as_str().unwrap().contains(part), "{part}: {said}");
    }
    for scheme in ["light", "dark"] {
        browser.scheme(scheme).await;
        is_accessible(&browser, &axe, scheme).await;
    }

    // She declines, another one comes, then she agrees.
    browser.click("button").await;
    answer(&browser, "ann", "refuse").await;
    heading(&browser, "Nothing was allowed").await;
    is_accessible(&browser, &axe, "declined").await;
    browser.click("button").await;
    answer(&browser, "mallory", "allow").await;
    heading(&browser, "Another account").await;
    let said = browser.eval("document.body.innerText").await;
    assert!(said.as_str().unwrap().contains("as mallory, and ann is asked"), "{said}");
    is_accessible(&browser, &axe, "another account").await;
    enabled(&daemon, 0).await;
    browser.click("button").await;
    answer(&browser, "ann", "allow").await;
    heading(&browser, "Done").await;
    is_accessible(&browser, &axe, "done").await;
    enabled(&daemon, 2).await;
    assert_eq!(browser.eval("document.cookie").await, "", "no script sees a cookie");

    // The same address once more, and one that was made up.
    let used = browser.eval("location.href").await;
    assert!(used.as_str().unwrap().contains("code="), "{used}");
    browser.open(used.as_str().unwrap()).await;
    heading(&browser, "This visit is over").await;
    browser.open(&format!("{uri}?code=abc&state={}", "0".repeat(32))).await;
    heading(&browser, "This visit is over").await;
    browser.open(&uri).await;
    heading(&browser, "No invite").await;
    browser.open(&link.replace("invite=", "invite=x")).await;
    heading(&browser, "This invite is not valid").await;
    is_accessible(&browser, &axe, "not valid").await;
    // Error statuses are the only complaint.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|line| line.contains("Failed to load resource")), "{complaints:#?}");

    // One link for everyone: the visitor signs in, and is asked as the user that came.
    let everyone = links(&home, &[]).await.remove(0);
    browser.open(&everyone).await;
    heading(&browser, "You are invited").await;
    is_accessible(&browser, &axe, "invited").await;
    browser.click("button").await;
    answer(&browser, "bob", "allow").await;
    heading(&browser, "You are asked for a permission").await;
    let said = browser.eval("document.body.innerText").await;
    assert!(!said.as_str().unwrap().contains("polls"), "nobody asks bob for that: {said}");
    browser.click("button").await;
    answer(&browser, "bob", "allow").await;
    heading(&browser, "Done").await;
    enabled(&daemon, 3).await;
    browser.open(&everyone).await;
    browser.click("button").await;
    answer(&browser, "mallory", "allow").await;
    heading(&browser, "Nothing to do").await;
    let page = daemon.status().authorize.expect("a page");
    assert_eq!((page.visits, page.granted, page.declined, page.refused), (0, 2, 1, 5), "{page:?}");
    let told = text(&output(command(&home, &["status"])).await.stdout);
    let line =
        format!("invites        {uri}, listening on {}, 0 visits open, 2 granted", page.listen.unwrap());
    assert!(told.contains(&line), "{told}");
    daemon.end().await;
}

/// A browser without a screen.
struct Visitor {
    http: reqwest::Client,
    /// Everything that must not be logged.
    secrets: Mutex<BTreeSet<String>>,
}

/// The way to Twitch, and the cookie that goes with it.
struct Away {
    url: Url,
    cookie: String,
    invite: String,
}

impl Away {
    fn of(&self, name: &str) -> String {
        let pair = self.url.query_pairs().find(|(key, _)| key == name);
        pair.unwrap_or_else(|| panic!("no {name} in {}", self.url)).1.into_owned()
    }
}

fn query_of(url: &str, name: &str) -> Option<String> {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

impl Visitor {
    fn new() -> Self {
        Self { http: http_client("test", tls_config().unwrap()).unwrap(), secrets: Mutex::default() }
    }

    fn note(&self, secret: &str) {
        assert!(secret.len() >= 16, "{secret}");
        self.secrets.lock().unwrap().insert(secret.to_owned());
    }

    async fn post(&self, url: &str, form: &[(&str, &str)]) -> Response {
        self.http.post(url).form(form).send().await.unwrap()
    }

    /// Presses the button of the page.
    async fn go(&self, link: &str) -> Away {
        let invite = query_of(link, "invite").unwrap();
        let page = link.split('?').next().unwrap();
        let answer = self.post(page, &[("invite", &invite)]).await;
        assert_eq!(answer.status(), 303);
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
        for part in ["HttpOnly", "SameSite=Lax", "Path=/authorize", "Max-Age=900"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Secure"), "this machine has no TLS: {cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        self.note(cookie.split_once('=').unwrap().1);
        let url = Url::parse(answer.headers()[LOCATION].to_str().unwrap()).unwrap();
        let away = Away { url, cookie, invite };
        self.note(&away.of("state"));
        away
    }

    /// Agrees on the stand-in's page, to these scopes. Returns the address that leads back.
    async fn agree(&self, home: &Home, away: &Away, login: &str, scopes: &str) -> String {
        let fields =
            ["client_id", "redirect_uri", "response_type", "state"].map(|name| (name, away.of(name)));
        let mut form: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        form.extend([("scope", scopes), ("login", login), ("answer", "allow")]);
        let answer = self.post(&format!("{}/authorize", home.sandbox.auth_url()), &form).await;
        let back = answer.headers()[LOCATION].to_str().unwrap().to_owned();
        self.note(&query_of(&back, "code").unwrap());
        back
    }

    /// Returns the status and the heading of a page.
    async fn open(&self, url: &str, cookie: &str) -> (u16, String) {
        let answer = self.http.get(url).header(COOKIE, cookie).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(answer.headers().contains_key("content-security-policy") || status == 404, "{url}");
        let page = answer.text().await.unwrap();
        let heading = page.split("<h1>").nth(1).and_then(|rest| rest.split('<').next());
        (status, heading.unwrap_or_default().to_owned())
    }
}

fn shown(status: u16, heading: &str) -> (u16, String) {
    (status, heading.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_stolen_and_used_returns_have_no_effect_and_nothing_secret_is_logged() {
    let (home, uri) = home().await;
    let mut process = Process::start(&home, "trace");
    common::converged(&home).await;
    let link = links(&home, &["--missing"]).await.remove(0);
    let visitor = Visitor::new();

    let away = visitor.go(&link).await;
    assert_eq!(away.of("scope"), "channel:read:polls moderator:read:followers");
    assert_eq!((away.of("redirect_uri"), away.of("response_type")), (uri.clone(), "code".to_owned()));
    let all = away.of("scope");
    let back = visitor.agree(&home, &away, "ann", &all).await;
    assert_eq!(visitor.open(&back, "").await, shown(400, "Another browser"));
    let other = visitor.go(&link).await;
    assert_eq!(visitor.open(&back, &other.cookie).await, shown(400, "Another browser"));
    let forged = back.replace(&away.of("state"), &"f".repeat(32));
    assert_eq!(visitor.open(&forged, &away.cookie).await, shown(400, "This visit is over"));
    assert_eq!(visitor.open(&back, &away.cookie).await, shown(200, "Done"));
    assert_eq!(visitor.open(&back, &away.cookie).await, shown(400, "This visit is over"));

    // The code of one visit, with the state of another.
    let code = query_of(&back, "code").unwrap();
    let used = format!("{uri}?code={code}&state={}", other.of("state"));
    assert_eq!(visitor.open(&used, &other.cookie).await, shown(400, "Twitch did not confirm it"));

    // Only a part, and only what the invite is for.
    let away = visitor.go(&link).await;
    let back = visitor.agree(&home, &away, "ann", "channel:read:polls").await;
    assert_eq!(visitor.open(&back, &away.cookie).await, shown(200, "Something is missing"));
    let polls = links(&home, &["--user", "ann", "--for", "channel.poll.*"]).await.remove(0);
    assert_eq!(visitor.go(&polls).await.of("scope"), "channel:read:polls");

    // Forms from elsewhere, and more than can be.
    let foreign = visitor.http.post(&uri).header("origin", "https://evil.example");
    let foreign = foreign.form(&[("invite", &away.invite)]).send().await.unwrap();
    assert_eq!(foreign.status(), 400);
    let huge = visitor.post(&uri, &[("invite", &"x".repeat(8 << 10))]).await;
    assert_eq!(huge.status(), 413);
    assert_eq!(visitor.open(&uri.replace("/authorize", "/other"), "").await.0, 404);
    let mut statuses = BTreeSet::new();
    for _ in 0..100 {
        statuses.insert(visitor.post(&uri, &[("invite", &away.invite)]).await.status().as_u16());
    }
    assert_eq!(statuses, BTreeSet::from([303, 429]));

    let told = text(&output(command(&home, &["status"])).await.stdout);
    let line = told.lines().find(|line| line.starts_with("invites ")).unwrap();
    for part in [", 1 granted, 1 declined,", " refused, ", " turned away, 1 failed"] {
        assert!(line.contains(part), "{part}: {line}");
    }

    process.signal(rustix::process::Signal::TERM);
    process.ended().await;
    let log = fs::read(home.path("stderr.log")).unwrap();
    let logged = |line: &str, times: usize| {
        assert_eq!(text(&log).matches(line).count(), times, "{line}: {}", text(&log));
    };
    logged("an invited user has allowed it", 1);
    logged("an invited user has not allowed what is needed", 1);
    logged("Twitch did not take the code of an invited user", 1);
    logged("the page for invited users turned a visitor away", 1);
    for reason in ["another browser", "no such visit", "malformed", "body", "path"] {
        logged(&format!("a request to the page for invited users was refused reason=\"{reason}\""), 1);
    }
    let secrets = visitor.secrets.into_inner().unwrap();
    let secrets: Vec<String> =
        secrets.into_iter().chain(home.sandbox.tokens()).chain([SECRET.to_owned()]).collect();
    assert!(secrets.len() > 8);
    for secret in secrets {
        assert!(!log.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} was logged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_of_webhooks_serves_the_page_and_a_reload_moves_it() {
    let (hooks, own) = (port(), port());
    let uri = format!("http://localhost:{hooks}/authorize");
    let options = SandboxOptions { require_grants: true, redirect_uris: vec![uri.clone()], ..quick() };
    let home = Home::new(options).await;
    let webhook = format!(
        "[transport.webhook]\ncallback = \"http://127.0.0.1:{hooks}/eventsub\"\nlisten = \"127.0.0.1:{hooks}\"\n"
    );
    let shared = format!("{webhook}[authorize]\nredirect_uri = \"{uri}\"\n");
    home.configure(&format!("{shared}{FOLLOWS}"));
    let daemon = home.start().await;
    daemon.converged().await;
    let visitor = Visitor::new();
    let link = links(&home, &["--user", "ann"]).await.remove(0);
    assert_eq!(visitor.open(&link, "").await, shown(200, "You are asked for a permission"));
    let away = visitor.go(&link).await;
    let back = visitor.agree(&home, &away, "ann", &away.of("scope")).await;
    assert_eq!(visitor.open(&back, &away.cookie).await, shown(200, "Done"));
    enabled(&daemon, 2).await;
    let check = output(command(&home, &["check", "--online"])).await;
    let said = text(&check.stdout);
    assert!(said.contains(&format!("✓ authorize      {uri} is there")), "{said}");
    assert!(said.contains("✓ authorize      Twitch knows the redirect URI"), "{said}");

    // To an address of its own, and another URI, which Twitch does not know.
    let moved = format!("http://localhost:{own}/connect");
    home.configure(&format!(
        "{webhook}[authorize]\nredirect_uri = \"{moved}\"\nlisten = \"127.0.0.1:{own}\"\n{FOLLOWS}"
    ));
    daemon.handle_reload().await;
    let here = link.replace(&uri, &moved);
    assert_eq!(visitor.open(&here, "").await, shown(200, "You are asked for a permission"));
    assert_eq!(visitor.open(&link, "").await.0, 404, "not here any more");
    let check = output(command(&home, &["check", "--online"])).await;
    let said = text(&check.stdout);
    assert!(said.contains("✗ authorize      Twitch does not know the redirect URI: add "), "{said}");
    home.configure(&format!("{webhook}{FOLLOWS}"));
    daemon.handle_reload().await;
    let begun = Instant::now();
    while visitor.http.get(&here).send().await.is_ok() {
        assert!(begun.elapsed() < WAIT, "it is still served");
        tokio::task::yield_now().await;
    }
    let check = output(command(&home, &["authorize", "--link"])).await;
    assert_eq!(check.status.code(), Some(78));
    assert!(text(&check.stderr).contains("`authorize.redirect_uri` is missing"), "{}", text(&check.stderr));
    daemon.end().await;
}

/// Sends a request over a connection that stays open; returns the first line of the answer.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = String::new();
    let mut buffer = vec![0; 16 << 10];
    while !read.contains("</html>") {
        let count = tokio::time::timeout(WAIT, stream.read(&mut buffer)).await.expect("in time").unwrap();
        assert!(count > 0, "the connection ended: {read}");
        read += &text(&buffer[..count]);
    }
    read.lines().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_hold_connections_keep_no_invited_user_out() {
    let (home, uri) = home().await;
    let daemon = home.start().await;
    daemon.converged().await;
    let link = links(&home, &["--user", "ann"]).await.remove(0);
    let path = link.strip_prefix(uri.strip_suffix("/authorize").unwrap()).unwrap();
    let address = ("127.0.0.1", Url::parse(&uri).unwrap().port().unwrap());
    let mut invited = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut invited, path).await, "HTTP/1.1 200 OK");
    let mut strangers = Vec::new();
    for _ in 0..400 {
        strangers.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(ask(strangers.last_mut().unwrap(), "/authorize").await, "HTTP/1.1 404 Not Found");
    assert_eq!(ask(&mut invited, path).await, "HTTP/1.1 200 OK", "it made room for nobody");
    let mut ended = 0;
    for stranger in &mut strangers[..100] {
        let read = tokio::time::timeout(WAIT, stranger.read(&mut [0; 1])).await.expect("in time");
        ended += usize::from(matches!(read, Ok(0) | Err(_)));
    }
    assert_eq!(ended, 100, "the oldest strangers made room");
    let is_told = |status: &Status| {
        let page = status.authorize.as_ref().expect("a page");
        page.evicted >= 100 && status.problems.iter().any(|problem| problem.part == "authorize")
    };
    daemon.until("told", is_told).await;
    daemon.end().await;
}

#[tokio::test]
async fn the_flags_of_a_link_are_checked() {
    let (home, _) = home().await;
    let mut wrong: Vec<Command> = [
        &["authorize", "--link", "--status"][..],
        &["authorize", "--link", "--scopes", "bits:read"],
        &["authorize", "--missing", "--for", "channel.*"],
        &["authorize"],
    ]
    .map(|arguments| command(&home, arguments))
    .into();
    for command in &mut wrong {
        let done = command.stdout(Stdio::null()).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{}", text(&done.stderr));
    }
}
