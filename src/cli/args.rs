//! All commands and flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::model::choice::Choice;
use crate::model::sink::SinkType;

/// The version, with the types of sinks that this build leaves out.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let has = |word: &&str| SinkType::from_word(word).is_some_and(SinkType::is_built_in);
    let missing: Vec<&str> = SinkType::WORDS.iter().filter(|word| !has(word)).copied().collect();
    let version = env!("CARGO_PKG_VERSION");
    if missing.is_empty() {
        version.to_owned()
    } else {
        format!("{version} (without {})", missing.join(", "))
    }
});

/// Keeps Twitch EventSub subscriptions alive and hands every event to your programs.
///
/// A person edits a TOML list of subscriptions; the daemon makes Twitch match it, stores each event,
/// and hands it to the sinks that the file names.
#[derive(Debug, Parser)]
#[command(name = "eventsubd", version = VERSION.as_str(), max_term_width = 100)]
pub struct Args {
    /// The configuration file [default: $EVENTSUBD_CONFIG, else ./eventsubd.toml if it belongs to you or root, else
    /// /etc/eventsubd/config.toml]
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath,
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,

    /// Where events and the conduit id are kept [default: state.directory, else $STATE_DIRECTORY, else
    /// $XDG_STATE_HOME/eventsubd]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        value_hint = clap::ValueHint::DirPath,
        help_heading = "Global options"
    )]
    pub state_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    ///
    /// The daemon stays in the foreground and logs to standard error. SIGHUP makes it read its configuration again,
    /// SIGTERM stops it. To have systemd do this for you: `systemctl enable --now eventsubd`.
    Run(RunArgs),
    /// Write a configuration file to begin with
    ///
    /// The file is short and commented. Beside it comes an empty file for the client secret, which only you can read.
    /// Existing files are never overwritten. `--from-twitch` lists what the application already has at Twitch.
    Init(InitArgs),
    /// Check the configuration file, offline
    ///
    /// Shows every mistake at once, each with its place and what to do. Without `--online`, nothing is sent anywhere.
    /// Exits with 78 when the file cannot be used.
    Check(CheckArgs),
    /// Show what `run` would create, delete and keep; changes nothing
    ///
    /// Asks Twitch what is subscribed now, and shows costs and missing grants.
    Plan(PlanArgs),
    /// Show the state of the running daemon
    ///
    /// Problems come first, each with what to do about it.
    Status(StatusArgs),
    /// Have the running daemon make Twitch match the file now, and follow it to the end
    ///
    /// The daemon does this by itself after a reload and every half hour. Use this command when the daemon waits for
    /// you: a change that would delete most or all subscriptions needs `--allow-deletes`. Exits with 75 while Twitch
    /// cannot be reached, with 77 when Twitch refuses the credentials; the daemon tries again by itself.
    Apply(ApplyArgs),
    /// Have the running daemon read its configuration again
    ///
    /// Waits for the outcome. A file with a mistake changes nothing: the mistake is shown, and the exit code is 78.
    /// Also says if deletes wait for your consent.
    Reload,
    /// Make a new webhook secret, and move everything to it
    ///
    /// The old secret is accepted until the last subscription and shard has moved.
    RotateSecret,
    /// Show or change which log lines the running daemon writes, until its next reload or restart
    LogLevel(LogLevelArgs),
    /// Show stored events
    ///
    /// Events are read from the store, whether the daemon runs or not. Standard error names the store.
    Events(EventsArgs),
    /// Have the running daemon send stored events to a sink again
    ///
    /// The sink goes back to that event and gets everything from there on once more. Other sinks are not affected.
    Replay(ReplayArgs),
    /// Show, send again or drop the events that sinks gave up on
    ///
    /// An event becomes a dead letter when its receiver refuses it for good, or fails for `give_up_after`.
    #[command(subcommand)]
    DeadLetters(LettersCommand),
    /// Show the sinks, send one a sample event, or retry or skip what waits
    #[command(subcommand)]
    Sink(SinkCommand),
    /// Show when events may have been missed, and why
    ///
    /// Reads the store, whether the daemon runs or not. A gap begins when delivery is last known to have worked.
    Gaps(GapsArgs),
    /// List the hosts that work together, with the leader and what each has
    ///
    /// Needs `[cluster]` in the configuration.
    Hosts(HostsArgs),
    /// Have users allow the application what the configured subscriptions need of them
    ///
    /// Prints an address and a code for each user, waits until they have allowed it, and forgets their token: only
    /// the grant to the application counts.
    Authorize(AuthorizeArgs),
    /// Show the subscription types: lines to copy, grants, cost, members, samples
    Types(TypesArgs),
    /// Run a stand-in for Twitch on this machine
    ///
    /// Needs no account, and prints the `[twitch]` block to use with it. The stand-in gives a token to anyone who asks,
    /// so keep it on loopback.
    Sandbox(SandboxArgs),
    /// Print a completion script for a shell
    ///
    /// The Debian package has those for bash, zsh and fish in place.
    Completions {
        /// The shell that the script is for
        shell: clap_complete::Shell,
    },
    /// Print a man page
    ///
    /// There is one for the program, one for each command and one for the configuration file.
    Man(ManArgs),
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Which page: `config`, or the name of a command; the one about the program when left out
    #[arg(value_name = "PAGE", conflicts_with = "out")]
    pub page: Option<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The file to write [default: ./eventsubd.toml]
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// List what the application has at Twitch now, to take it over from another program; nothing is changed there.
    /// The credentials are those of --config, else of --client-id and EVENTSUBD_TWITCH__CLIENT_SECRET or the file
    /// client_secret beside FILE
    #[arg(long)]
    pub from_twitch: bool,
    /// With --from-twitch: the client id of the application
    #[arg(long, value_name = "ID", requires = "from_twitch")]
    pub client_id: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Run against a stand-in for Twitch inside the process: no account and no file is needed, and sample events
    /// come for the configured subscriptions
    #[arg(long)]
    pub sandbox: bool,
    /// With `--sandbox`: send to `command`, `http`, `nats`, `mqtt` and `redis` sinks for real, instead of printing what they would get
    #[arg(long, requires = "sandbox")]
    pub real_sinks: bool,
    /// Take the state directory over from the configuration file that it belongs to: after that file was moved, or
    /// when this one replaces it
    #[arg(long)]
    pub take_over: bool,
}

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Ask Twitch as well: are the credentials accepted, does each login exist
    #[arg(long)]
    pub online: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Exit with 2 when something would change
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// List every subscription; without this they are listed if there are at most 20
    #[arg(long)]
    pub subscriptions: bool,
    /// Return when Twitch matches the file
    #[arg(long)]
    pub wait: bool,
    /// Print nothing unless the daemon is not ready: exit with 0 if it is, else with 1 and the reasons; for health
    /// checks of containers
    #[arg(long, conflicts_with_all = ["json", "wait"])]
    pub ready: bool,
    /// With --wait: give up after this long
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "5m")]
    pub timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// Delete what the file no longer has, however much that is
    #[arg(long)]
    pub allow_deletes: bool,
    /// Stop following after this long; the daemon goes on
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "1h")]
    pub timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub struct LogLevelArgs {
    /// A level, or levels by part, for example `info,eventsubd::reconcile=debug`; shows the one in force when left out
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Show the event with this number, whole
    #[arg(value_name = "N", conflicts_with_all = ["follow", "types", "broadcaster", "sub", "since", "until", "last"])]
    pub number: Option<u64>,
    /// Wait for further events, and print them as they come
    #[arg(long, short, conflicts_with = "until")]
    pub follow: bool,
    /// Only the last N events
    #[arg(short = 'n', long = "last", value_name = "N")]
    pub last: Option<usize>,
    /// Only types that match, for example `channel.chat.*`
    #[arg(long = "type", value_name = "GLOB")]
    pub types: Vec<String>,
    /// Only events of this broadcaster: a login, or an id
    #[arg(long, value_name = "LOGIN")]
    pub broadcaster: Option<String>,
    /// Only events of the subscription with this id of Twitch's
    #[arg(long, value_name = "ID")]
    pub sub: Option<String>,
    /// Only events stored since then: how long ago (`15m`), `today`, `yesterday`, `10:00`, `2026-11-26`, or an RFC
    /// 3339 time; days and times of the day are those of this machine
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only events stored before then; written like --since
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Events of all hosts of the cluster, from the log that they share; numbers are those of that log
    #[arg(long)]
    pub all_hosts: bool,
    /// Show times in the time zone of this machine instead of UTC
    #[arg(long)]
    pub local: bool,
    /// Print Twitch's own message of each event, one JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct GapsArgs {
    /// Only gaps told since then: an RFC 3339 time, or how long ago, for example `7d`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HostsArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Command for a host; the list of hosts when left out
    #[command(subcommand)]
    pub command: Option<HostsCommand>,
}

/// Commands of `hosts`. Each works on any host.
#[derive(Debug, clap::Subcommand)]
pub enum HostsCommand {
    /// Have a host hand its work over to the others; it stays up
    ///
    /// If it leads, another host leads afterwards. It gets no work until `--undo`, or until its daemon is restarted.
    Drain {
        /// Give it work again
        #[arg(long)]
        undo: bool,
        /// The host's name; this host when left out
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Remove a host that is down, and does not come back, from the list of hosts
    Forget {
        /// The host's name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whom"))]
#[command(group = clap::ArgGroup::new("what").args(["users", "missing", "status", "link"]).required(true).multiple(true))]
pub struct AuthorizeArgs {
    /// Users to ask, by login
    #[arg(long = "user", value_name = "LOGIN", num_args = 1.., group = "whom")]
    pub users: Vec<String>,
    /// Everyone who still has to grant a permission
    #[arg(long, group = "whom")]
    pub missing: bool,
    /// Ask nobody: list who has granted what is needed, and who has not
    #[arg(long, group = "whom")]
    pub status: bool,
    /// Print an invite to the page of `[authorize]`: for each of these users with --user or --missing, otherwise one for
    /// everyone. It holds for 30 days, and offers only what the file needs
    #[arg(long, conflicts_with = "status")]
    pub link: bool,
    /// With --link: only what the file's subscriptions to these types need, for example `channel.poll.*`
    #[arg(long = "for", value_name = "GLOB", num_args = 1.., requires = "link", value_parser = simple_glob)]
    pub types: Vec<String>,
    /// Ask for these scopes, instead of the fewest that the subscriptions need
    #[arg(long, value_name = "SCOPE", num_args = 1.., conflicts_with_all = ["missing", "status", "link"])]
    pub scopes: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The sink that gets the events
    #[arg(long, value_name = "NAME")]
    pub sink: String,
    /// From then on: the number of an event, how long ago (`15m`), `today`, `yesterday`, `10:00`, `2026-11-26`, or an
    /// RFC 3339 time
    #[arg(long, value_name = "TIME|SEQ")]
    pub since: String,
    /// Only what was stored before then. The sink keeps its place, and gets these events beside the new ones
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only types that match, for example `channel.chat.*`. The sink keeps its place, as with --until
    #[arg(long = "type", value_name = "GLOB", value_parser = simple_glob)]
    pub types: Option<String>,
    #[command(flatten)]
    pub consent: Consent,
}

/// Whether a person has to agree.
#[derive(Debug, clap::Args)]
pub struct Consent {
    /// Do not ask on a terminal
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show which events are meant, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}

/// A glob of letters, digits, dots, `*` and `?`.
fn simple_glob(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '*' | '?');
    if !text.is_empty() && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("a glob has letters, digits, `.`, `_`, `*` and `?`, for example channel.chat.*".to_owned())
}

#[derive(Debug, Subcommand)]
pub enum SinkCommand {
    /// Show the sinks of the running daemon
    List(SinkListArgs),
    /// Send one sample event, to see whether the receiver takes it
    ///
    /// The command itself sends the event, once; the daemon does not know of it, and it counts nowhere.
    Test(SinkTestArgs),
    /// Try now what waits after a failure, even if the receiver has asked for a pause
    Retry(SinkNameArgs),
    /// Put the event that holds up the others into the dead letters
    Skip(SinkNameArgs),
}

#[derive(Debug, clap::Args)]
pub struct SinkListArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct SinkTestArgs {
    /// The sink's name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The type of the sample; the first one that the sink gets when left out
    #[arg(long = "type", value_name = "TYPE")]
    pub subscription_type: Option<String>,
    /// Print what would be sent, without secrets, and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `sink retry` and `sink skip`.
#[derive(Debug, clap::Args)]
pub struct SinkNameArgs {
    /// The sink's name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
}

#[derive(Debug, Subcommand)]
pub enum LettersCommand {
    /// Show the dead letters, oldest first
    List(LettersListArgs),
    /// Send dead letters to their sinks again; those that fail once more stay
    Replay(LettersArgs),
    /// Remove dead letters for good
    Drop(LettersArgs),
}

#[derive(Debug, clap::Args)]
pub struct LettersListArgs {
    #[command(flatten)]
    pub which: LettersFilter,
    /// Show what the receivers answered as well, in their own words
    #[arg(long, short)]
    pub verbose: bool,
    /// Print one JSON document, with the events
    #[arg(long)]
    pub json: bool,
}

/// Selection of dead letters.
#[derive(Debug, clap::Args)]
pub struct LettersFilter {
    /// Only dead letters of this sink
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// Only the dead letter with this number, as `list` shows it
    #[arg(long, value_name = "ID")]
    pub id: Option<i64>,
    /// Only types that match, for example `channel.chat.*`
    #[arg(long = "type", value_name = "GLOB", value_parser = simple_glob)]
    pub types: Option<String>,
    /// Only dead letters whose last failure was before then: how long ago (`15m`), `today`, `yesterday`, `10:00`,
    /// `2026-11-26`, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// Which dead letters, and whether a person has to agree.
#[derive(Debug, clap::Args)]
pub struct LettersArgs {
    #[command(flatten)]
    pub which: LettersFilter,
    #[command(flatten)]
    pub consent: Consent,
}

#[derive(Debug, clap::Args)]
pub struct TypesArgs {
    /// A type, a glob such as `channel.poll.*`, or a word such as `follow`
    #[arg(value_name = "TYPE|GLOB|WORD")]
    pub name: Option<String>,
    /// The version of the type; the newest that is not beta when left out
    pub version: Option<String>,
    /// Print a sample event as JSON
    #[arg(long, requires = "name", conflicts_with = "json")]
    pub sample: bool,
    /// Which sample; `eventsubd types TYPE` lists the names
    #[arg(long, value_name = "NAME", requires = "sample")]
    pub variant: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SandboxArgs {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8790")]
    pub listen: SocketAddr,
    /// Pause between sample events; none are sent without it
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub pace: Option<Duration>,
    /// Refuse subscriptions whose users have not granted what they need; `eventsubd authorize` asks them
    #[arg(long)]
    pub require_grants: bool,
    /// Only these users exist; otherwise every login but `missing_…`, and every id
    #[arg(long = "user", value_name = "LOGIN", num_args = 1..)]
    pub users: Vec<String>,
    /// Age of what Get Streams and Get Channel Information show; at Twitch a minute or two
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub stream_delay: Option<Duration>,
    /// A command for a sandbox that is already running
    #[command(subcommand)]
    pub command: Option<SandboxCommand>,
}

/// Commands to a running sandbox.
#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Send an event to every enabled subscription of a type: a sample, or what is given here
    Trigger {
        /// The type, for example `stream.online`
        #[arg(value_name = "TYPE")]
        name: String,
        /// Only subscriptions for this broadcaster
        #[arg(long, value_name = "LOGIN")]
        broadcaster: Option<String>,
        /// Set a member of the event; may be repeated. VALUE is JSON, or else text: `event.title="Hello"`,
        /// `event.bits=500`, `event.choices.0.votes=3`
        #[arg(long, value_name = "PATH=VALUE", value_parser = event_change)]
        set: Vec<EventChange>,
        /// A file with the JSON of the `event` object, in place of a sample
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
        #[command(flatten)]
        target: SandboxTarget,
    },
    /// Ask WebSocket sessions to reconnect; one that does not within 30 s is closed with 4004
    Reconnect {
        /// Only this session
        #[arg(value_name = "SESSION")]
        session: Option<String>,
        #[command(flatten)]
        target: SandboxTarget,
    },
    /// Close WebSocket sessions
    Close {
        /// Only this session
        #[arg(value_name = "SESSION")]
        session: Option<String>,
        /// The close code; 1006 breaks the connection without a close frame
        #[arg(long, value_name = "CODE", default_value_t = 4000)]
        code: u16,
        #[command(flatten)]
        target: SandboxTarget,
    },
    /// End subscriptions with a revocation, or have a user disconnect the application
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["name", "broadcaster", "subscription", "user"])))]
    Revoke {
        /// Only subscriptions of this type
        #[arg(value_name = "TYPE")]
        name: Option<String>,
        /// Only subscriptions for this broadcaster
        #[arg(long, value_name = "LOGIN")]
        broadcaster: Option<String>,
        /// Only this subscription
        #[arg(long, value_name = "ID")]
        subscription: Option<String>,
        /// The status that the subscriptions end with
        #[arg(long, value_name = "STATUS", default_value = "authorization_revoked")]
        status: String,
        /// Have this user disconnect the application: what needed the user's grant ends, and tokens die
        #[arg(long, value_name = "LOGIN", conflicts_with_all = ["name", "broadcaster", "subscription", "status"])]
        user: Option<String>,
        #[command(flatten)]
        target: SandboxTarget,
    },
    /// Disable shards of conduits, as Twitch does when they fail
    Disable {
        /// Only the shard with this number
        #[arg(value_name = "SHARD")]
        shard: Option<u32>,
        /// Only shards of this conduit
        #[arg(long, value_name = "ID")]
        conduit: Option<String>,
        /// The status that they get [default: websocket_internal_error, notification_failures_exceeded for callbacks]
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
        #[command(flatten)]
        target: SandboxTarget,
    },
    /// Have a user grant scopes to the application
    Grant {
        /// Login of the user
        #[arg(value_name = "LOGIN")]
        login: String,
        /// The scopes; all that any subscription type needs if none is given
        #[arg(value_name = "SCOPE")]
        scopes: Vec<String>,
        #[command(flatten)]
        target: SandboxTarget,
    },
    /// Make a user a moderator of a channel, which matters with `--require-grants`
    Moderator {
        /// Login of the user
        #[arg(value_name = "LOGIN")]
        login: String,
        /// Login of the channel
        #[arg(value_name = "CHANNEL")]
        channel: String,
        /// Remove the moderator again: subscriptions that needed one end with `moderator_removed`
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        target: SandboxTarget,
    },
}

/// The sandbox that a command is for.
#[derive(Debug, clap::Args)]
pub struct SandboxTarget {
    /// Where the sandbox listens [default: the one of `run --sandbox` with this configuration, else
    /// 127.0.0.1:8790]
    #[arg(long, value_name = "ADDR")]
    pub address: Option<SocketAddr>,
}

/// A member of an event and its new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventChange {
    /// For example `event.title`.
    pub path: String,
    pub value: serde_json::Value,
}

fn event_change(text: &str) -> Result<EventChange, String> {
    let (path, value) = text.split_once('=').ok_or("it has no `=`; write it as event.title=TEXT")?;
    if !["event.", "events."].iter().any(|root| path.starts_with(root)) {
        return Err(format!("`{path}` does not begin with `event.`, as in event.title=TEXT"));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok(EventChange { path: path.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_accepts_the_definition() {
        Args::command().debug_assert();
    }

    #[test]
    fn values_of_event_members_are_json_or_text() {
        for (text, value) in [
            ("event.title=Hello = world", serde_json::json!("Hello = world")),
            ("event.bits=500", serde_json::json!(500)),
            ("event.id=\"500\"", serde_json::json!("500")),
            ("events.0.data=null", serde_json::Value::Null),
            ("event.is_gift=true", serde_json::json!(true)),
        ] {
            assert_eq!(event_change(text).expect("good").value, value, "{text}");
        }
        assert!(event_change("title=x").unwrap_err().contains("`event.`"));
        assert!(event_change("event.title").is_err());
    }

    #[test]
    fn global_flags_are_accepted_before_and_after_the_command() {
        for line in [
            ["eventsubd", "--config", "a.toml", "--state-dir", "s", "status"],
            ["eventsubd", "status", "--config", "a.toml", "--state-dir", "s"],
            ["eventsubd", "-c", "a.toml", "--state-dir", "s", "status"],
            ["eventsubd", "--state-dir", "s", "status", "-c", "a.toml"],
        ] {
            let args = Args::try_parse_from(line).unwrap();
            assert_eq!(args.config.as_deref(), Some("a.toml".as_ref()), "{line:?}");
            assert_eq!(args.state_dir.as_deref(), Some("s".as_ref()), "{line:?}");
        }
    }

    #[test]
    fn every_command_takes_the_global_flags_after_it() {
        fn leaves(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
            for sub in command.get_subcommands() {
                let path = [path, &[sub.get_name().to_owned()]].concat();
                let needed = sub.get_arguments().filter(|arg| arg.is_required_set());
                let needed: Vec<String> = needed
                    .flat_map(|arg| match arg.get_long() {
                        Some(long) => vec![format!("--{long}"), "1".to_owned()],
                        None => vec!["bash".to_owned()],
                    })
                    .collect();
                if !sub.is_subcommand_required_set() {
                    found.push([path.clone(), needed].concat());
                }
                leaves(sub, &path, found);
            }
        }
        let mut found = Vec::new();
        leaves(&Args::command(), &["eventsubd".to_owned()], &mut found);
        assert!(found.len() > 18, "{found:?}");
        for mut line in found {
            if line[1] == "authorize" {
                line.push("--missing".to_owned());
            }
            if line.ends_with(&["sandbox".to_owned(), "revoke".to_owned()]) {
                line.push("channel.follow".to_owned());
            }
            line.extend(["-c", "a.toml", "--state-dir", "s"].map(str::to_owned));
            let args = Args::try_parse_from(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            assert_eq!(args.config.as_deref(), Some("a.toml".as_ref()), "{line:?}");
            assert_eq!(args.state_dir.as_deref(), Some("s".as_ref()), "{line:?}");
        }
    }
}
