//! From entries to subscriptions: lists multiplied, defaults filled in, equal ones joined.
//!
//! Pure: the files that entries name have been read already. Every entry is checked, also the
//! disabled ones, and all problems are collected; what is expanded after an error is thrown away
//! by the caller.

use std::borrow::Cow;
use std::collections::HashSet;
use std::collections::hash_map::{Entry as Slot, HashMap};
use std::sync::Arc;

use crate::model::catalog::TypeVersion;
use crate::model::route::SinkName;
use crate::model::subscription::{FieldValue, SubscriptionSpec};

use super::diagnostic::{Level, closest, quote};
use super::entry::{Entry, LOGIN_KEYS, Word, Words};
use super::login::Logins;
use super::problems::{At, Problems};
use super::source::Place;
use super::types::{self, Chosen, Given};

/// More than any client id can have; a product of long lists would fill the memory.
const MAX_SUBSCRIPTIONS: usize = 1_000_000;
/// How many subscriptions that are listed twice are reported one by one.
const MAX_TWICE: usize = 10;

/// The logins of a file, and where they stand.
pub(super) type LoginFile = Vec<(Arc<str>, Place)>;

/// What entries are expanded with.
pub(super) struct Input<'a> {
    pub(super) entries: &'a [Entry],
    /// By the path as the entry gives it; `None` when it could not be read.
    pub(super) files: &'a HashMap<Box<str>, Option<LoginFile>>,
    /// `None` when it is missing.
    pub(super) client_id: Option<&'a str>,
    pub(super) sinks: &'a [&'a str],
}

/// All subscriptions, in the order of the file.
pub(super) fn expand(
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

/// One field of the condition with all its values.
struct Field<'a> {
    name: Cow<'static, str>,
    place: Place,
    login_key: Option<&'static str>,
    values: Vec<(FieldValue, Place)>,
    /// Ids that were given, for a closer look.
    literal: Option<&'a Word>,
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
        let (fields, right) = self.fields(entry);
        let Some(types) = &entry.types else { return };
        if types.words.is_empty() {
            self.problems.warning(types.place, "`type` is an empty list: it makes no subscription");
        }
        let mut seen: HashSet<&str> = HashSet::new();
        for word in &types.words {
            if !seen.insert(&word.text) {
                continue;
            }
            let Some(chosen) = types::choose(word, entry, self.problems) else { continue };
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
                self.check_ids(row, &fields);
            }
            if entry.enabled {
                self.multiply(word, &chosen, &fields, sinks.as_ref());
            }
        }
    }

    /// The fields that the entry gives, by name, and whether they are right.
    fn fields(&mut self, entry: &'a Entry) -> (Vec<Field<'a>>, bool) {
        let mut right = true;
        let mut fields: Vec<Field<'a>> = Vec::new();
        for ((key, name), words) in LOGIN_KEYS.iter().zip(&entry.logins) {
            let file = if *key == "broadcaster" { entry.broadcaster_file.as_ref() } else { None };
            let Some(place) = words.as_ref().map(|words| words.place).or(file.map(|file| file.place)) else {
                continue;
            };
            let (values, ok) = self.login_values(key, words.as_ref(), file);
            right &= ok;
            let name = Cow::Borrowed(*name);
            fields.push(Field { name, place, login_key: Some(key), values, literal: None });
        }
        for (name, value) in &entry.condition {
            if let Some(field) = fields.iter().find(|field| *field.name == *name.text) {
                let key = field.login_key.unwrap_or_default();
                let at = At::Place(field.place);
                self.problems
                    .pair(
                        Level::Error,
                        name.place,
                        format!("`{}` is given twice: here and as `{key}`", field.name),
                        (&at, "the login"),
                    )
                    .hint("keep one of them: the login, or the id in the condition");
                right = false;
                continue;
            }
            fields.push(Field {
                name: Cow::Owned(name.text.as_ref().to_owned()),
                place: name.place,
                login_key: None,
                values: vec![(FieldValue::Literal(value.text.clone()), value.place)],
                literal: Some(value),
            });
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        (fields, right)
    }

    fn login_values(
        &mut self,
        key: &str,
        words: Option<&Words>,
        file: Option<&Word>,
    ) -> (Vec<(FieldValue, Place)>, bool) {
        let mut right = true;
        let mut values: Vec<(FieldValue, Place)> = Vec::new();
        let mut seen = HashSet::new();
        for word in words.map_or(&[][..], |words| &words.words) {
            match self.logins.take(&word.text) {
                Ok(login) if seen.insert(login.clone()) => {
                    values.push((FieldValue::Login(login), word.place))
                }
                Ok(_) => {}
                Err(complaint) => {
                    right = false;
                    self.problems.error(word.place, complaint.message).hints.extend(complaint.hint);
                }
            }
        }
        if let Some(words) = words.filter(|words| words.words.is_empty()) {
            self.problems
                .warning(words.place, format!("`{key}` is an empty list"))
                .hint("nothing is subscribed for it");
        }
        if let Some(file) = file {
            match self.input.files.get(&file.text) {
                Some(Some(list)) => {
                    if list.is_empty() {
                        self.problems
                            .warning(file.place, format!("{} holds no login", quote(&file.text)))
                            .hint("nothing is subscribed for it");
                    }
                    let new = list.iter().filter(|(login, _)| seen.insert(login.clone()));
                    values.extend(new.map(|(login, place)| (FieldValue::Login(login.clone()), *place)));
                }
                // What is wrong with the file was reported when it was read.
                Some(None) | None => right = false,
            }
        }
        (values, right)
    }

    /// Logins in the place of ids are the commonest mistake, and Twitch's answer does not name it.
    fn check_ids(&mut self, row: &TypeVersion, fields: &[Field<'_>]) {
        for field in fields {
            let (Some(spec), Some(value)) = (row.condition.get(&*field.name), field.literal) else {
                continue;
            };
            if spec.kind == "user_id" && !value.text.bytes().all(|b| b.is_ascii_digit()) {
                let diagnostic = self.problems.warning(
                    value.place,
                    format!("{} is no id of a user: ids are digits", quote(&value.text)),
                );
                if let Some((key, _)) = LOGIN_KEYS.iter().find(|(_, name)| *name == field.name) {
                    diagnostic.hint(format!("logins go into `{key}`, outside of the condition"));
                }
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
