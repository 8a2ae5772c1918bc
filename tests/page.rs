//! The page of the admin endpoint in a real browser, with the real daemon and the stand-in for Twitch.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on shall say where")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::browser::{Browser, axe, is_accessible};
use common::{Home, Running, WAIT, quick, tuning};
use eventsubd::daemon::Tuning;
use eventsubd::sandbox::SandboxOptions;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OPEN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";
const TOKEN: &str = "an-admin-token-of-this-test";
const HOSTILE: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";
/// The keys of WebDriver ("Keyboard actions").
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const BACK: &str = "\u{e003}";

fn address(daemon: &Running) -> String {
    format!("http://{}/", daemon.status().admin.expect("an endpoint").listen)
}

/// A daemon that has something to say: a grant that is missing, a login that nobody has, a sink that fails.
async fn troubled(more: &str) -> (Home, Running) {
    let home = Home::new(SandboxOptions { require_grants: true, ..quick() }).await;
    home.sandbox.grant("cohhcarnage", &["moderator:read:followers"]).await;
    fs::write(home.path("token"), TOKEN).unwrap();
    fs::set_permissions(home.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
    home.configure(&format!(
        r#"
[[subscription]]
type = ["stream.online", "stream.offline", "channel.update"]
broadcaster = ["cohhcarnage", "northernlion", "simply"]

[[subscription]]
type = "channel.follow"
broadcaster = ["cohhcarnage", "northernlion"]

[[subscription]]
type = "channel.raid"
to_broadcaster = "missing_person"

[sink.log]
type = "file"
path = "events.jsonl"

[sink.bot]
type = "http"
url = "http://127.0.0.1:9/hook"
types = ["stream.*"]

[sink.archive]
type = "stdout"

{more}"#
    ));
    let daemon = home.start().await;
    daemon.until("settled", |status| status.ready && status.reconcile.converged).await;
    (home, daemon)
}

/// Nothing was asked of anybody else, and the browser had nothing to complain of.
async fn is_at_home(browser: &Browser, address: &str) {
    let requests = browser.requests().await;
    // The first page of the browser is within the browser.
    let inside = |url: &str| url.starts_with("chrome://") || url.starts_with("data:");
    let sent: Vec<_> = requests.iter().filter(|url| !inside(url)).collect();
    assert!(!sent.is_empty(), "the log shows requests");
    let foreign: Vec<_> = sent.iter().filter(|url| !url.starts_with(address)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_what_is_wrong_and_finds_things() {
    let hostile = "[[subscription]]\ntype = \"channel.raid\"\n\
        condition = { to_broadcaster_user_id = \"<script>document.title='owned'</script>\" }\n";
    let (_home, daemon) = troubled(&format!("{hostile}{OPEN}")).await;
    let address = address(&daemon);
    let browser = Browser::start().await;
    browser.open(&address).await;
    assert_eq!(browser.eval("document.title").await, "Running, 1 problem – eventsubd");
    let first = browser.eval("document.querySelector('main h2').textContent").await;
    assert_eq!(first, "What is wrong", "it comes first");
    let rows = || browser.eval("document.querySelectorAll('#rows tbody tr').length");
    let all = rows().await;
    assert_eq!(all, 13);

    let sinks = browser.eval("document.querySelector('#sinks-list').innerText").await;
    for part in
        ["events.jsonl", "http://127.0.0.1:9/…", "standard output", "stream.*", "Last success", "/min"]
    {
        assert!(sinks.as_str().unwrap().contains(part), "{part}: {sinks}");
    }

    // The mouse: a state, and back.
    browser.click("#rows .choices li:nth-child(2) a").await;
    browser.until("document.querySelector('#rows [aria-current]').textContent.startsWith('Parked')").await;
    let parked = rows().await;
    assert_eq!(parked, 3);
    let reasons = browser.eval("document.querySelector('#rows tbody').innerText").await;
    assert!(reasons.as_str().unwrap().contains("eventsubd authorize --user northernlion"), "{reasons}");
    let badges = browser
        .eval("[...document.querySelectorAll('#rows tbody .badge')].every(badge => badge.textContent === 'parked')")
        .await;
    assert_eq!(badges, true);
    assert_eq!(browser.eval("location.search").await, "?state=parked");
    browser.click("#rows .choices li:nth-child(1) a").await;
    browser.until("document.querySelectorAll('#rows tbody tr').length === 13").await;

    // The keyboard alone: to the search, a login, and to the filters.
    browser.open(&address).await;
    browser.press(TAB).await;
    assert_eq!(browser.eval("document.activeElement.textContent").await, "Skip to the content");
    for _ in 0..40 {
        if browser.eval("document.activeElement.id").await == "q" {
            break;
        }
        browser.press(TAB).await;
        let ring = browser.eval("getComputedStyle(document.activeElement).outlineStyle").await;
        assert_eq!(ring, "solid", "the focus can be seen");
    }
    assert_eq!(browser.eval("document.activeElement.id").await, "q");
    browser.press("SIMPLY").await;
    browser.until("document.querySelectorAll('#rows tbody tr').length === 3").await;
    assert_eq!(browser.eval("document.activeElement.id").await, "q", "typing keeps the focus");
    browser.until("document.getElementById('announce').textContent === '3 subscriptions'").await;
    let named = browser.eval("document.querySelector('#rows .logins').textContent").await;
    assert_eq!(named, "simply");
    browser.press(&format!("{TAB}{TAB}{TAB}{TAB}{TAB}{ENTER}")).await;
    browser.until("document.querySelector('#rows [aria-current]').textContent.startsWith('Enabled')").await;
    assert_eq!(browser.eval("location.search").await, "?q=SIMPLY&state=enabled");
    browser.click("#q").await;
    browser.press(&BACK.repeat(6)).await;
    browser.press("nobody has this").await;
    browser.until("document.getElementById('found').textContent === 'No subscription'").await;

    // The page refreshes by itself and keeps the part that somebody reads.
    browser.run("document.querySelector('#sinks-list').id_of_old = 7", json!([])).await;
    let before = browser.eval("document.querySelector('#about time').dateTime").await;
    browser.until(&format!("document.querySelector('#about time').dateTime !== {before}")).await;
    assert_eq!(browser.eval("document.querySelector('#sinks-list').id_of_old").await, 7);
    assert_eq!(browser.eval("document.getElementById('q').value").await, "nobody has this");
    is_at_home(&browser, &address).await;

    // A daemon that is gone is said to be gone, also in the badge.
    daemon.end().await;
    browser.until("!document.getElementById('lost').hidden").await;
    let badge = browser.eval("document.getElementById('verdict').outerHTML").await;
    assert_eq!(badge, r#"<p id="verdict" class="badge bad" data-live="">Not answering</p>"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_live_and_are_only_text() {
    let (home, daemon) = troubled(OPEN).await;
    let address = address(&daemon);
    home.sandbox.trigger("channel.update", None).await.unwrap();
    daemon.until("stored", |status| status.store.last_seq.0 == 1).await;
    let browser = Browser::start().await;
    browser.open(&address).await;
    let items = |count: u32| format!("document.querySelectorAll('#tail-list li').length === {count}");
    browser.until(&items(1)).await;

    home.sandbox.trigger("stream.online", Some("simply")).await.unwrap();
    browser.until(&items(2)).await;
    let newest = "document.querySelector('#tail-list li')";
    let text = browser.eval(&format!("{newest}.innerText")).await;
    assert!(text.as_str().unwrap().contains("stream.online"), "{text}");
    browser.until("document.getElementById('tail-state').textContent === 'Following all events'").await;

    let event = json!({ "title": HOSTILE, "broadcaster_user_login": HOSTILE }).to_string();
    home.sandbox.send_event(&home.subscription("channel.update"), &event).await.unwrap();
    browser.until(&items(3)).await;
    browser.click("#tail-list li summary").await;
    browser.until(&format!("{newest}.querySelector('pre')")).await;
    let shown = browser.eval(&format!("{newest}.querySelector('pre').textContent")).await;
    assert!(shown.as_str().unwrap().contains("<script>document.title"), "{shown}");
    assert_eq!(
        browser.eval("document.querySelectorAll('#tail-list script, #tail-list img').length").await,
        0
    );

    // Only some types: stored ones and live ones.
    browser.click("#type").await;
    browser.press(&format!("stream.*{ENTER}")).await;
    let state = |text: &str| format!("document.getElementById('tail-state')?.textContent === '{text}'");
    browser.until(&state("Following the events that match")).await;
    browser.until(&items(1)).await;
    home.sandbox.trigger("channel.update", None).await.unwrap();
    home.sandbox.trigger("stream.offline", None).await.unwrap();
    browser.until(&items(2)).await;
    let kinds = browser
        .eval("[...document.querySelectorAll('#tail-list .kind')].map(kind => kind.textContent)")
        .await;
    assert_eq!(kinds, json!(["stream.offline", "stream.online"]));
    browser.click("#pause").await;
    home.sandbox.trigger("stream.offline", None).await.unwrap();
    daemon.until("stored", |status| status.store.last_seq.0 == 6).await;
    assert_eq!(browser.eval("document.getElementById('tail-state').textContent").await, "Paused");
    assert_eq!(browser.eval("document.querySelectorAll('#tail-list li').length").await, 2);
    browser.click("#pause").await;
    browser.until(&items(3)).await;
    let time = browser.eval("document.querySelector('#tail-list time').textContent").await;
    let local = browser
        .eval(
            "new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' })
                .format(new Date(document.querySelector('#tail-list time').dateTime))",
        )
        .await;
    assert_eq!(time, local, "times are local");

    // The chart has them, once the page is fetched again.
    browser
        .until("document.querySelector('#glance svg').getAttribute('aria-label').includes(': 6 in the last hour')")
        .await;
    browser.until("document.querySelectorAll('.plot rect.kind-0').length > 0").await;
    let legend = browser.eval("document.querySelector('.legend').innerText").await;
    assert!(legend.as_str().unwrap().contains("stream.online"), "{legend}");
    for range in ["day", "week"] {
        let link = format!("#chart-range a[href*={range}]");
        browser.run("document.querySelector(arguments[0]).click()", json!([link])).await;
        let label = "document.querySelector('#glance svg').getAttribute('aria-label')";
        browser.until(&format!("{label}.includes(': 6 in the last {range}')")).await;
        assert_eq!(browser.eval("new URLSearchParams(location.search).get('chart')").await, range);
    }

    // Each subscription has its events and its sinks.
    let facts = browser.eval("document.querySelector('#rows tbody').innerText").await;
    assert!(facts.as_str().unwrap().contains("no event yet"), "{facts}");
    assert!(facts.as_str().unwrap().contains("to archive, bot, log"), "{facts}");
    browser.until("document.querySelector('#rows .facts a[href=\"/?event=6#event\"] time')").await;

    // More than anybody can read: the list stays short, and what was passed over is said.
    let subscription = home.subscription("stream.online");
    home.sandbox.flood(&subscription, 3_000, 500).await;
    daemon.until("stored", |status| status.store.last_seq.0 == 3_006).await;
    browser.until("document.querySelector('#tail-list .skipped')").await;
    let count = browser.eval("document.querySelectorAll('#tail-list li').length").await;
    assert!(count.as_u64().unwrap() <= 100, "{count}");
    assert!(!browser.eval("document.title").await.as_str().unwrap().contains("owned"));
    is_at_home(&browser, &address).await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_events_are_found_and_each_has_an_address() {
    let (home, daemon) = troubled(OPEN).await;
    let address = address(&daemon);
    for (kind, login) in [
        ("stream.online", "simply"),
        ("stream.online", "cohhcarnage"),
        ("channel.update", "simply"),
        ("stream.offline", "simply"),
    ] {
        home.sandbox.trigger(kind, Some(login)).await.unwrap();
    }
    daemon.until("stored", |status| status.store.last_seq.0 == 4).await;
    let browser = Browser::start().await;
    let kinds = async |query: &str| {
        browser.open(&format!("{address}?{query}")).await;
        browser
            .eval(
                "[...document.querySelectorAll('#tail-list .kind')].map(kind => kind.textContent).join(' ')",
            )
            .await
    };
    assert_eq!(kinds("").await, "stream.offline channel.update stream.online stream.online");
    assert_eq!(kinds("broadcaster=SIMPLY").await, "stream.offline channel.update stream.online");
    assert_eq!(kinds("type=channel.*+stream.offline").await, "stream.offline channel.update");
    // The sink `bot` takes streams only.
    assert_eq!(kinds("sink=bot&broadcaster=simply").await, "stream.offline stream.online");
    let id = home.subscription("channel.update");
    let of_one = home.sandbox.subscriptions().iter().filter(|each| each.kind == "channel.update").count();
    assert_eq!(of_one, 3);
    let found = kinds(&format!("subscription={id}")).await;
    assert!(["", "channel.update"].contains(&found.as_str().unwrap()), "{found}");
    assert_eq!(kinds("before=3").await, "stream.online stream.online");
    let newer = browser.eval("document.querySelector('#events .pager a').getAttribute('href')").await;
    assert_eq!(newer, "/#events");
    assert_eq!(kinds("type=%5B").await, "");
    let alert = browser.eval("document.querySelector('#events [role=alert]').textContent").await;
    assert!(alert.as_str().unwrap().contains("not a valid pattern"), "{alert}");

    // Nothing that the file lists can match.
    browser.open(&format!("{address}?type=automod.*")).await;
    browser.until("document.getElementById('tail-state').textContent.includes('no event can match')").await;

    // From the list to the event, whole.
    browser.open(&format!("{address}?type=stream.offline")).await;
    browser.click("#tail-list summary").await;
    browser.click("#tail-list a").await;
    browser.until("document.getElementById('event')").await;
    assert_eq!(browser.eval("location.search").await, "?event=4");
    let whole = browser.eval("document.querySelector('#event pre').textContent").await;
    assert!(whole.as_str().unwrap().contains("\"broadcaster_user_login\": \"simply\""), "{whole}");
    assert_eq!(browser.eval("document.querySelectorAll('#event form').length").await, 0, "it only reads");
    is_accessible(&browser, &axe(), "an event").await;
    browser.open(&format!("{address}?event=99")).await;
    let gone = browser.eval("document.getElementById('event').textContent").await;
    assert!(gone.as_str().unwrap().contains("There is no event 99 in the store"), "{gone}");
    is_at_home(&browser, &address).await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_token_retries_drops_and_replays() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let receiver = listener.local_addr().unwrap();
    let refuse =
        axum::Router::new().fallback(async || (axum::http::StatusCode::BAD_REQUEST, "no such channel"));
    let server = tokio::spawn(async move { axum::serve(listener, refuse).await });
    let (home, daemon) = troubled(&format!(
        "[sink.picky]\ntype = \"http\"\nurl = \"http://{receiver}/\"\n{OPEN}token_file = \"token\"\n"
    ))
    .await;
    let address = address(&daemon);
    for _ in 0..3 {
        home.sandbox.trigger("stream.online", Some("simply")).await.unwrap();
    }
    let letters = |status: &eventsubd::model::status::Status, count| {
        status.sinks.iter().any(|sink| sink.name.as_str() == "picky" && sink.dead_letters == count)
    };
    daemon.until("refused", |status| letters(status, 3)).await;

    // A program without the token, and one with it.
    let change = async |token: &str, name: &str, body: &str| {
        let host = address.trim_start_matches("http://").trim_end_matches('/');
        let bearer =
            if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let request = format!(
            "POST /change/{name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{bearer}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(WAIT, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(change("", "drop", "sink=picky").await, 401);
    assert_eq!(change("wrong", "drop", "sink=picky").await, 401);
    assert_eq!(change(TOKEN, "drop", "sink=nobody&id=x").await, 400);
    assert_eq!(change(TOKEN, "retry", "sink=nobody").await, 422);
    assert!(letters(&daemon.status(), 3));

    let browser = Browser::start().await;
    browser.open(&address).await;
    browser.press(&format!("{TOKEN}{ENTER}")).await;
    browser.until("document.querySelector('#sinks-list a')").await;
    browser.click("#sinks-list a").await;
    browser.until("document.getElementById('letters')").await;
    let text = browser.eval("document.getElementById('letters').innerText").await;
    assert!(text.as_str().unwrap().contains("no such channel"), "{text}");
    is_accessible(&browser, &axe(), "dead letters").await;
    let forged = browser
        .eval(
            "fetch('/change/drop', { method: 'POST', body: new URLSearchParams({ sink: 'picky', key: '0'.repeat(64) }) })
                .then((answer) => answer.status)",
        )
        .await;
    assert_eq!(forged, 403, "a form without the key of the session");
    assert!(letters(&daemon.status(), 3));
    browser.click("#letters form[action='/change/drop'] button").await;
    daemon.until("one is dropped", |status| letters(status, 2)).await;
    browser.until("document.querySelector('.done')").await;
    browser.until("document.querySelectorAll('#letters tbody tr').length === 2").await;

    // The event from its page, to the sink that waits for nobody.
    browser.open(&format!("{address}?event=1")).await;
    browser.eval("document.getElementById('replay-sink').value = 'archive'").await;
    browser.click("#event form button").await;
    browser.until("document.querySelector('.done')?.textContent.includes('archive')").await;
    daemon
        .until("replayed", |status| {
            status.sinks.iter().any(|sink| sink.name.as_str() == "archive" && sink.delivered == 6)
        })
        .await;

    // The sink that fails tries at once, when asked.
    let next = |status: &eventsubd::model::status::Status| {
        status.sinks.iter().find(|sink| sink.name.as_str() == "bot").map(|sink| sink.retries)
    };
    daemon
        .until("it waits", |status| {
            status.sinks.iter().any(|sink| sink.name.as_str() == "bot" && sink.next_try.is_some())
        })
        .await;
    let before = next(&daemon.status());
    browser.open(&address).await;
    browser.until("document.querySelector(\"#sinks-list form[action='/change/retry'] button\")").await;
    browser.click("#sinks-list form[action='/change/retry'] button").await;
    browser.until("document.querySelector('.done')").await;
    daemon.until("it tried", |status| next(status) > before).await;
    daemon.end().await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_subscriptions_says_how_to_add_one() {
    let home = Home::new(quick()).await;
    home.configure(OPEN);
    let daemon = home.start().await;
    daemon.until("settled", |status| status.ready).await;
    let browser = Browser::start().await;
    browser.open(&address(&daemon)).await;
    let text = browser.eval("document.querySelector('.empty').innerText").await;
    assert!(text.as_str().unwrap().contains("[[subscription]]"), "{text}");
    is_accessible(&browser, &axe(), "nothing").await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_read_it_by_day_and_by_night_and_on_a_phone() {
    let (home, daemon) = troubled(OPEN).await;
    let address = address(&daemon);
    let axe = axe();
    let browser = Browser::start().await;
    home.sandbox.trigger("stream.online", None).await.unwrap();
    daemon.until("it fails", |status| status.sinks.iter().any(|sink| sink.problem.is_some())).await;
    let luminance = "(() => {
        const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
        return (r + g + b) / 3;
    })()";
    for (width, height) in [(1280, 900), (360, 740)] {
        browser.size(width, height, 1.0).await;
        for scheme in ["light", "dark"] {
            browser.scheme(scheme).await;
            browser.open(&address).await;
            browser.until("document.querySelector('#tail-list summary')").await;
            browser.click("#tail-list summary").await;
            let brightness = browser.eval(luminance).await.as_f64().unwrap();
            assert!(
                if scheme == "light" { brightness > 200.0 } else { brightness < 60.0 },
                "{scheme} {brightness}"
            );
            let overflow = browser
                .eval("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                .await;
            assert_eq!(overflow, 0, "{scheme} {width}: nothing is cut off or scrolls sideways");
            is_accessible(&browser, &axe, &format!("{scheme} {width}")).await;
        }
    }
    is_at_home(&browser, &address).await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_the_same_without_its_script() {
    let (_home, daemon) = troubled(OPEN).await;
    let browser = Browser::start().await;
    browser.scripts(false).await;
    browser.open(&format!("{}?q=simply&state=enabled", address(&daemon))).await;
    let source = browser.source().await;
    for text in
        ["What is wrong", "3 subscriptions", "value=\"simply\"", "No event is stored yet", "Dead letters"]
    {
        // The last is there only once there are some.
        assert_eq!(source.contains(text), text != "Dead letters", "{text}");
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_opens_it() {
    let (_home, daemon) = troubled(&format!("{OPEN}token_file = \"token\"\n")).await;
    let address = address(&daemon);
    let browser = Browser::start().await;
    let axe = axe();
    browser.open(&address).await;
    browser.press(&format!("wrong{ENTER}")).await;
    browser.until("document.querySelector('[role=alert]')").await;
    for scheme in ["light", "dark"] {
        browser.scheme(scheme).await;
        is_accessible(&browser, &axe, scheme).await;
    }
    browser.press(&format!("{TOKEN}{ENTER}")).await;
    browser.until("document.getElementById('verdict')").await;
    browser.until("document.getElementById('tail-state').textContent === 'Following all events'").await;
    assert_eq!(browser.eval("location.href.includes('token')").await, false);
    assert_eq!(browser.eval("document.cookie").await, "", "no script sees the cookie");
    browser.click("header form button").await;
    browser.until("document.getElementById('token')").await;
    daemon.end().await;
}

/// How long it takes from the last key to the rows, and the longest time that the page did not draw.
const TYPE: &str = "
    const [field, text] = [document.getElementById('q'), arguments[0]];
    return new Promise((done) => {
        let longest = 0, frame = performance.now(), over = false;
        const draw = () => {
            const now = performance.now();
            longest = Math.max(longest, now - frame);
            frame = now;
            if (!over) requestAnimationFrame(draw);
        };
        requestAnimationFrame(draw);
        let typed = 0;
        const next = () => {
            field.value = text.slice(0, ++typed);
            field.dispatchEvent(new Event('input'));
            if (typed < text.length) return setTimeout(next, 60);
            const begun = performance.now();
            const look = () => {
                if (document.getElementById('found').textContent !== arguments[1]) return setTimeout(look, 5);
                over = true;
                done([performance.now() - begun, longest]);
            };
            look();
        };
        next();
    });";

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_stay_fluid() {
    const MANY: usize = 10_000;
    let options = SandboxOptions { refill_per_minute: 800 * 600, max_total_cost: 20_000, ..quick() };
    let home = Home::new(options).await;
    let logins: String = (0..MANY).map(|number| format!("channel_{number}\n")).collect();
    fs::write(home.path("channels.txt"), logins).unwrap();
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"channels.txt\"\n{OPEN}"
    ));
    let faster = Tuning { helix: Some(|helix| helix.refill_window = Duration::from_millis(100)), ..tuning() };
    let daemon = Running::start(home.load(), faster).await;
    daemon.until("all known", |status| status.subscriptions.len() == MANY).await;
    let address = address(&daemon);
    let browser = Browser::start().await;
    browser.open(&address).await;
    let elements = || browser.eval("document.querySelectorAll('*').length");
    let before = elements().await.as_u64().unwrap();
    assert!(before < 3_000, "{before} elements");
    assert_eq!(browser.eval("document.querySelectorAll('#rows tbody tr').length").await, 100);
    let found = browser.eval("document.getElementById('found').textContent").await;
    assert_eq!(found, "1–100 of 10,000 subscriptions");

    let outcome = browser.run(TYPE, json!(["channel_777", "11 subscriptions"])).await;
    println!(
        "10,000 subscriptions, {before} elements: {outcome} ms from the last key to the rows, and the longest frame"
    );
    assert_eq!(browser.eval("document.querySelectorAll('#rows tbody tr').length").await, 11);
    browser.click("#q").await;
    browser.press(&BACK.repeat(11)).await;
    browser.until("document.getElementById('found').textContent.startsWith('1–100 of')").await;
    for page in 2..=4 {
        browser.click("#rows a[rel=next]").await;
        let first = (page - 1) * 100 + 1;
        browser.until(&format!("document.getElementById('found').textContent.startsWith('{first}–')")).await;
    }
    let after = elements().await.as_u64().unwrap();
    assert!(after < 3_000, "{after} elements");
    is_at_home(&browser, &address).await;
    daemon.end().await;
}

/// Writes the pictures of docs/admin-endpoint.md, after some minutes of life:
/// `MINUTES=12 cargo test --test page -- --ignored pictures`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes into the source tree"]
async fn pictures() {
    let (home, daemon) = troubled(OPEN).await;
    let folder = std::env::var_os("PICTURES").map_or_else(|| PathBuf::from("docs/images"), PathBuf::from);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    fs::create_dir_all(&folder).unwrap();
    let minutes: u64 = std::env::var("MINUTES").map_or(0, |minutes| minutes.parse().expect("a number"));
    for minute in 0..=minutes {
        for count in 0..20 + minute * 7 % 30 {
            let kind =
                ["channel.update", "channel.follow", "channel.update", "stream.online"][(count % 4) as usize];
            home.sandbox.trigger(kind, None).await.unwrap();
        }
        if minute < minutes {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
    daemon.until("it fails", |status| status.sinks.iter().any(|sink| sink.problem.is_some())).await;
    let browser = Browser::start().await;
    for (name, scheme, width, height, scale) in
        [("page-light", "light", 1000, 1080, 1.0), ("page-dark-phone", "dark", 390, 900, 1.25)]
    {
        browser.size(width, height, scale).await;
        browser.scheme(scheme).await;
        browser.open(&address(&daemon)).await;
        browser.until("document.querySelectorAll('#tail-list li').length > 10").await;
        browser.picture(&folder.join(format!("{name}.png"))).await;
    }
    if std::env::var_os("FULL").is_some() {
        for (name, scheme, width, height) in [("a", "dark", 1100, 2600), ("b", "light", 360, 4200)] {
            browser.size(width, height, 1.0).await;
            browser.scheme(scheme).await;
            browser.open(&address(&daemon)).await;
            browser.until("document.querySelectorAll('#tail-list li').length > 10").await;
            browser.click("#tail-list summary").await;
            browser.picture(&folder.join(format!("{name}.png"))).await;
        }
    }
    daemon.end().await;
}
