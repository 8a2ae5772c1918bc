//! Command-line interface.
//!
//! One file per command. Data goes to stdout, all else to stderr. The commands decide nothing about what the daemon
//! does. Flags are defined once, in [`args`]: help, man pages and completions come from there.

mod allocator;
mod apply;
pub mod args;
mod authorize;
mod brief;
mod built_in;
mod catch_up;
mod check;
mod command;
mod control;
mod events;
mod exit;
mod gaps;
mod hosts;
mod init;
mod invite;
mod letters;
mod lines;
mod man;
mod moment;
mod online;
mod plan;
mod progress;
mod run;
mod sandbox;
mod service;
mod shared_letters;
#[cfg(feature = "nats")]
mod shared_log;
mod short;
mod sink;
mod source;
mod status;
mod target;
mod term;
pub mod types;

use std::process::ExitCode;

use clap::FromArgMatches;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use self::args::{Args, Command};
pub(crate) use self::exit::{BAD_CONFIG, CHANGES, FAILED, REFUSED, TEMPORARY};
use self::term::Failure;

/// Keeps the memory of this process, which may hold secrets, out of core dumps and from other processes of the same
/// user: programs of sinks cannot read `/proc/PID/environ` then. A program that this one starts is dumpable again, and
/// may raise its own limit.
fn keep_memory_private() {
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    // Either of the two may fail: the other still holds, and systemd's unit forbids dumps too.
    let _ = setrlimit(Resource::Core, limit);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Parses the command line and executes the command.
pub fn main() -> ExitCode {
    keep_memory_private();
    let parsed = command::command().try_get_matches();
    let args = match parsed.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) => return command::refuse(&error),
    };
    warn_of_skipped_file(&args);
    let outcome = match &args.command {
        Command::Run(run) => run::run(&args, run),
        Command::Init(init) => init::run(&args, init),
        Command::Check(check) => check::run(&args, check),
        Command::Plan(plan) => plan::run(&args, plan),
        Command::Status(status) => status::run(&args, status),
        Command::Apply(apply) => apply::apply(&args, apply),
        Command::Reload => control::reload(&args),
        Command::RotateSecret => control::rotate_secret(&args),
        Command::LogLevel(log_level) => control::log_level(&args, log_level),
        Command::Events(events) => events::run(&args, events),
        Command::Gaps(flags) => gaps::run(&args, flags),
        Command::Hosts(flags) => hosts::run(&args, flags),
        Command::Authorize(authorize) => authorize::run(&args, authorize),
        Command::Replay(replay) => letters::replay(&args, replay),
        Command::DeadLetters(command) => letters::run(&args, command),
        Command::Sink(command) => sink::run(&args, command),
        Command::Types(types) => types::run(&args, types),
        Command::Sandbox(sandbox) => sandbox::run(&args, sandbox),
        Command::Completions { shell } => completions(*shell),
        Command::Man(man) => man::run(&args, man),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(&args.invocation()),
    }
}

/// A file that a command would take if it belonged to somebody else is no reason to fail, but to wonder.
fn warn_of_skipped_file(args: &Args) {
    let needs_none = matches!(
        args.command,
        Command::Init(_) | Command::Types(_) | Command::Completions { .. } | Command::Man(_)
    );
    if let Some(path) = args.file().passed_over.filter(|_| !needs_none) {
        args.say(&format!(
            "note: {} belongs to another user, so it is ignored; use --config to read it anyway",
            path.display()
        ));
    }
}

fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command::command(), "eventsubd", &mut script);
    term::write(&script)
}
