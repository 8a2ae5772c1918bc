//! From entries to subscriptions: lists multiplied, defaults filled in, equal ones joined. ◆
//!
//! The files that entries name have been read already. Every entry is checked, also the disabled ones, and all problems
//! are collected; after an error the caller discards the result.

use std::borrow::Cow;
use std::collections::HashSet;
use std::collections::hash_map::{Entry as Slot, HashMap};
use std::sync::Arc;

use crate::model::route::SinkName;
use crate::model::subscription::{FieldValue, SubscriptionSpec};

use super::entry::{Entry, Word};
use super::fields::{self, Field};
use super::login::{LoginFile, Logins};
use super::types::{self, Chosen, Given};
use crate::config::report::diagnostic::{Level, closest, quote};
use crate::config::report::problems::{At, Problems};
use crate::config::report::source::Place;
use crate::config::settings::Method;

/// More than any client id can have; a product of long lists would fill the memory.
const MAX_SUBSCRIPTIONS: usize = 1_000_000;
/// Most duplicate subscriptions that are reported one by one.
const MAX_TWICE: usize = 10;

/// Everything that entries are expanded with.
pub(in crate::config) struct Input<'a> {
    pub(in crate::config) entries: &'a [Entry],
    /// By the path as the entry gives it; `None` when it could not be read.
    pub(in crate::config) files: &'a HashMap<Box<str>, Option<LoginFile>>,
    /// `None` when it is missing.
    pub(in crate::config) client_id: Option<&'a str>,
    pub(in crate::config) method: Method,
    pub(in crate::config) sinks: &'a [&'a str],
}

/// All subscriptions, in the order of the file.
pub(in crate::config) fn expand(
    input: &Input<'_>,
    logins: &mut Logins,
    problems: &mut Problems,
) -> Arc<[SubscriptionSpec]> {
    let mut expander = Expander {
        input,
        logins,
        problems,
        specs: Vec::new(),
        origins: Vec::new(),
        index: HashMap::new(),
        names: HashMap::new(),
        twice: 0,
        full: false,
    };
    for entry in input.entries {
        expander.entry(entry);
    }
    if expander.twice > MAX_TWICE {
        let more = expander.twice - MAX_TWICE;
        expander.problems.warning(At::Nowhere, format!("and {more} more subscriptions are listed twice"));
    }
    expander.specs.into()
}

type Condition = Box<[(Cow<'static, str>, FieldValue)]>;
type Key = (Arc<str>, Arc<str>, Condition);

struct Expander<'a> {
    input: &'a Input<'a>,
    logins: &'a mut Logins,
    problems: &'a mut Problems,
    specs: Vec<SubscriptionSpec>,
    /// Of each spec: a place in the list that made it, and its type.
    origins: Vec<(Place, Place)>,
    index: HashMap<Key, usize>,
    names: HashMap<Box<str>, Arc<str>>,
    twice: usize,
    full: bool,
}

impl<'a> Expander<'a> {
    fn entry(&mut self, entry: &'a Entry) {
        let sinks = self.sinks(entry);
        let (fields, right) = fields::read(entry, self.input.files, self.logins, self.problems);
        let Some(types) = &entry.types else { return };
        if types.words.is_empty() {
            self.problems.warning(types.place, "`type` is an empty list: it makes no subscription");
        }
        let mut seen: HashSet<&str> = HashSet::new();
        for word in &types.words {
            if !seen.insert(&word.text) {
                continue;
            }
            let Some(chosen) = types::choose(word, entry, self.input.method, self.problems) else { continue };
            if !right || entry.broken {
                continue;
            }
            if let Some(row) = chosen.row {
                let given: Vec<Given<'_>> = fields
                    .iter()
                    .map(|field| Given { name: &field.name, place: field.place, login_key: field.login_key })
                    .collect();
                if !types::check_fields(row, word, entry, &given, self.problems) {
                    continue;
                }
                fields::check_ids(row, &fields, self.problems);
            }
            if entry.enabled {
                self.multiply(word, &chosen, &fields, sinks.as_ref());
            }
        }
    }

    /// The sinks that the entry names, sorted; `None` when it names none.
    fn sinks(&mut self, entry: &Entry) -> Option<Arc<[SinkName]>> {
        let words = entry.sinks.as_ref()?;
        if words.words.is_empty() {
            self.problems
                .warning(words.place, "`sinks` is an empty list: events are stored, but go nowhere")
                .hint("leave it out to send them to all sinks");
        }
        let mut names: Vec<&str> = Vec::new();
        for word in &words.words {
            if self.input.sinks.contains(&&*word.text) {
                names.push(&word.text);
                continue;
            }
            let diagnostic =
                self.problems.error(word.place, format!("there is no sink {}", quote(&word.text)));
            match closest(&word.text, self.input.sinks.iter().copied()) {
                Some(meant) => diagnostic.hint(format!("did you mean `{meant}`?")),
                None => diagnostic.hint(format!("there is {}", list(self.input.sinks))),
            };
        }
        names.sort_unstable();
        names.dedup();
        Some(names.into_iter().map(SinkName::new).collect())
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return known.clone();
        }
        let shared: Arc<str> = text.into();
        self.names.insert(text.into(), shared.clone());
        shared
    }

    /// Adds one subscription for each combination of values.
    fn multiply(
        &mut self,
        word: &Word,
        chosen: &Chosen<'_>,
        fields: &[Field<'_>],
        sinks: Option<&Arc<[SinkName]>>,
    ) {
        let count = fields.iter().try_fold(1usize, |count, field| count.checked_mul(field.values.len()));
        let room = MAX_SUBSCRIPTIONS - self.specs.len();
        let Some(count) = count.filter(|count| *count <= room) else {
            if !self.full {
                self.problems
                    .error(word.place, "the lists multiply to more than 1,000,000 subscriptions")
                    .hint("several lists in one entry make every combination: write an entry for each pair instead");
            }
            self.full = true;
            return;
        };
        let has = |name: &str| fields.iter().any(|field| field.name == name);
        let needs =
            |name: &str| chosen.row.is_some_and(|row| row.condition.get(name).is_some_and(|f| f.required));
        let mirror = needs("moderator_user_id") && !has("moderator_user_id");
        let client_id = if needs("client_id") && !has("client_id") { self.input.client_id } else { None };
        let (name, version) = (self.shared(&word.text), self.shared(chosen.version));
        for number in 0..count {
            let mut condition = Vec::with_capacity(fields.len() + usize::from(mirror));
            let mut place = None;
            // The last field varies quickest, as the digits of a number do.
            let mut rest = count;
            for field in fields {
                rest /= field.values.len();
                let (value, at) = &field.values[number / rest % field.values.len()];
                place = place.or(Some(*at));
                condition.push((field.name.clone(), value.clone()));
                if mirror && field.name == "broadcaster_user_id" {
                    condition.push((Cow::Borrowed("moderator_user_id"), value.clone()));
                }
            }
            if let Some(client_id) = client_id {
                condition.push((Cow::Borrowed("client_id"), FieldValue::Literal(client_id.into())));
            }
            condition.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let spec = SubscriptionSpec {
                subscription_type: name.clone(),
                version: version.clone(),
                condition: condition.into(),
                sinks: sinks.cloned(),
            };
            self.add(spec, place.unwrap_or(word.place), word.place);
        }
    }

    fn add(&mut self, spec: SubscriptionSpec, place: Place, type_place: Place) {
        let key = (spec.subscription_type.clone(), spec.version.clone(), spec.condition.clone());
        let at = match self.index.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(self.specs.len());
                self.specs.push(spec);
                self.origins.push((place, type_place));
                return;
            }
            Slot::Occupied(slot) => *slot.get(),
        };
        let known = &mut self.specs[at];
        known.sinks = match (&known.sinks, &spec.sinks) {
            (Some(a), Some(b)) => {
                let mut union: Vec<SinkName> = a.iter().chain(b.iter()).cloned().collect();
                union.sort_unstable();
                union.dedup();
                Some(union.into())
            }
            _ => None,
        };
        self.twice += 1;
        if self.twice <= MAX_TWICE {
            let (first, first_type) = self.origins[at];
            // Two entries may name the same file of logins.
            let (here, there) = if first == place { (type_place, first_type) } else { (place, first) };
            self.problems
                .pair(
                    Level::Warning,
                    here,
                    format!("the same subscription is listed twice: {}", describe(&spec)),
                    (&At::Place(there), "first here"),
                )
                .hint("it is made once, and its events go to the sinks of both");
        }
    }
}

fn describe(spec: &SubscriptionSpec) -> String {
    let mut text = quote(&spec.subscription_type);
    for (name, value) in &spec.condition {
        let value = match value {
            FieldValue::Literal(id) => quote(id),
            FieldValue::Login(login) => quote(login),
        };
        text.push_str(&format!(" {}={}", quote(name).trim_matches('`'), value.trim_matches('`')));
    }
    text
}

fn list(names: &[&str]) -> String {
    let mut shown: Vec<String> = names.iter().take(10).map(|name| quote(name)).collect();
    if names.len() > shown.len() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}
