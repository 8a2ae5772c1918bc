//! The memory of the watch, and the row in the store that the next start goes on from. ◆

use serde::{Deserialize, Serialize};

use super::timeline::Moment;
use crate::model::shard::SessionId;
use crate::model::time::Timestamp;

/// The name of the setting.
pub(super) const NAME: &str = "gaps.memory";

/// State that the next start continues from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Everything that Twitch sent up to here came in, and is told if not.
    pub(super) known: Moment,
    /// Last moment at which the process was known to be alive.
    pub(super) alive: Moment,
    /// The listener accepted requests up to here, and every gap of what calls is told.
    #[serde(default)]
    pub(super) accepted: Moment,
    /// Some of the signed requests, in order.
    #[serde(default)]
    pub(super) signed: Vec<Moment>,
    /// The sessions of shards that delivered without a break that is not told. Only other hosts' sockets outlive a process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<(u32, SessionId)>,
    pub(super) conduit: Option<String>,
}

/// [`Memory`] with what places its moments on the clock of another boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// The boot that the moments are of.
    pub(super) boot: String,
    /// The wall-clock time of [`Memory::alive`], in milliseconds.
    pub(super) wall: u64,
    #[serde(flatten)]
    pub(super) memory: Memory,
}

/// A memory of a process before this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recalled {
    pub(super) memory: Memory,
    /// The wall-clock time of [`Memory::known`], as that process had it. The clock of this one may not be set yet.
    pub(super) known_at: Timestamp,
}

impl Row {
    /// Returns the memory by the clock of this boot. With `age`, the time in milliseconds since another host wrote it, the
    /// wall clock of that host does not count.
    pub(super) fn recall(self, boot: &str, now: Moment, wall: u64, age: Option<u64>) -> Recalled {
        let Self { boot: theirs, wall: then, memory } = self;
        let then = age.map_or(then, |age| wall.saturating_sub(age));
        let unknown = memory.alive.saturating_sub(memory.known);
        let known_at = Timestamp::from_unix_millis(then.saturating_sub(unknown));
        if theirs == boot && memory.alive <= now {
            return Recalled { memory, known_at };
        }
        let alive = now.saturating_sub(wall.saturating_sub(then));
        let place = |moment: Moment| alive.saturating_sub(memory.alive.saturating_sub(moment));
        let signed = memory.signed.iter().map(|signed| place(*signed)).collect();
        let (known, accepted) = (place(memory.known), place(memory.accepted));
        let memory = Memory { known, alive, accepted, signed, ..memory };
        Recalled { memory, known_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_has_its_place_on_the_clock_of_any_boot() {
        let conduit = Some("c".to_owned());
        let memory = Memory {
            known: 7_000,
            alive: 10_000,
            accepted: 9_000,
            signed: vec![8_000],
            sessions: vec![(3, SessionId::new("s"))],
            conduit,
        };
        let row = Row { boot: "a".to_owned(), wall: 1_000_000, memory: memory.clone() };
        let text = serde_json::to_string(&row).expect("JSON");
        assert_eq!(
            text,
            r#"{"boot":"a","wall":1000000,"known":7000,"alive":10000,"accepted":9000,"signed":[8000],"sessions":[[3,"s"]],"conduit":"c"}"#
        );
        let row: Row = serde_json::from_str(&text).expect("the same");
        let same = row.clone().recall("a", 50_000, 1_040_000, None);
        assert_eq!((&same.memory, same.known_at.unix_millis()), (&memory, 997_000));
        // After a boot the machine's clock began anew; the wall clock says that 60 s have passed.
        let other = row.clone().recall("b", 500_000, 1_060_000, None);
        assert_eq!((other.memory.alive, other.memory.known), (440_000, 437_000));
        assert_eq!((other.memory.accepted, &other.memory.signed[..]), (439_000, &[438_000][..]));
        assert_eq!(other.known_at.unix_millis(), 997_000);
        // A clock that is behind hides the time that has passed, but not the time of the memory.
        let behind = row.clone().recall("b", 500_000, 0, None);
        assert_eq!((behind.memory.alive, behind.known_at.unix_millis()), (500_000, 997_000));
        // Another host wrote it 20 s ago; its clock is an hour ahead.
        let shared = row.recall("b", 500_000, 5_000_000, Some(20_000));
        assert_eq!((shared.memory.alive, shared.memory.known), (480_000, 477_000));
        assert_eq!(shared.known_at.unix_millis(), 4_977_000);
    }
}
