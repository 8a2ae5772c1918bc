//! Sinks before they are used: templates are tried on events as they may come.

use std::collections::BTreeSet;

use serde_json::json;

use super::options;
use crate::config::Config;
use crate::delivery::{self, DeliveryOptions, Sample};
use crate::model::catalog;
use crate::model::event::{Event, MessageId};
use crate::model::subscription::{Condition, FieldValue, SubscriptionSpec};
use crate::model::time::Timestamp;
use crate::sandbox::samples::{self, SampleRequest, SampleUser};

/// Samples of one type: enough for every variant that the sandbox has.
const VARIANTS: u64 = 8;
/// Stands for the user of a login that nobody has looked up.
const SOMEBODY: &str = "12826";
/// Any moment will do, as long as it is the same each time.
const NOW: Timestamp = Timestamp(std::time::UNIX_EPOCH);

/// What would keep the sinks of a configuration from working, a line each.
pub(super) fn problems(config: &Config, options: &DeliveryOptions) -> Vec<String> {
    let found = delivery::check_sinks(&options::sinks(config), options, || samples(config));
    found.iter().map(ToString::to_string).collect()
}

/// Events of every type that the file asks for, once for each choice of sinks, and of our own type.
fn samples(config: &Config) -> Vec<Sample> {
    let mut seen = BTreeSet::new();
    let mut samples: Vec<Sample> = Vec::new();
    for spec in config.subscriptions.iter() {
        if seen.insert((&spec.subscription_type, &spec.version, &spec.sinks)) {
            samples.extend((0..VARIANTS).filter_map(|serial| sample(spec, serial)));
        }
    }
    samples.extend(super::gap::sample(NOW).map(|event| Sample { event, sinks: None }));
    samples
}

fn sample(spec: &SubscriptionSpec, serial: u64) -> Option<Sample> {
    let (subscription_type, version) = (&*spec.subscription_type, &*spec.version);
    let condition = Condition::from_pairs(spec.condition.iter().map(|(name, value)| match value {
        FieldValue::Literal(text) => (&**name, &**text),
        FieldValue::Login(_) => (&**name, SOMEBODY),
    }));
    let user =
        |id: &str| SampleUser { id: id.to_owned(), login: format!("user_{id}"), name: format!("User_{id}") };
    let request =
        SampleRequest { subscription_type, version, condition: &condition, user: &user, now: NOW, serial };
    let event = samples::event(&request);
    let batched = catalog::lookup(subscription_type, version).is_some_and(|row| row.batched);
    let subscription = json!({
        "id": "f1c2a387-161a-49f9-a165-0f21d7a4e1c4",
        "status": "enabled",
        "type": subscription_type,
        "version": version,
        "cost": 0,
        "condition": condition,
        "transport": { "method": "conduit", "conduit_id": "bfcfc993-26b1-b876-44d9-afe75a379dac" },
        "created_at": NOW.to_string(),
    });
    let field = if batched { "events" } else { "event" };
    let event = Event {
        message_id: MessageId::new(&format!("sample-{serial}")).ok()?,
        message_timestamp: NOW.to_string().into(),
        subscription_type: subscription_type.into(),
        subscription_version: version.into(),
        subscription_id: "f1c2a387-161a-49f9-a165-0f21d7a4e1c4".into(),
        payload: format!(r#"{{"subscription":{subscription},"{field}":{event}}}"#).into_bytes().into(),
    };
    Some(Sample { event, sinks: spec.sinks.clone() })
}
