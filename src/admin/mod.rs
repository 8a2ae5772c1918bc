//! The control socket: how commands find the running daemon and talk to it.
//!
//! HTTP/1.1 over a Unix socket of mode 0600, so that only the daemon's own user and root can reach
//! it. It reads published values and passes requests on; it decides nothing. A crash leaves a stale
//! socket file behind, which the next start replaces; a socket that somebody still answers on is
//! never taken away.

mod metrics;
mod server;
mod socket;

pub use server::{Answer, Control, Count, Refused, ReloadAccepted, ReloadRefused, serve};
pub use socket::{ControlSocket, SocketError};
