//! Taking connections from the sockets in use.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::listen::{Listener, Socket};
use crate::admission::{Connections, Peer};

/// A listener in use.
pub(super) struct Listening {
    pub(super) listener: Arc<Listener>,
    sockets: Vec<Accepting>,
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listening {
    pub(super) fn new(listener: &Arc<Listener>) -> io::Result<Self> {
        let sockets = listener.sockets.iter().map(|socket| match socket {
            Socket::Tcp(tcp) => tcp.try_clone().and_then(TcpListener::from_std).map(Accepting::Tcp),
            Socket::Unix(unix) => unix.try_clone().and_then(UnixListener::from_std).map(Accepting::Unix),
        });
        Ok(Self { listener: Arc::clone(listener), sockets: sockets.collect::<io::Result<_>>()? })
    }

    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Accepted, Peer)>> {
        for socket in &self.sockets {
            let polled = match socket {
                Accepting::Tcp(tcp) => {
                    tcp.poll_accept(context).map_ok(|(s, peer)| (Accepted::Tcp(s), Peer::of(peer.ip())))
                }
                Accepting::Unix(unix) => {
                    unix.poll_accept(context).map_ok(|(s, _)| (Accepted::Unix(s), Peer::Local))
                }
            };
            if polled.is_ready() {
                return polled;
            }
        }
        Poll::Pending
    }
}

/// Returns the next connection. While there is no room, connections wait in the system's backlog. The caller
/// polls again when a connection has ended, and with each tick.
pub(super) async fn accept(
    listening: Option<&Listening>,
    connections: &Connections,
) -> io::Result<(Accepted, Peer)> {
    let poll = |context: &mut Context<'_>| match listening {
        Some(listening) if connections.has_room() => listening.poll_accept(context),
        _ => Poll::Pending,
    };
    poll_fn(poll).await
}
