//! The sockets that the callback is served on: one that we open, or those that systemd has opened.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use listenfd::ListenFd;

use crate::model::webhook::Listen;

/// Connections that the system keeps for us until we take them.
const BACKLOG: i32 = 4_096;

#[derive(Clone, Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error(
        "{address} is taken by another program: see which with `ss -ltnp 'sport = :{}'`, or choose another \
         transport.webhook.listen",
        address.port()
    )]
    Taken { address: SocketAddr },
    /// The user of the process may not listen there.
    #[error(
        "this user may not listen on {address}: take a port above 1023, or have systemd open it (listen = \"systemd\")"
    )]
    Forbidden { address: SocketAddr },
    /// Not an address of this machine.
    #[error("{address} is not an address of this machine; `ip address` lists them")]
    Foreign { address: SocketAddr },
    #[error("cannot listen on {listen}")]
    Io {
        listen: Listen,
        #[source]
        source: Arc<io::Error>,
    },
    /// `systemd` is configured, but there is no socket from it.
    #[error(
        "transport.webhook.listen is \"systemd\", but systemd has passed no socket: enable the socket unit of the same \
         name (`systemctl enable --now eventsubd.socket`), or name an address"
    )]
    NonePassed,
    /// A socket from systemd is not a listening stream socket.
    #[error("socket {number} from systemd is not a stream socket; use ListenStream= in the socket unit")]
    NoStream {
        /// Number of the socket, from 1.
        number: usize,
    },
}

/// One socket that listens.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// Sockets that listen, and do not block.
#[derive(Debug)]
pub struct Listener {
    pub(super) sockets: Vec<Socket>,
    listen: Listen,
}

impl Listener {
    fn new(sockets: Vec<Socket>, listen: Listen) -> Result<Self, ListenError> {
        for socket in &sockets {
            let ready = match socket {
                Socket::Tcp(tcp) => tcp
                    .set_nonblocking(true)
                    .and_then(|()| rustix::net::listen(tcp, BACKLOG).map_err(io::Error::from)),
                Socket::Unix(unix) => unix.set_nonblocking(true),
            };
            ready.map_err(|source| ListenError::Io { listen, source: Arc::new(source) })?;
        }
        Ok(Self { sockets, listen })
    }

    fn open(address: SocketAddr) -> Result<Self, ListenError> {
        let socket = std::net::TcpListener::bind(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken { address },
            io::ErrorKind::PermissionDenied => ListenError::Forbidden { address },
            io::ErrorKind::AddrNotAvailable => ListenError::Foreign { address },
            _ => ListenError::Io { listen: Listen::Address(address), source: Arc::new(source) },
        })?;
        Self::new(vec![Socket::Tcp(socket)], Listen::Address(address))
    }

    /// The first address that it listens on. `None` if it is not a network address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.sockets.iter().find_map(|socket| match socket {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Unix(_) => None,
        })
    }

    pub fn listen(&self) -> Listen {
        self.listen
    }
}

/// The sockets of this process. Binding the same address again returns the same socket, so a reload that keeps
/// the address keeps the socket. Sockets from systemd can be taken only once and are kept for good.
#[derive(Debug)]
pub struct Sockets {
    passed: Result<Option<Arc<Listener>>, ListenError>,
    opened: Mutex<Vec<Weak<Listener>>>,
}

impl Sockets {
    /// Takes the sockets that systemd has passed. Call it once, before other threads read the environment.
    pub fn from_env() -> Self {
        Self { passed: passed(ListenFd::from_env()), opened: Mutex::default() }
    }

    /// An instance without sockets from systemd.
    pub fn none() -> Self {
        Self { passed: Ok(None), opened: Mutex::default() }
    }

    /// Listens, or returns the socket that listens already.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(&self, listen: &Listen) -> Result<Arc<Listener>, ListenError> {
        let address = match listen {
            Listen::Systemd => return self.passed.clone()?.ok_or(ListenError::NonePassed),
            Listen::Address(address) => *address,
        };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|listener| listener.strong_count() > 0);
        if let Some(known) = opened.iter().filter_map(Weak::upgrade).find(|known| known.listen == *listen) {
            return Ok(known);
        }
        let listener = Arc::new(Listener::open(address)?);
        opened.push(Arc::downgrade(&listener));
        Ok(listener)
    }
}

fn passed(mut passed: ListenFd) -> Result<Option<Arc<Listener>>, ListenError> {
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let socket = match passed.take_tcp_listener(index) {
            Ok(Some(tcp)) => Socket::Tcp(tcp),
            _ => match passed.take_unix_listener(index) {
                Ok(Some(unix)) => Socket::Unix(unix),
                _ => return Err(ListenError::NoStream { number: index + 1 }),
            },
        };
        sockets.push(socket);
    }
    if sockets.is_empty() {
        return Ok(None);
    }
    Listener::new(sockets, Listen::Systemd).map(|listener| Some(Arc::new(listener)))
}
