//! What commands need that do their work without a running daemon: the same connections and the same options, used
//! once.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::build::delivery_options;
use super::webhook_secret::{self, SecretFile, SecretFileError};
use super::{USER_AGENT, options, trial};
use crate::auth::{self, HttpError, Keeper};
use crate::config::Config;
use crate::helix::{Helix, HelixOptions};
use crate::model::status::TokenStatus;
use crate::reconcile::Desired;

/// The path of the event store of a configuration.
pub fn database(config: &Config) -> PathBuf {
    config.state_directory.join(options::DATABASE)
}

/// The client for requests to Twitch, and the TLS settings that sockets share with it.
///
/// # Errors
/// TLS or the client cannot be set up.
pub fn connections() -> Result<(reqwest::Client, Arc<rustls::ClientConfig>), HttpError> {
    let tls = auth::tls_config()?;
    Ok((auth::http_client(USER_AGENT, tls.clone())?, Arc::new(tls)))
}

/// A token keeper and an API client for one command, which end with the `CancellationToken`.
///
/// # Errors
/// TLS or the client cannot be set up.
pub fn one_shot_api(
    config: &Config,
    cancel: &CancellationToken,
) -> Result<(Helix, watch::Receiver<TokenStatus>), HttpError> {
    let (http, _) = connections()?;
    let (_options, token_options) = watch::channel(options::token(config));
    let (_credentials, credentials) = watch::channel(options::credentials(config));
    let (keeper, tokens) = Keeper::new(http.clone(), token_options, credentials);
    tokio::spawn(keeper.run(cancel.clone()));
    let status = tokens.status();
    Ok((Helix::new(http, HelixOptions::new(config.twitch.api_url.clone()), tokens), status))
}

/// What `plan` compares Twitch with. A webhook secret that is not there yet is as good as any.
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

/// What would keep the sinks of a configuration from working, a line each.
///
/// # Errors
/// TLS or the client cannot be set up.
pub fn sink_problems(config: &Config) -> Result<Vec<String>, HttpError> {
    Ok(trial::problems(config, &delivery_options(&auth::tls_config()?)?))
}
