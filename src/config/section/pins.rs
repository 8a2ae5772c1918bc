//! `sink.X.host`: the host of a cluster that works a sink.

use std::collections::BTreeMap;

use super::cluster::{HOST_NAME_HINT, is_host_name};
use crate::config::keys::layers::Layers;
use crate::config::keys::table::Sink as Keys;
use crate::config::report::problems::{At, Problems};
use crate::model::sink::SinkType;

/// Checks the hosts that sinks are pinned to. `is_cluster`: the file has a `[cluster]`.
pub(in crate::config) fn check(
    sinks: &BTreeMap<String, Keys>,
    is_cluster: bool,
    layers: &Layers,
    problems: &mut Problems,
) {
    for (name, sink) in sinks {
        let at = layers.place(&format!("sink.{name}.host"));
        match (&sink.host, sink.sink_type) {
            (Some(host), _) if !is_host_name(host) => {
                // The value may be a secret in the wrong place.
                let message = format!("`host` of sink `{name}` is not a valid name of a host");
                problems.error(&at, message).hint(HOST_NAME_HINT);
            }
            (Some(_), _) if !is_cluster => {
                problems
                    .warning(&at, "`host` does nothing without `[cluster]`")
                    .hint("it names the host that works the sink; leave it out, or set `cluster.nats`");
            }
            (Some(_), _) => {}
            (None, Some(SinkType::Stdout | SinkType::File)) if is_cluster => {
                // The sink of a file without any is not in it.
                let at = layers.place_of_sink(name);
                if at != At::Nowhere {
                    problems
                        .warning(
                            &at,
                            format!(
                                "sink `{name}` writes on whichever host works it, now this one and now that"
                            ),
                        )
                        .hint("pin it to one: `host = \"web-1\"` names that host by its `cluster.host`");
                }
            }
            (None, _) => {}
        }
    }
}
