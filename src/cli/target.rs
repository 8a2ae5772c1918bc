//! Selection of the daemon and the store that a command addresses.
//!
//! One rule for all commands. A file has a place for its daemon, and another for its sandbox. A command addresses the
//! first of these that belongs to the file: the running daemon, the running sandbox, the daemon's store, the
//! sandbox's store. If the file or the place is ambiguous, the command fails.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::Args;
use super::term::{self, Failure};
use super::{BAD_CONFIG, FAILED, built_in};
use crate::config::{self, Environment, FileChoice, LoadOptions, Paths};
use crate::daemon::{DATABASE, Owned, Owner};
use crate::model::invocation::Invocation;
use crate::model::status::ConfigStatus;
use crate::store::{Reader, StoreError};

/// Pause between checks for a store that does not exist yet.
const POLL: Duration = Duration::from_millis(200);

impl Args {
    /// The file that is meant; the built-in one of `run --sandbox` where there is no other.
    pub(super) fn file(&self) -> FileChoice {
        let environment = Environment::from_process();
        let choice = config::choose_file(self.config.as_deref(), &environment);
        match built_in::in_place_of(self, &choice, &environment) {
            Some(path) => FileChoice { path, ..choice },
            None => choice,
        }
    }

    /// Returns the flags for commands in messages.
    pub(super) fn invocation(&self) -> Invocation {
        Invocation::new(self.config.as_deref(), self.state_dir.as_deref())
    }

    /// Writes a line for people to stderr; commands in it get the flags of this one.
    pub(super) fn say(&self, line: &str) {
        term::say(&self.invocation(), line);
    }

    /// Writes text for people to stdout; commands in it get the flags of this one.
    pub(super) fn print(&self, text: &str) -> Result<u8, Failure> {
        term::write(self.invocation().complete(text).as_bytes())
    }

    /// Returns the flags for messages that are read in another directory and environment, such as the log.
    pub(super) fn absolute_invocation(&self) -> Invocation {
        let environment = Environment::from_process();
        let file = Some(self.file()).filter(|file| {
            let built_in = built_in::path(self.state_dir.as_deref(), &environment);
            !file.is_of_the_system() && built_in.as_ref() != Some(&file.path)
        });
        let config = file.map(|file| config::absolute(&file.path));
        let state_dir = self.state_dir.as_deref().map(config::absolute);
        Invocation::new(config.as_deref(), state_dir.as_deref())
    }
}

/// Returns the file and the environment to use. For the file of a systemd unit, the directories are the unit's unless
/// others are given: systemd passes them to the daemon, but not to a command.
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

/// Returns the same for a daemon in the foreground, which has its own directories.
pub(super) fn own_options(args: &Args) -> LoadOptions {
    LoadOptions {
        path: args.file().path,
        state_dir: args.state_dir.clone(),
        env: Environment::from_process(),
        sandbox: false,
        secrets: config::Secrets::Required,
    }
}

/// A place where a daemon of the file may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) paths: Paths,
    pub(super) sandbox: bool,
}

impl Place {
    /// Returns whether a daemon listens there; also true if this user may not connect.
    pub(super) fn is_running(&self) -> bool {
        match UnixStream::connect(&self.paths.socket) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
}

/// The places of a file, in the order of preference.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// `None` if only a state directory was named and there is no file.
    file: Option<LoadOptions>,
    /// `--state-dir`, which the daemon must use.
    state_dir: Option<PathBuf>,
    /// At least one place; the first is the daemon's.
    places: Vec<Place>,
}

impl Places {
    /// Finds the places for these arguments.
    ///
    /// # Errors
    /// The file cannot be read well enough to know them.
    pub(super) fn find(args: &Args) -> Result<Self, Failure> {
        let choice = args.file();
        if let Some(directory) = &args.state_dir
            && !choice.named
            && !choice.path.exists()
        {
            let place = Place { paths: Paths::of_state_directory(directory), sandbox: false };
            return Ok(Self { file: None, state_dir: args.state_dir.clone(), places: vec![place] });
        }
        let mut options = load_options(args);
        let paths = config::paths(&options).map_err(|errors| {
            let denied = std::fs::File::open(&options.path)
                .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
            let todo = if denied { "; run this as root or as the daemon's own user" } else { "" };
            Failure::verbatim(errors.to_string())
                .hint(format!(
                    "nothing was done, because {} names the daemon and the store to use{todo}",
                    options.path.display()
                ))
                .code(BAD_CONFIG)
        })?;
        let mut places = vec![Place { paths, sandbox: false }];
        // Next, a daemon started by hand with the file of a unit, then the sandbox.
        options.env = own_options(args).env;
        for sandbox in [false, true] {
            options.sandbox = sandbox;
            if let Ok(paths) = config::paths(&options)
                && !places.contains(&Place { paths: paths.clone(), sandbox })
            {
                places.push(Place { paths, sandbox });
            }
        }
        options.sandbox = false;
        Ok(Self { file: Some(options), state_dir: args.state_dir.clone(), places })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.places.iter()
    }

    /// Returns the place of the file's daemon.
    pub(super) fn own(&self) -> &Place {
        &self.places[0]
    }

    /// Refuses a daemon that runs another file.
    pub(super) fn accept(&self, place: &Place, daemon: &ConfigStatus) -> Result<(), Failure> {
        let socket = place.paths.socket.display();
        if let Some(named) = &self.state_dir
            && !config::is_same_file(&config::absolute(named), Path::new(&daemon.state_directory))
        {
            return Err(Failure::new(format!(
                "the daemon on {socket} keeps its state in {}, not in {}; nothing was done",
                daemon.state_directory,
                named.display()
            ))
            .hint("leave --state-dir out to talk to that daemon"));
        }
        let Some(options) = &self.file else { return Ok(()) };
        let file = config::absolute(&options.path);
        if config::is_same_file(&file, Path::new(&daemon.path)) {
            return Ok(());
        }
        let file = file.display();
        let failure = Failure::new(format!(
            "the daemon on {socket} runs {}, not {file}; nothing was done",
            daemon.path
        ));
        Err(if Path::new(&daemon.path).exists() {
            failure.hint(format!(
                "give this command the file of that daemon with --config, or give {file} a state directory of its own \
                 (`directory` in `[state]`) and start a daemon with it"
            ))
        } else {
            failure.hint(format!(
                "{} is not there any more; if it was moved, end that daemon and start it with {file} and --take-over",
                daemon.path
            ))
        })
    }

    /// Opens the store to use, and returns it with its place; `None` if there is none yet.
    fn store(&self) -> Result<Option<(Reader, &Place)>, Failure> {
        let mut found = Vec::new();
        let mut refusal = None;
        for place in &self.places {
            let directory = &place.paths.state_directory;
            match Reader::open(&directory.join(DATABASE)) {
                Err(StoreError::Missing { .. }) => {}
                Err(error) => found.push((place, Err(error))),
                Ok(reader) => match self.owned(place, &reader) {
                    Ok(Ok(())) => found.push((place, Ok(reader))),
                    Ok(Err(owned)) => drop(refusal.get_or_insert(owned)),
                    Err(error) => found.push((place, Err(error))),
                },
            }
        }
        // A running daemon comes first, as in commands that connect to it.
        let at = found.iter().position(|(place, _)| place.is_running()).unwrap_or(0);
        match (found.into_iter().nth(at), refusal) {
            (Some((place, Ok(reader))), _) => Ok(Some((reader, place))),
            (Some((_, Err(error))), _) => Err(unreadable(&error)),
            (None, Some(owned)) => Err(refused(&owned)),
            (None, None) => Ok(None),
        }
    }

    fn owned(&self, place: &Place, reader: &Reader) -> Result<Result<(), Owned>, StoreError> {
        let Some(options) = &self.file else { return Ok(Ok(())) };
        let mut owner = options.clone();
        owner.sandbox = place.sandbox;
        Owner::of(&owner).check(&place.paths.state_directory, reader)
    }

    /// Describes the store of a place.
    fn name(&self, place: &Place) -> String {
        let path = place.paths.state_directory.join(DATABASE);
        let sandbox = if place.sandbox { ", the store of the sandbox" } else { ", the event store" };
        match &self.file {
            Some(options) => {
                format!("{}{sandbox} of {}", path.display(), config::absolute(&options.path).display())
            }
            None => path.display().to_string(),
        }
    }
}

/// Opens the store to use and names it on stderr; with `wait`, waits until there is one.
pub(super) fn open_store(args: &Args, wait: bool) -> Result<Reader, Failure> {
    let places = Places::find(args)?;
    let mut told = false;
    loop {
        if let Some((reader, place)) = places.store()? {
            args.say(&format!("reading {}", places.name(place)));
            return Ok(reader);
        }
        let missing = places.name(places.own());
        if !wait {
            return Err(Failure::new(format!("there are no events yet: there is no {missing}"))
                .hint("has the daemon run? if it has, give this command the same --config and --state-dir"));
        }
        // The daemon may still be starting.
        if !std::mem::replace(&mut told, true) {
            args.say(&format!("waiting for {missing}"));
        }
        std::thread::sleep(POLL);
    }
}

/// Failure for a state directory that belongs to another file.
pub(super) fn refused(owned: &Owned) -> Failure {
    let hint = if owned.is_moved() {
        "if the file was moved, start the daemon once with --take-over".to_owned()
    } else {
        format!(
            "give this command `--config {}`, or the --state-dir of the daemon that is meant",
            owned.file()
        )
    };
    Failure::new(owned.to_string()).hint(hint).code(FAILED)
}

/// Failure for an unreadable store.
pub(super) fn unreadable(error: &StoreError) -> Failure {
    let failure = Failure::new("cannot read the event store").caused_by(error);
    match error {
        StoreError::Denied { .. } => failure
            .hint("it is there, but belongs to another user: run this as root or as the daemon's own user"),
        _ => failure,
    }
}
