//! Support for commands that work without a running daemon: the same connections and options, used once.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connect::{connections, connections_to_twitch, delivery_options};
use super::webhook_secret::{self, SecretFile, SecretFileError};
use super::{options, parts};
use crate::auth::{HttpError, Keeper, Outward};
use crate::config::Config;
use crate::delivery::{self, DeliveryOptions, SinkOptions};
use crate::helix::Helix;
use crate::model::event::{Event, Seq, StoredEvent};
use crate::model::route::SinkName;
use crate::model::status::TokenStatus;
use crate::model::text::chain;
use crate::model::time::Timestamp;
use crate::reconcile::Desired;

/// Returns the path of the event store of a configuration.
pub fn database(config: &Config) -> PathBuf {
    config.state_directory.join(options::DATABASE)
}

/// A token keeper and an API client for one command, which end with the `CancellationToken`.
///
/// # Errors
/// TLS or the client cannot be set up.
pub fn one_shot_api(
    config: &Config,
    cancel: &CancellationToken,
) -> Result<(Helix, watch::Receiver<TokenStatus>), HttpError> {
    let http = connections_to_twitch(config)?;
    let (_options, token_options) = watch::channel(options::token(config));
    let (_credentials, credentials) = watch::channel(options::credentials(config));
    let (keeper, tokens) = Keeper::new(http.clone(), token_options, credentials);
    tokio::spawn(keeper.run(cancel.clone()));
    let status = tokens.status();
    Ok((Helix::new(http, options::helix(config), tokens), status))
}

/// Returns the desired state for `plan`. If there is no webhook secret yet, a temporary one stands in for it.
///
/// # Errors
/// The webhook secrets cannot be read.
pub fn desired(config: &Config) -> Result<Arc<Desired>, SecretFileError> {
    let keys = match &config.webhook {
        Some(webhook) => SecretFile::new(&config.state_directory).peek(webhook.secret.as_ref())?,
        None => None,
    };
    let keys = match keys {
        None if config.webhook.is_some() => Some(webhook_secret::unstored(&config.state_directory)?),
        keys => keys,
    };
    Ok(options::desired(config, keys.as_ref(), 1))
}

/// Connects to the receiver of each sink that has one, without sending anything; returns each address, or why the
/// connection failed.
pub async fn try_sinks(config: &Config, outward: &Outward) -> Vec<(SinkName, Result<String, String>)> {
    match delivery_options(outward) {
        Ok(options) => delivery::try_connections(&options::sinks(config), &options, outward).await,
        Err(error) => config.sinks.keys().map(|name| (name.clone(), Err(error.to_string()))).collect(),
    }
}

/// Returns the problems that would keep the sinks of a configuration from working.
///
/// # Errors
/// TLS or the client cannot be set up.
pub fn sink_problems(config: &Config) -> Result<Vec<String>, HttpError> {
    Ok(parts::sink_problems(config, &delivery_options(&connections()?)?))
}

/// Describes what a sink of the configuration would send for an event, without secrets.
///
/// # Errors
/// There is no such sink, or it cannot take the event.
pub fn preview_sink(config: &Config, name: &str, event: Event) -> Result<String, String> {
    let (sink, options) = one_sink(config, name)?;
    delivery::preview(&sink, &options, &stored(event))
}

/// Sends one event to a sink of the configuration, once, whether the daemon runs or not.
///
/// # Errors
/// There is no such sink, or it did not take the event.
pub async fn try_sink(config: &Config, name: &str, event: Event) -> Result<(), String> {
    let (sink, options) = one_sink(config, name)?;
    delivery::try_out(&sink, &options, stored(event)).await
}

fn one_sink(config: &Config, name: &str) -> Result<(SinkOptions, DeliveryOptions), String> {
    let sinks = options::sinks(config);
    let sink = sinks.iter().find(|sink| sink.name.as_str() == name).cloned();
    let sink = sink.ok_or_else(|| format!("there is no sink {name} in the configuration"))?;
    let outward = connections().map_err(|error| chain(&error))?;
    Ok((sink, delivery_options(&outward).map_err(|error| chain(&error))?))
}

fn stored(event: Event) -> StoredEvent {
    StoredEvent { seq: Seq(0), stored_at: Timestamp(std::time::SystemTime::now()), event }
}
