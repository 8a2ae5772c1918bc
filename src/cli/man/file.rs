//! `eventsubd.toml(5)`: the configuration file, from the table of keys.

use super::names::MANUAL;
use super::roff::{Page, sentence};
use crate::config::{self, Key};

/// Description of each table of the file. `tests` checks that none is missing.
const TABLES: &[(&str, &str, &str)] = &[
    ("twitch", "[twitch]", "The application, and where Twitch is."),
    ("reconcile", "[reconcile]", "How Twitch is made to match the file."),
    ("transport", "[transport]", "How Twitch delivers events."),
    ("transport.conduit", "[transport.conduit]", "The conduit and its shards, which share the events."),
    ("transport.webhook", "[transport.webhook]", "Webhooks: Twitch calls an address of yours."),
    (
        "subscription",
        "[[subscription]]",
        "What to subscribe to; any number of them. Lists multiply: two types and three broadcasters are six \
         subscriptions. `eventsubd types` lists the types, `eventsubd types TYPE` says which fields one needs, \
         and who has to allow what. The same subscription listed twice is one, with the sinks of both.",
    ),
    (
        "sink.*",
        "[sink.NAME]",
        "Where events go; any number of them, each with a name of yours. A file without any means one of the \
         type `stdout`. A sink gets the events of every subscription that does not name other sinks, narrowed \
         by its `types`. An event may come more than once after a crash: its message id tells. All sinks have \
         these keys:",
    ),
    ("authorize", "[authorize]", "The page that invites of `eventsubd authorize --link` lead to."),
    ("store", "[store]", "How long events are kept."),
    ("state", "[state]", "The directory of events, dead letters and the id of the conduit."),
    (
        "catch_up",
        "[catch_up]",
        "What is mended after a time in which events may have been missed: Twitch is asked how channels are, and what has \
         changed is stored as events.",
    ),
    (
        "cluster",
        "[cluster]",
        "Several hosts with one file, joined by NATS JetStream: one leads, the others stand by.",
    ),
    ("admin", "[admin]", "The control socket, which commands use."),
    ("log", "[log]", "Level and format of the log."),
];

/// Description of each type of sink. `tests` checks that none is missing.
const SINKS: &[(&str, &str)] = &[
    (
        "stdout",
        "One JSON object a line on standard output; at most one such sink. It has no keys of its own.",
    ),
    (
        "file",
        "One JSON object a line, appended and synced. A file that was moved or removed is \
         begun anew; SIGHUP and reloads open it again too.",
    ),
    (
        "command",
        "A program for each event, without a shell, with the privileges of the daemon. The event is on its \
         standard input; `EVENTSUB_TYPE`, `EVENTSUB_MESSAGE_TYPE`, `EVENTSUB_MESSAGE_ID`, `EVENTSUB_SUBSCRIPTION_ID`, \
         `EVENTSUB_BROADCASTER_ID` and `EVENTSUB_BROADCASTER_LOGIN` are in its environment. Exit status 0 means \
         that it has the event.",
    ),
    (
        "http",
        "A request for each event. In the format `eventsub` it is the one that Twitch's webhooks make, signed \
         with the secret of the sink. With a `body` it is what that template makes. Any 2xx means that the \
         receiver has the event; 408, 425, 429, 5xx and no answer are tried again; every other answer makes a \
         dead letter.",
    ),
    (
        "nats",
        "A message to NATS JetStream for each event, with the message id as `Nats-Msg-Id`. The acknowledgement \
         of JetStream means that it has the event.",
    ),
    (
        "mqtt",
        "A message to an MQTT broker for each event. Its acknowledgement, PUBACK, means that it has the event.",
    ),
    (
        "redis",
        "An entry of a Redis stream for each event, with the fields `message_id`, `type` and `message`; or with \
         `channel` a message to those who listen at that moment. The answer of the server means that it has the event.",
    ),
];

const DESCRIPTION: &[&str] = &[
    "`eventsubd`(1) reads one TOML file. It is the one that `--config` names, else the one that \
     `EVENTSUBD_CONFIG` names, else /etc/eventsubd/config.toml. Every key may be left out unless it is marked \
     as required.",
    "`eventsubd check` shows all mistakes at once, each with its place and what to do. Keys that nobody knows \
     are mistakes. After an edit, `eventsubd reload` or `systemctl reload eventsubd` has the daemon read the \
     file again; a file with a mistake changes nothing.",
];

const VALUES: &[(&str, &str)] = &[
    (
        "duration",
        "A number and a unit in quotes: `\"30s\"`, `\"10m\"`, `\"1h 30m\"`. The units are ms, s, m, h, d and w.",
    ),
    ("size", "A number and a unit in quotes: `\"512MiB\"`. The units are B, KiB, MiB, GiB and TiB."),
    ("path", "A path in quotes; a relative one starts at the directory of the file."),
    ("URL", "An absolute URL in quotes."),
    ("string or list of strings", "`\"one\"` or `[\"one\", \"two\"]`."),
    ("table of strings", "`{ name = \"value\" }`."),
];

const ENVIRONMENT: &[&str] = &[
    "Every key outside `[[subscription]]` can be set as `EVENTSUBD_SECTION__KEY`, which wins over the file: \
     `EVENTSUBD_TWITCH__CLIENT_SECRET`, `EVENTSUBD_TRANSPORT__CONDUIT__SHARDS`, `EVENTSUBD_SINK__NAME__URL`. \
     Values are without quotes; lists have commas.",
    "`RUST_LOG` wins over `log.level`.",
];

const SECRETS: &[&str] = &[
    "The client secret comes from the systemd credential `client_secret`, else from the file that \
     `twitch.client_secret_file` names, or from `EVENTSUBD_TWITCH__CLIENT_SECRET`. A file with a secret must be \
     readable by its owner only (`chmod 600`); else it is a mistake that says so. Secrets are in no log, message \
     or status.",
];

const TEMPLATES: &[&str] = &[
    "`sink.*.body`, `sink.*.headers` beside it, and `sink.*.subject` are minijinja templates. They see `metadata` and \
     `payload` as Twitch's own message has them, and for short `event`, `subscription`, `type`, `version`, \
     `message_id`, `timestamp`, `broadcaster_id` and `broadcaster_login`. `| tojson` makes a JSON value of anything. \
     A name that an event does not have is a mistake, which `eventsubd check` finds; `| default(\"\")` takes what \
     may be missing.",
];

const EXAMPLE: &str = r#"[twitch]
client_id = "your-client-id"
client_secret_file = "client_secret"

[[subscription]]
type = ["stream.online", "stream.offline"]
broadcaster = ["twitchdev", "twitch"]

[[subscription]]
type = "channel.follow"
broadcaster = "twitchdev"
sinks = ["alert"]

[sink.log]
type = "file"
path = "/var/lib/eventsubd/events.jsonl"
rotate_size = "100MiB"

[sink.alert]
type = "command"
command = ["/usr/local/bin/on-follow", "--loud"]
timeout = "10s"
"#;

pub(super) fn page() -> String {
    let mut page = Page::new("eventsubd.toml", "5", MANUAL);
    page.name("eventsubd.toml", "configuration of the Twitch EventSub daemon");
    page.section("SYNOPSIS");
    page.text("/etc/eventsubd/config.toml");
    paragraphs(&mut page, "DESCRIPTION", DESCRIPTION);
    page.section("VALUES");
    for (tag, text) in VALUES {
        page.item(tag, text);
    }
    let mut last = "";
    for key in config::keys() {
        let table = parent(key.path);
        if table != last {
            last = table;
            self::table(&mut page, table);
        }
    }
    page.section("TEMPLATES");
    for text in TEMPLATES {
        page.text(text);
    }
    paragraphs(&mut page, "SECRETS", SECRETS);
    paragraphs(&mut page, "ENVIRONMENT", ENVIRONMENT);
    page.section("FILES");
    page.item("/etc/eventsubd/config.toml", "The file.");
    page.item("/usr/share/doc/eventsubd/examples/config.toml", "An example that has every key.");
    page.section("EXAMPLES");
    page.code(EXAMPLE);
    page.section("SEE ALSO");
    page.text("`eventsubd`(1), `eventsubd-check`(1), `eventsubd-types`(1), https://toml.io");
    page.finish()
}

fn paragraphs(page: &mut Page, heading: &str, texts: &[&str]) {
    page.section(heading);
    for (index, text) in texts.iter().enumerate() {
        if index == 0 { page.text(text) } else { page.paragraph(text) }
    }
}

/// Returns the table of a key.
fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(table, _)| table)
}

/// Writes one table of the file with its keys; for sinks, the keys of all types first, then those of each type.
fn table(page: &mut Page, table: &str) {
    let known = TABLES.iter().find(|(path, ..)| *path == table);
    page.section(known.map_or(table, |(_, heading, _)| heading));
    if let Some((.., about)) = known {
        page.text(about);
    }
    let keys = || config::keys().iter().filter(|key| parent(key.path) == table);
    for key in keys().filter(|key| key.only.is_empty()) {
        item(page, key);
    }
    if table != "sink.*" {
        return;
    }
    for (sink, about) in SINKS {
        page.subsection(&format!("Sinks of the type {sink}"));
        page.text(about);
        for key in keys().filter(|key| key.only.iter().any(|only| only.name() == *sink)) {
            item(page, key);
        }
    }
}

fn item(page: &mut Page, key: &Key) {
    let (takes, range) = key.kind.describe();
    let mut text = sentence(key.doc);
    let mut more = |part: String| {
        text.push(' ');
        text.push_str(&part);
    };
    if let Some(range) = range {
        more(range);
    }
    if key.required {
        more("Required.".to_owned());
    }
    if let Some(default) = key.default {
        more(format!("Default: `{default}`."));
    }
    if key.needs_restart {
        more("A reload cannot change it.".to_owned());
    }
    page.item(&format!("`{}` = {takes}", key.name()), &text);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Kind;

    #[test]
    fn every_table_and_every_type_of_sink_is_explained() {
        let tables: BTreeSet<_> = config::keys().iter().map(|key| parent(key.path)).collect();
        let explained: BTreeSet<_> = TABLES.iter().map(|(path, ..)| *path).collect();
        assert_eq!(tables, explained);
        assert!(tables.len() > 5);
        let kind = config::keys().iter().find(|key| key.path == "sink.*.type").unwrap().kind;
        let Kind::Choice { values, .. } = kind else { panic!("{kind:?}") };
        assert_eq!(values, SINKS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn keys_of_a_table_are_contiguous() {
        let mut seen = BTreeSet::new();
        let mut last = "";
        for key in config::keys() {
            let table = parent(key.path);
            assert!(table == last || seen.insert(table), "{} is apart from its table", key.path);
            last = table;
        }
    }

    #[test]
    fn the_example_is_a_valid_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let text = EXAMPLE.replace("/usr/local/bin/on-follow", "/bin/true");
        std::fs::write(&path, text.replace("client_secret_file = \"client_secret\"\n", "")).unwrap();
        let env = [("EVENTSUBD_TWITCH__CLIENT_SECRET", "an-example-secret")].into_iter().collect();
        let loaded = config::load(&config::LoadOptions {
            path,
            state_dir: Some(folder.path().to_owned()),
            env,
            sandbox: false,
            secrets: config::Secrets::Required,
        });
        let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert_eq!(loaded.config.subscriptions.len(), 5);
    }
}
