//! Sinks before they are used: templates are tried on events as they may come.

use std::collections::BTreeSet;

use super::options;
use crate::config::Config;
use crate::delivery::{self, DeliveryOptions, Sample};
use crate::model::subscription::{Condition, FieldValue, SubscriptionSpec};
use crate::model::time::Timestamp;
use crate::samples::{self, SampleRequest, SampleUser};

/// Stands for the user of a login that nobody has looked up.
const SOMEBODY: &str = "12826";
/// Any moment will do, as long as it is the same each time.
const NOW: Timestamp = Timestamp(std::time::UNIX_EPOCH);

/// What would keep the sinks of a configuration from working, a line each.
pub(super) fn problems(config: &Config, options: &DeliveryOptions) -> Vec<String> {
    let found = delivery::check_sinks(&options::sinks(config), options, || samples(config));
    found.iter().map(ToString::to_string).collect()
}

/// Every variant of each type that the file asks for, once for each choice of sinks, and of our own type.
fn samples(config: &Config) -> Vec<Sample> {
    let mut seen = BTreeSet::new();
    let mut samples: Vec<Sample> = Vec::new();
    for spec in config.subscriptions.iter() {
        if seen.insert((&spec.subscription_type, &spec.version, &spec.sinks)) {
            samples.extend(variants(spec));
        }
    }
    samples.extend(super::gap::sample(NOW).map(|event| Sample { event, sinks: None }));
    samples
}

fn variants(spec: &SubscriptionSpec) -> Vec<Sample> {
    let condition = Condition::from_pairs(spec.condition.iter().map(|(name, value)| match value {
        FieldValue::Literal(text) => (&**name, &**text),
        FieldValue::Login(_) => (&**name, SOMEBODY),
    }));
    let user =
        |id: &str| SampleUser { id: id.to_owned(), login: format!("user_{id}"), name: format!("User_{id}") };
    let request = SampleRequest {
        subscription_type: &spec.subscription_type,
        version: &spec.version,
        condition: &condition,
        user: &user,
        now: NOW,
        serial: 1,
    };
    let events = samples::every_variant(&request).into_iter();
    events
        .map(|event| Sample { event: samples::message(&request, &event), sinks: spec.sinks.clone() })
        .collect()
}
