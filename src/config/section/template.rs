//! The templates of sinks, tried with every variant of every type that reaches them.
//!
//! Pure. A template that can never work is an error. One that fits no sample, or only some, is a warning: Twitch adds
//! members without notice, and an event that does not fit becomes a dead letter, which can be sent again.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::model::event::{GAP, REVOCATION};
use crate::model::route::{SinkName, Unasked};
use crate::model::subscription::{Condition, FieldValue, SubscriptionSpec};
use crate::model::template::{EventContext, Makes, TOO_MUCH, Template, UnknownName};
use crate::model::text::one_line;
use crate::model::time::Timestamp;
use crate::samples::{self, SampleRequest, SampleUser};

use crate::config::report::diagnostic::{closest, quote};
use crate::config::report::problems::{At, Problems};
use crate::config::report::source::HIDDEN;

/// Stands for the user of a login: nobody has looked it up yet.
const SOMEBODY: &str = "12826";
/// Any moment will do, as long as it is the same each time.
const NOW: Timestamp = Timestamp(std::time::UNIX_EPOCH);
/// Characters of a rendered text that a message shows.
const SHOWN: usize = 300;

/// A sample event as templates see it.
#[derive(Clone)]
struct Sample {
    /// The subscription type, or that it is a revocation.
    label: Rc<str>,
    context: EventContext,
}

/// Sample events to try templates with. They are made for the first template.
pub(in crate::config) struct Trial<'a> {
    specs: &'a [SubscriptionSpec],
    made: HashMap<(&'a str, &'a str), Rc<[Sample]>>,
}

/// The sample events that one sink would get.
pub(in crate::config) struct Events(Vec<Sample>);

/// One template, and where it stands.
pub(in crate::config) struct Source<'a> {
    pub(in crate::config) sink: &'a str,
    /// The key of the sink, such as `body`, or the header.
    pub(in crate::config) key: &'a str,
    pub(in crate::config) text: &'a str,
    pub(in crate::config) at: At,
    pub(in crate::config) makes: Makes,
    /// Whether `at` is the text itself; a caret can point into it then.
    pub(in crate::config) exact: bool,
}

impl<'a> Trial<'a> {
    pub(in crate::config) fn new(specs: &'a [SubscriptionSpec]) -> Self {
        Self { specs, made: HashMap::new() }
    }

    /// The events that the sink gets: of the subscriptions that go to it and match its `types`. The others come if a
    /// glob names them, or if that kind of sink gets them unasked.
    pub(in crate::config) fn events(&mut self, sink: &str, types: &[String], unasked: Unasked) -> Events {
        let sink = SinkName::new(sink);
        let (all, named) = globs(types);
        let revocations = named.is_match(REVOCATION);
        let mut seen = std::collections::BTreeSet::new();
        let mut found = Vec::new();
        for spec in self.specs {
            let routed = spec.sinks.as_ref().is_none_or(|sinks| sinks.contains(&sink));
            let wanted = all || named.is_match(&*spec.subscription_type);
            if !routed || !(wanted || revocations) || !seen.insert((&spec.subscription_type, &spec.version)) {
                continue;
            }
            let key = (&*spec.subscription_type, &*spec.version);
            let made = self.made.entry(key).or_insert_with(|| variants(spec));
            let is_revocation = |sample: &&Sample| &*sample.label == REVOCATION;
            if wanted {
                found.extend(made.iter().filter(|sample| !is_revocation(sample)).cloned());
            }
            if unasked != Unasked::Nothing || revocations {
                found.extend(made.iter().filter(is_revocation).cloned());
            }
        }
        if named.is_match(GAP) || (all && unasked == Unasked::All) {
            found.extend(sample(GAP, &samples::gap(NOW)));
        }
        Events(found)
    }
}

fn globs(types: &[String]) -> (bool, GlobSet) {
    let (mut set, mut all) = (GlobSetBuilder::new(), false);
    for text in types {
        if text == "*" || text == "**" {
            all = true;
        } else if let Ok(glob) = Glob::new(text) {
            // One that is no glob has been reported.
            set.add(glob);
        }
    }
    (all, set.build().unwrap_or_default())
}

fn sample(label: &str, event: &crate::model::event::Event) -> Option<Sample> {
    Some(Sample { label: label.into(), context: EventContext::new(event).ok()? })
}

/// Every variant of the type, and a revocation.
fn variants(spec: &SubscriptionSpec) -> Rc<[Sample]> {
    let condition = Condition::from_pairs(spec.condition.iter().map(|(name, value)| match value {
        FieldValue::Literal(text) => (&**name, &**text),
        FieldValue::Login(_) => (&**name, SOMEBODY),
    }));
    let user =
        |id: &str| SampleUser { id: id.to_owned(), login: format!("user_{id}"), name: format!("User_{id}") };
    let request = SampleRequest {
        subscription_type: &spec.subscription_type,
        version: &spec.version,
        condition: &condition,
        user: &user,
        now: NOW,
        serial: 1,
        happening: None,
    };
    let events = samples::every_variant(&request);
    let messages = events.iter().map(|event| samples::message(&request, event));
    let mut made: Vec<Sample> =
        messages.filter_map(|message| sample(&spec.subscription_type, &message)).collect();
    made.extend(sample(REVOCATION, &samples::revocation(&request)));
    made.into()
}

/// Tries one template; returns what it makes of the events that fit.
pub(in crate::config) fn check(source: &Source<'_>, events: &Events, problems: &mut Problems) -> Vec<String> {
    let Source { sink, key, text, makes, .. } = source;
    let template = match Template::read(text, *makes) {
        Ok(template) => template,
        Err(errors) => {
            for error in errors {
                let at = source.place(error.range, problems);
                let diagnostic = problems.error(at, format!("`{key}` of sink `{sink}`: {}", error.message));
                diagnostic.hints.extend(error.meant.map(|meant| format!("did you mean `{meant}`?")));
            }
            return Vec::new();
        }
    };
    let contexts: Vec<EventContext> = events.0.iter().map(|sample| sample.context.clone()).collect();
    let unknown = template.unknown_names(&contexts);
    for name in &unknown {
        source.warn_of_name(name, problems);
    }
    let mut rendered = Vec::new();
    let mut failed: BTreeMap<(usize, usize, String), (usize, Rc<str>)> = BTreeMap::new();
    for sample in &events.0 {
        match template.render(&sample.context) {
            Ok(text) => rendered.push(text),
            Err(error) => {
                let range = error.range.unwrap_or_default();
                let is_reported = |name: &UnknownName| {
                    overlap(&name.range, &range) || error.message.contains(&quote(&name.path))
                };
                if unknown.iter().any(is_reported) {
                    continue;
                }
                let (count, _) = failed
                    .entry((range.start, range.end, error.message))
                    .or_insert_with(|| (0, Rc::clone(&sample.label)));
                *count += 1;
                // Trying the other samples would take as long, each of them.
                if failed.keys().any(|(_, _, message)| message.starts_with(TOO_MUCH)) {
                    break;
                }
            }
        }
    }
    for ((start, end, message), (count, label)) in failed {
        let at = source.place((start < end).then_some(start..end), problems);
        let of = format!("{count} of {} sample events", events.0.len());
        problems
            .warning(at, format!("`{key}` of sink `{sink}`: {message}, in {of}, such as {label}"))
            .hint("such events go to the dead letters: `| default(\"\")` stands in for a missing value, `types` leaves them out");
    }
    rendered
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Source<'_> {
    fn place(&self, range: Option<Range<usize>>, problems: &Problems) -> At {
        match (&self.at, range) {
            (At::Place(place), Some(range)) if self.exact => {
                problems.sources.within_string(*place, range).into()
            }
            (at, _) => at.clone(),
        }
    }

    fn warn_of_name(&self, name: &UnknownName, problems: &mut Problems) {
        let Source { sink, key, .. } = self;
        let at = self.place(Some(name.range.clone()), problems);
        let message = format!("`{key}` of sink `{sink}`: no sample event has {}", quote(&name.path));
        let diagnostic = problems.warning(at, message);
        match closest(&name.name, name.known.iter().map(String::as_str)) {
            Some(meant) => diagnostic.hint(format!("did you mean `{meant}`?")),
            None => diagnostic.hint("`eventsubd types TYPE` lists what an event of a type has"),
        };
    }

    /// Warns if a text that is sent as JSON is none.
    pub(in crate::config) fn check_json(&self, rendered: &[String], problems: &mut Problems) {
        let Source { sink, key, text, .. } = self;
        let wrong = rendered.iter().find_map(|rendered| {
            let error = serde_json::from_str::<serde::de::IgnoredAny>(rendered).err()?;
            Some((rendered, error))
        });
        let Some((rendered, error)) = wrong else { return };
        // The fixed part of a body may hold the receiver's token.
        let mut shown = rendered.trim().replace(['\n', '\r', '\t'], " ");
        for secret in text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
            .filter(|p| crate::config::report::private::is_opaque(p))
        {
            shown = shown.replace(secret, HIDDEN);
        }
        let shown = one_line(&shown, SHOWN);
        problems
            .warning(&self.at, format!("`{key}` of sink `{sink}` is sent as JSON, but becomes `{shown}`, which is not valid JSON: {error}"))
            .hint("`| tojson` makes a JSON value of anything, with its quotes: { \"content\": {{ event.title | tojson }} }");
    }
}

/// Returns whether a body is meant to be JSON, by its content type, or else by its beginning.
pub(in crate::config) fn is_meant_as_json(body: &str, content_type: Option<&str>) -> bool {
    match content_type {
        Some(content_type) => content_type.to_ascii_lowercase().contains("json"),
        None => {
            let body = body.trim_start();
            body.starts_with('[') || (body.starts_with('{') && !body[1..].starts_with(['{', '%', '#']))
        }
    }
}
