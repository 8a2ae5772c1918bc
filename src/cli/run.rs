//! `eventsubd run`: the daemon in the foreground, with its signals.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::args::{Args, RunArgs};
use super::control::POLL;
use super::progress::ProgressLine;
use super::short::{Look, ShortLines};
use super::target::own_options;
use super::term::{self, Failure};
use super::{BAD_CONFIG, FAILED, REFUSED, allocator, built_in, sandbox};
use crate::admin::Control;
use crate::admission::raise_descriptor_limit;
use crate::config;
use crate::daemon::{BuildError, Daemon, DaemonOptions, Exit};
use crate::model::invocation::Invocation;
use crate::model::text::chain;
use crate::store::since_start;
use crate::telemetry::{self, LogHandle, LogOptions};
use crate::transport::webhook::Sockets;

/// Signals within this time of the first are the same request: `timeout`, for one, sends its signal to the process and
/// then to the group of the process.
const ONE_REQUEST: Duration = Duration::from_millis(500);

pub(super) fn run(args: &Args, flags: &RunArgs) -> Result<u8, Failure> {
    allocator::restart_with_settings();
    // Before anything else, because it reads and clears the environment, which is safe only with a single thread.
    let sockets = Arc::new(Sockets::from_env());
    raise_descriptor_limit();
    // The beats of `model::rhythm` begin with the runtime's timers.
    since_start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start the runtime").caused_by(&error))?;
    let code = runtime.block_on(start(args, flags, sockets));
    // A blocked read of a terminal or a stuck disk must not keep the process alive.
    runtime.shutdown_background();
    code
}

async fn start(args: &Args, flags: &RunArgs, sockets: Arc<Sockets>) -> Result<u8, Failure> {
    if flags.sandbox {
        built_in::write(args)?;
    }
    let mut load = own_options(args);
    load.sandbox = flags.sandbox;
    let mut signals = Signals::new()?;

    // The log level is in the file, so errors of the file are printed before there is a log.
    let loaded =
        config::load(&load).map_err(|errors| Failure::verbatim(errors.to_string()).code(BAD_CONFIG))?;
    // On a terminal people watch events; what is wrong is logged all the same.
    let is_watched = flags.sandbox && io::stdout().is_terminal();
    let level = match loaded.config.log.level.as_str() {
        "info" if is_watched => "warn",
        level => level,
    };
    let log = set_up_log(&loaded.config.log, level, args.absolute_invocation())?;
    let sandbox = match flags.sandbox {
        true => Some(sandbox::embed(&mut load, &loaded.config, &args.invocation()).await?),
        false => None,
    };
    let path = load.path.clone();
    let state = loaded.config.state_directory.display().to_string();
    let subscriptions = loaded.config.subscriptions.len();

    let mut options = DaemonOptions::new(load);
    // The sandbox has changed what is to be read.
    options.loaded = (!flags.sandbox).then_some(loaded);
    options.take_over = flags.take_over;
    options.invocation = args.absolute_invocation();
    options.log = Some(log);
    // Sample events are fake: a first trial with one's own file must not post them to a real chat.
    options.print_sinks = flags.sandbox && !flags.real_sinks;
    options.notify_systemd = true;
    if is_watched {
        let look = Look { width: None, colour: term::use_colour(&io::stdout()), zone: TimeZone::system() };
        options.stdout = Some(Arc::new(move || {
            let width = term::width(&io::stdout());
            Box::new(ShortLines::new(io::stdout(), Look { width, ..look.clone() }))
        }));
    }
    options.sockets = sockets;
    let daemon = tokio::select! {
        daemon = Daemon::build(options) => daemon.map_err(|error| failure(&error))?,
        // Opening a large database may take long, and can be interrupted at any time.
        signal = asked_to_end(&mut signals.terminate, &mut signals.interrupt) => {
            info!(signal, "stopped before startup had finished");
            return Ok(0);
        }
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %config::absolute(&path).display(),
        state,
        subscriptions,
        "started"
    );

    if is_watched {
        args.say(&format!(
            "the sandbox of {} runs; its state is in {state}, apart from that of a daemon with the same file\nevents follow, \
             a line each (JSON in a pipe); Ctrl-C ends it\nin another terminal: \
             `eventsubd status`, `eventsubd sandbox trigger stream.online`, `eventsubd events`",
            path.display()
        ));
        tokio::spawn(show_progress(daemon.handle()));
    }
    let stop = CancellationToken::new();
    let at_once = CancellationToken::new();
    let listener = signals.listen(daemon.handle(), stop.clone(), at_once.clone());
    let exit = tokio::select! {
        exit = daemon.run(stop, at_once) => exit,
        () = listener => Exit::Stopped,
    };
    if let Some(sandbox) = sandbox {
        sandbox.stop();
    }
    Ok(match exit {
        Exit::Stopped => 0,
        Exit::Refused(message) => {
            error!(error = message, "Twitch refused the credentials");
            args.say(
                "hint: compare twitch.client_id and the client secret with the application's page at \
                 https://dev.twitch.tv/console/apps",
            );
            REFUSED
        }
        Exit::Failed(_) => FAILED,
    })
}

/// Shows how far the first sync with Twitch is, until it is done.
async fn show_progress(daemon: crate::daemon::DaemonHandle) {
    let mut line = ProgressLine::new();
    while line.is_shown() {
        let status = daemon.status();
        if status.converged || !status.problems.is_empty() {
            break;
        }
        match status.reconcile.progress {
            Some(progress) => line.show(progress.done, progress.total, "changes made at Twitch's stand-in"),
            None => line.show(0, 0, "the first sync with Twitch's stand-in has not finished"),
        }
        tokio::time::sleep(POLL).await;
    }
}

fn set_up_log(log: &config::Log, level: &str, invocation: Invocation) -> Result<LogHandle, Failure> {
    let fixed = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty());
    if let Some(problem) = fixed.as_deref().and_then(config::filter_problem) {
        return Err(Failure::new(format!("the environment variable RUST_LOG cannot be used: {problem}"))
            .code(BAD_CONFIG));
    }
    telemetry::init(&LogOptions { level: level.to_owned(), fixed, format: log.format, invocation })
        .map_err(|error| Failure::new("cannot set up the log").caused_by(&error).code(BAD_CONFIG))
}

fn failure(error: &BuildError) -> Failure {
    let code = match error {
        BuildError::Config(_) | BuildError::Sinks(_) | BuildError::Owned(_) => BAD_CONFIG,
        BuildError::Store(_)
        | BuildError::Socket(_)
        | BuildError::Admin(_)
        | BuildError::Invites(_)
        | BuildError::Http(_)
        | BuildError::Webhook(_) => FAILED,
    };
    let failure = Failure::new(chain(error)).code(code);
    match error {
        BuildError::Owned(owned) => failure.hint(owned.advice()),
        _ => failure,
    }
}

/// Waits for a signal to stop; returns its name.
async fn asked_to_end(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// The signals that the daemon handles, registered at the start to lose none.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let catch =
            |kind| signal(kind).map_err(|error| Failure::new("cannot catch signals").caused_by(&error));
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Handles signals: the first SIGTERM or SIGINT stops the daemon, a later one ends it at once.
    async fn listen(
        mut self,
        daemon: crate::daemon::DaemonHandle,
        stop: CancellationToken,
        at_once: CancellationToken,
    ) {
        let mut asked: Option<Instant> = None;
        loop {
            let name = tokio::select! {
                name = asked_to_end(&mut self.terminate, &mut self.interrupt) => name,
                _ = self.hang_up.recv() => {
                    info!("SIGHUP: reading the configuration again, reopening files");
                    daemon.hang_up();
                    continue;
                }
            };
            match asked {
                None => {
                    asked = Some(Instant::now());
                    info!(signal = name, "stopping; a second signal ends the daemon at once");
                    stop.cancel();
                }
                Some(first) if first.elapsed() < ONE_REQUEST => {
                    debug!(signal = name, "a signal that came with the first one");
                }
                Some(_) => at_once.cancel(),
            }
        }
    }
}
