//! Ports for programs that are told where to listen.

use std::sync::{Mutex, PoisonError};

use tokio::net::TcpSocket;

/// Sockets that hold ports until the tests end.
static HELD: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());

/// A port that nobody listens on.
///
/// A socket that does not listen holds the port while the tests run, also between two starts of a program, so that no other test
/// gets it. A program may listen there all the same, as both set `SO_REUSEADDR`.
pub fn port() -> u16 {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of every socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let port = socket.local_addr().expect("an address").port();
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    port
}
