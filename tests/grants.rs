//! Grants: who must allow what, getting it, healing by itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Home, Running, SECRET, WAIT, all_bytes, command, output, quick, text};
use eventsubd::model::status::{Status, SubscriptionEntry, SubscriptionState};
use eventsubd::sandbox::{Sandbox, SandboxOptions};

const FOLLOWS: &str = "[[subscription]]\ntype = \"channel.follow\"\nbroadcaster = [\"ann\", \"bob\"]\n";
const SCOPE: &str = "moderator:read:followers";

fn strict() -> SandboxOptions {
    SandboxOptions { require_grants: true, device_interval: 1, ..quick() }
}

async fn home(options: SandboxOptions, file: &str) -> Home {
    let home = Home::new(options).await;
    home.configure_with("", file);
    home
}

/// The entries of the file, without the daemon's own.
fn entries(status: &Status) -> Vec<&SubscriptionEntry> {
    status.subscriptions.iter().filter(|entry| !entry.own).collect()
}

fn count(status: &Status, state: SubscriptionState) -> usize {
    entries(status).iter().filter(|entry| entry.state == state).count()
}

async fn settled(daemon: &Running, enabled: usize) -> Status {
    daemon
        .until("settled", |status| status.converged && count(status, SubscriptionState::Enabled) == enabled)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_parked_unsent_and_a_grant_heals_it() {
    let home = home(strict(), FOLLOWS).await;
    let daemon = home.start().await;
    let status = settled(&daemon, 0).await;
    assert_eq!(count(&status, SubscriptionState::Parked), 2);
    let reason = entries(&status)[0].reason.clone().unwrap();
    assert!(
        reason.starts_with("needs grant: ") && reason.contains("`eventsubd authorize --user "),
        "{reason}"
    );
    assert_eq!(home.sandbox.stats().creates, 3, "only the daemon's own were asked for");
    assert!(
        status.subscriptions.iter().filter(|entry| entry.own).all(|e| e.state == SubscriptionState::Enabled)
    );
    let missing: Vec<_> = status.reconcile.grants.iter().map(|user| user.login.as_deref().unwrap()).collect();
    assert_eq!(missing, ["ann", "bob"]);

    home.sandbox.grant("ann", &[SCOPE]).await;
    let status = settled(&daemon, 1).await;
    assert_eq!(count(&status, SubscriptionState::Parked), 1, "bob's still waits");
    assert_eq!(status.sinks[0].delivered, 0, "what the daemon hears for itself goes to no sink");
    home.sandbox.grant("bob", &["user:bot"]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    settled(&daemon, 1).await;
    home.sandbox.grant("bob", &[SCOPE]).await;
    settled(&daemon, 2).await;

    // Taken back, and granted again.
    home.sandbox.revoke_grants("ann").await;
    let status = daemon.until("parked", |s| count(s, SubscriptionState::Parked) == 1).await;
    let parked = entries(&status).into_iter().find(|e| e.state == SubscriptionState::Parked).unwrap().clone();
    let reason = parked.reason.unwrap();
    assert!(reason.contains("authorize"), "{reason}");
    home.sandbox.grant("ann", &[SCOPE]).await;
    settled(&daemon, 2).await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemons_own_subscriptions_can_be_switched_off_and_asked_for() {
    let home = home(strict(), "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n").await;
    let daemon = home.start().await;
    settled(&daemon, 1).await;
    assert_eq!(home.live(), 4);
    let client = home.sandbox.client_id();
    home.configure_with(
        "",
        &format!("[[subscription]]\ntype = \"user.authorization.grant\"\ncondition = {{ client_id = \"{client}\" }}\n"),
    );
    daemon.handle_reload().await;
    settled(&daemon, 1).await;
    home.sandbox.grant("ann", &["user:bot"]).await;
    daemon.delivered(1).await;
    assert_eq!(daemon.stdout.ids().len(), 1, "the file asks for it");
    home.configure("[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n");
    daemon.handle_reload().await;
    daemon.until("switched off", |status| status.converged && status.subscriptions.len() == 1).await;
    assert_eq!(home.live(), 1);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_users_at_once() {
    let logins: Vec<String> = (0..500).map(|n| format!("\"user{n}\"")).collect();
    let file =
        format!("[[subscription]]\ntype = \"channel.follow\"\nbroadcaster = [{}]\n", logins.join(", "));
    let options = SandboxOptions { bucket: 5_000, refill_per_minute: 5_000 * 60, ..strict() };
    let home = home(options, &file).await;
    let daemon = home.start().await;
    let status = settled(&daemon, 0).await;
    assert_eq!(count(&status, SubscriptionState::Parked), 500);
    for n in 0..500 {
        home.sandbox.grant(&format!("user{n}"), &[SCOPE]).await;
    }
    settled(&daemon, 500).await;
    assert_eq!(home.sandbox.stats().rate_limited, 0);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_another_login_is_still_the_same() {
    // Ids count, not logins: the one of the file stays what it was when it was looked up.
    let users = |login: &str| eventsubd::sandbox::Users::Listed(vec![("700".to_owned(), login.to_owned())]);
    let file = "[[subscription]]\ntype = \"channel.follow\"\nbroadcaster = \"ann\"\n";
    let home = home(SandboxOptions { users: users("ann"), ..strict() }, file).await;
    let daemon = home.start().await;
    settled(&daemon, 0).await;
    daemon.end().await;
    let renamed = Sandbox::start(SandboxOptions { users: users("anna"), ..strict() }).await.unwrap();
    let home = Home { folder: home.folder, sandbox: renamed };
    home.configure_with("", file);
    let daemon = home.start().await;
    settled(&daemon, 0).await;
    home.sandbox.grant("anna", &[SCOPE]).await;
    settled(&daemon, 1).await;
    daemon.end().await;
}

/// Answers the next device code.
async fn answer(sandbox: &Sandbox, login: Option<&str>) {
    let begun = Instant::now();
    while !sandbox.answer_device(login).await {
        assert!(begun.elapsed() < WAIT, "nobody asks");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorize_gets_the_fewest_scopes_and_keeps_no_token() {
    let file = format!(
        "{FOLLOWS}\n[[subscription]]\ntype = [\"channel.poll.begin\", \"channel.poll.end\"]\nbroadcaster = \"ann\"\n"
    );
    let home = home(strict(), &file).await;
    let daemon = home.start().await;
    settled(&daemon, 0).await;
    let plan = text(&output(command(&home, &["plan"])).await.stdout);
    assert!(plan.contains("ann must allow channel:read:polls moderator:read:followers"), "{plan}");
    assert!(plan.contains("keep 3"), "the daemon's own are there: {plan}");
    let check = text(&output(command(&home, &["check", "--online"])).await.stdout);
    assert!(check.contains("`eventsubd authorize --user bob --config "), "{check}");

    let mut run = command(&home, &["authorize", "--user", "Ann"]);
    run.env("RUST_LOG", "trace").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = tokio::task::spawn_blocking(move || run.output().unwrap());
    answer(&home.sandbox, Some("ann")).await;
    let done = child.await.unwrap();
    let (out, said) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{out}{said}");
    assert!(out.contains("/activate?device-code="), "{out}");
    assert!(said.contains("ann has allowed channel:read:polls moderator:read:followers"), "{said}");
    let status = settled(&daemon, 3).await;
    assert_eq!(count(&status, SubscriptionState::Parked), 1);

    let written = [all_bytes(home.folder.path()), done.stdout, done.stderr].concat();
    for token in home.sandbox.tokens() {
        assert!(!written.windows(token.len()).any(|part| part == token.as_bytes()), "a token was written");
    }
    assert!(
        written.windows(SECRET.len()).filter(|part| *part == SECRET.as_bytes()).count() == 1,
        "in its file"
    );

    // The others, in one go; somebody refuses.
    let run = command(&home, &["authorize", "--missing"]);
    let child = tokio::spawn(output(run));
    answer(&home.sandbox, None).await;
    let done = child.await.unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("bob has allowed nothing"), "{}", text(&done.stderr));
    // Somebody else allows it.
    let child = tokio::spawn(output(command(&home, &["authorize", "--missing"])));
    answer(&home.sandbox, Some("mallory")).await;
    let done = child.await.unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("it was mallory who allowed it, not bob"), "{}", text(&done.stderr));
    let child = tokio::spawn(output(command(&home, &["authorize", "--missing"])));
    answer(&home.sandbox, Some("bob")).await;
    assert_eq!(child.await.unwrap().status.code(), Some(0));
    settled(&daemon, 4).await;
    let done = output(command(&home, &["authorize", "--missing"])).await;
    assert!(done.status.success() && text(&done.stderr).contains("nothing is missing"));
    let done = output(command(&home, &["authorize", "--status"])).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("✓ ann "), "{}", text(&done.stdout));
    assert!(text(&done.stdout).contains("have allowed what is needed"), "{}", text(&done.stdout));
    let done = output(command(&home, &["authorize", "--user", "stranger"])).await;
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("--scopes"), "{}", text(&done.stderr));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_code_expires_and_ctrl_c_ends_it() {
    let home = home(SandboxOptions { device_life: Duration::from_secs(2), ..strict() }, FOLLOWS).await;
    let done = output(command(&home, &["authorize", "--user", "ann"])).await;
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("in time"), "{}", text(&done.stderr));

    let mut child = command(&home, &["authorize", "--user", "ann"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    let mut stdout = child.stdout.take().unwrap();
    // The instructions are printed, so the command waits.
    tokio::task::spawn_blocking(move || std::io::Read::read_exact(&mut stdout, &mut first))
        .await
        .unwrap()
        .unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_the_sandbox_asks_and_takes_the_answer() {
    let home = home(strict(), FOLLOWS).await;
    let client = eventsubd::auth::http_client("test", eventsubd::auth::tls_config().unwrap()).unwrap();
    let post = async |url: String, form: &[(&str, &str)]| client.post(url).form(form).send().await.unwrap();
    let base = home.sandbox.auth_url();
    let client_id = home.sandbox.client_id();
    let answer = post(format!("{base}/device"), &[("client_id", &client_id), ("scopes", "a:<b>")]).await;
    let code: serde_json::Value = answer.json().await.unwrap();
    let page = code["verification_uri"].as_str().unwrap();
    let shown = client.get(page).send().await.unwrap().text().await.unwrap();
    assert!(shown.contains("a:&lt;b&gt;") && shown.contains("Refuse"), "{shown}");
    let done = post(page.to_owned(), &[("login", "ann"), ("answer", "allow")]).await;
    assert!(done.status().is_success());
    assert_eq!(client.get(page).send().await.unwrap().status(), 404, "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_shard_is_told_of_over_another_one() {
    let home = Home::new(quick()).await;
    let client = home.sandbox.client_id();
    home.configure(&format!(
        "[[subscription]]\ntype = \"conduit.shard.disabled\"\ncondition = {{ client_id = \"{client}\" }}\n"
    ));
    let daemon = home.start().await;
    daemon.converged().await;
    let lost = home.sandbox.sessions().remove(0);
    home.sandbox.kill_session(&lost);
    daemon.until("told", |_| daemon.stdout.ids().iter().any(|id| !id.starts_with("gap-"))).await;
    daemon.converged().await;
    daemon.end().await;
}
