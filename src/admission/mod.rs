//! Admission control for the listeners that strangers can reach: the webhook port, the admin endpoint and the page
//! for invited users; and serving an address under it.
//!
//! Owns the table of a listener's connections: how many there may be, what each is doing and for how long, how
//! many bytes of unfinished bodies they hold, and which of them has to go when there is no room. A connection is
//! proved once it has carried a request that only Twitch or somebody with the token could have made; until
//! then it is a stranger's. The answers are made elsewhere.

mod activity;
mod connection;
mod descriptors;
mod peer;
mod places;
mod server;

pub use self::activity::Phase;
pub use self::connection::{Connection, Connections, Watched};
pub use self::descriptors::raise_descriptor_limit;
pub use self::peer::Peer;
pub use self::places::{Counts, Limits, Order};
pub use self::server::{BoundAddress, ClientConnection, Serving, serve, serve_configured};
