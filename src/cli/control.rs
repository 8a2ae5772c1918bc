//! Client of the control socket.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::net::UnixStream;

use super::BAD_CONFIG;
use super::args::{Args, LogLevelArgs};
use super::progress::ProgressLine;
use super::status::reasons;
use super::target::Places;
use super::term::{self, Failure};
use crate::admin::{LogFilter, Refused, ReloadAccepted, ReloadRefused, SecretRotated, SubscriptionPage};
use crate::auth::{BodyError, read_bounded, unix_client};
use crate::model::connect;
use crate::model::invocation::Invocation;
use crate::model::status::{ConfigStatus, HeldDeletes, Status, SubscriptionEntry, TokenState};
use crate::model::text::{chain, counted};

/// The largest answer that is read, in bytes: a status with 20,000 shards fits.
const MAX_ANSWER: usize = 32 << 20;
/// How long the daemon may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Polling interval of commands that follow the daemon.
pub(super) const POLL: Duration = Duration::from_millis(200);
/// Time that `reload` waits for the plan that follows it.
const PLAN_LIMIT: Duration = Duration::from_secs(5);

/// A connection to a running daemon.
#[derive(Debug)]
pub(super) struct Connection {
    path: PathBuf,
}

impl Connection {
    /// Finds the daemon for these arguments; reports on stderr if it is a sandbox.
    pub(super) async fn open(args: &Args) -> Result<Self, Failure> {
        let (connection, daemon) = Self::find(args).await?;
        announce(&args.invocation(), &daemon);
        Ok(connection)
    }

    /// The same once more, without a word.
    pub(super) async fn reopen(args: &Args) -> Result<Self, Failure> {
        Ok(Self::find(args).await?.0)
    }

    /// The daemon of these arguments, and the configuration that it runs.
    async fn find(args: &Args) -> Result<(Self, ConfigStatus), Failure> {
        let places = Places::find(args)?;
        let (mut reason, mut refusal) = (None, None);
        for place in places.iter() {
            let connection = Self { path: place.paths.socket.clone() };
            match UnixStream::connect(&connection.path).await {
                Ok(_) => {
                    let daemon = connection.config().await?;
                    match places.accept(place, &daemon) {
                        Ok(()) => return Ok((connection, daemon)),
                        Err(failure) => drop(refusal.get_or_insert(failure)),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Failure::new(format!(
                        "no permission for the control socket {}",
                        connection.path.display()
                    ))
                    .hint("run this as root or as the daemon's own user"));
                }
                Err(error) => drop(reason.get_or_insert(error)),
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let reason = match reason {
            Some(error) if error.kind() == io::ErrorKind::NotFound => "there is no such socket".to_owned(),
            Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "no process listens on it".to_owned()
            }
            Some(error) => connect::reason(&error),
            None => String::new(),
        };
        let own = places.own().paths.socket.display();
        Err(Failure::new(format!("no daemon answers on {own}: {reason}"))
            .hint(
                "is it running (`systemctl status eventsubd`)? if it is, give this command the same --config and \
                 --state-dir",
            )
            .temporary())
    }

    /// Returns the configuration that the daemon runs.
    async fn config(&self) -> Result<ConfigStatus, Failure> {
        let (status, body) = self.get("/config").await?;
        let other = || {
            Failure::new(format!(
                "the daemon on {} is of another version than this command",
                self.path.display()
            ))
            .hint("restart it after an upgrade")
        };
        if !status.is_success() {
            return Err(other());
        }
        serde_json::from_slice(&body).map_err(|error| other().caused_by(&error))
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Vec<u8>), Failure> {
        let failed = |reason: String| {
            Failure::new(format!("the daemon on {} did not answer: {reason}", self.path.display()))
                .hint("is it stopping? see its log")
                .temporary()
        };
        let client = unix_client(&self.path).map_err(|error| failed(chain(&error)))?;
        let request = client.request(method, format!("http://eventsubd{path}")).timeout(ANSWER_LIMIT);
        let answer = request.send().await.map_err(|error| failed(connect::reason(&error)))?;
        let status = answer.status();
        let body = read_bounded(answer, MAX_ANSWER).await.map_err(|error| match &error {
            BodyError::Broken(cause) => failed(connect::reason(cause)),
            BodyError::TooLarge { .. } => failed(error.to_string()),
        })?;
        Ok((status, body))
    }

    pub(super) async fn post(&self, path: &str) -> Result<(StatusCode, Vec<u8>), Failure> {
        self.ask(Method::POST, path).await
    }

    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, Vec<u8>), Failure> {
        self.ask(Method::GET, path).await
    }

    pub(super) async fn status(&self) -> Result<Status, Failure> {
        let (_, body) = self.ask(Method::GET, "/status").await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::new("the daemon's status cannot be read")
                .caused_by(&error)
                .hint("is it of another version than this command? restart it after an upgrade")
        })
    }

    /// The list of subscriptions, page by page.
    pub(super) async fn subscriptions(
        &self,
        mut take: impl FnMut(Vec<SubscriptionEntry>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut after: Option<String> = None;
        loop {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", "1000");
            if let Some(after) = &after {
                query.append_pair("after", after);
            }
            let (status, body) = self.get(&format!("/subscriptions?{}", query.finish())).await?;
            if !status.is_success() {
                return Err(Failure::new(format!("the daemon's answer to /subscriptions is {status}")));
            }
            let page: SubscriptionPage = parse(&body)?;
            take(page.subscriptions)?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Asks until Twitch matches the file, and tells what it waits for; after `limit`, or when waiting is in vain, the
    /// last status. A daemon that does not answer yet, or is started again meanwhile, is waited for as well.
    pub(super) async fn await_converged(
        args: &Args,
        limit: Duration,
    ) -> Result<Result<Status, Status>, Failure> {
        let deadline = Instant::now() + limit;
        let mut last = None;
        let mut reporter = WaitReporter::new(args);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = tokio::time::timeout(left.max(POLL), async {
                let (connection, daemon) = Self::find(args).await?;
                Ok((connection.status().await?, daemon))
            });
            let failure = match asked.await {
                Ok(Ok((status, daemon))) => {
                    reporter.announce(&daemon);
                    if status.converged {
                        return Ok(Ok(status));
                    }
                    if status.token.state == TokenState::Refused {
                        return Ok(Err(status));
                    }
                    reporter.waiting_with(&status);
                    last = Some(status);
                    None
                }
                // Waiting does not help: a person has to fix the file or get a permission.
                Ok(Err(failure)) if !Failure::is_temporary(&failure) => return Err(failure),
                Ok(Err(failure)) => Some(failure),
                Err(_) => Some(Failure::new("the daemon does not answer in time")),
            };
            if failure.is_some() {
                // The old status says nothing about a daemon that is gone.
                last = None;
                reporter.waiting_for("no daemon answers yet");
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
}

/// Says on stderr that it is a sandbox, when it is.
fn announce(invocation: &Invocation, daemon: &ConfigStatus) {
    if daemon.sandbox {
        let line = format!(
            "this is the sandbox of {}, which keeps its state in {}",
            daemon.path, daemon.state_directory
        );
        term::say(invocation, &line);
    }
}

/// Progress messages of a waiting command: each once, at a readable pace.
pub(super) struct WaitReporter {
    invocation: Invocation,
    announced: bool,
    last: Option<(String, Instant)>,
    line: ProgressLine,
}

impl WaitReporter {
    /// Minimum pause between two messages.
    const PAUSE: Duration = Duration::from_secs(1);

    pub(super) fn new(args: &Args) -> Self {
        Self { invocation: args.invocation(), announced: false, last: None, line: ProgressLine::new() }
    }

    fn announce(&mut self, daemon: &ConfigStatus) {
        if !std::mem::replace(&mut self.announced, true) {
            self.line.wipe();
            announce(&self.invocation, daemon);
        }
    }

    /// Shows how far the changes are on a terminal; elsewhere, and while there is nothing to count, says what is waited
    /// for.
    pub(super) fn waiting_with(&mut self, status: &Status) {
        match status.reconcile.progress.filter(|progress| progress.total > 0) {
            Some(progress) if self.line.is_shown() => {
                self.line.show(progress.done, progress.total, "changes made");
            }
            _ => self.waiting_for(&reasons(status).join("; ")),
        }
    }

    /// Reports what the command waits for, if that has changed.
    pub(super) fn waiting_for(&mut self, what: &str) {
        let now = Instant::now();
        let said = self
            .last
            .as_ref()
            .is_some_and(|(said, at)| said == what || now.duration_since(*at) < Self::PAUSE);
        if !what.is_empty() && !said {
            self.line.wipe();
            term::say(&self.invocation, &format!("waiting: {what}"));
            self.last = Some((what.to_owned(), now));
        }
    }
}

/// Runs a future to its end on a runtime of its own.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start the runtime").caused_by(&error))?
        .block_on(future)
}

pub(super) fn reload(args: &Args) -> Result<u8, Failure> {
    block_on(async {
        let connection = Connection::open(args).await?;
        let (status, body) = connection.post("/reload").await?;
        if !status.is_success() {
            let refused: ReloadRefused = parse(&body)?;
            for error in &refused.errors {
                args.say(error);
            }
            args.say("the old configuration stays active");
            return Ok(BAD_CONFIG);
        }
        let accepted: ReloadAccepted = parse(&body)?;
        for line in accepted.warnings.iter().chain(&accepted.changes) {
            args.say(line);
        }
        let what = if accepted.changes.is_empty() { "; nothing is different" } else { "" };
        args.say(&format!("reloaded; configuration {} is active{what}", accepted.generation));
        if let Some(remark) = planned(&connection, accepted.generation).await {
            args.say(&remark);
        }
        Ok(0)
    })
}

/// Returns what people have to know of the plan that follows a reload. The reload itself has succeeded, so nothing
/// here is a failure.
async fn planned(connection: &Connection, generation: u64) -> Option<String> {
    let deadline = Instant::now() + PLAN_LIMIT;
    loop {
        let reconcile = connection.status().await.ok()?.reconcile;
        if reconcile.planned >= generation {
            return reconcile.deletes_held.map(held_deletes_warning);
        }
        if let Some(problem) = &reconcile.problem {
            return Some(format!("warning: not compared with Twitch yet, the daemon tries again: {problem}"));
        }
        if Instant::now() >= deadline {
            return Some("not compared with Twitch yet: see `eventsubd status`".to_owned());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Describes the held deletes, with the command that allows them.
pub(super) fn held_deletes_warning(held: HeldDeletes) -> String {
    format!(
        "warning: {}, so this waits for you: look at `eventsubd plan`; if it is right, run `eventsubd apply \
         --allow-deletes`",
        held.sentence()
    )
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::new("the daemon's answer cannot be read").caused_by(&error))
}

pub(super) fn rotate_secret(args: &Args) -> Result<u8, Failure> {
    let (status, body) = block_on(async { Connection::open(args).await?.post("/rotate-secret").await })?;
    if !status.is_success() {
        let refused: Refused = parse(&body)?;
        return Err(Failure::new(refused.error));
    }
    let rotated: SecretRotated = parse(&body)?;
    let done = format!(
        "the new webhook secret {} is active ({} accepted until everything has moved to it); see `eventsubd status`",
        rotated.key,
        counted(rotated.accepted, "secret")
    );
    args.say(&done);
    Ok(0)
}

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
        return Err(Failure::new(parse::<Refused>(&body)?.error).hint("the filter is unchanged"));
    }
    let filter = parse::<LogFilter>(&body)?.filter;
    if flags.filter.is_some() {
        args.say(&format!("the log filter is {filter} until the next reload or restart"));
        return Ok(0);
    }
    term::write(format!("{filter}\n").as_bytes())
}
