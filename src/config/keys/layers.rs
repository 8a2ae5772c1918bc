//! The layers on top of each other, later ones win: defaults, the file, the environment.
//!
//! Owns the values of each layer and their places. Only values that have passed their check take part, and neither the
//! client secret nor headers do.

use std::collections::{BTreeMap, BTreeSet};

use config::{ConfigError, Map, Source, Value as LayerValue};

use super::check::Layer;
use super::schema::Key;
use super::table::{
    self, Admin, Application, Authorize, CatchUp, Cluster, Conduit, Log, Reconcile, Sink, State, Store,
    Transport, Twitch, Webhook,
};
use super::typed::{Section, Values};
use super::value::{self, Plain};
use crate::config::report::problems::At;
use crate::model::secret::Secret;
use crate::model::sink::SinkType;

/// The sink of a configuration that has none.
const DEFAULT_SINK: &str = "stdout";

/// The layers of one load.
pub(in crate::config) struct Layers {
    values: Values,
    /// The names of the sinks, also of those with errors.
    sinks: BTreeSet<String>,
    file: Layer,
    variables: Layer,
}

/// Every section of the file with the values in force.
pub(in crate::config) struct Sections {
    pub(in crate::config) application: Application,
    pub(in crate::config) twitch: Twitch,
    pub(in crate::config) reconcile: Reconcile,
    pub(in crate::config) transport: Transport,
    pub(in crate::config) conduit: Conduit,
    pub(in crate::config) webhook: Webhook,
    pub(in crate::config) sinks: BTreeMap<String, Sink>,
    pub(in crate::config) authorize: Authorize,
    pub(in crate::config) store: Store,
    pub(in crate::config) state: State,
    pub(in crate::config) catch_up: CatchUp,
    pub(in crate::config) cluster: Cluster,
    pub(in crate::config) admin: Admin,
    pub(in crate::config) log: Log,
}

/// The checked values of one layer.
#[derive(Clone, Debug)]
struct Checked(Map<String, LayerValue>);

impl Source for Checked {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, LayerValue>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl Checked {
    fn of(layer: &Layer) -> Self {
        Self(layer.values.iter().map(|(path, (plain, _))| (path.clone(), layered(plain))).collect())
    }

    /// The defaults, for each of these sinks as well.
    fn defaults(sinks: &BTreeSet<String>) -> Self {
        let mut values = Map::new();
        for (key, plain) in table::keys().iter().filter_map(|key| Some((key, default(key)?))) {
            match key.path.strip_prefix("sink.*.") {
                Some(name) => {
                    values.extend(sinks.iter().map(|sink| (format!("sink.{sink}.{name}"), plain.clone())));
                }
                None => drop(values.insert(key.path.to_owned(), plain)),
            }
        }
        Self(values)
    }
}

impl Layers {
    /// Puts the layers together.
    ///
    /// # Errors
    /// A value that passed its check cannot be read all the same, which is a defect of the table of keys.
    pub(in crate::config) fn new(file: Layer, variables: Layer) -> Result<Self, ConfigError> {
        let mut sinks: BTreeSet<String> = file.sinks.keys().chain(variables.sinks.keys()).cloned().collect();
        let mut builder = config::Config::builder();
        if sinks.is_empty() {
            builder = builder.set_default(format!("sink.{DEFAULT_SINK}.type"), SinkType::Stdout.name())?;
            sinks.insert(DEFAULT_SINK.to_owned());
        }
        let values = builder
            .add_source(Checked::defaults(&sinks))
            .add_source(Checked::of(&file))
            .add_source(Checked::of(&variables))
            .build()?;
        Ok(Self { values: Values::new(values), sinks, file, variables })
    }

    /// Reads every section.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(in crate::config) fn sections(&self) -> Result<Sections, ConfigError> {
        let sinks = self.sinks.iter().map(|name| {
            let sink = Sink::read(&self.values, &format!("sink.{name}"))?;
            Ok((name.clone(), sink))
        });
        Ok(Sections {
            application: self.section()?,
            twitch: self.section()?,
            reconcile: self.section()?,
            transport: self.section()?,
            conduit: self.section()?,
            webhook: self.section()?,
            sinks: sinks.collect::<Result<_, ConfigError>>()?,
            authorize: self.section()?,
            store: self.section()?,
            state: self.section()?,
            catch_up: self.section()?,
            cluster: self.section()?,
            admin: self.section()?,
            log: self.section()?,
        })
    }

    fn section<S: Section>(&self) -> Result<S, ConfigError> {
        S::read(&self.values, S::PATH)
    }

    /// The names of the sinks, also of those with errors.
    pub(in crate::config) fn sinks(&self) -> Vec<&str> {
        self.sinks.iter().map(String::as_str).collect()
    }

    /// The place at which a sink begins.
    pub(in crate::config) fn place_of_sink(&self, name: &str) -> At {
        let header = self.file.sinks.get(name).or_else(|| self.variables.sinks.get(name));
        header.cloned().unwrap_or(At::Nowhere)
    }

    /// The place at which a section of the file begins.
    pub(in crate::config) fn place_of_section(&self, path: &str) -> At {
        self.file.sections.get(path).cloned().unwrap_or(At::Nowhere)
    }

    /// The place of the value in force.
    pub(in crate::config) fn place(&self, path: &str) -> At {
        let value = self.variables.values.get(path).or_else(|| self.file.values.get(path));
        value.map_or(At::Nowhere, |(_, at)| at.clone())
    }

    /// The place of a key, right or wrong; its problem, if any, has been reported.
    pub(in crate::config) fn seen(&self, path: &str) -> Option<&At> {
        self.variables.seen.get(path).or_else(|| self.file.seen.get(path))
    }

    /// The place of a key in the file, right or wrong.
    pub(in crate::config) fn seen_in_file(&self, path: &str) -> Option<&At> {
        self.file.seen.get(path)
    }

    /// The headers that the file has for a sink.
    pub(in crate::config) fn headers(&self, sink: &str) -> &[(http::HeaderName, Secret, At)] {
        self.file.headers.get(sink).map_or(&[], Vec::as_slice)
    }

    /// `twitch.client_secret` in the file.
    pub(in crate::config) fn secret_in_file(&self) -> Option<&(Secret, At)> {
        self.file.secret.as_ref()
    }

    /// `twitch.client_secret` in the environment.
    pub(in crate::config) fn secret_in_environment(&self) -> Option<&Secret> {
        self.variables.secret.as_ref().map(|(secret, _)| secret)
    }
}

/// The default of a key, from its text in the table.
fn default(key: &Key) -> Option<LayerValue> {
    if key.path.starts_with("subscription.") {
        return None;
    }
    let text = format!("x = {}", key.default?);
    let table = toml::de::DeTable::parse(&text).ok()?;
    let plain = value::check(key, key.path, table.get_ref().get("x")?.get_ref()).ok()?;
    Some(layered(&plain))
}

fn layered(plain: &Plain) -> LayerValue {
    match plain {
        Plain::Text(text) => text.clone().into(),
        Plain::Integer(number) => (*number).into(),
        Plain::Fraction(number) => (*number).into(),
        Plain::Flag(flag) => (*flag).into(),
        Plain::Texts(texts) => texts.clone().into(),
    }
}
