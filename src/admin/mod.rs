//! The control socket and the admin endpoint: status and commands for programs and people.
//!
//! The control socket is HTTP/1.1 over a Unix socket of mode 0600, which only the daemon's own user and root can
//! reach. A crash leaves a stale socket file behind, which the next start replaces; a socket that another daemon
//! answers on is never replaced. The endpoint on TCP, off by default, answers the same questions; whoever has
//! its token may also do there what concerns sinks and their dead letters.
//! This room reads published values and stored events and forwards requests; it decides nothing.

mod auth;
mod change;
mod changes;
mod client;
mod control;
mod endpoint;
mod events;
mod filter;
mod guard;
mod letters;
mod metrics;
mod page;
mod reading;
mod rights;
mod search;
mod server;
mod socket;
mod state;
mod subscriptions;
mod tail;
mod throttle;
mod token;

pub use control::{
    Applied, Control, ControlFuture, Count, LogFilter, Refused, ReloadAccepted, ReloadRefused, Retried,
    SecretRotated, SinksOf, SkippedEvent,
};
pub use endpoint::{Endpoint, EndpointError, EndpointOptions, bind as bind_endpoint};
pub use filter::SinkFilter;
pub use letters::SharedLetterPage;
pub use server::serve;
pub use socket::{ControlSocket, SocketError};
pub use subscriptions::SubscriptionPage;
