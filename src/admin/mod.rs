//! The control socket and the admin endpoint: how commands, programs and people find out how the running
//! daemon is, and tell it what to do.
//!
//! The control socket is HTTP/1.1 over a Unix socket of mode 0600, so that only the daemon's own user and
//! root can reach it. A crash leaves a stale socket file behind, which the next start replaces; a socket
//! that somebody still answers on is never taken away. The endpoint on TCP, off unless it is asked for,
//! answers the same questions and changes nothing. This room reads published values and stored events and
//! passes requests on; it decides nothing.

mod client;
mod door;
mod endpoint;
mod events;
mod guard;
mod metrics;
mod page;
mod reading;
mod server;
mod socket;
mod tail;
mod throttle;
mod token;

pub use endpoint::{Endpoint, EndpointError, EndpointListener, EndpointOptions};
pub use server::{
    Answer, Applied, Control, Count, LogFilter, Refused, ReloadAccepted, ReloadRefused, Retried,
    SecretRotated, SkippedEvent, serve,
};
pub use socket::{ControlSocket, SocketError};
