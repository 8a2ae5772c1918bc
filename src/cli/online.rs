//! Online checks of `eventsubd check`: independent steps, so a failed one does not hide the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::invite;
use super::lines::{Line, Mark, line};
use super::plan::{Api, desired, exit_code, explain, memory};
use super::term::Failure;
use super::{FAILED, REFUSED, TEMPORARY};
use crate::auth::Outward;
use crate::config::{Config, LoadOptions, Method, ShardTransport};
use crate::daemon;
use crate::model::grants;
use crate::model::obstacle::Obstacle;
use crate::model::text::{count, counted};
use crate::reconcile::{self, Preview, PreviewConduit, PreviewError};
use crate::transport::websocket::try_welcome;

/// Logins per Get Users request (Twitch: "Get Users").
const LOGINS_A_REQUEST: usize = 100;
/// Number of missing grants listed one by one.
const LISTED: usize = 20;
/// Time limit for the WebSocket's welcome.
const WELCOME: Duration = Duration::from_secs(15);

/// Lines of the report so far, and the exit code.
#[derive(Default)]
struct Findings {
    lines: Vec<Line>,
    code: u8,
}

impl Findings {
    fn good(&mut self, part: &'static str, text: impl Into<String>) {
        self.lines.push(line(part, Mark::Good, text));
    }

    fn remark(&mut self, part: &'static str, text: impl Into<String>) {
        self.lines.push(line(part, Mark::Remark, text));
    }

    /// Adds a failure. The exit code with the highest priority stays: refused credentials, then Twitch unreachable,
    /// then others.
    fn bad(&mut self, part: &'static str, text: impl Into<String>, code: u8) {
        self.lines.push(line(part, Mark::Bad, text));
        let rank = |code: u8| match code {
            0 => 0,
            REFUSED => 3,
            TEMPORARY => 2,
            _ => 1,
        };
        if rank(code) > rank(self.code) {
            self.code = code;
        }
    }

    fn failed(&mut self, part: &'static str, failure: &Failure) {
        self.bad(part, failure.text(), failure.exit_code());
    }
}

/// Runs all checks that need a connection.
pub(super) async fn online(config: &Config, options: &LoadOptions) -> (Vec<Line>, u8) {
    let mut found = Findings::default();
    match daemon::connections() {
        Ok(outward) => {
            surroundings(&mut found, config, &outward);
            twitch(&mut found, config, options).await;
            websocket(&mut found, config, &outward).await;
            callback(&mut found, config).await;
            invites(&mut found, config, &outward).await;
            sinks(&mut found, config, &outward).await;
            #[cfg(feature = "nats")]
            cluster(&mut found, config, &outward).await;
        }
        Err(error) => found.bad("connections", error.to_string(), FAILED),
    }
    (found.lines, found.code)
}

/// Clocks that differ by more are a remark: the times of leases are the servers'.
#[cfg(feature = "nats")]
const CLOCKS: i64 = 500;

/// Checks the NATS servers of `[cluster]`.
#[cfg(feature = "nats")]
async fn cluster(found: &mut Findings, config: &Config, outward: &Outward) {
    let Some(outcome) = daemon::try_cluster(config, outward).await else { return };
    let report = match outcome {
        Ok(report) => report,
        Err(error) => return found.bad("cluster", format!("{error}; {}", error.hint()), FAILED),
    };
    let bucket = match report.replicas {
        Some(1) => "the bucket has 1 copy".to_owned(),
        Some(replicas) => format!("the bucket has {replicas} copies"),
        None => "the bucket is made by the first daemon".to_owned(),
    };
    found.good("cluster", format!("NATS {} at {}; {bucket}", report.version, report.servers));
    if let Some(ahead) = report.clock_ahead.filter(|ahead| ahead.abs() > CLOCKS) {
        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        let by = format!("{}.{} s", ahead.abs() / 1_000, ahead.abs() % 1_000 / 100);
        found.remark(
            "cluster",
            format!("the clock of NATS is {by} {direction} this machine's: set both by NTP"),
        );
    }
}

/// Checks proxies, CA certificates, and whether Twitch's addresses belong together.
fn surroundings(found: &mut Findings, config: &Config, outward: &Outward) {
    for proxy in outward.proxies().all() {
        found.good(
            "proxy",
            format!(
                "connections go through {proxy}, but for those to this machine and to NATS, MQTT and Redis"
            ),
        );
    }
    let twitch = &config.twitch;
    let urls = [&*twitch.auth_url, &*twitch.api_url, &*twitch.eventsub_url];
    if let Err(error) = outward.require_certificates(urls) {
        found.bad("certificates", error.to_string(), FAILED);
    }
    for (key, url) in [("auth_url", urls[0]), ("eventsub_url", urls[2])] {
        if !same_service(url, urls[1]) {
            found.remark(
                "twitch",
                format!(
                    "`twitch.{key}` ({url}) and `twitch.api_url` ({}) belong to different services",
                    urls[1]
                ),
            );
        }
    }
}

/// Returns whether two URLs have the same host, or hosts of one domain.
fn same_service(a: &str, b: &str) -> bool {
    let host = |url: &str| {
        let host = reqwest::Url::parse(url).ok()?.host_str()?.to_ascii_lowercase();
        let is_name = host.bytes().any(|byte| byte.is_ascii_alphabetic()) && !host.contains(':');
        let labels: Vec<&str> = host.rsplit('.').take(2).collect();
        Some(if is_name { labels.join(".") } else { host })
    };
    let (a, b) = (host(a), host(b));
    a.is_none() || a == b
}

/// Checks everything that needs a token: credentials, logins, grants and the plan.
async fn twitch(found: &mut Findings, config: &Config, options: &LoadOptions) {
    let api = match Api::connect(config).await {
        Ok(api) => api,
        Err(failure) => {
            found.failed("credentials", &failure);
            return found
                .remark("twitch", "logins, permissions and limits cannot be looked at without a token");
        }
    };
    found.good("credentials", "Twitch accepts them");
    logins(found, config, &api).await;
    if let Err(failure) = missing_grants(found, config, &api).await {
        found.failed("grants", &failure);
    }
    if let Err(failure) = limits(found, config, options, &api).await {
        found.failed("plan", &failure);
    }
}

async fn logins(found: &mut Findings, config: &Config, api: &Api) {
    let logins: BTreeSet<&str> =
        config.subscriptions.iter().flat_map(|s| s.logins()).map(AsRef::as_ref).collect();
    let logins: Vec<&str> = logins.into_iter().collect();
    let mut unknown: BTreeSet<&str> = BTreeSet::new();
    let (mut known, mut failed) = (0, false);
    for batch in logins.chunks(LOGINS_A_REQUEST) {
        match api.helix.users_by_login(batch).await {
            Ok(users) => {
                let there: BTreeSet<&str> = users.rows.iter().map(|user| &*user.login).collect();
                known += batch.iter().filter(|login| there.contains(**login)).count();
                if let Some(why) = users.unread.first() {
                    found.remark("logins", format!("part of Twitch's answer cannot be read: {why}"));
                } else {
                    unknown.extend(batch.iter().filter(|login| !there.contains(**login)));
                }
            }
            Err(error) => {
                failed = true;
                let failure = Failure::new("the logins could not be looked up").caused_by(&error);
                found.failed("logins", &failure.code(exit_code(&error)));
            }
        }
    }
    if !unknown.is_empty() {
        let names: Vec<_> = unknown.into_iter().collect();
        found.bad("logins", format!("Twitch does not know {}", names.join(", ")), FAILED);
    } else if !failed {
        found.good("logins", format!("{} known to Twitch", counted(known as u64, "login")));
    }
}

/// Checks the required grants. A missing grant is not an error of the file.
async fn missing_grants(found: &mut Findings, config: &Config, api: &Api) -> Result<(), Failure> {
    let desired = desired(config)?;
    let reconcile::Needs { users, remarks } =
        reconcile::who_must_grant(&api.helix, &desired, None).await.map_err(|error| explain(&error))?;
    for remark in &remarks {
        found.remark("grants", remark.as_str());
    }
    let users: Vec<_> = users.into_iter().filter(|user| user.is_known).collect();
    let wanting: Vec<_> = users.iter().filter(|user| !user.missing.is_empty()).collect();
    if wanting.is_empty() && !users.is_empty() && remarks.is_empty() {
        found.good("grants", format!("all that is needed of {}", counted(users.len() as u64, "user")));
    }
    for user in wanting.iter().take(LISTED) {
        let name = user.login.as_deref().unwrap_or(&user.user_id);
        let scopes = grants::list(&user.missing);
        found.remark("grants", format!("{name} must allow {scopes}: `eventsubd authorize --user {name}`"));
    }
    if wanting.len() > LISTED {
        let more = format!("and {} more: `eventsubd authorize --missing`", wanting.len() - LISTED);
        found.remark("grants", more);
    }
    Ok(())
}

/// Checks the limits that a run would reach.
async fn limits(
    found: &mut Findings,
    config: &Config,
    options: &LoadOptions,
    api: &Api,
) -> Result<(), Failure> {
    let desired = desired(config)?;
    let memory = Arc::new(memory(options, config)?);
    let preview = reconcile::preview(&api.helix, memory, &config.application.client_id, &desired).await;
    let preview = preview.map_err(|PreviewError { error, .. }| explain(&error))?;
    if let Some(why) = &preview.stops {
        found.bad("conduit", why.as_str(), FAILED);
    } else if let Some(PreviewConduit::Keep { id, .. } | PreviewConduit::Resize { id, .. }) = &preview.conduit
    {
        found.good("conduit", format!("{id} is there"));
    }
    costs(found, &preview);
    Ok(())
}

fn costs(found: &mut Findings, preview: &Preview) {
    let (Some(total), Some(max)) = (preview.total_cost, preview.max_total_cost) else { return };
    let without_room =
        preview.plan.blocked.iter().filter(|blocked| blocked.obstacle == Obstacle::Cost).count();
    let text = format!("{} of {}", count(total), count(max));
    if without_room == 0 {
        return found.good("cost", text);
    }
    let these = if without_room == 1 {
        "1 subscription has".to_owned()
    } else {
        format!("{} subscriptions have", count(without_room as u64))
    };
    found.bad(
        "cost",
        format!(
            "{text}; {these} no room under Twitch's limit: take some out of the file, or have the broadcasters \
             authorize the application"
        ),
        FAILED,
    );
}

/// Checks that Twitch welcomes a WebSocket, and closes it again.
async fn websocket(found: &mut Findings, config: &Config, outward: &Outward) {
    if config.transport.method != Method::Conduit
        || config.conduit.shard_transport != ShardTransport::WebSocket
    {
        return;
    }
    let url = &config.twitch.eventsub_url;
    match try_welcome(outward, url, WELCOME).await {
        Ok(_) => found.good("websocket", format!("{url} sends its welcome")),
        Err(why) => found.bad("websocket", format!("{url}: {why}"), FAILED),
    }
}

/// Checks that Twitch could reach the callback.
async fn callback(found: &mut Findings, config: &Config) {
    let Some(webhook) = &config.webhook else { return };
    let report = daemon::examine_callback(config, webhook).await;
    match report.addresses {
        Ok(addresses) => {
            found.good("dns", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        }
        Err(why) => found.bad("dns", why, FAILED),
    }
    match report.challenge {
        Ok(took) => {
            found.good(
                "callback",
                format!("{} answers the challenge, in {} ms", webhook.callback, took.as_millis()),
            );
        }
        Err(why) => found.bad("callback", why, FAILED),
    }
}

/// Checks that invited users find the page, and that Twitch sends them back to it.
async fn invites(found: &mut Findings, config: &Config, outward: &Outward) {
    let Some(page) = &config.authorize else { return };
    match invite::reach(outward, config, page).await {
        Ok(took) => {
            found.good("authorize", format!("{} is there, in {} ms", page.redirect_uri, took.as_millis()));
        }
        Err(why) => found.bad("authorize", why, FAILED),
    }
    match invite::is_registered(outward, config, page).await {
        Ok(Some(true)) => found.good("authorize", "Twitch knows the redirect URI"),
        Ok(Some(false)) => found.bad(
            "authorize",
            format!(
                "Twitch does not know the redirect URI: add {} to the OAuth Redirect URLs of the application at \
                 https://dev.twitch.tv/console/apps, letter by letter, and save",
                page.redirect_uri
            ),
            FAILED,
        ),
        Ok(None) => found.remark(
            "authorize",
            format!(
                "Twitch does not say whether it knows the redirect URI: compare {} with the OAuth Redirect URLs of the \
                 application at https://dev.twitch.tv/console/apps",
                page.redirect_uri
            ),
        ),
        Err(why) => found.bad("authorize", format!("Twitch's consent page: {why}"), TEMPORARY),
    }
}

/// Checks that the receivers of sinks accept connections. Sends no event.
async fn sinks(found: &mut Findings, config: &Config, outward: &Outward) {
    for (name, outcome) in daemon::try_sinks(config, outward).await {
        match outcome {
            Ok(address) => found.good("sink", format!("{name} connects to {address}")),
            Err(why) => found.bad("sink", format!("{name}: {why}"), FAILED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_different_services_are_distinguished() {
        for (a, b, same) in [
            ("wss://eventsub.wss.twitch.tv/ws", "https://api.twitch.tv/helix", true),
            ("ws://127.0.0.1:8080/ws", "https://api.twitch.tv/helix", false),
            ("ws://127.0.0.1:8080/ws", "http://127.0.0.1:9090/mock", true),
            ("ws://127.0.0.1:8080/ws", "http://127.0.0.2:8080/mock", false),
            ("ws://localhost:8080/ws", "http://LOCALHOST:9090/mock", true),
        ] {
            assert_eq!(same_service(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn the_exit_code_with_the_highest_priority_stays() {
        for (codes, expected) in [
            (&[FAILED, REFUSED, TEMPORARY][..], REFUSED),
            (&[FAILED, TEMPORARY], TEMPORARY),
            (&[FAILED], FAILED),
            (&[], 0),
        ] {
            let mut found = Findings::default();
            for code in codes {
                found.bad("twitch", "x", *code);
            }
            assert_eq!((found.code, found.lines.len()), (expected, codes.len()));
        }
    }
}
