//! Templates of request bodies, headers and subjects: minijinja, strict. ◆
//!
//! A template sees the notification message that the `eventsub` format has, and a few names for what is
//! wanted most. A name that is not there is an error, never an empty text.

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use serde_json::value::RawValue;

use super::format::{Broadcaster, readable};
use crate::model::event::Event;

/// A template that could not be read, or could not be filled from an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong, with its line where it has several.
    pub message: String,
}

impl From<minijinja::Error> for TemplateError {
    fn from(error: minijinja::Error) -> Self {
        let mut message = match (error.kind(), error.detail()) {
            (ErrorKind::OutOfFuel, _) => {
                "it does too much for one event; a loop over what the event has is short enough".to_owned()
            }
            (kind, Some(detail)) => format!("{kind}: {detail}"),
            (kind, None) => kind.to_string(),
        };
        if let Some(line) = error.line().filter(|line| *line > 1) {
            message.push_str(&format!(" (line {line})"));
        }
        if error.kind() == ErrorKind::UndefinedError {
            message.push_str("; `| default('')` takes what may be missing");
        }
        Self { message }
    }
}

/// A template that was read.
#[derive(Clone, Debug)]
pub struct Template {
    environment: Environment<'static>,
}

const NAME: &str = "template";
/// The steps that rendering one event may take. Bytes that are made count as well, so this leaves room for a text of some
/// hundred kilobytes.
const FUEL: u64 = 1 << 20;

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// It is none.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Self { environment })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// It names something that the event does not have.
    pub fn render(&self, event: &EventContext) -> Result<String, TemplateError> {
        Ok(self.environment.get_template(NAME)?.render(event.0.clone())?)
    }
}

/// What templates see of an event: `metadata` and `payload` as in the `eventsub` format, and beside them
/// `subscription`, `event`, `type`, `version`, `message_id`, `timestamp`, `broadcaster_id` and
/// `broadcaster_login`.
#[derive(Clone, Debug)]
pub struct EventContext(Value);

impl EventContext {
    /// Reads an event's payload.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn new(event: &Event) -> Result<Self, TemplateError> {
        let payload: serde_json::Value = serde_json::from_slice(&event.payload)
            .or_else(|_| serde_json::from_slice(&readable(&event.payload)))
            .map_err(|error| TemplateError { message: format!("the payload is no JSON: {error}") })?;
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

/// Whether a text is one JSON value.
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
        Template::new(source).and_then(|template| template.render(&event())).map_err(|error| error.message)
    }

    #[test]
    fn it_sees_the_message_and_short_names() {
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
    fn what_is_not_there_is_an_error() {
        assert!(render("{{ event.titel }}").unwrap_err().contains("undefined"));
        assert!(render("{{ nothing.at.all }}").unwrap_err().contains("undefined"));
        assert!(render("{{ event.title | shout }}").unwrap_err().contains("shout"));
        assert!(render("{% if %}").unwrap_err().contains("syntax"));
        assert!(render("a\nb\n{{ event.titel }}").unwrap_err().contains("line 3"));
    }

    #[test]
    fn a_template_without_end_is_stopped() {
        for source in [
            "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}",
            "{{ 'x' * 1000000000 }}",
            "{{ range(100000) | map('string') | join('x' * 1000) }}",
        ] {
            let error = render(source).expect_err(source);
            assert!(error.contains("too much"), "{source}: {error}");
        }
        let error =
            render("a\n{% for a in range(10000) %}{% for b in range(10000) %}\n{% endfor %}{% endfor %}")
                .unwrap_err();
        assert!(error.contains("too much") && error.contains("(line 2)"), "{error}");
        let long = format!("{{{{ '{}' | upper }}}}", "x".repeat(100_000));
        assert_eq!(render(&long).map(|text| text.len()), Ok(100_000));
    }

    #[test]
    fn json_is_told_from_text() {
        assert!(is_json(" {\"a\": [1]} ") && !is_json("{a}") && !is_json("") && !is_json("{} {}"));
    }
}
