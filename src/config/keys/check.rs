//! The file and the environment against the schema: unknown keys, wrong types, ranges.
//!
//! Goes on after each problem, so that one report shows all of them. A wrong value is left out of the layer, and later
//! checks use its default.

use std::collections::btree_map::{BTreeMap, Entry as Slot};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::{Environment, PREFIX};
use super::schema::{Key, Kind};
use super::table::{self, SECRET_PATH};
use super::value::{self, Plain};
use crate::config::report::diagnostic::{closest, quote};
use crate::config::report::problems::{At, Complaint, Problems};
use crate::config::report::source::Place;
use crate::config::subscription::entry::{self, Entry};
use crate::model::secret::Secret;

/// The variables that are no keys.
const OTHER_VARIABLES: [&str; 1] = ["EVENTSUBD_CONFIG"];
/// Tokens of OAuth that people have from other programs.
const USER_TOKENS: [&str; 8] = [
    "access_token",
    "oauth_token",
    "refresh_token",
    "user_token",
    "id_token",
    "token",
    "oauth",
    "user_access_token",
];

/// The keys of one layer.
#[derive(Default)]
pub(in crate::config) struct Layer {
    /// The values that are right, by path.
    pub(in crate::config) values: BTreeMap<String, (Plain, At)>,
    /// All known keys that it names, right or wrong, by path.
    pub(in crate::config) seen: BTreeMap<String, At>,
    /// The sinks that it names.
    pub(in crate::config) sinks: BTreeMap<String, At>,
    /// The sections that it has, by path.
    pub(in crate::config) sections: BTreeMap<String, At>,
    /// The headers of sinks, by sink; values may be secret.
    pub(in crate::config) headers: BTreeMap<String, Vec<(http::HeaderName, Secret, At)>>,
    /// `twitch.client_secret`, which goes no further than needed.
    pub(in crate::config) secret: Option<(Secret, At)>,
    /// Whether an error leaves the place of the state or of the control socket unknown.
    pub(in crate::config) place_unknown: bool,
}

/// The content of the file.
#[derive(Default)]
pub(in crate::config) struct Document {
    pub(in crate::config) layer: Layer,
    pub(in crate::config) entries: Vec<Entry>,
}

/// Checks the parsed file.
pub(in crate::config) fn document(table: &DeTable<'_>, source: u32, problems: &mut Problems) -> Document {
    let mut document = Document::default();
    let mut walk = Walk { source, problems, document: &mut document };
    walk.section(table, "", "");
    document
}

struct Walk<'a> {
    source: u32,
    problems: &'a mut Problems,
    document: &'a mut Document,
}

impl Walk<'_> {
    /// `pattern` is the path in the schema, `path` the one in the file: they differ for sinks.
    fn section(&mut self, table: &DeTable<'_>, pattern: &str, path: &str) {
        for (name, value) in table {
            let at = Place::new(self.source, name.span());
            let name: &str = name.get_ref();
            let path = join(path, name);
            if path == "subscription" {
                self.document.entries = entry::read_all(value, at, self.problems);
            } else if pattern == "sink" {
                self.sink(name, value, &path, at);
            } else if path == "sink" && value.get_ref().is_array() {
                self.problems.error(at, "`sink` must be a table with a table for each sink").hint(
                    "sinks have names: write `[sink.NAME]` in place of `[[sink]]`, such as `[sink.log]`",
                );
            } else {
                let pattern = join(pattern, name);
                match table::find(&pattern) {
                    Some(key) => self.leaf(key, value, path, at),
                    None if table::is_section(&pattern) => self.subsection(value, &pattern, &path, at),
                    None => self.unknown(name, value, &pattern, at),
                }
            }
        }
    }

    fn subsection(&mut self, value: &Spanned<DeValue<'_>>, pattern: &str, path: &str, at: Place) {
        let DeValue::Table(table) = value.get_ref() else {
            self.document.layer.place_unknown |= tells_place(pattern);
            self.problems
                .error(at, format!("`{path}` must be a table"))
                .hint(format!("write it as `[{path}]`"));
            return;
        };
        self.document.layer.sections.insert(path.to_owned(), at.into());
        self.section(table, pattern, path);
    }

    fn sink(&mut self, name: &str, value: &Spanned<DeValue<'_>>, path: &str, at: Place) {
        if !is_sink_name(name) {
            self.problems
                .error(at, format!("{} is not a valid name for a sink", quote(name)))
                .hint("a name has 1 to 64 of the characters a-z, 0-9, `_` and `-`");
            return;
        }
        let DeValue::Table(table) = value.get_ref() else {
            let misplaced = table::find(&format!("sink.*.{name}")).is_some();
            self.problems.error(at, format!("`{path}` must be a table")).hint(if misplaced {
                "sinks have names: `[sink.NAME]`".to_owned()
            } else {
                format!("write it as `[{path}]`")
            });
            return;
        };
        self.document.layer.sinks.insert(name.to_owned(), at.into());
        self.section(table, "sink.*", path);
    }

    fn leaf(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>, path: String, at: Place) {
        self.document.layer.seen.insert(path.clone(), at.into());
        if let (Kind::Fields, DeValue::Table(table)) = (key.kind, value.get_ref()) {
            self.headers(table, &path);
            return;
        }
        let at = Place::new(self.source, value.span());
        match value::check(key, &path, value.get_ref()) {
            Ok(Plain::Text(text)) if path == SECRET_PATH => {
                self.document.layer.secret = Some((Secret::new(text), at.into()));
            }
            Ok(plain) => {
                self.document.layer.values.insert(path, (plain, at.into()));
            }
            Err(Complaint { message, hint }) => {
                self.document.layer.place_unknown |= tells_place(key.path);
                self.problems.error(at, message).hints.extend(hint);
            }
        }
    }

    /// The headers of a sink: nothing of their values is ever shown.
    fn headers(&mut self, table: &DeTable<'_>, path: &str) {
        let sink = path.split('.').nth(1).unwrap_or_default().to_owned();
        for (name, value) in table {
            let at = Place::new(self.source, name.span());
            let header = http::HeaderName::from_bytes(name.get_ref().as_bytes());
            match (header, value.get_ref()) {
                (Ok(header), DeValue::String(text)) => {
                    let headers = self.document.layer.headers.entry(sink.clone()).or_default();
                    headers.push((header, Secret::new(text.clone().into_owned()), at.into()));
                }
                (Ok(header), _) => {
                    self.problems
                        .error(at, format!("`{header}` in `{path}` must be a string"))
                        .hint("put it in quotes");
                }
                // The line may be a whole header with its secret.
                (Err(_), _) => {
                    self.problems
                        .error(at, format!("a name in `{path}` is not the name of a header"))
                        .hint("for example `headers = { Authorization = \"…\" }`");
                }
            }
        }
    }

    fn unknown(&mut self, name: &str, value: &Spanned<DeValue<'_>>, pattern: &str, at: Place) {
        let section = pattern.rsplit_once('.').map_or("", |(section, _)| section);
        let is_table = match value.get_ref() {
            DeValue::Table(_) => true,
            DeValue::Array(items) => items.iter().next().is_some_and(|item| item.get_ref().is_table()),
            _ => false,
        };
        let what = if is_table { "section" } else { "key" };
        let diagnostic = self.problems.error(at, format!("unknown {what} {}", quote(name)));
        let suggested = suggestion(name, section);
        let meant = suggested.as_ref().is_some_and(|suggested| tells_place(&suggested.meant));
        self.document.layer.place_unknown |= meant || PLACE_SECTIONS.contains(&section);
        diagnostic.hints.extend(suggested.map(|suggested| suggested.hint));
        if USER_TOKENS.contains(&name) && matches!(section, "" | "twitch") {
            diagnostic.hints.clear();
            diagnostic
                .hint("leave it out: the daemon gets app access tokens by itself, with the client id and the client secret")
                .hint("EventSub over conduits and webhooks refuses the tokens of users; `eventsubd authorize` asks users for what is needed");
        }
    }
}

/// The sections that say where the state and the control socket are.
const PLACE_SECTIONS: [&str; 2] = ["state", "admin"];

/// Returns whether this key or section sets the place of the state or of the control socket.
fn tells_place(path: &str) -> bool {
    PLACE_SECTIONS.contains(&path) || ["state.directory", "admin.socket"].contains(&path)
}

/// The name that an unknown one was probably meant to be.
struct Suggestion {
    /// The path of the key or section.
    meant: String,
    hint: String,
}

/// The key or section that was probably meant by an unknown name.
fn suggestion(name: &str, section: &str) -> Option<Suggestion> {
    if let Some(meant) = closest(name, table::children(section)) {
        let hint = format!("did you mean `{meant}`?");
        return Some(Suggestion { meant: join(section, meant), hint });
    }
    let elsewhere = table::keys().iter().find(|key| key.name() == name)?;
    let (section, _) = elsewhere.path.rsplit_once('.')?;
    let hint = match section {
        "subscription" => format!("`{name}` belongs in `[[subscription]]`"),
        _ => format!("`{name}` belongs in `[{}]`", section.replace('*', "NAME")),
    };
    Some(Suggestion { meant: elsewhere.path.to_owned(), hint })
}

/// Checks the variables of the environment.
pub(in crate::config) fn variables(environment: &Environment, problems: &mut Problems) -> Layer {
    let mut layer = Layer::default();
    for (variable, text) in environment.own() {
        let at = At::Variable(variable.to_owned());
        let name = variable.trim_start_matches(PREFIX);
        if text.is_empty() || OTHER_VARIABLES.contains(&variable) {
            continue;
        }
        if !name.contains("__") {
            let diagnostic = problems.warning(at, "unknown variable, ignored");
            diagnostic.hints.extend(closest_variable(name).as_deref().map(did_you_mean_variable));
            continue;
        }
        let path = name.to_ascii_lowercase().replace("__", ".");
        let (pattern, sink) = match path.split('.').collect::<Vec<_>>()[..] {
            ["subscription", ..] => {
                problems
                    .error(at, "subscriptions cannot come from the environment")
                    .hint("put them into the file");
                continue;
            }
            ["sink", sink, key] if is_sink_name(sink) => (format!("sink.*.{key}"), Some(sink)),
            _ => (path.clone(), None),
        };
        let Some(key) = table::find(&pattern).filter(|_| name == name.to_ascii_uppercase()) else {
            let diagnostic = problems.error(at, format!("unknown key {}", quote(&path)));
            let meant = closest_variable(name);
            let section = path.split('.').next().unwrap_or_default();
            layer.place_unknown |= PLACE_SECTIONS.contains(&section)
                || meant
                    .as_ref()
                    .is_some_and(|key| tells_place(&key.to_ascii_lowercase().replace("__", ".")));
            diagnostic.hints.extend(meant.as_deref().map(did_you_mean_variable));
            continue;
        };
        if let Some(sink) = sink {
            // Of the variables of a sink, that of its type stands for it.
            match layer.sinks.entry(sink.to_owned()) {
                Slot::Occupied(mut slot) if key.name() == "type" => {
                    slot.insert(at.clone());
                }
                Slot::Occupied(_) => {}
                Slot::Vacant(slot) => {
                    slot.insert(at.clone());
                }
            }
        }
        layer.seen.insert(path.clone(), at.clone());
        if path == SECRET_PATH {
            layer.secret = Some((Secret::new(text), at));
            continue;
        }
        match value::check_variable(key, &path, text) {
            Ok(plain) => {
                layer.values.insert(path, (plain, at));
            }
            Err(Complaint { message, hint }) => {
                layer.place_unknown |= tells_place(key.path);
                problems.error(at, message).hints.extend(hint);
            }
        }
    }
    layer
}

/// The variable that was probably meant, without its prefix.
fn closest_variable(name: &str) -> Option<String> {
    let known: Vec<String> = table::keys()
        .iter()
        .filter_map(Key::variable)
        .map(|variable| variable.replace('*', "NAME").trim_start_matches(PREFIX).to_ascii_lowercase())
        .collect();
    closest(name, known.iter().map(String::as_str)).map(str::to_ascii_uppercase)
}

fn did_you_mean_variable(name: &str) -> String {
    format!("did you mean `{PREFIX}{name}`?")
}

fn is_sink_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}
