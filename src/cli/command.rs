//! The whole command line: the flags of [`args`](super::args), with additional texts for help and man pages.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Args;
use super::{BAD_CONFIG, CHANGES, FAILED, REFUSED, TEMPORARY, term};
use crate::model::invocation::{Invocation, quoted};

/// Meaning of each exit code.
pub(super) const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "fine"),
    (FAILED, "failed"),
    (CHANGES, "wrong usage, or changes with `plan --detailed-exitcode`"),
    (TEMPORARY, "Twitch cannot be reached; try again later"),
    (REFUSED, "Twitch refused the credentials"),
    (BAD_CONFIG, "the configuration is bad; `eventsubd check` shows why"),
];

/// An example of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    /// Command line to type.
    pub(super) line: &'static str,
    /// Effect of the command, without a full stop.
    pub(super) what: &'static str,
}

const fn example(line: &'static str, what: &'static str) -> Example {
    Example { line, what }
}

/// Examples by command; those of the empty name are for the program.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            example("eventsubd run --sandbox", "Try it without an account at Twitch"),
            example("eventsubd init", "Write a configuration file to begin with"),
            example("eventsubd check --online", "Find what is wrong with the file, the secret or the logins"),
            example("eventsubd plan", "See what would be subscribed"),
            example("eventsubd status", "See how the running daemon is"),
        ],
    ),
    (
        "run",
        &[
            example("eventsubd run --config ./config.toml", "Run the daemon in this terminal"),
            example("eventsubd run --sandbox", "Run it with sample events instead of Twitch"),
        ],
    ),
    (
        "init",
        &[
            example("eventsubd init", "Write ./eventsubd.toml, which every command in this folder takes"),
            example(
                "eventsubd init --from-twitch --client-id ID bot.toml",
                "List what another program has subscribed to, to take it over",
            ),
            example("eventsubd init bot.toml", "Write another file; `--config bot.toml` names it then"),
        ],
    ),
    (
        "check",
        &[
            example("eventsubd check", "Check the file, for example before a reload"),
            example("eventsubd check --online", "Ask Twitch about credentials, logins and grants as well"),
        ],
    ),
    (
        "plan",
        &[example(
            "eventsubd plan --detailed-exitcode",
            "For scripts: exit with 2 when something would change",
        )],
    ),
    (
        "status",
        &[
            example("eventsubd status", "What is wrong first, with what to do, then the counts"),
            example("eventsubd status --wait --timeout 2m", "Wait until Twitch matches the file"),
            example("eventsubd status --json", "Everything, for programs"),
        ],
    ),
    (
        "apply",
        &[example(
            "eventsubd apply --allow-deletes",
            "Delete what the file has lost, even if that is most of it",
        )],
    ),
    (
        "events",
        &[
            example("eventsubd events --follow", "Watch events come in"),
            example("eventsubd events --since 15m --type channel.chat.*", "The chat of the last 15 minutes"),
        ],
    ),
    (
        "authorize",
        &[
            example("eventsubd authorize --missing", "Ask everyone who still has to grant a permission"),
            example("eventsubd authorize --user ann", "Ask one user"),
            example("eventsubd authorize --link", "An invite for everyone, to the page of `[authorize]`"),
            example("eventsubd authorize --status", "Who has granted what is needed, and who has not"),
        ],
    ),
    (
        "replay",
        &[
            example("eventsubd replay --sink log --since 2h", "Send the last two hours again"),
            example("eventsubd replay --sink log --since 1042", "Send everything from event 1042 on again"),
        ],
    ),
    (
        "dead-letters",
        &[
            example("eventsubd dead-letters list", "See what sinks gave up on, and why"),
            example("eventsubd dead-letters list --verbose", "See what the receivers answered, too"),
            example("eventsubd dead-letters replay --sink web", "Send those of one sink again"),
            example("eventsubd dead-letters drop --id 7", "Remove one of them"),
        ],
    ),
    (
        "sink",
        &[
            example("eventsubd sink list", "See how each sink stands"),
            example("eventsubd sink test web --dry-run", "See the request that a sample event would make"),
            example("eventsubd sink test web --type channel.follow", "Send one sample event"),
            example("eventsubd sink retry web", "Try now, once the receiver works again"),
            example("eventsubd sink skip web", "Skip the event that blocks the sink"),
        ],
    ),
    (
        "types",
        &[
            example("eventsubd types", "All subscription types"),
            example("eventsubd types follow", "What one of them needs, and what its events look like"),
            example("eventsubd types channel.chat.message --sample --variant reply", "A sample event"),
        ],
    ),
    (
        "sandbox",
        &[
            example(
                "eventsubd sandbox --pace 2s",
                "A stand-in for Twitch, with a sample event every 2 seconds",
            ),
            example("eventsubd sandbox trigger stream.online --broadcaster ann", "Send one event"),
        ],
    ),
    (
        "completions",
        &[
            example(
                "eventsubd completions bash",
                "For bash: into ~/.local/share/bash-completion/completions/eventsubd",
            ),
            example("eventsubd completions fish", "For fish: into ~/.config/fish/completions/eventsubd.fish"),
            example(
                "eventsubd completions zsh",
                "For zsh: into a file called _eventsubd in a folder of $fpath",
            ),
        ],
    ),
    (
        "man",
        &[
            example("eventsubd man", "The page about the program; `eventsubd man | man -l -` shows it"),
            example("eventsubd man config", "The page about the configuration file"),
            example("eventsubd man --out target/man", "Write all pages into a folder"),
        ],
    ),
];

/// Returns the examples of a command; of the program for the empty name.
pub(super) fn examples(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| examples)
}

/// Reports a command line that cannot be parsed, or prints the help that it asks for; the exit code.
pub(super) fn refuse(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
    };
    let word = match error.kind() {
        ErrorKind::UnknownArgument => word(ContextKind::InvalidArg),
        ErrorKind::InvalidSubcommand => word(ContextKind::InvalidSubcommand),
        _ => None,
    };
    if let Some(hint) = word.and_then(|word| hint_for_file(&word, std::env::args().skip(1))) {
        term::say(&Invocation::default(), &hint);
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(FAILED))
}

/// The hint for a word that seems to be a configuration file, which no command takes without its flag.
fn hint_for_file(word: &str, arguments: impl Iterator<Item = String>) -> Option<String> {
    let path = Path::new(word);
    if word.starts_with('-') || !(path.extension() == Some("toml".as_ref()) || path.is_file()) {
        return None;
    }
    let words: Vec<String> = arguments.collect();
    let file = quoted(word);
    // A file in place of the command: checking it harms nobody.
    let command = if words.first().map(String::as_str) == Some(word) { " check" } else { "" };
    let words = words.iter().map(|other| match other {
        other if other == word => format!("{command} --config {file}"),
        other => format!(" {}", quoted(other)),
    });
    Some(format!("hint: name the file with --config: eventsubd{}", words.collect::<String>()))
}

/// The command line, with examples and exit codes at the end of each help.
pub(super) fn command() -> clap::Command {
    let command = Args::command();
    let mut after = listed(examples(""));
    after.push_str("\n\nExit codes:");
    for (code, what) in EXIT_STATUS {
        let _ = write!(after, "\n  {code:>2}  {what}");
    }
    command.after_help(after).mut_subcommands(|sub| match examples(sub.get_name()) {
        [] => sub,
        examples => sub.after_help(listed(examples)),
    })
}

fn listed(examples: &[Example]) -> String {
    let mut text = "Examples:".to_owned();
    for Example { line, what } in examples {
        let _ = write!(text, "\n  {line}\n      {what}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_parses() {
        let mut seen = 0;
        for (name, examples) in EXAMPLES {
            for Example { line, what } in *examples {
                seen += 1;
                let matches = command().try_get_matches_from(line.split(' '));
                let matches = matches.unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(name.is_empty() || matches.subcommand_name() == Some(name), "{line}");
                assert!(!what.ends_with('.') && line.len() <= 76 && what.len() <= 90, "{line}: {what}");
            }
        }
        assert!(seen > 20);
    }

    #[test]
    fn a_file_without_its_flag_gets_the_command_with_it() {
        let hint = |word: &str, line: &str| hint_for_file(word, line.split(' ').map(str::to_owned));
        let check = Some("hint: name the file with --config: eventsubd check --config my.toml".to_owned());
        assert_eq!(hint("my.toml", "check my.toml"), check);
        assert_eq!(hint("my.toml", "my.toml"), check);
        let online = "hint: name the file with --config: eventsubd check --online --config Cargo.lock";
        assert_eq!(hint("Cargo.lock", "check --online Cargo.lock"), Some(online.to_owned()));
        assert_eq!(hint("statsu", "statsu"), None);
        assert_eq!(hint("--x.toml", "check --x.toml"), None);
    }

    #[test]
    fn every_example_belongs_to_a_command() {
        let command = command();
        for (name, _) in EXAMPLES.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(command.find_subcommand(name).is_some(), "{name}");
        }
    }

    #[test]
    fn every_command_has_a_summary() {
        let mut seen = 0;
        for sub in command().get_subcommands() {
            seen += 1;
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(
                !about.is_empty() && !about.ends_with('.') && about.len() <= 90,
                "{}: {about}",
                sub.get_name()
            );
        }
        assert!(seen > 10);
    }
}
