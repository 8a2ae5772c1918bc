//! A way to a server that can be cut without anybody noticing: connections stay open, and everything is swallowed.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy on loopback; it ends with the runtime.
pub(super) struct Swallower {
    address: SocketAddr,
    swallows: watch::Sender<bool>,
}

impl Swallower {
    /// In front of the server on this port.
    pub(super) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (swallows, told) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, port, told.clone()));
            }
        });
        Self { address, swallows }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Cuts the way, or opens it for new connections; what was swallowed does not come back.
    pub(super) fn swallow(&self, swallows: bool) {
        self.swallows.send_replace(swallows);
    }
}

async fn serve(client: TcpStream, port: u16, told: watch::Receiver<bool>) {
    let (from_client, to_client) = client.into_split();
    if *told.borrow() {
        return discard(from_client).await;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_server, to_server) = server.into_split();
    let up = pass(from_client, to_server, told.clone());
    let down = pass(from_server, to_client, told);
    tokio::join!(up, down);
}

/// Passes on what comes; once the way is cut, this connection swallows everything, for good.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut told: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => Some(read),
            Ok(_) = told.wait_for(|swallows| *swallows) => None,
        };
        match read {
            None => return discard_and_hold(from, to).await,
            Some(Ok(0) | Err(_)) => return,
            Some(Ok(length)) => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The other side must not see an end: its half is kept.
async fn discard_and_hold(from: OwnedReadHalf, to: OwnedWriteHalf) {
    discard(from).await;
    drop(to);
}

async fn discard(mut from: OwnedReadHalf) {
    let mut buffer = vec![0; 16 << 10];
    while from.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
}
