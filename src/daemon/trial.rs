//! Sinks before they are used: what only a look at this machine tells.

use super::options;
use crate::config::Config;
use crate::delivery::{self, DeliveryOptions};

/// What would keep the sinks of a configuration from working, a line each.
pub(super) fn problems(config: &Config, options: &DeliveryOptions) -> Vec<String> {
    let found = delivery::check_sinks(&options::sinks(config), options);
    found.iter().map(ToString::to_string).collect()
}
