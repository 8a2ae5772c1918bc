//! `eventsubd plan`: prints the actions that `run` would take, without taking them.

use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::{Args, PlanArgs};
use super::control::block_on;
use super::target::{self, load_options};
use super::term::{self, Failure};
use super::{BAD_CONFIG, CHANGES, FAILED, REFUSED, TEMPORARY, catch_up};
use crate::config::{self, Config, LoadOptions};
use crate::daemon::{self, Owner, ReadOnlyMemory};
use crate::helix::{Helix, HelixError, HelixErrorKind};
use crate::model::status::{TokenState, TokenStatus};
use crate::reconcile::{self, Desired, ErrorKind, Preview, PreviewError, RunError};
use crate::store::{Reader, StoreError};

pub(super) fn run(args: &Args, flags: &PlanArgs) -> Result<u8, Failure> {
    let options = load_options(args);
    let loaded =
        config::load(&options).map_err(|errors| Failure::verbatim(errors.to_string()).code(BAD_CONFIG))?;
    let config = loaded.config;
    let memory = memory(&options, &config)?;
    let preview = block_on(async {
        let api = Api::connect(&config).await?;
        let desired = desired(&config)?;
        let preview =
            reconcile::preview(&api.helix, Arc::new(memory), &config.application.client_id, &desired).await;
        let preview = preview.map(|preview| Preview { catch_up: catch_up::asks(&config), ..preview });
        preview.map_err(|PreviewError { error, done }| {
            args.say("✓ credentials accepted");
            for step in done {
                args.say(&format!("✓ {step}"));
            }
            explain(&error)
        })
    })?;
    if flags.json {
        term::write_json(&preview)?;
    } else {
        let mut text = Vec::new();
        preview
            .render(&mut text, term::use_colour(&io::stdout()))
            .map_err(|e| Failure::new("cannot print the plan").caused_by(&e))?;
        let text = String::from_utf8_lossy(&text);
        args.print(&text)?;
    }
    if preview.stops.is_some() {
        return Ok(FAILED);
    }
    Ok(if flags.detailed_exitcode && preview.has_changes() { CHANGES } else { 0 })
}

/// Loads the memory of the file's daemon; empty before its first start.
pub(super) fn memory(options: &LoadOptions, config: &Config) -> Result<ReadOnlyMemory, Failure> {
    let reader = match Reader::open(&daemon::database(config)) {
        Err(StoreError::Missing { .. }) => return Ok(ReadOnlyMemory::default()),
        reader => reader.map_err(|error| target::unreadable(&error))?,
    };
    let owned = Owner::of(options).check(&config.state_directory, &reader);
    if let Err(owned) = owned.map_err(|error| target::unreadable(&error))? {
        return Err(Failure::new(owned.to_string())
            .hint(format!("`run` would be refused: {}", owned.advice()))
            .code(BAD_CONFIG));
    }
    ReadOnlyMemory::read(&reader).map_err(|error| target::unreadable(&error))
}

/// Returns the desired state of a configuration.
pub(super) fn desired(config: &Config) -> Result<Arc<Desired>, Failure> {
    daemon::desired(config).map_err(|error| {
        Failure::new("the webhook secret cannot be used")
            .caused_by(&error)
            .hint("run this as root or as the daemon's own user")
    })
}

/// An API client for one command, with a token that Twitch has accepted.
pub(super) struct Api {
    pub(super) helix: Helix,
    cancel: CancellationToken,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Api {
    /// Mints a token, or fails with the exit code for the reason.
    pub(super) async fn connect(config: &Config) -> Result<Self, Failure> {
        let cancel = CancellationToken::new();
        let (helix, mut token) = daemon::one_shot_api(config, &cancel)
            .map_err(|error| Failure::new("cannot set up connections to Twitch").caused_by(&error))?;
        let api = Self { helix, cancel };
        let settled = token
            .wait_for(|t| !matches!(t.state, TokenState::Minting))
            .await
            .map_err(|error| Failure::new("the token keeper ended").caused_by(&error))?;
        refuse_dead(&settled)?;
        drop(settled);
        Ok(api)
    }
}

fn refuse_dead(token: &TokenStatus) -> Result<(), Failure> {
    let problem = token.problem.clone().unwrap_or_default();
    match token.state {
        TokenState::Refused => Err(Failure::new(format!("Twitch refused the credentials: {problem}"))
            .hint(
                "compare twitch.client_id and the client secret with the application's page at \
                 https://dev.twitch.tv/console/apps",
            )
            .code(REFUSED)),
        TokenState::Unavailable => Err(Failure::new(format!("Twitch cannot be reached: {problem}"))
            .hint("try again later")
            .code(TEMPORARY)),
        TokenState::Minting | TokenState::Valid | TokenState::Renewing => Ok(()),
    }
}

/// Converts an error from reading Twitch's state.
pub(super) fn explain(error: &RunError) -> Failure {
    let code = match error.kind() {
        ErrorKind::Credentials => REFUSED,
        ErrorKind::Unavailable => TEMPORARY,
        ErrorKind::State | ErrorKind::Refused => FAILED,
    };
    Failure::new("Twitch's side could not be read").caused_by(error).code(code)
}

/// Returns the exit code for a failed API request.
pub(super) fn exit_code(error: &HelixError) -> u8 {
    match error.kind() {
        HelixErrorKind::Credentials => REFUSED,
        HelixErrorKind::Unavailable => TEMPORARY,
        HelixErrorKind::Refused => FAILED,
    }
}
