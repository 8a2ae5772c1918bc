//! The last assignment of this host, as its own store remembers it: for a start while NATS is away. ◆

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::cluster::Assigned;
use crate::model::shard::{OwnShards, ShardId};

/// Most shards that Twitch allows (Twitch: "Create Conduits").
const MOST: u32 = 20_000;

/// The shards that a host was assigned last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedShards {
    /// Name of the cluster, and of the host in it: another one has other shards.
    cluster: String,
    host: String,
    conduit_id: Arc<str>,
    shards: BTreeSet<ShardId>,
}

impl RememberedShards {
    /// The shards of this host; `None` before they are known.
    pub fn of(assigned: &Assigned, cluster: &str, host: &str) -> Option<Self> {
        let OwnShards { conduit_id, shards } = own_shards(assigned, host)?;
        Some(Self {
            cluster: cluster.to_owned(),
            host: host.to_owned(),
            conduit_id,
            shards: (*shards).clone(),
        })
    }

    /// Reads the text of [`Self::text`]; `None` if it is of another host, or cannot be read.
    pub fn read(text: &str, cluster: &str, host: &str) -> Option<OwnShards> {
        let Self { cluster: of_cluster, host: of_host, conduit_id, shards } =
            serde_json::from_str(text).ok()?;
        let is_ours = of_cluster == cluster && of_host == host && shards.iter().all(|shard| shard.0 < MOST);
        is_ours.then(|| OwnShards { conduit_id, shards: Arc::new(shards) })
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always make JSON")
    }
}

/// The shards of a host; `None` before they are known.
pub(super) fn own_shards(assigned: &Assigned, host: &str) -> Option<OwnShards> {
    let conduit_id = assigned.conduit_id.clone()?;
    Some(OwnShards { conduit_id, shards: Arc::new(assigned.shards_of(host).map(ShardId).collect()) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_remembers_its_own_shards_and_no_others() {
        let assigned = Assigned {
            conduit_id: Some("c".into()),
            shards: Arc::new([(0, "a".into()), (1, "b".into()), (4, "a".into())].into()),
            ..Assigned::default()
        };
        assert_eq!(RememberedShards::of(&Assigned::default(), "n", "a"), None);
        let text = RememberedShards::of(&assigned, "n", "a").unwrap().text();
        let own = RememberedShards::read(&text, "n", "a").unwrap();
        assert_eq!((&*own.conduit_id, &*own.shards), ("c", &[ShardId(0), ShardId(4)].into()));
        assert_eq!(RememberedShards::read(&text, "n", "b"), None, "the host was renamed");
        assert_eq!(RememberedShards::read(&text, "m", "a"), None, "another cluster");
        assert_eq!(RememberedShards::read(&text.replace("4", "20000"), "n", "a"), None);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(text in "\\PC{0,40}") {
            let _ = RememberedShards::read(&text, "n", "a");
        }
    }
}
