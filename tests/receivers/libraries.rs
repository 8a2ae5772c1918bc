//! Libraries written for Twitch's EventSub, against the sandbox: twurple, TwitchIO and pyTwitchAPI. Nothing of them is
//! patched; only addresses are set. Each has to read every variant of every type that it knows, and to live on when its
//! WebSockets are asked to reconnect, and when they break.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use eventsubd::auth::http_client;
use eventsubd::model::catalog;
use eventsubd::model::subscription::Condition;
use eventsubd::model::time::Timestamp;
use eventsubd::samples::{self, SampleRequest, SampleUser};
use eventsubd::sandbox::{Sandbox, SandboxOptions, SubscriptionInfo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::common::certificate::certificate;
use super::*;

const CLIENT_SECRET: &str = "sandbox-secret";

/// A program with a library, and the sandbox that it takes for Twitch.
struct Library {
    name: &'static str,
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    user: String,
    /// Types (or how they begin) and parts of samples that this release of the library does not read.
    lacks: &'static [(&'static str, &'static str)],
    child: Option<Child>,
}

/// twurple 8 throws "Unknown chat notification type" for a notice that is newer than its release: those that Twitch added in
/// June 2026 and later, and those that live messages have and the pages lack. For the version 1 of an automatic redemption it
/// groups `message.emotes` without looking whether the list is null, as it is when the message has no emotes.
const TWURPLE_LACKS: &[(&str, &str)] = &[
    ("channel.chat.notification", r#""notice_type":"modiversary""#),
    ("channel.chat.notification", r#""notice_type":"shared_chat_modiversary""#),
    ("channel.chat.notification", r#""notice_type":"gifted_drops_summary""#),
    ("channel.chat.notification", r#""notice_type":"shared_chat_gifted_drops_summary""#),
    ("channel.chat.notification", r#""notice_type":"unknown""#),
    ("channel.chat.notification", r#""notice_type":"sponsored_shopping_purchase""#),
    ("channel.chat.notification", r#""notice_type":"subsidized_"#),
    ("channel.chat.notification", r#""notice_type":"shared_chat_subsidized_"#),
    ("channel.chat.notification", r#""notice_type":"gift_sub_"#),
    ("channel.chat.notification", r#""notice_type":"shared_chat_gift_sub_"#),
    ("channel.channel_points_automatic_reward_redemption.add", r#""emotes":null"#),
];

/// TwitchIO 3.3 sets `custom_power_up` on an object whose `__slots__` lack the name. For the begin, progress and end of a charity
/// campaign it reads `broadcaster_user_id`, where Twitch's table, twurple and pyTwitchAPI have `broadcaster_id`. Of a canceled
/// unban request it reads `moderator_user_id` without looking whether the member is there, which Twitch leaves out then.
const TWITCHIO_LACKS: &[(&str, &str)] = &[
    ("channel.bits.use", r#""custom_power_up":{"#),
    ("channel.charity_campaign.", r#""broadcaster_id":"#),
    ("channel.unban_request.resolve", r#""status":"canceled""#),
];

impl Drop for Library {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Every scope that a type needs.
fn all_scopes() -> String {
    let rows = catalog::all().iter();
    let groups =
        rows.flat_map(|row| row.scopes.iter().chain(row.additional_grants.iter().flat_map(|g| &g.scopes)));
    groups.flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}

impl Library {
    async fn new(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let pem = fs::read(folder.path().join("cert.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let http = http_client("test", builder.with_root_certificates(roots).with_no_client_auth()).unwrap();
        let options = SandboxOptions { http: Some(http), require_grants: true, ..SandboxOptions::default() };
        let sandbox = Sandbox::start(options).await.unwrap();
        let user = sandbox.user_id("ann").unwrap();
        Self { name, sandbox, folder, user, lacks: &[], child: None }
    }

    /// A token of the user and its refresh token; the user has granted everything.
    async fn user_tokens(&self) -> [String; 2] {
        let scopes = all_scopes();
        let form = [
            ("client_id", "sandbox"),
            ("client_secret", CLIENT_SECRET),
            ("grant_type", "user_token"),
            ("user_id", &self.user),
            ("scope", &scopes),
        ];
        let url = format!("http://{}/auth/authorize", self.sandbox.address());
        let answer = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(eventsubd::auth::tls_config().unwrap());
        let answer = answer.build().unwrap().post(url).form(&form).send().await.unwrap();
        let tokens: serde_json::Value = answer.json().await.unwrap();
        ["access_token", "refresh_token"].map(|name| tokens[name].as_str().unwrap().to_owned())
    }

    /// The files of a certificate that the sandbox trusts.
    fn certificate(&self) -> [String; 2] {
        ["cert.pem", "key.pem"].map(|name| self.folder.path().join(name).to_str().unwrap().to_owned())
    }

    fn start(&mut self, interpreter: &str, program: &str, arguments: &[&str]) {
        let port = self.sandbox.address().port().to_string();
        let file = |name: &str| fs::File::create(self.folder.path().join(name)).unwrap();
        let mut command = Command::new(interpreter);
        command.arg(folder().join("programs").join(program)).args(arguments);
        command.env("TWURPLE_MOCK_API_PORT", &port).env("PYTHONPATH", folder().join("site-packages"));
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        self.child = Some(command.spawn().expect("node and python3 are installed by tests/run"));
    }

    fn printed(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// The rest of each line that begins with this word.
    fn lines(&self, word: &str) -> Vec<String> {
        let printed = self.printed("out");
        let rest = printed.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        rest.map(str::to_owned).collect()
    }

    async fn until(&self, what: &str, mut like: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !like(self) {
            let bad = self.lines("bad");
            let (out, err) = (self.printed("out"), self.printed("err"));
            assert!(bad.is_empty(), "{}: {bad:?}\n{err}", self.name);
            assert!(
                begun.elapsed() < WAIT,
                "{}: never {what}\n{out}\n{err}\n{:?}",
                self.name,
                self.sandbox.stats()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The enabled subscriptions, once there is one for each type that the library listens to and that exists.
    async fn subscribed(&self) -> Vec<SubscriptionInfo> {
        let enabled = |library: &Self| -> Vec<_> {
            library.sandbox.subscriptions().into_iter().filter(|s| s.status == "enabled").collect()
        };
        let listens = |library: &Self| Some(library.lines("listening").first()?.parse::<usize>().unwrap());
        self.until("subscribed", |library| {
            listens(library).is_some_and(|all| {
                // A library may try again after a reconnect.
                let removed: BTreeSet<_> = library.lines("removed").into_iter().collect();
                enabled(library).len() == all - removed.len()
            })
        })
        .await;
        enabled(self)
    }

    /// Number of events that its handlers were given, apart from batches, which have no fixed number.
    fn handled(&self) -> usize {
        self.lines("event").iter().filter(|name| !name.to_lowercase().contains("drop")).count()
    }

    /// Sends samples to all subscriptions, every variant or the first, and waits until they are handled.
    async fn handles_samples(&self, subscriptions: &[SubscriptionInfo], every: bool) {
        let before = self.handled();
        let mut sent = 0;
        for subscription in subscriptions {
            let fields = subscription.condition.iter().filter(|(_, value)| !value.is_empty());
            let condition = Condition::from_pairs(fields.map(|(k, v)| (k.as_str(), v.as_str())));
            let user = |id: &str| SampleUser { id: id.to_owned(), login: "ann".into(), name: "Ann".into() };
            let variants = samples::every_variant(&SampleRequest {
                subscription_type: &subscription.kind,
                version: &subscription.version,
                condition: &condition,
                user: &user,
                now: Timestamp(SystemTime::now()),
                serial: 1,
                happening: None,
            });
            let is_batched = catalog::lookup(&subscription.kind, &subscription.version).unwrap().batched;
            let is_known = |event: &&String| {
                let lacks =
                    |(kind, part): &(&str, &str)| subscription.kind.starts_with(kind) && event.contains(part);
                !self.lacks.iter().any(lacks)
            };
            for event in variants.iter().filter(is_known).take(if every { usize::MAX } else { 1 }) {
                self.sandbox.send_event(&subscription.id, event).await.unwrap();
                sent += usize::from(!is_batched);
            }
        }
        self.until("handled", |library| library.handled() >= before + sent).await;
        // TwitchIO opens further sockets when it is asked to reconnect, and does not know a message again.
        let is_exact = !self.name.starts_with("TwitchIO");
        assert!(!is_exact || self.handled() == before + sent, "{}: something was handled twice", self.name);
    }

    async fn reads_every_event(&self, least: usize) {
        let subscriptions = self.subscribed().await;
        let kinds: BTreeSet<_> = subscriptions.iter().map(|s| (&s.kind, &s.version)).collect();
        assert!(kinds.len() >= least, "{} subscribed to {} types only", self.name, kinds.len());
        self.handles_samples(&subscriptions, true).await;
        let names: BTreeSet<_> = self.lines("event").into_iter().collect();
        assert!(names.len() >= least, "{}: handlers {names:?}", self.name);
    }

    /// Whether every shard of a conduit has its transport.
    fn is_bound(&self) -> bool {
        let shards = |(id, _): (String, u32)| self.sandbox.shards(&id);
        self.sandbox.conduits().into_iter().flat_map(shards).all(|(_, status, _)| status == "enabled")
    }

    /// Asks the library's WebSockets to reconnect, then breaks them.
    async fn survives_reconnects(&self) {
        let sessions = self.sandbox.sessions();
        let before = self.sandbox.stats();
        for session in &sessions {
            self.sandbox.ask_reconnect(session);
        }
        let moved = sessions.len() as u64;
        self.until("reconnected", |library| {
            let stats = library.sandbox.stats();
            stats.connects >= before.connects + moved
                && stats.disconnects >= before.disconnects + moved
                && library.is_bound()
        })
        .await;
        self.handles_samples(&self.subscribed().await, false).await;

        let sessions = self.sandbox.sessions();
        for session in &sessions {
            self.sandbox.close_session(session, 4006);
        }
        self.until("connected anew", |library| {
            let present = library.sandbox.sessions();
            !present.is_empty() && present.iter().all(|id| !sessions.contains(id)) && library.is_bound()
        })
        .await;
        self.handles_samples(&self.subscribed().await, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twurple_over_a_websocket() {
    let mut library = Library::new("twurple over a WebSocket").await;
    let [token, _] = library.user_tokens().await;
    let (port, user) = (library.sandbox.address().port().to_string(), library.user.clone());
    library.lacks = TWURPLE_LACKS;
    library.start("node", "twurple_ws.mjs", &[&port, &user, &token]);
    library.reads_every_event(60).await;
    library.survives_reconnects().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twurple_over_webhooks_and_its_conduit_api() {
    let mut library = Library::new("twurple over webhooks").await;
    library.user_tokens().await;
    let (user, own) = (library.user.clone(), port().to_string());
    let [certificate, key] = library.certificate();
    library.lacks = TWURPLE_LACKS;
    library.start("node", "twurple_http.mjs", &[&user, CLIENT_SECRET, &own, &certificate, &key]);
    library.reads_every_event(60).await;
    assert_eq!(library.lines("conduit"), ["1 3 1"]);
    assert_eq!(library.sandbox.conduits(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twitchio_on_a_conduit() {
    let mut library = Library::new("TwitchIO on a conduit").await;
    library.user_tokens().await;
    let (port, user) = (library.sandbox.address().port().to_string(), library.user.clone());
    library.lacks = TWITCHIO_LACKS;
    library.start("python3", "twitchio_client.py", &[&port, &user, CLIENT_SECRET]);
    library.reads_every_event(60).await;
    library.survives_reconnects().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pytwitchapi_over_a_websocket() {
    let mut library = Library::new("pyTwitchAPI over a WebSocket").await;
    let [token, refresh] = library.user_tokens().await;
    let (port, user) = (library.sandbox.address().port().to_string(), library.user.clone());
    let arguments = ["websocket", &port, &user, CLIENT_SECRET, &token, &refresh];
    library.start("python3", "pytwitchapi_client.py", &arguments);
    library.reads_every_event(55).await;
    library.survives_reconnects().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pytwitchapi_over_webhooks() {
    let mut library = Library::new("pyTwitchAPI over webhooks").await;
    library.user_tokens().await;
    let (port, user, own) =
        (library.sandbox.address().port().to_string(), library.user.clone(), port().to_string());
    let [certificate, key] = library.certificate();
    let arguments = ["webhook", &port, &user, CLIENT_SECRET, &own, &certificate, &key];
    library.start("python3", "pytwitchapi_client.py", &arguments);
    library.reads_every_event(55).await;
}
