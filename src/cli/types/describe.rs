//! A type of the catalogue in words, for people who write the file.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::model::catalog::{self, Auth, Cost, TypeVersion};
use crate::model::subscription::Condition;
use crate::model::time::Timestamp;
use crate::samples::{self, Kind, Member, SampleRequest, SampleUser};

/// Width of a line.
const WIDTH: usize = 110;

/// The login keys of the file, and the condition fields that they stand for.
const LOGIN_KEYS: [(&str, &str); 5] = [
    ("broadcaster", "broadcaster_user_id"),
    ("moderator", "moderator_user_id"),
    ("user", "user_id"),
    ("from_broadcaster", "from_broadcaster_user_id"),
    ("to_broadcaster", "to_broadcaster_user_id"),
];

fn key_of(field: &str) -> Option<&'static str> {
    LOGIN_KEYS.iter().find(|(_, known)| *known == field).map(|(key, _)| *key)
}

/// A text with the file's keys in place of condition fields.
fn in_keys(text: &str) -> String {
    let mut keys = LOGIN_KEYS;
    // A field may be the end of another one.
    keys.sort_unstable_by_key(|(_, field)| std::cmp::Reverse(field.len()));
    keys.iter().fold(text.to_owned(), |text, (key, field)| text.replace(field, &format!("the `{key}`")))
}

fn sentence(row: &TypeVersion) -> &'static str {
    samples::description(&row.name, &row.version).map_or("", |found| found.sentence)
}

/// Remarks that belong to a version.
fn marks(row: &TypeVersion) -> Vec<&'static str> {
    let marks = [
        (row.removed, "removed"),
        (row.deprecated && !row.removed, "superseded"),
        (row.beta, "beta"),
        (row.batched, "batched"),
    ];
    marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect()
}

/// A line for each version.
pub(super) fn table(rows: &[&TypeVersion]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = format!("{:<width$}  VERSION  WHEN\n", "TYPE");
    for row in rows {
        let _ = write!(text, "{:<width$}  {:<7}  {}", row.name, row.version, sentence(row));
        let marks = marks(row);
        if !marks.is_empty() {
            let _ = write!(text, " ({})", marks.join(", "));
        }
        text.push('\n');
    }
    text
}

/// The lines to copy into the file.
pub(super) fn toml(row: &TypeVersion) -> String {
    let mut text = format!("[[subscription]]\ntype = \"{}\"\n", row.name);
    if catalog::default_version(&row.name).is_none_or(|usual| usual.version != row.version) {
        let _ = writeln!(text, "version = \"{}\"", row.version);
    }
    let has = |field: &str| row.condition.contains_key(field);
    if has("from_broadcaster_user_id") {
        text.push_str("to_broadcaster = [\"LOGIN\"]     # raids that arrive\n");
        text.push_str("# from_broadcaster = [\"LOGIN\"] # or raids that leave\n");
        return text;
    }
    let (mut needed, mut others) = (Vec::new(), Vec::new());
    for (field, spec) in &row.condition {
        let _ = match (field.as_str(), key_of(field)) {
            ("moderator_user_id", _) if has("broadcaster_user_id") => {
                writeln!(text, "# moderator = \"LOGIN\"          # the broadcaster, if left out")
            }
            // The file's own client id is taken.
            ("client_id", _) => continue,
            ("broadcaster_user_id", Some(key)) => writeln!(text, "{key} = [\"LOGIN\"]"),
            (_, Some(key)) => writeln!(text, "{key} = \"LOGIN\""),
            (_, None) if spec.required => {
                needed.push(format!("{field} = \"ID\""));
                continue;
            }
            (_, None) => {
                others.push(format!("{field} = \"ID\""));
                continue;
            }
        };
    }
    if !needed.is_empty() {
        let _ = writeln!(text, "condition = {{ {} }}", needed.join(", "));
    }
    if !others.is_empty() {
        let all: Vec<String> = needed.into_iter().chain(others).collect();
        let _ = writeln!(text, "# condition = {{ {} }}  # only these", all.join(", "));
    }
    text
}

/// Groups of scopes: one of each group is enough.
fn scopes(groups: &[Vec<String>]) -> String {
    groups.iter().map(|group| group.join(" or ")).collect::<Vec<_>>().join(", and ")
}

/// The permissions that are needed, and from whom, in the words of the file.
fn grants(row: &TypeVersion) -> Vec<String> {
    let who = |field: &str| match (field, key_of(field)) {
        ("moderator_user_id", _) if row.condition.contains_key("broadcaster_user_id") => {
            "the `moderator`, or the `broadcaster` if none is given".to_owned()
        }
        (_, Some(key)) => format!("the `{key}`"),
        (field, None) => format!("the user of {field}"),
    };
    let mut lines = Vec::new();
    if !row.scopes.is_empty() {
        let whom = row.scope_granted_by.as_deref().map_or_else(|| "a user".to_owned(), who);
        lines.push(format!("{whom}: {}", scopes(&row.scopes)));
    }
    for grant in &row.additional_grants {
        let fact = grant.alternative.as_deref().map(in_keys);
        let alternative = fact.map_or_else(String::new, |fact| format!(", or: {fact}"));
        lines.push(format!("{}: {}{alternative}", who(&grant.field), scopes(&grant.scopes)));
    }
    lines
}

fn cost(row: &TypeVersion) -> String {
    match row.cost() {
        Cost::Free => "0".to_owned(),
        Cost::One => "1".to_owned(),
        Cost::FreeIfAuthorized => {
            let users: Vec<&str> = row.user_fields().filter_map(key_of).collect();
            format!("0 if the `{}` has authorized the application, otherwise 1", users.join("` or the `"))
        }
    }
}

/// Describes one version in full.
pub(super) fn detail(row: &TypeVersion, colour: bool) -> String {
    let title = format!("{} version {}", row.name, row.version);
    let mut text = if colour { format!("\x1b[1m{title}\x1b[0m") } else { title };
    let marks = marks(row);
    if !marks.is_empty() {
        let _ = write!(text, " ({})", marks.join(", "));
    }
    let _ = writeln!(text, "\n{}", sentence(row));
    if !row.removed {
        text.push('\n');
        for line in toml(row).lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text.push('\n');
    let mut item = |label: &str, value: &str| wrapped(&mut text, label, value, 14);
    let grants = grants(row);
    match (grants.is_empty(), row.auth) {
        // An application may always subscribe to events about its own client id.
        (true, Auth::App) if !row.condition.contains_key("client_id") => {
            item("must allow", "nobody; the application itself must be entitled to it");
        }
        (true, _) => item("must allow", "nobody"),
        (false, _) => {
            for (nth, line) in grants.iter().enumerate() {
                item(if nth == 0 { "must allow" } else { "and" }, line);
            }
            item("", "`eventsubd authorize --user LOGIN` asks for it");
        }
    }
    item("cost", &cost(row));
    item("transports", &row.transports.join(", "));
    if row.batched {
        item("batching", "a message holds a list of `events`; the daemon asks for it by itself");
    }
    let others: Vec<String> = catalog::versions(&row.name)
        .filter(|other| other.version != row.version)
        .map(|other| match &*marks_of(other) {
            "" => other.version.clone(),
            marks => format!("{} ({marks})", other.version),
        })
        .collect();
    if !others.is_empty() {
        item("versions", &format!("also {}: `eventsubd types {} VERSION`", others.join(", "), row.name));
    }
    if !row.notes.is_empty() {
        item("note", &row.notes);
    }
    if let Some(remark) = remark(&row.name) {
        item("note", remark);
    }
    members(&mut text, row);
    let names: Vec<&str> = samples::variants(&row.name, &row.version).collect();
    text.push('\n');
    wrapped(&mut text, "samples", &format!("`eventsubd types {} --sample` prints one", row.name), 14);
    if names.len() > 1 {
        wrapped(&mut text, "--variant", &names.join(", "), 14);
    }
    text
}

fn marks_of(row: &TypeVersion) -> String {
    marks(row).join(", ")
}

/// Facts that the catalogue does not hold.
fn remark(name: &str) -> Option<&'static str> {
    match name {
        "channel.chat.message" => Some(catalog::CHAT_WITH_NOTICES),
        "stream.offline" => Some("Twitch sends `id` since 2026-06-26."),
        _ => None,
    }
}

/// Writes a label with its value, on as many lines as it takes.
fn wrapped(text: &mut String, label: &str, value: &str, indent: usize) {
    let mut line = format!("{label:<indent$}");
    let mut is_new = true;
    for word in value.split(' ') {
        if !is_new && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(indent);
            is_new = true;
        }
        if !is_new {
            line.push(' ');
        }
        line.push_str(word);
        is_new = false;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// Every field of the type, each with an id of its own.
pub(super) fn condition(row: &TypeVersion) -> Condition {
    let ids = row.condition.keys().zip(1_001..).filter(|(field, _)| *field != "from_broadcaster_user_id");
    let fields: Vec<(&str, String)> = ids.map(|(field, id)| (field.as_str(), id.to_string())).collect();
    Condition::from_pairs(fields.iter().map(|(field, id)| (*field, id.as_str())))
}

/// Stands for every user of a sample.
pub(super) fn somebody(id: &str) -> SampleUser {
    SampleUser { id: id.to_owned(), login: format!("user_{id}"), name: format!("User_{id}") }
}

/// Every variant of a sample.
fn sample_events(row: &TypeVersion) -> Vec<Value> {
    let condition = condition(row);
    let request = SampleRequest {
        subscription_type: &row.name,
        version: &row.version,
        condition: &condition,
        user: &somebody,
        // Any fixed time: the text shall be the same each time.
        now: Timestamp::from_unix_millis(1_791_590_400_000),
        serial: 1,
        happening: None,
    };
    let events = samples::every_variant(&request);
    let events = events.iter().filter_map(|event| serde_json::from_str(event).ok());
    events.flat_map(|event| if let Value::Array(events) = event { events } else { vec![event] }).collect()
}

fn members(text: &mut String, row: &TypeVersion) {
    let Some(description) = samples::description(&row.name, &row.version) else { return };
    let events = sample_events(row);
    let events: Vec<&Value> = events.iter().collect();
    let mut lines = Vec::new();
    level(&description.members, &events, 0, &mut lines);
    let name = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let kind = lines.iter().map(|line| line.kind.len()).max().unwrap_or(0);
    let field = if row.batched { "each of `events`" } else { "`event`" };
    let _ = writeln!(text, "\nmembers of {field}");
    for line in lines {
        let label = format!("  {:<name$}  {:<kind$}  ", line.name, line.kind);
        wrapped(text, &label, &line.value, label.chars().count());
    }
}

/// One member in words.
struct Row {
    name: String,
    kind: String,
    /// The known values of the member, or one from the samples.
    value: String,
}

fn level(members: &[Member], objects: &[&Value], depth: usize, lines: &mut Vec<Row>) {
    for member in members {
        let found = objects.iter().filter_map(|object| object.get(&member.name));
        let values: Vec<&Value> = found
            .flat_map(
                |value| if let Value::Array(items) = value { items.iter().collect() } else { vec![value] },
            )
            .filter(|value| !value.is_null())
            .collect();
        let value = match (&member.kind, member.values.is_empty()) {
            (Kind::Object(_) | Kind::Null, _) => String::new(),
            (_, false) => member.values.join(", "),
            (_, true) => {
                let filled = values.iter().find(|value| **value != "").or(values.first());
                filled.map(|value| value.to_string()).unwrap_or_default()
            }
        };
        lines.push(Row { name: format!("{}{}", "  ".repeat(depth), member.name), kind: kind(member), value });
        if let Kind::Object(inner) = &member.kind {
            level(inner, &values, depth + 1, lines);
        }
    }
}

fn word(member: &Member) -> &'static str {
    match (&member.kind, member.is_list) {
        (Kind::Text, false) => "text",
        (Kind::Text, true) => "list of texts",
        (Kind::Int, false) => "number",
        (Kind::Int, true) => "list of numbers",
        (Kind::Bool, _) => "true or false",
        (Kind::Time, _) => "time",
        (Kind::Null, _) => "null",
        (Kind::Object(_), false) => "object",
        (Kind::Object(_), true) => "list of objects",
    }
}

fn kind(member: &Member) -> String {
    let mut text = word(member).to_owned();
    if member.may_be_null && !matches!(member.kind, Kind::Null) {
        text.push_str(", or null");
    }
    if member.may_be_absent {
        text.push_str(", or left out");
    }
    text
}

/// One version as JSON.
#[derive(Serialize)]
pub(super) struct Entry<'a> {
    #[serde(flatten)]
    row: &'a TypeVersion,
    /// Whether the file takes this version if it names none.
    default: bool,
    sentence: &'static str,
    /// The lines to copy into the file.
    toml: String,
    /// `null` if it depends on whether a user has authorized the application (0, otherwise 1).
    cost: Option<u64>,
    /// Names for `--variant`.
    variants: Vec<&'static str>,
    members: Vec<JsonMember<'a>>,
}

#[derive(Serialize)]
struct JsonMember<'a> {
    name: &'a str,
    kind: &'static str,
    may_be_null: bool,
    may_be_absent: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    values: &'a [&'static str],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<JsonMember<'a>>,
}

impl<'a> JsonMember<'a> {
    fn of(members: &'a [Member]) -> Vec<Self> {
        let one = |member: &'a Member| Self {
            name: &member.name,
            kind: word(member),
            may_be_null: member.may_be_null,
            may_be_absent: member.may_be_absent,
            values: &member.values,
            members: if let Kind::Object(inner) = &member.kind { Self::of(inner) } else { Vec::new() },
        };
        members.iter().map(one).collect()
    }
}

impl<'a> Entry<'a> {
    pub(super) fn of(row: &'a TypeVersion) -> Self {
        let description = samples::description(&row.name, &row.version);
        Self {
            row,
            default: catalog::default_version(&row.name).is_some_and(|usual| usual.version == row.version),
            sentence: sentence(row),
            toml: toml(row),
            cost: row.cost().fixed(),
            variants: samples::variants(&row.name, &row.version).collect(),
            members: description.map_or_else(Vec::new, |found| JsonMember::of(&found.members)),
        }
    }
}
