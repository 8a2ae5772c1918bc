//! Talking to the running daemon through its control socket.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::args::{ApplyArgs, Args, LogLevelArgs};
use super::term::{self, Failure};
use super::{BAD_CONFIG, FAILED};
use crate::admin::{LogFilter, Refused, ReloadAccepted, ReloadRefused, SecretRotated};
use crate::config::{self, Environment, LoadOptions};
use crate::model::status::Status;

/// The largest answer that is read, in bytes: a status with 130,000 subscriptions fits.
const MAX_ANSWER: usize = 256 << 20;
/// How long the daemon may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How often a command that follows the daemon asks for its status.
const POLL: Duration = Duration::from_millis(200);

/// Which file, and whose environment, a command works with. When the file is that of a unit on this machine, so are
/// the directories, unless something else is said: the daemon is told of them by systemd, and a command is not.
pub(super) fn load_options(args: &Args) -> LoadOptions {
    let mut options = own_options(args);
    if let Some((state, runtime)) = config::unit_directories(&options.path)
        && state.is_dir()
    {
        for (name, directory) in [("STATE_DIRECTORY", state), ("RUNTIME_DIRECTORY", runtime)] {
            if options.env.get(name).is_none() {
                options.env = options.env.with(name, directory.to_string_lossy());
            }
        }
    }
    options
}

/// The same for a daemon in the foreground: its directories are its own.
pub(super) fn own_options(args: &Args) -> LoadOptions {
    let env = Environment::from_process();
    let path = args.config.clone().unwrap_or_else(|| config::default_path(&env));
    LoadOptions {
        path,
        state_dir: args.state_dir.clone(),
        env,
        sandbox: false,
        secrets: config::Secrets::Required,
    }
}

/// The daemon's control socket, and that of `run --sandbox` with the same file.
pub(super) fn sockets(args: &Args) -> Result<[PathBuf; 2], Failure> {
    let mut options = load_options(args);
    options.secrets = config::Secrets::Optional;
    let locate = |options: &LoadOptions| config::paths(options).map(|paths| paths.socket);
    let own = locate(&options).map_err(|errors| Failure::verbatim(errors.to_string()).code(BAD_CONFIG))?;
    options.env = own_options(args).env;
    options.sandbox = true;
    let sandbox =
        locate(&options).map_err(|errors| Failure::verbatim(errors.to_string()).code(BAD_CONFIG))?;
    Ok([own, sandbox])
}

/// A running daemon.
#[derive(Debug)]
pub(super) struct Connection {
    path: PathBuf,
}

impl Connection {
    /// The daemon of these arguments.
    pub(super) async fn open(args: &Args) -> Result<Self, Failure> {
        let [own, sandbox] = sockets(args)?;
        let mut reason = String::new();
        for path in [&own, &sandbox] {
            match UnixStream::connect(path).await {
                Ok(_) => return Ok(Self { path: path.clone() }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Failure::new(format!(
                        "no permission for the control socket {}",
                        path.display()
                    ))
                    .hint("run this as root or as the daemon's own user"));
                }
                Err(error) if reason.is_empty() => reason = error.to_string(),
                Err(_) => {}
            }
        }
        Err(Failure::new(format!("no daemon answers on {} ({reason})", own.display())).hint(
            "is it running (`systemctl status eventsubd`)? if it is, give this command the same --config and \
             --state-dir",
        )
        .passing())
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let broken = |error: &dyn std::error::Error| {
            Failure::new(format!("the daemon on {} did not answer", self.path.display()))
                .because(error)
                .hint("is it stopping? see its log")
                .passing()
        };
        let exchange = async {
            let stream = UnixStream::connect(&self.path).await.map_err(|e| broken(&e))?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
            let driver = tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "eventsubd")
                .body(Empty::<Bytes>::new())
                .map_err(|e| broken(&e))?;
            let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
            let status = answer.status();
            let body =
                Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| broken(&*e))?;
            driver.abort();
            Ok((status, body.to_bytes()))
        };
        match tokio::time::timeout(ANSWER_LIMIT, exchange).await {
            Ok(result) => result,
            Err(elapsed) => Err(broken(&elapsed)),
        }
    }

    /// Asks for a change.
    pub(super) async fn post(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        self.ask(Method::POST, path).await
    }

    /// Asks for something else.
    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        self.ask(Method::GET, path).await
    }

    /// How it is.
    pub(super) async fn status(&self) -> Result<Status, Failure> {
        let (_, body) = self.ask(Method::GET, "/status").await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::new("the daemon's status cannot be read")
                .because(&error)
                .hint("is it of another version than this command? restart it after an upgrade")
        })
    }

    /// Asks until Twitch matches the file; after `limit`, the last status. A daemon that does not answer yet, or
    /// is started again meanwhile, is waited for as well.
    pub(super) async fn await_converged(
        args: &Args,
        limit: Duration,
    ) -> Result<Result<Status, Status>, Failure> {
        let deadline = Instant::now() + limit;
        let mut last = None;
        let mut told = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let asked =
                tokio::time::timeout(left.max(POLL), async { Self::open(args).await?.status().await });
            let failure = match asked.await {
                Ok(Ok(status)) if status.converged => return Ok(Ok(status)),
                Ok(Ok(status)) => {
                    last = Some(status);
                    None
                }
                // Waiting mends no file, and gives nobody a permission.
                Ok(Err(failure)) if !failure.may_pass() => return Err(failure),
                Ok(Err(failure)) => Some(failure),
                Err(_) => Some(Failure::new("the daemon does not answer in time")),
            };
            if failure.is_some() {
                // A status from before says nothing about a daemon that has gone.
                last = None;
                if !std::mem::replace(&mut told, true) {
                    term::say("no daemon answers yet; waiting for it");
                }
            }
            if Instant::now() >= deadline {
                return match (last, failure) {
                    (Some(status), _) => Ok(Err(status)),
                    (None, Some(failure)) => Err(failure),
                    (None, None) => Err(Failure::new("the daemon does not answer in time")),
                };
            }
            tokio::time::sleep(POLL.min(left)).await;
        }
    }

    /// Asks until `done`, or fails after `limit`.
    pub(super) async fn follow(
        &self,
        limit: Duration,
        mut done: impl FnMut(&Status) -> bool,
    ) -> Result<Result<Status, Status>, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status().await?;
            if done(&status) {
                return Ok(Ok(status));
            }
            if Instant::now() >= deadline {
                return Ok(Err(status));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A runtime for one command.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start the runtime").because(&error))?
        .block_on(future)
}

/// `eventsubd reload`
pub(super) fn reload(args: &Args) -> Result<u8, Failure> {
    let (status, body) = block_on(async { Connection::open(args).await?.post("/reload").await })?;
    if status.is_success() {
        let accepted: ReloadAccepted = parse(&body)?;
        for warning in &accepted.warnings {
            term::say(warning);
        }
        for change in &accepted.changes {
            term::say(change);
        }
        let what = if accepted.changes.is_empty() { "nothing is different" } else { "in force" };
        term::say(&format!("generation {}: {what}", accepted.generation));
        return Ok(0);
    }
    let refused: ReloadRefused = parse(&body)?;
    for error in &refused.errors {
        term::say(error);
    }
    term::say("the old configuration stays in force");
    Ok(BAD_CONFIG)
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::new("the daemon's answer cannot be read").because(&error))
}

/// `eventsubd rotate-secret`
pub(super) fn rotate_secret(args: &Args) -> Result<u8, Failure> {
    let (status, body) = block_on(async { Connection::open(args).await?.post("/rotate-secret").await })?;
    if !status.is_success() {
        let refused: Refused = parse(&body)?;
        return Err(Failure::new(refused.error));
    }
    let rotated: SecretRotated = parse(&body)?;
    term::say(&format!(
        "a new webhook secret is in force (key {}); {} are accepted until everything is moved to the new one: see \
         `eventsubd status`",
        rotated.key, rotated.accepted
    ));
    Ok(0)
}

/// `eventsubd log-level`
pub(super) fn log_level(args: &Args, flags: &LogLevelArgs) -> Result<u8, Failure> {
    let (status, body) = block_on(async {
        let connection = Connection::open(args).await?;
        match &flags.filter {
            None => connection.get("/log-level").await,
            Some(filter) => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("filter", filter);
                connection.post(&format!("/log-level?{}", query.finish())).await
            }
        }
    })?;
    if !status.is_success() {
        return Err(Failure::new(parse::<Refused>(&body)?.error).hint("the filter in force stays"));
    }
    let filter = parse::<LogFilter>(&body)?.filter;
    if flags.filter.is_some() {
        term::say(&format!("the log filter is {filter} until the next reload or restart"));
        return Ok(0);
    }
    term::write(format!("{filter}\n").as_bytes())
}

/// `eventsubd apply`
pub(super) fn apply(args: &Args, flags: &ApplyArgs) -> Result<u8, Failure> {
    block_on(async {
        let connection = Connection::open(args).await?;
        let before = connection.status().await?.reconcile.finished_at;
        let path = if flags.allow_deletes { "/apply?allow_deletes=true" } else { "/apply" };
        connection.post(path).await?;
        let mut shown = None;
        let followed = connection
            .follow(flags.timeout, |status| {
                let progress = status.reconcile.progress;
                if progress != shown
                    && let Some(progress) = progress
                {
                    term::say(&format!("{} of {} changes made", progress.done, progress.total));
                }
                shown = progress;
                status.reconcile.finished_at > before && progress.is_none()
            })
            .await?;
        match followed {
            Ok(status) => {
                super::status::print(&status)?;
                Ok(if status.converged { 0 } else { FAILED })
            }
            Err(status) => {
                super::status::print(&status)?;
                Err(Failure::new("the daemon has not finished yet")
                    .hint("it goes on by itself: see `eventsubd status`"))
            }
        }
    })
}
