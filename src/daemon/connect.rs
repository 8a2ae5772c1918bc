//! How the daemon and its commands connect outward.

use super::USER_AGENT;
use crate::auth::{HttpError, Outward};
use crate::config::Config;
use crate::delivery::DeliveryOptions;

/// How this process connects outward.
///
/// # Errors
/// A proxy variable that cannot be used, or libraries that cannot be set up.
pub fn connections() -> Result<Outward, HttpError> {
    Outward::from_environment(USER_AGENT)
}

/// The same, if everything is there that connections to Twitch need.
///
/// # Errors
/// As [`connections`]; no CA certificates.
pub fn connections_to_twitch(config: &Config) -> Result<Outward, HttpError> {
    let outward = connections()?;
    let twitch = &config.twitch;
    outward.require_certificates([&*twitch.auth_url, &*twitch.api_url, &*twitch.eventsub_url])?;
    Ok(outward)
}

/// How sinks connect: the same way as everything else, over connections of their own.
pub(super) fn delivery_options(outward: &Outward) -> Result<DeliveryOptions, HttpError> {
    let mut options = DeliveryOptions::new(outward.separate_client()?, (**outward.tls()).clone());
    options.proxies = outward.proxies().clone();
    Ok(options)
}
