//! WebSocket shards of a conduit: sockets to Twitch that bring events in.
//!
//! Owns the sockets and their sessions. It never asks the API anything: it says which sessions it has,
//! and is told which of them are bound. It sends nothing but pong and close frames. An event counts
//! as received once the store has taken it; at a crash, what was on the wire is lost, as Twitch
//! replays nothing.

mod dating;
pub mod frame;
mod options;
mod pool;
pub mod session;
mod shard;
mod socket;

pub use self::options::PoolOptions;
pub use self::pool::{Pool, PoolHandle, pool};
pub use self::session::Timings;
pub use self::socket::try_welcome;
