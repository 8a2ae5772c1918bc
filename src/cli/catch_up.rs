//! Lines of `check` and `plan` about the requests of a catch-up.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::helix::MAX_CHANNELS;
use crate::model::last_known::{CHANNEL, OFFLINE, ONLINE};
use crate::model::subscription::FieldValue;
use crate::model::text::counted;

/// One line for each request that would be made; empty if there would be none.
pub(super) fn asks(config: &Config) -> Vec<String> {
    let streams = config.catch_up.streams.then(|| ask(config, &[ONLINE, OFFLINE], "Get Streams")).flatten();
    let channels =
        config.catch_up.channels.then(|| ask(config, &[CHANNEL], "Get Channel Information")).flatten();
    streams.into_iter().chain(channels).collect()
}

fn ask(config: &Config, types: &[&str], call: &str) -> Option<String> {
    let specs = config.subscriptions.iter().filter(|spec| types.contains(&&*spec.subscription_type));
    let fields = specs.flat_map(|spec| &spec.condition);
    let channels: BTreeSet<&str> = fields
        .filter(|(name, _)| name == "broadcaster_user_id")
        .map(|(_, value)| match value {
            FieldValue::Literal(text) => &**text,
            FieldValue::Login(login) => &**login,
        })
        .collect();
    let requests = channels.len().div_ceil(MAX_CHANNELS) as u64;
    (requests > 0).then(|| {
        format!(
            "after a gap {call} is asked about {} ({}), and again later, as its answers may be two minutes old",
            counted(channels.len() as u64, "channel"),
            counted(requests, "request")
        )
    })
}
