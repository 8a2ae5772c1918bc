//! What would keep sinks from working, found without starting them: folders that are not there, templates that
//! an event cannot fill.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::make::{SinkError, make, selector};
use super::outgoing::Attempt;
use super::sink::{FileOptions, Http, HttpBody, Nats, not_a_file};
use super::{DeliveryOptions, SinkKind, SinkOptions};
use crate::model::event::{Event, Seq, StoredEvent};
use crate::model::route::{Routes, SinkName};
use crate::model::time::Timestamp;

/// An event as it may come, to try templates with.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The event.
    pub event: Event,
    /// The sinks that its subscription names; all when none.
    pub sinks: Option<Arc<[SinkName]>>,
}

/// Finds what would keep sinks from working, without touching anything. `samples` are asked for when some
/// sink has a template.
pub fn check_sinks(
    sinks: &[SinkOptions],
    options: &DeliveryOptions,
    samples: impl FnOnce() -> Vec<Sample>,
) -> Vec<SinkError> {
    let mut errors: Vec<SinkError> = sinks.iter().filter_map(|sink| check(sink, options).err()).collect();
    if errors.is_empty() && sinks.iter().any(has_template) {
        let samples = samples();
        for sink in sinks.iter().filter(|sink| has_template(sink)) {
            errors.extend(try_samples(sink, options, &samples));
        }
    }
    errors
}

fn has_template(sink: &SinkOptions) -> bool {
    match &sink.kind {
        SinkKind::Http(http) => matches!(http.body, HttpBody::Template(_)),
        SinkKind::Nats(_) => true,
        _ => false,
    }
}

/// A sink with a template.
enum Templated {
    Http(Box<Http>),
    Nats(Box<Nats>),
}

impl Templated {
    fn new(sink: &SinkOptions, options: &DeliveryOptions) -> Option<Self> {
        match &sink.kind {
            SinkKind::Http(http) => {
                Http::new(http.clone(), options.http.clone()).ok().map(|made| Self::Http(Box::new(made)))
            }
            SinkKind::Nats(nats) => {
                let made = Nats::new(sink.name.clone(), nats.clone(), sink.format, options.tls.clone());
                made.ok().map(|made| Self::Nats(Box::new(made)))
            }
            _ => None,
        }
    }

    fn fill(&self, event: &StoredEvent) -> Result<(), String> {
        match self {
            Self::Http(http) => http.message(event, &Attempt::first(SystemTime::now())).map(drop),
            Self::Nats(nats) => nats.subject(&event.event).map(drop),
        }
    }
}

/// The first event of each type that does not fit.
fn try_samples(sink: &SinkOptions, options: &DeliveryOptions, samples: &[Sample]) -> Vec<SinkError> {
    let (Ok(selector), Some(templated)) = (selector(sink), Templated::new(sink, options)) else {
        return vec![];
    };
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for sample in samples {
        let routed = sample.sinks.as_ref().is_none_or(|sinks| sinks.contains(&sink.name));
        if !routed || !selector.wants(&sample.event, &Routes::default()) {
            continue;
        }
        let event = StoredEvent {
            seq: Seq(1),
            stored_at: Timestamp::from_unix_millis(0),
            event: sample.event.clone(),
        };
        // The first event of a type says it all, and trying each may take long.
        if found.contains_key(&*sample.event.subscription_type) {
            continue;
        }
        if let Err(message) = templated.fill(&event) {
            found.entry(sample.event.subscription_type.to_string()).or_insert(message);
        }
    }
    found
        .into_iter()
        .map(|(subscription_type, message)| SinkError::Template {
            name: sink.name.clone(),
            subscription_type,
            message,
        })
        .collect()
}

fn check(sink: &SinkOptions, options: &DeliveryOptions) -> Result<(), SinkError> {
    selector(sink)?;
    let name = sink.name.clone();
    match &sink.kind {
        SinkKind::Stdout => Ok(()),
        SinkKind::File(FileOptions { path, .. }) => {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                return Err(SinkError::NoFolder { name, folder: folder.to_owned() });
            }
            match not_a_file(path) {
                Some(message) => Err(SinkError::Make { name, message }),
                None => Ok(()),
            }
        }
        SinkKind::Command(_) | SinkKind::Http(_) | SinkKind::Nats(_) => make(sink, options).map(drop),
    }
}
