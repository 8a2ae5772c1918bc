//! `eventsubd sandbox`, and the sandbox inside `run --sandbox`.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::args::{Args, EventChange, SandboxArgs, SandboxCommand, SandboxTarget};
use super::control::block_on;
use super::target::{Places, own_options};
use super::term::{self, Failure};
use super::{BAD_CONFIG, FAILED};
use crate::auth::{http_client, read_bounded, tls_config};
use crate::config::{self, Config, LoadOptions};
use crate::daemon::{SANDBOX_SECRET, USER_AGENT, connections};
use crate::model::connect;
use crate::model::invocation::Invocation;
use crate::model::text::chain;
use crate::sandbox::{Sandbox, SandboxOptions, Users};

/// Default address of a sandbox.
const DEFAULT: &str = "127.0.0.1:8790";
/// Pause between the sample events of `run --sandbox`.
const PACE: Duration = Duration::from_secs(2);
/// File in the state directory with the address of the sandbox inside a daemon.
const ADDRESS_FILE: &str = "sandbox.address";
/// Time that a command to a sandbox may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest answer of a sandbox, in bytes.
const MAX_ANSWER: usize = 1 << 22;

fn options(
    listen: SocketAddr,
    pace: Option<Duration>,
    require_grants: bool,
) -> Result<SandboxOptions, Failure> {
    let http =
        connections().map_err(|error| Failure::new("cannot set up HTTP connections").caused_by(&error))?;
    Ok(SandboxOptions {
        http: Some(http.client()),
        listen,
        client_secret: SANDBOX_SECRET.to_owned(),
        accept_any_client: true,
        sample_pace: pace,
        require_grants,
        ..SandboxOptions::default()
    })
}

pub(super) fn run(args: &Args, flags: &SandboxArgs) -> Result<u8, Failure> {
    let Some(command) = &flags.command else { return block_on(listen(args, flags)) };
    let (name, target, body) = request_of(command)?;
    let address = target.address.map_or_else(|| address_of(args), Ok)?;
    let answer = block_on(call(address, name, &body))?;
    args.print(&lines(&answer))
}

/// The name of a command at the sandbox, where that is, and the body of the request.
fn request_of(command: &SandboxCommand) -> Result<(&'static str, &SandboxTarget, String), Failure> {
    let (name, target, body) = match command {
        SandboxCommand::Trigger { name, broadcaster, set, data, target } => {
            return Ok((
                "trigger",
                target,
                trigger_body(name, broadcaster.as_deref(), set, data.as_deref())?,
            ));
        }
        SandboxCommand::Reconnect { session, target } => ("reconnect", target, json!({"session": session})),
        SandboxCommand::Close { session, code, target } => {
            ("close", target, json!({"session": session, "code": code}))
        }
        SandboxCommand::Revoke { name, broadcaster, subscription, status, user, target } => {
            let body = match user {
                Some(user) => json!({"user": user}),
                None => json!({
                    "type": name, "broadcaster": broadcaster, "subscription": subscription, "status": status,
                }),
            };
            ("revoke", target, body)
        }
        SandboxCommand::Disable { shard, conduit, status, target } => {
            ("disable", target, json!({"shard": shard, "conduit": conduit, "status": status}))
        }
        SandboxCommand::Grant { login, scopes, target } => {
            ("grant", target, json!({"login": login, "scopes": scopes}))
        }
        SandboxCommand::Moderator { login, channel, remove, target } => {
            ("moderator", target, json!({"login": login, "channel": channel, "remove": remove}))
        }
    };
    Ok((name, target, body.to_string()))
}

/// The event goes as it stands in the file: its members keep their order.
fn trigger_body(
    name: &str,
    broadcaster: Option<&str>,
    changes: &[EventChange],
    data: Option<&Path>,
) -> Result<String, Failure> {
    let set: Vec<_> = changes.iter().map(|change| (&change.path, &change.value)).collect();
    let data = data.map(read_event).transpose()?;
    let body = TriggerBody { name, broadcaster, set, data };
    serde_json::to_string(&body).map_err(|error| Failure::new("cannot write the request").caused_by(&error))
}

#[derive(Serialize)]
struct TriggerBody<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    broadcaster: Option<&'a str>,
    set: Vec<(&'a String, &'a Value)>,
    data: Option<Box<RawValue>>,
}

fn read_event(path: &Path) -> Result<Box<RawValue>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}", path.display())).caused_by(&error))?;
    let event: Box<RawValue> = serde_json::from_str(text.trim()).map_err(|error| {
        Failure::new(format!("{} is not valid JSON", path.display()))
            .caused_by(&error)
            .hint("the file holds the `event` object of a notification and nothing else")
    })?;
    Ok(event)
}

/// Describes the effects of a command on the sandbox, one line each.
fn lines(answer: &Value) -> String {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let sent =
        answer["sent"].as_array().into_iter().flatten().map(|sent| match sent["message_id"].as_str() {
            Some(id) => format!("{id}\n"),
            None => format!("not sent to {}: {}\n", text(sent, "subscription_id"), text(sent, "error")),
        });
    let done = answer["done"].as_array().into_iter().flatten().filter_map(Value::as_str);
    sent.chain(done.map(|line| format!("{line}\n"))).collect()
}

async fn listen(args: &Args, flags: &SandboxArgs) -> Result<u8, Failure> {
    let mut options = options(flags.listen, flags.pace, flags.require_grants)?;
    options.stream_delay = flags.stream_delay.unwrap_or_default();
    if !flags.users.is_empty() {
        options.users = Users::only(&flags.users);
    }
    let sandbox = Sandbox::start(options).await.map_err(|error| {
        Failure::new(format!("cannot listen on {}", flags.listen))
            .caused_by(&error)
            .hint("does another sandbox run? --listen 127.0.0.1:0 takes a free port")
    })?;
    if !sandbox.address().ip().is_loopback() {
        args.say(
            "warning: this address can be reached from outside, and the sandbox gives a token to every client",
        );
    }
    term::write(sandbox.twitch_block().as_bytes())?;
    args.say(&format!(
        "the sandbox listens on {}; any client id and secret will do; end it with Ctrl-C",
        sandbox.address()
    ));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Failure::new("cannot catch signals").caused_by(&error))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    sandbox.stop();
    Ok(0)
}

/// Starts a sandbox for `run --sandbox`, and points the configuration to it.
pub(super) async fn embed(
    load: &mut LoadOptions,
    config: &Config,
    invocation: &Invocation,
) -> Result<Sandbox, Failure> {
    let fixed = DEFAULT.parse().map_err(|error: std::net::AddrParseError| Failure::new(error.to_string()))?;
    let options = options(fixed, Some(PACE), false)?;
    let free = SandboxOptions { listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(), ..options.clone() };
    let sandbox = match Sandbox::start(options).await {
        Ok(sandbox) => sandbox,
        Err(_) => Sandbox::start(free)
            .await
            .map_err(|error| Failure::new("cannot start the sandbox").caused_by(&error))?,
    };
    // A daemon that was started before knows the ids of its logins and does not ask for them again.
    for login in config.subscriptions.iter().flat_map(|spec| spec.logins()) {
        let _id = sandbox.user_id(login);
    }
    load.env = std::mem::take(&mut load.env)
        .with("EVENTSUBD_TWITCH__AUTH_URL", sandbox.auth_url())
        .with("EVENTSUBD_TWITCH__API_URL", sandbox.api_url())
        .with("EVENTSUBD_TWITCH__EVENTSUB_URL", sandbox.eventsub_url());
    let folder = &config.state_directory;
    // The path must stay the same at a reload, even if the file has become a link to elsewhere.
    load.state_dir = Some(folder.clone());
    let noted = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(folder.join(ADDRESS_FILE), sandbox.address().to_string()));
    noted.map_err(|error| {
        Failure::new(format!("cannot write into the state directory {}", folder.display())).caused_by(&error)
    })?;
    tracing::info!(
        address = %sandbox.address(),
        state = %folder.display(),
        "{}",
        invocation.complete("running against the sandbox inside this process; `eventsubd sandbox trigger TYPE` sends a sample event")
    );
    Ok(sandbox)
}

/// Returns the address of this configuration's sandbox: the one inside its `run --sandbox`, else the one that the
/// file names as Twitch, else the default.
fn address_of(args: &Args) -> Result<SocketAddr, Failure> {
    let file = args.file();
    if !file.named && !file.path.exists() && args.state_dir.is_none() {
        return parsed(DEFAULT);
    }
    let places = Places::find(args)?;
    for place in places.iter().filter(|place| place.is_running()) {
        match std::fs::read_to_string(place.paths.state_directory.join(ADDRESS_FILE)) {
            Ok(text) => return parsed(text.trim()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::new("cannot read where the sandbox listens").caused_by(&error));
            }
        }
    }
    let mut load = own_options(args);
    load.sandbox = true;
    let loaded =
        config::load(&load).map_err(|errors| Failure::verbatim(errors.to_string()).code(BAD_CONFIG))?;
    let api = url_authority(&loaded.config.twitch.api_url);
    match api.and_then(|authority| authority.parse::<SocketAddr>().ok()) {
        Some(address) if address.ip().is_loopback() => Ok(address),
        _ => Err(Failure::new(format!("no sandbox of {} runs", load.path.display()))
            .hint("start one with `eventsubd run --sandbox`, or give its address with --address")),
    }
}

/// Returns the host and the port of an HTTP URL.
fn url_authority(url: &str) -> Option<&str> {
    url.strip_prefix("http://")?.split('/').next()
}

fn parsed(address: &str) -> Result<SocketAddr, Failure> {
    address.parse().map_err(|error: std::net::AddrParseError| {
        Failure::new(format!("`{address}` is not a valid address"))
            .caused_by(&error)
            .hint("give the sandbox's address with --address")
    })
}

/// Has the sandbox carry out a command.
async fn call(address: SocketAddr, name: &str, body: &str) -> Result<Value, Failure> {
    let failed = |why: String| {
        Failure::new(format!("no sandbox answers on {address}: {why}"))
            .hint("start one with `eventsubd run --sandbox` or `eventsubd sandbox`, or give --address")
    };
    let client = tls_config().and_then(|tls| http_client(USER_AGENT, tls));
    let client = client.map_err(|error| failed(chain(&error)))?;
    let request =
        client.post(format!("http://{address}/sandbox/{name}")).body(body.to_owned()).timeout(LIMIT);
    let answer = request.send().await.map_err(|error| failed(connect::reason(&error)))?;
    let good = answer.status().is_success();
    let body = read_bounded(answer, MAX_ANSWER).await.map_err(|error| failed(chain(&error)))?;
    let body: Value = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
    if good {
        return Ok(body);
    }
    Err(Failure::new(body["message"].as_str().unwrap_or_default()).code(FAILED))
}
