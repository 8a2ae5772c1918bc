//! `eventsubd(1)`: the program as a whole.

use clap::Command;
use clap_mangen::Man;

use super::commands::{about, page_examples, synopsis};
use super::names::{MANUAL, short};
use super::roff::{Page, sentence, without_preamble};
use crate::cli::command::EXIT_STATUS;

const DESCRIPTION: &[&str] = &[
    "`eventsubd` is a daemon. A person edits a list of Twitch EventSub subscriptions in a TOML file, \
     described in `eventsubd.toml`(5). The daemon makes Twitch match the list and keeps it so, stores every \
     event on disk, and hands it to the sinks that the file names: standard output, files, programs, HTTP \
     servers and NATS JetStream.",
    "It needs the id and the secret of an application, from https://dev.twitch.tv/console/apps, and no \
     user's token. `run --sandbox` needs no account at all.",
    "What was accepted is on disk, and reaches every sink at least once, over any number of crashes; what a \
     sink refuses for good ends in its dead letters, which `eventsubd-dead-letters`(1) shows and sends again.",
    "Data goes to standard output, all else to standard error. The commands that speak of the running \
     daemon reach it through its control socket, which they find through the same configuration file and \
     state directory. A state directory belongs to one file; a command that is given another file than the \
     daemon runs says so and does nothing.",
    "Every command means the first of these that there is: the daemon of the file that runs, the sandbox of \
     the file (`run --sandbox`) that runs, the store of the daemon, the store of the sandbox. Those that read \
     a store name it on standard error.",
];

const FILES: &[(&str, &str)] = &[
    ("/etc/eventsubd/config.toml", "the configuration; see `eventsubd.toml`(5)"),
    ("./eventsubd.toml", "the same, if it belongs to you or root and nothing else is named"),
    (
        "/etc/eventsubd/client_secret",
        "the client secret of the application, which the systemd unit hands to the daemon; mode 0600",
    ),
    (
        "/var/lib/eventsubd/events.db",
        "events, the place of each sink in them, dead letters, and the id of the conduit; an SQLite database",
    ),
    (
        "/var/lib/eventsubd/webhook_secret",
        "the secrets of webhooks that are accepted, the current one first; mode 0600",
    ),
    ("~/.local/state/eventsubd-sandbox", "the state of `run --sandbox`, in a directory for each file"),
    ("/run/eventsubd/control.sock", "the control socket, mode 0600; in the state directory without systemd"),
    ("/usr/share/doc/eventsubd/examples/config.toml", "an example that has every key"),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("EVENTSUBD_CONFIG", "the configuration file, when `--config` names none"),
    (
        "EVENTSUBD_SECTION__KEY",
        "a key of the configuration, such as `EVENTSUBD_TWITCH__CLIENT_SECRET`; wins over the file; see \
         `eventsubd.toml`(5)",
    ),
    ("RUST_LOG", "which log lines are written, in place of `log.level`"),
    ("NO_COLOR", "no colours, when it is set and not empty"),
    (
        "STATE_DIRECTORY, RUNTIME_DIRECTORY, CREDENTIALS_DIRECTORY",
        "set by systemd: where the state, the control socket and the client secret are",
    ),
    (
        "XDG_STATE_HOME, HOME",
        "where the state is kept when nothing else says it: `$XDG_STATE_HOME/eventsubd`",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "set by systemd: where the daemon says that it is ready and how it is, and how often it shows that it does not hang",
    ),
    ("LISTEN_FDS, LISTEN_PID", "set by systemd: the sockets for webhooks, with `listen = \"systemd\"`"),
    ("JOURNAL_STREAM", "set by systemd: tells whether log lines go to the journal"),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGHUP",
        "reads the configuration again, and opens the files of sinks again; `eventsubd reload` also tells \
         the outcome",
    ),
    (
        "SIGTERM, SIGINT",
        "stops: what was accepted is stored, what is under way to sinks is finished, within eight seconds; \
         a second one ends it at once; nothing is deleted at Twitch",
    ),
];

pub(super) fn page(root: &Command) -> String {
    let mut page = Page::new("eventsubd", "1", MANUAL);
    page.name("eventsubd", about(root).trim_end_matches('.'));
    page.section("SYNOPSIS");
    synopsis(&mut page, root);
    page.section("DESCRIPTION");
    for (index, text) in DESCRIPTION.iter().enumerate() {
        if index == 0 { page.text(text) } else { page.paragraph(text) }
    }
    page.section("COMMANDS");
    page.text("Each has a page of its own.");
    for sub in root.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let file = format!("eventsubd-{}.1", sub.get_name());
        page.item(&format!("`eventsubd {}`", short(&file)), &sentence(&about(sub)));
    }
    if let Some(options) = options(root) {
        page.section("OPTIONS");
        page.rendered(&options);
    }
    page.section("EXIT STATUS");
    for (code, what) in EXIT_STATUS {
        page.item(&format!("`{code}`"), &sentence(what));
    }
    page.paragraph("The systemd unit does not start the daemon again after 77 and 78: it would not help.");
    list(&mut page, "FILES", FILES);
    list(&mut page, "ENVIRONMENT", ENVIRONMENT);
    list(&mut page, "SIGNALS", SIGNALS);
    page_examples(&mut page, "");
    page.section("SEE ALSO");
    let subs = root.get_subcommands().filter(|sub| !sub.is_hide_set());
    let pages = subs.map(|sub| format!("`eventsubd-{}`(1)", sub.get_name()));
    let others =
        ["`eventsubd.toml`(5)".to_owned(), "`systemctl`(1)".to_owned(), "`journalctl`(1)".to_owned()];
    page.text(&pages.chain(others).collect::<Vec<_>>().join(", "));
    page.finish()
}

fn list(page: &mut Page, heading: &str, items: &[(&str, &str)]) {
    page.section(heading);
    for (tag, text) in items {
        page.item(&format!("`{tag}`"), &sentence(text));
    }
}

/// Renders the global options.
fn options(root: &Command) -> Option<String> {
    let mut rendered = Vec::new();
    let root = root.clone().mut_args(|arg| arg.help_heading(None));
    Man::new(root).render_options_section(&mut rendered).ok()?;
    let text = String::from_utf8(rendered).ok()?;
    Some(without_preamble(&text).strip_prefix(".SH OPTIONS\n")?.to_owned())
}
