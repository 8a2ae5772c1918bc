//! Making a sink of its options, or saying why that cannot be.

use std::path::PathBuf;
use std::sync::Arc;

use super::options::DeliveryOptions;
use super::printer::Printer;
use super::select::Selector;
#[cfg(feature = "mqtt")]
use super::sink::Mqtt;
#[cfg(feature = "nats")]
use super::sink::Nats;
#[cfg(feature = "redis")]
use super::sink::Redis;
use super::sink::{Command, File, Http, Lines, Single, Stdout};
use super::{HttpBody, SinkKind, SinkOptions};
use crate::model::route::{SinkName, Unasked};

/// The reason for which a sink cannot work as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// An invalid glob in `types`.
    #[error("sink {name}: `types` has a glob that cannot be read: {message}")]
    Glob { name: SinkName, message: String },
    /// The folder of a file sink does not exist.
    #[error("sink {name}: the folder {} does not exist; make it, or correct `path`", .folder.display())]
    NoFolder { name: SinkName, folder: PathBuf },
    #[error("sink {name}: {message}")]
    Make { name: SinkName, message: String },
}

pub(super) fn selector(sink: &SinkOptions) -> Result<Selector, SinkError> {
    let unasked = match &sink.kind {
        SinkKind::Stdout | SinkKind::File(_) | SinkKind::Nats(_) | SinkKind::Mqtt(_) | SinkKind::Redis(_) => {
            Unasked::All
        }
        SinkKind::Http(http) if matches!(http.body, HttpBody::Template(_)) => Unasked::Nothing,
        SinkKind::Command(_) | SinkKind::Http(_) => Unasked::Revocations,
    };
    Selector::new(sink.name.clone(), &sink.types, unasked)
        .map_err(|error| SinkError::Glob { name: sink.name.clone(), message: error.to_string() })
}

/// By the kind of worker that it needs.
pub(super) enum Made {
    Lines(Box<dyn Lines>),
    Single(Arc<dyn Single>),
}

/// Makes a sink, or what prints instead of it.
pub(super) fn make_or_print(sink: &SinkOptions, options: &DeliveryOptions) -> Result<Made, SinkError> {
    Ok(match make(sink, options)? {
        Made::Single(single) if options.print => {
            Made::Single(Arc::new(Printer::new(sink.name.clone(), single, Arc::clone(&options.stdout))))
        }
        made => made,
    })
}

pub(super) fn make(sink: &SinkOptions, options: &DeliveryOptions) -> Result<Made, SinkError> {
    let failed = |message: String| SinkError::Make { name: sink.name.clone(), message };
    Ok(match &sink.kind {
        SinkKind::Stdout => Made::Lines(Box::new(Stdout::new(&options.stdout))),
        SinkKind::File(file) => Made::Lines(Box::new(File::new(file.clone()))),
        SinkKind::Command(command) => {
            Made::Single(Arc::new(Command::new(command.clone(), sink.format, options.children.clone())))
        }
        SinkKind::Http(http) => {
            let made = Http::new(http.clone(), options.http.clone());
            let made = made.map_err(|error| failed(error.to_string()))?;
            Made::Single(Arc::new(made.with_proxies(options.proxies.clone())))
        }
        #[cfg(feature = "nats")]
        SinkKind::Nats(nats) => {
            let made = Nats::new(sink.name.clone(), nats.clone(), sink.format, options.tls.clone());
            Made::Single(Arc::new(made.map_err(|error| failed(error.to_string()))?))
        }
        #[cfg(feature = "mqtt")]
        SinkKind::Mqtt(mqtt) => {
            let made = Mqtt::new(mqtt.clone(), sink.format, options.tls.clone());
            Made::Single(Arc::new(made.map_err(|error| failed(error.to_string()))?))
        }
        #[cfg(feature = "redis")]
        SinkKind::Redis(redis) => {
            let made = Redis::new(redis.clone(), sink.format, options.tls.clone());
            Made::Single(Arc::new(made.map_err(|error| failed(error.to_string()))?))
        }
        // `config` refuses files with such sinks.
        #[cfg(not(all(feature = "nats", feature = "mqtt", feature = "redis")))]
        left_out => return Err(failed(format!("this build has no sinks of type `{}`", left_out.name()))),
    })
}
