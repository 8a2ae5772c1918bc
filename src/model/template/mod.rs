//! Templates of request bodies, headers, URLs, subjects and topics: minijinja, strict.
//!
//! A template sees the message of the `eventsub` format, and short names for its most used parts. An unknown name is
//! an error, never an empty text. `scan` finds names, filters and functions in the source, so a check covers branches
//! that no sample takes.

mod scan;

use std::ops::Range;

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Output, State, UndefinedBehavior, Value, context};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;

use super::broadcaster::Broadcaster;
use super::event::Event;
use super::readable::readable;

/// Characters that a URL keeps literally: the unreserved ones of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Message about a template that exceeds its fuel.
pub const TOO_MUCH: &str = "it does too much for one event; a loop over what the event has is short enough";

/// A template that cannot be parsed, or cannot be rendered for an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// The problem, with the expression and, unless it is the first one, the line.
    pub message: String,
    /// Range of the problem in the source, if known.
    pub range: Option<Range<usize>>,
    /// Likely intended word in place of an unknown one.
    pub meant: Option<&'static str>,
}

impl TemplateError {
    fn new(source: &str, error: &minijinja::Error) -> Self {
        let range =
            error.range().filter(|range| source.get(range.clone()).is_some_and(|text| !text.is_empty()));
        let shown = range.clone().map(|range| shown(&source[range]));
        let mut message = match (error.kind(), error.detail(), &shown) {
            (ErrorKind::OutOfFuel, ..) => TOO_MUCH.to_owned(),
            // The engine reports the undefined part of an expression in the detail.
            (ErrorKind::UndefinedError, Some(detail), _) => detail.to_owned(),
            (ErrorKind::UndefinedError, None, Some(expression)) => format!("{expression} is undefined"),
            (kind, Some(detail), _) => format!("{kind}: {detail}"),
            (kind, None, _) => kind.to_string(),
        };
        if let (kind, Some(expression)) = (error.kind(), &shown)
            && !matches!(kind, ErrorKind::UndefinedError | ErrorKind::SyntaxError | ErrorKind::OutOfFuel)
        {
            message = format!("{message}, in {expression}");
        }
        if let Some(line) = error.line().filter(|line| *line > 1) {
            message = format!("{message} (line {line})");
        }
        Self { message, range, meant: None }
    }
}

/// Quotes a part of a template for a message: on one line, shortened.
fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("`{}…`", &text[..at]),
        None => format!("`{text}`"),
    }
}

/// Kind of text that a template renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Makes {
    Text,
    /// Values are percent-encoded, and none of them can change the structure of the URL.
    Url,
}

#[derive(Clone, Debug)]
pub struct Template {
    environment: Environment<'static>,
    source: Box<str>,
}

const NAME: &str = "template";
/// Fuel for rendering one event. Output counts as well; a text of some hundred kilobytes fits.
const FUEL: u64 = 1 << 20;

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// A syntax error, or an unknown filter, test or function.
    pub fn new(source: &str, makes: Makes) -> Result<Self, TemplateError> {
        match Self::read(source, makes) {
            Ok(template) => Ok(template),
            Err(mut errors) => Err(errors.swap_remove(0)),
        }
    }

    /// Parses a template and returns all errors.
    ///
    /// # Errors
    /// Syntax errors, or unknown filters, tests or functions; at least one.
    pub fn read(source: &str, makes: Makes) -> Result<Self, Vec<TemplateError>> {
        let mut environment = Environment::new();
        // Only this mode gives errors the range of their expression.
        environment.set_debug(true);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        if makes == Makes::Url {
            environment.set_formatter(percent_encode);
        }
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| vec![TemplateError::new(source, &error)])?;
        let template = Self { environment, source: source.into() };
        let unknown = template.unknown_words();
        if unknown.is_empty() { Ok(template) } else { Err(unknown) }
    }

    /// Renders the template.
    ///
    /// # Errors
    /// A name that the event does not have, or an operation that a value does not support.
    pub fn render(&self, event: &EventContext) -> Result<String, TemplateError> {
        let rendered =
            self.environment.get_template(NAME).and_then(|template| template.render(event.0.clone()));
        rendered.map_err(|error| TemplateError::new(&self.source, &error))
    }

    /// Returns unknown filters, tests and functions, which the engine finds only when it executes them.
    fn unknown_words(&self) -> Vec<TemplateError> {
        let undeclared = self.undeclared();
        let mut unknown = Vec::new();
        for word in scan::words(&self.source) {
            let name = &self.source[word.range.clone()];
            let (what, known, missing) = match word.kind {
                scan::WordKind::Filter => {
                    ("filter", FILTERS, self.lacks(&format!("none|{name}"), ErrorKind::UnknownFilter))
                }
                scan::WordKind::Test => {
                    ("test", TESTS, self.lacks(&format!("none is {name}"), ErrorKind::UnknownTest))
                }
                scan::WordKind::Function => {
                    let is_global = self.environment.globals().any(|(global, _)| global == name);
                    ("function", FUNCTIONS, !is_global && undeclared.contains(name))
                }
            };
            if missing {
                let line = self.source[..word.range.start].matches('\n').count() + 1;
                let place = if line > 1 { format!(" (line {line})") } else { String::new() };
                unknown.push(TemplateError {
                    message: format!("there is no {what} `{name}`{place}"),
                    meant: closest(name, known),
                    range: Some(word.range),
                });
            }
        }
        unknown
    }

    fn lacks(&self, expression: &str, kind: ErrorKind) -> bool {
        let result =
            self.environment.compile_expression(expression).and_then(|expression| expression.eval(()));
        result.is_err_and(|error| error.kind() == kind)
    }

    /// Returns names that come from the event, not from the template itself.
    fn undeclared(&self) -> std::collections::HashSet<String> {
        self.environment
            .get_template(NAME)
            .map(|template| template.undeclared_variables(false))
            .unwrap_or_default()
    }

    /// Returns the names that no event of `events` has, each place once.
    pub fn unknown_names(&self, events: &[EventContext]) -> Vec<UnknownName> {
        let undeclared = self.undeclared();
        let mut unknown = Vec::new();
        for path in scan::paths(&self.source) {
            let names: Vec<&str> = path.iter().map(|range| &self.source[range.clone()]).collect();
            let is_global = || self.environment.globals().any(|(global, _)| global == names[0]);
            if !undeclared.contains(names[0]) || is_global() {
                continue;
            }
            let mut values: Vec<Value> = events.iter().map(|event| event.0.clone()).collect();
            for (index, (name, range)) in names.iter().zip(&path).enumerate() {
                let next: Vec<Value> = values.iter().filter_map(|value| member(value, name)).collect();
                if next.is_empty() {
                    // Members of other values are methods, which are not checked here.
                    let has_members =
                        values.iter().any(|value| value.kind() == minijinja::value::ValueKind::Map);
                    if has_members {
                        let known = values.iter().filter_map(|value| value.try_iter().ok()).flatten();
                        let known: std::collections::BTreeSet<String> =
                            known.map(|key| key.to_string()).collect();
                        unknown.push(UnknownName {
                            name: (*name).to_owned(),
                            path: names[..=index].join("."),
                            range: range.clone(),
                            known: known.into_iter().collect(),
                        });
                    }
                    break;
                }
                values = next;
            }
        }
        unknown
    }
}

/// A name that no event has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    pub name: String,
    /// The name with its parents, such as `event.titel`.
    pub path: String,
    /// Range of the name in the source.
    pub range: Range<usize>,
    /// Existing names in its place.
    pub known: Vec<String>,
}

fn member(value: &Value, name: &str) -> Option<Value> {
    value.get_attr(name).ok().filter(|found| !found.is_undefined())
}

fn percent_encode(
    out: &mut Output<'_>,
    _state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let text = value.to_string();
    if value.is_safe() {
        out.write_str(&text)?;
    } else {
        write!(out, "{}", utf8_percent_encode(&text, ENCODED))?;
    }
    Ok(())
}

/// Returns whether a text contains placeholders.
pub fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// Returns whether a text is a single placeholder, and contains no secret of its own.
pub fn is_pure(text: &str) -> bool {
    let inner = text.trim().strip_prefix("{{").and_then(|text| text.strip_suffix("}}"));
    inner.is_some_and(|inner| !inner.contains("{{") && !inner.contains(['"', '\'']))
}

/// Returns the part of a URL template before its first placeholder; `None` unless it fixes scheme and host. An event
/// must not choose the host: it would get the headers of the request, with their secrets.
pub fn fixed_base(url: &str) -> Option<&str> {
    let open = ["{{", "{%", "{#"].iter().filter_map(|open| url.find(open)).min().unwrap_or(url.len());
    let base = &url[..open];
    let authority = base.find("://")? + "://".len();
    base[authority..].contains(['/', '?', '#']).then_some(base)
}

/// Returns whether a segment of the path of this URL is `.` or `..`, in any spelling that a URL parser accepts.
pub fn has_dot_segment(url: &str) -> bool {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.split(['/', '\\']).skip(1).any(|part| {
        let part = part.to_ascii_lowercase().replace("%2e", ".");
        part == "." || part == ".."
    })
}

/// Filters, tests and functions that a suggestion may name.
const FILTERS: &[&str] = &[
    "abs",
    "batch",
    "bool",
    "capitalize",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];
const TESTS: &[&str] = &[
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "in",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];
const FUNCTIONS: &[&str] = &["dict", "namespace", "range"];

fn closest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let distances = known.iter().map(|candidate| (strsim::osa_distance(word, candidate), *candidate));
    distances
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Variables of a template for one event: `metadata` and `payload` as in the `eventsub` format, and besides
/// `subscription`, `event`, `type`, `version`, `message_id`, `timestamp`, `broadcaster_id` and `broadcaster_login`.
#[derive(Clone, Debug)]
pub struct EventContext(Value);

impl EventContext {
    /// Parses an event's payload.
    ///
    /// # Errors
    /// Not valid JSON.
    pub fn new(event: &Event) -> Result<Self, TemplateError> {
        let payload: serde_json::Value = serde_json::from_slice(&event.payload)
            .or_else(|_| serde_json::from_slice(&readable(&event.payload)))
            .map_err(|error| TemplateError {
                message: format!("the payload is not valid JSON: {error}"),
                range: None,
                meant: None,
            })?;
        let payload = Value::from(Serde(payload));
        let part = |name: &str| payload.get_attr(name).unwrap_or(Value::UNDEFINED);
        let broadcaster = Broadcaster::of(&event.payload);
        Ok(Self(context! {
            metadata => context! {
                message_id => event.message_id.as_str(),
                message_type => event.message_type(),
                message_timestamp => &*event.message_timestamp,
                subscription_type => &*event.subscription_type,
                subscription_version => &*event.subscription_version,
                eventsubd => context! { catch_up => event.is_caught_up() },
            },
            subscription => part("subscription"),
            event => part("event"),
            payload => payload,
            type => &*event.subscription_type,
            version => &*event.subscription_version,
            message_id => event.message_id.as_str(),
            timestamp => &*event.message_timestamp,
            broadcaster_id => &*broadcaster.id,
            broadcaster_login => &*broadcaster.login,
        }))
    }
}

/// Returns whether a text is one JSON value.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::MessageId;

    fn event() -> EventContext {
        let payload = r#"{"subscription":{"condition":{"broadcaster_user_id":"12"}},
            "event":{"broadcaster_user_login":"ann","title":"say \"hi\" <b>","n":3,"tags":["a","b"],"none":null}}"#;
        EventContext::new(&Event {
            message_id: MessageId::new("m1").unwrap(),
            message_timestamp: "2026-11-02T09:00:01.512Z".into(),
            subscription_type: "channel.update".into(),
            subscription_version: "2".into(),
            subscription_id: "s".into(),
            payload: payload.as_bytes().to_vec().into(),
        })
        .unwrap()
    }

    fn render(source: &str) -> Result<String, String> {
        Template::new(source, Makes::Text)
            .and_then(|template| template.render(&event()))
            .map_err(|error| error.message)
    }

    #[test]
    fn a_template_sees_the_message_and_short_names() {
        for (source, text) in [
            ("{{ metadata.subscription_type }} {{ payload.event.n }}", "channel.update 3"),
            ("eventsub.{{type}}.{{broadcaster_id}}", "eventsub.channel.update.12"),
            ("{{ event.title }}", "say \"hi\" <b>"),
            ("{{ broadcaster_login | upper }} v{{ version }} {{ message_id }}", "ANN v2 m1"),
            ("{% for tag in event.tags %}{{ tag }};{% endfor %}", "a;b;"),
            ("{{ event.missing | default('-') }}", "-"),
            ("{% if event.none %}x{% endif %}", ""),
        ] {
            assert_eq!(render(source).as_deref(), Ok(text), "{source}");
        }
        let json =
            render(r#"{"content": {{ ("new: " ~ event.title) | tojson }}, "n": {{ event.n }}}"#).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["content"], "new: say \"hi\" <b>");
    }

    #[test]
    fn errors_name_the_expression() {
        for (source, message) in [
            ("{{ event.titel }}", "`event.titel` is undefined"),
            ("a\nb\n{{ event.titel | upper }}", "`event.titel` is undefined (line 3)"),
            ("{{ nothing.at.all }}", "`nothing` is undefined"),
            ("{{ event.title | shout }}", "there is no filter `shout`"),
            ("{% if false %}{{ event.title | tojsn }}{% endif %}", "there is no filter `tojsn`"),
            ("{{ ragne(3) }}", "there is no function `ragne`"),
            ("x\n{{ 1 is od }}", "there is no test `od` (line 2)"),
            (
                "{{ event.n + event.title }}",
                "invalid operation: tried to use + operator on unsupported types number and string, in `event.n + event.title`",
            ),
            ("{% if %}", "syntax error: unexpected end of block"),
        ] {
            assert_eq!(render(source).unwrap_err(), message, "{source}");
        }
        let errors = Template::read("{{ a | tojsn }}{{ 1 is od }}{{ rang(2) }}", Makes::Text).unwrap_err();
        assert_eq!(
            errors.iter().map(|error| error.meant).collect::<Vec<_>>(),
            [Some("tojson"), Some("odd"), Some("range")]
        );
    }

    #[test]
    fn every_suggestion_exists() {
        for filter in FILTERS {
            assert!(Template::new(&format!("{{{{ x | {filter} }}}}"), Makes::Text).is_ok(), "{filter}");
        }
        for test in TESTS {
            assert!(Template::new(&format!("{{{{ x is {test}(1) }}}}"), Makes::Text).is_ok(), "{test}");
        }
        for function in FUNCTIONS {
            assert!(Template::new(&format!("{{{{ {function}(1) }}}}"), Makes::Text).is_ok(), "{function}");
        }
    }

    #[test]
    fn unknown_names_are_found_anywhere_in_a_template() {
        let unknown = |source: &str| -> Vec<(String, String)> {
            let template = Template::new(source, Makes::Text).unwrap();
            let names = template.unknown_names(&[event()]);
            assert!(names.iter().all(|name| source[name.range.clone()] == *name.name));
            names.into_iter().map(|name| (name.path, name.known.join(" "))).collect()
        };
        let pair = |path: &str, known: &str| (path.to_owned(), known.to_owned());
        let members = "broadcaster_user_login n none tags title";
        assert_eq!(unknown("{{ event.titel | tojson }}"), [pair("event.titel", members)]);
        assert_eq!(
            unknown("{% if false %}{{ event['titel'].x }}{% endif %}"),
            [pair("event.titel", members)]
        );
        assert_eq!(unknown("{{ subscription.conditions }}"), [pair("subscription.conditions", "condition")]);
        assert_eq!(unknown("{{ evnt }}").len(), 1);
        for fine in [
            "{{ event.title.upper() }}{{ event.tags.0 }}{{ metadata.message_id }}",
            "{% for tag in event.tags %}{{ tag.name }}{{ loop.index }}{% endfor %}",
            "{% set e = event %}{{ e.titel }}{{ range(3) }}",
            "{{ event.none.deeper }}{# event.titel #}event.titel",
        ] {
            assert_eq!(unknown(fine), [], "{fine}");
        }
    }

    #[test]
    fn values_in_a_url_are_encoded() {
        let url = |source: &str| Template::new(source, Makes::Url).unwrap().render(&event()).unwrap();
        assert_eq!(
            url("https://h/{{ type }}?t={{ event.title }}"),
            "https://h/channel.update?t=say%20%22hi%22%20%3Cb%3E"
        );
        assert_eq!(url("https://h/{{ '../a/b&c#d' }}"), "https://h/..%2Fa%2Fb%26c%23d");
    }

    #[test]
    fn an_endless_template_is_stopped() {
        for source in [
            "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}",
            "{{ 'x' * 1000000000 }}",
            "{{ range(100000) | map('string') | join('x' * 1000) }}",
        ] {
            let error = render(source).expect_err(source);
            assert!(error.starts_with(TOO_MUCH), "{source}: {error}");
        }
        let error =
            render("a\n{% for a in range(10000) %}{% for b in range(10000) %}\n{% endfor %}{% endfor %}")
                .unwrap_err();
        assert!(error.starts_with(TOO_MUCH) && error.contains("(line 2)"), "{error}");
        let long = format!("{{{{ '{}' | upper }}}}", "x".repeat(100_000));
        assert_eq!(render(&long).map(|text| text.len()), Ok(100_000));
    }

    #[test]
    fn a_url_template_cannot_change_host_or_leave_its_path() {
        assert_eq!(fixed_base("https://h.example/a/{{ x }}/b"), Some("https://h.example/a/"));
        assert_eq!(fixed_base("https://h.example?x={{ x }}"), Some("https://h.example?x="));
        for url in ["https://{{ x }}/", "https://h{{ x }}/", "{{ x }}", "https://h:{% if x %}1{% endif %}/"] {
            assert_eq!(fixed_base(url), None, "{url}");
        }
        for url in ["https://h/a/../b", "https://h/%2E%2e", "https://h/a\\..", "https://h/./a?b"] {
            assert!(has_dot_segment(url), "{url}");
        }
        for url in ["https://h/a..b", "https://h/a?x=/../", "https://h", "https://h/...", "https://h.."] {
            assert!(!has_dot_segment(url), "{url}");
        }
        assert!(is_pure(" {{ event.title }} "));
        assert!(
            !is_pure("Bearer {{ x }}") && !is_pure("{{ 'Bearer abc' ~ x }}") && !is_pure("{{ a }}b{{ c }}")
        );
    }

    #[test]
    fn json_is_distinguished_from_text() {
        assert!(is_json(" {\"a\": [1]} ") && !is_json("{a}") && !is_json("") && !is_json("{} {}"));
    }
}
