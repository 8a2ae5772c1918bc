//! A configuration file that lists what a client has at Twitch. ◆

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::model::catalog;
use crate::model::hint;
use crate::model::subscription::{SubscriptionRow, TransportTarget};
use crate::model::text::{counted, one_line};

/// Logins that stand in the file itself; more go into a file of their own.
const INLINE: usize = 50;
/// Columns of a list.
const WIDTH: usize = 100;
/// Login keys by their condition field. A subscription is listed by the first of them that it has.
const LOGIN_KEYS: [(&str, &str); 5] = [
    ("broadcaster_user_id", "broadcaster"),
    ("to_broadcaster_user_id", "to_broadcaster"),
    ("from_broadcaster_user_id", "from_broadcaster"),
    ("user_id", "user"),
    ("moderator_user_id", "moderator"),
];

/// A client's side at Twitch.
#[derive(Debug)]
pub(super) struct AtTwitch<'a> {
    pub(super) client_id: &'a str,
    /// Lines for `[twitch]` if it is not Twitch itself.
    pub(super) addresses: String,
    pub(super) rows: &'a [SubscriptionRow],
    /// Ids with their numbers of shards.
    pub(super) conduits: &'a [(String, u32)],
    /// Logins by user id.
    pub(super) logins: &'a HashMap<Box<str>, Box<str>>,
}

/// The files to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) text: String,
    /// Names and texts of the files with logins.
    pub(super) lists: Vec<(String, String)>,
    /// Number of subscriptions that the file asks for.
    pub(super) taken: usize,
}

/// The fields that equal entries share, apart from the logins that make a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Logins {
        version: Option<String>,
        /// The key with the list.
        key: &'static str,
        /// Other keys with one login each.
        others: Vec<(&'static str, String)>,
    },
    /// A condition as Twitch has it, with a remark about whom it names.
    Condition { version: Option<String>, condition: String },
}

/// Where subscriptions deliver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Conduit(&'a str),
    Callback(&'a str),
}

/// Makes the files; `stem` is what their names begin with.
pub(super) fn listing(at_twitch: &AtTwitch<'_>, stem: &str) -> Listing {
    let mut places: BTreeMap<Place<'_>, Vec<&SubscriptionRow>> = BTreeMap::new();
    let (mut dead, mut sockets) = (BTreeMap::<&str, u64>::new(), 0);
    for (id, _) in at_twitch.conduits {
        places.insert(Place::Conduit(id), Vec::new());
    }
    for row in at_twitch.rows {
        let place = match &row.target {
            TransportTarget::Conduit { conduit_id } => Place::Conduit(conduit_id),
            TransportTarget::Webhook { callback } => Place::Callback(callback),
            TransportTarget::Other(_) => {
                sockets += 1;
                continue;
            }
        };
        if row.status.is_live() {
            places.entry(place).or_default().push(row);
        } else {
            *dead.entry(row.status.as_str()).or_default() += 1;
        }
    }
    // The conduit with the most subscriptions; of equal ones the first.
    let chosen = at_twitch
        .conduits
        .iter()
        .map(|(id, shards)| (places.get(&Place::Conduit(id)).map_or(0, Vec::len), id, *shards))
        .reduce(|best, other| if other.0 > best.0 { other } else { best });

    let mut page = Page { at_twitch, stem, lists: Vec::new() };
    let mut text = format!(
        "# Written by `eventsubd init --from-twitch` from what the client {} has at Twitch: {}.\n",
        one_line(at_twitch.client_id, 100),
        counted(at_twitch.rows.len() as u64, "subscription")
    );
    let mut taken = Vec::new();
    if let Some((_, id, _)) = &chosen {
        taken = places.remove(&Place::Conduit(id)).unwrap_or_default();
    }
    let own = hint::subscriptions(at_twitch.client_id);
    let watches = own.iter().all(|key| taken.iter().any(|row| row.key == *key));
    if watches {
        taken.retain(|row| !own.contains(&row.key));
    }
    let _ = write!(
        text,
        "\n[twitch]\nclient_id = {}\nclient_secret_file = \"client_secret\"\n{}",
        quoted(at_twitch.client_id),
        at_twitch.addresses
    );
    if !watches {
        text.push_str(
            "# Remove this line and the daemon creates three subscriptions of its own, by which it hears at once of \
             permissions.\nwatch_grants = false\n",
        );
    }
    match &chosen {
        Some((count, id, shards)) => {
            let _ = write!(
                text,
                "\n# The conduit with {}. Stop the program that uses it before `eventsubd run`: each shard\n# delivers to \
                 one of them only.\n[transport.conduit]\nid = {}\nshards = {shards}\n",
                counted(*count as u64, "subscription"),
                quoted(id)
            );
        }
        None => text.push_str("\n# The client has no conduit; `eventsubd run` creates one.\n"),
    }
    text.push_str(&page.blocks(&taken, true));
    text.push_str("\n# Where events go; docs/sinks.md has all kinds.\n[sink.out]\ntype = \"stdout\"\n");
    for (place, rows) in places.iter().filter(|(_, rows)| !rows.is_empty()) {
        let where_ = match place {
            Place::Conduit(id) => format!("conduit {}", one_line(id, 200)),
            Place::Callback(url) => format!("callback {}", one_line(url, 500)),
        };
        let _ = write!(
            text,
            "\n# {} on the {where_}, which this file does not use.\n# Without the `#` the daemon creates them on its own \
             conduit; those over there stay until their program deletes them.\n",
            counted(rows.len() as u64, "subscription")
        );
        for line in page.blocks(rows, false).trim_start().lines() {
            let _ = writeln!(text, "#{}{line}", if line.is_empty() { "" } else { " " });
        }
    }
    let mut left = Vec::new();
    if sockets > 0 {
        left.push(format!(
            "{} over WebSockets, which belong to the tokens of users",
            counted(sockets, "subscription")
        ));
    }
    left.extend(dead.iter().map(|(status, count)| {
        format!("{} with the status {}", counted(*count, "subscription"), one_line(status, 100))
    }));
    if !left.is_empty() {
        text.push_str("\n# Not taken over:\n");
        for line in left {
            let _ = writeln!(text, "#   {line}");
        }
    }
    Listing { text, lists: page.lists, taken: taken.len() }
}

struct Page<'a> {
    at_twitch: &'a AtTwitch<'a>,
    stem: &'a str,
    lists: Vec<(String, String)>,
}

impl Page<'_> {
    /// `[[subscription]]` blocks for these rows, each after an empty line.
    fn blocks(&mut self, rows: &[&SubscriptionRow], with_files: bool) -> String {
        let mut logins: BTreeMap<(Shape, &str), BTreeSet<&str>> = BTreeMap::new();
        for row in rows {
            let (shape, login) = shape(self.at_twitch.logins, row);
            logins.entry((shape, &*row.key.subscription_type)).or_default().extend(login);
        }
        // Types that ask for the same of the same share a block.
        let mut groups: BTreeMap<(Shape, BTreeSet<&str>), Vec<&str>> = BTreeMap::new();
        for ((shape, kind), logins) in logins {
            groups.entry((shape, logins)).or_default().push(kind);
        }
        let mut text = String::new();
        for ((shape, logins), types) in groups {
            text.push_str("\n[[subscription]]\n");
            text.push_str(&list("type", types.iter().copied()));
            let (Shape::Logins { version, .. } | Shape::Condition { version, .. }) = &shape;
            if let Some(version) = version {
                let _ = writeln!(text, "version = {}", quoted(version));
            }
            match &shape {
                Shape::Logins { key: "broadcaster", .. } if with_files && logins.len() > INLINE => {
                    let name = format!("{}-channels-{}.txt", self.stem, self.lists.len() + 1);
                    let _ = writeln!(text, "broadcaster_file = {}", quoted(&name));
                    self.lists.push((name, logins.iter().map(|login| format!("{login}\n")).collect()));
                }
                Shape::Logins { key, .. } => text.push_str(&list(key, logins.iter().copied())),
                Shape::Condition { condition, .. } => {
                    let _ = writeln!(text, "condition = {condition}");
                }
            }
            if let Shape::Logins { others, .. } = &shape {
                for (key, login) in others {
                    let _ = writeln!(text, "{key} = {}", quoted(login));
                }
            }
        }
        text
    }
}

/// How a subscription is written, and the login that goes into the list.
fn shape<'r>(logins: &'r HashMap<Box<str>, Box<str>>, row: &'r SubscriptionRow) -> (Shape, Option<&'r str>) {
    let key = &row.key;
    let usual = catalog::default_version(&key.subscription_type).map(|row| row.version.as_str());
    let version = (usual != Some(&*key.version)).then(|| key.version.to_string());
    let fields: Vec<(&str, &str)> = key.condition.iter().filter(|(_, value)| !value.is_empty()).collect();
    let named = |name: &'static str, short: &'static str| {
        let id = fields.iter().find(|(field, _)| *field == name).map(|(_, id)| *id)?;
        Some((short, id, logins.get(id).map(|login| &**login)?))
    };
    let known: Vec<_> = LOGIN_KEYS.iter().filter_map(|(name, short)| named(name, short)).collect();
    let as_it_is = || {
        let fields = fields.iter().map(|(name, value)| format!("{name} = {}", quoted(value)));
        let condition = format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "));
        (Shape::Condition { version: version.clone(), condition }, None)
    };
    let [(main, main_id, login), others @ ..] = known.as_slice() else { return as_it_is() };
    if known.len() != fields.len() || usual.is_none() {
        return as_it_is();
    }
    // The broadcaster is who moderates when nobody is named.
    let is_default = |key: &str, id: &str| key == "moderator" && *main == "broadcaster" && id == *main_id;
    let others = others.iter().filter(|(key, id, _)| !is_default(key, id));
    let others = others.map(|(key, _, login)| (*key, (*login).to_owned())).collect();
    (Shape::Logins { version, key: main, others }, Some(login))
}

/// `KEY = "x"`, or a list of several lines.
fn list<'a>(key: &str, words: impl ExactSizeIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(quoted).collect();
    match words.as_slice() {
        [word] => return format!("{key} = {word}\n"),
        words if words.iter().map(|word| word.len() + 2).sum::<usize>() + key.len() < WIDTH => {
            return format!("{key} = [{}]\n", words.join(", "));
        }
        _ => {}
    }
    let mut text = format!("{key} = [");
    let mut column = WIDTH;
    for word in &words {
        if column + word.len() + 2 > WIDTH {
            text.push_str("\n   ");
            column = 3;
        }
        let _ = write!(text, " {word},");
        column += word.len() + 2;
    }
    text.push_str("\n]\n");
    text
}

/// A text as a string of TOML; JSON's are as well.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::model::subscription::{Condition, SubscriptionKey, SubscriptionStatus};

    fn row(kind: &str, condition: &[(&str, &str)], target: TransportTarget) -> SubscriptionRow {
        let version = catalog::default_version(kind).map_or("1", |row| row.version.as_str());
        SubscriptionRow {
            id: "s".into(),
            status: SubscriptionStatus::Enabled,
            key: SubscriptionKey::new(kind, version, Condition::from_pairs(condition.iter().copied())),
            target,
            cost: 0,
        }
    }

    fn on(conduit: &str) -> TransportTarget {
        TransportTarget::Conduit { conduit_id: conduit.into() }
    }

    fn logins() -> HashMap<Box<str>, Box<str>> {
        (1..=200).map(|id| (id.to_string().into(), format!("user{id}").into())).collect()
    }

    fn made(rows: &[SubscriptionRow], conduits: &[(String, u32)]) -> Listing {
        let at_twitch =
            AtTwitch { client_id: "abc", addresses: String::new(), rows, conduits, logins: &logins() };
        listing(&at_twitch, "bot")
    }

    #[test]
    fn equal_ones_share_a_block_and_the_rest_is_told() {
        let callback = TransportTarget::Webhook { callback: "https://example.org/x".into() };
        let broadcaster = |id| [("broadcaster_user_id", id)];
        let mut rows = vec![
            row("stream.online", &broadcaster("1"), on("c2")),
            row("stream.offline", &broadcaster("1"), on("c2")),
            row("channel.follow", &[("broadcaster_user_id", "1"), ("moderator_user_id", "1")], on("c2")),
            row("channel.follow", &[("broadcaster_user_id", "2"), ("moderator_user_id", "3")], on("c2")),
            row(
                "channel.raid",
                &[("to_broadcaster_user_id", "1"), ("from_broadcaster_user_id", "")],
                on("c2"),
            ),
            row("stream.online", &broadcaster("999"), on("c2")),
            row("stream.online", &broadcaster("2"), on("c1")),
            row("channel.update", &broadcaster("2"), callback),
            row("stream.online", &broadcaster("4"), TransportTarget::Other("websocket".into())),
            row("stream.online", &broadcaster("5"), on("c1")),
        ];
        rows[9].status = SubscriptionStatus::AuthorizationRevoked;
        let listing = made(&rows, &[("c1".to_owned(), 1), ("c2".to_owned(), 3)]);
        assert_eq!((listing.taken, listing.lists.len()), (6, 0));
        expect![[r##"
            # Written by `eventsubd init --from-twitch` from what the client abc has at Twitch: 10 subscriptions.

            [twitch]
            client_id = "abc"
            client_secret_file = "client_secret"
            # Remove this line and the daemon creates three subscriptions of its own, by which it hears at once of permissions.
            watch_grants = false

            # The conduit with 6 subscriptions. Stop the program that uses it before `eventsubd run`: each shard
            # delivers to one of them only.
            [transport.conduit]
            id = "c2"
            shards = 3

            [[subscription]]
            type = ["channel.follow", "stream.offline", "stream.online"]
            broadcaster = "user1"

            [[subscription]]
            type = "channel.follow"
            broadcaster = "user2"
            moderator = "user3"

            [[subscription]]
            type = "channel.raid"
            to_broadcaster = "user1"

            [[subscription]]
            type = "stream.online"
            condition = { broadcaster_user_id = "999" }

            # Where events go; docs/sinks.md has all kinds.
            [sink.out]
            type = "stdout"

            # 1 subscription on the conduit c1, which this file does not use.
            # Without the `#` the daemon creates them on its own conduit; those over there stay until their program deletes them.
            # [[subscription]]
            # type = "stream.online"
            # broadcaster = "user2"

            # 1 subscription on the callback https://example.org/x, which this file does not use.
            # Without the `#` the daemon creates them on its own conduit; those over there stay until their program deletes them.
            # [[subscription]]
            # type = "channel.update"
            # broadcaster = "user2"

            # Not taken over:
            #   1 subscription over WebSockets, which belong to the tokens of users
            #   1 subscription with the status authorization_revoked
        "##]]
        .assert_eq(&listing.text);
    }

    #[test]
    fn more_than_fifty_logins_go_into_a_file() {
        let rows: Vec<_> = (1..=51)
            .map(|id| row("stream.online", &[("broadcaster_user_id", &id.to_string())], on("c")))
            .collect();
        let listing = made(&rows, &[("c".to_owned(), 1)]);
        assert!(listing.text.contains("broadcaster_file = \"bot-channels-1.txt\""), "{}", listing.text);
        assert_eq!(listing.lists.len(), 1);
        assert_eq!(listing.lists[0].1.lines().count(), 51);
        let few = made(&rows[..50], &[("c".to_owned(), 1)]);
        assert!(few.lists.is_empty() && few.text.contains("    \"user1\", \"user10\","), "{}", few.text);
    }

    proptest! {
        #[test]
        fn whatever_twitch_says_the_file_is_toml(kind in "\\PC{0,12}", value in any::<String>(), id in any::<String>()) {
            let condition = [("broadcaster_user_id", "1"), ("reward_id", value.as_str())];
            let rows = [
                row(&kind, &condition, on(&id)),
                row("stream.online", &[("broadcaster_user_id", value.as_str())], on("c")),
                row(&kind, &condition, TransportTarget::Webhook { callback: value.as_str().into() }),
            ];
            let listing = made(&rows, &[(id, 1), ("c".to_owned(), 1)]);
            let parsed: Result<toml::Table, _> = toml::from_str(&listing.text);
            prop_assert!(parsed.is_ok(), "{:?}\n{}", parsed, listing.text);
        }
    }
}
