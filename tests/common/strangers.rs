//! A webhook listener, strangers that hold its connections, and a client that signs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventsubd::model::secret::Secret;
use eventsubd::model::status::WebhookStatus;
use eventsubd::model::time::Timestamp;
use eventsubd::model::webhook::{WebhookKey, WebhookKeys};
use eventsubd::store::{Store, StoreOptions};
use eventsubd::transport::HintCallback;
use eventsubd::transport::webhook::{Listen, Sockets, Tls, TlsFiles, WebhookHandle, WebhookOptions, webhook};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "a-secret-of-the-tests";

/// The bytes that a stranger sends before it falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The beginning of a TLS handshake; the listener ends TLS itself.
    Handshake,
    /// A whole ClientHello, for which the listener has to compute an answer.
    Hello,
    Head,
    Body,
    Idle,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Handshake, Self::Hello, Self::Head, Self::Body, Self::Idle];

    pub fn needs_tls(self) -> bool {
        matches!(self, Self::Handshake | Self::Hello)
    }

    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Handshake => b"\x16\x03\x01\x02\x00\x01".to_vec(),
            Self::Hello => client_hello(),
            Self::Head => b"POST /hook HTTP/1.1\r\nHost: exam".to_vec(),
            Self::Body => request(100, "forged", "somebody-else's").0,
            Self::Idle => Vec::new(),
        }
    }
}

fn client_hello() -> Vec<u8> {
    let config = client_config(rustls::RootCertStore::empty());
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn client_config(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Where strangers come from: the nth of so many addresses of this machine.
pub fn address(nth: usize, addresses: usize) -> IpAddr {
    let nth = u32::try_from(nth % addresses).unwrap();
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + nth).into()
}

/// A stranger's connection, with what it has to say said.
pub async fn stranger(from: IpAddr, to: SocketAddr, bytes: &[u8]) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(bytes).await?;
    Ok(stream)
}

fn key(secret: &str) -> WebhookKey {
    WebhookKey::new(Secret::new(secret)).unwrap()
}

/// A request whose head announces `length` bytes, and of whose body only the first byte follows; and the whole body.
fn request(length: usize, id: &str, secret: &str) -> (Vec<u8>, Vec<u8>) {
    let mut body = br#"{"subscription":{"id":"s","type":"t","version":"1"},"event":{}}"#.to_vec();
    body.resize(length.max(body.len()), b' ');
    let time = Timestamp(SystemTime::now()).to_string();
    let signature = key(secret).signer.sign(id.as_bytes(), time.as_bytes(), &body);
    let mut bytes = format!(
        "POST /hook HTTP/1.1\r\nHost: example.org\r\nContent-Length: {}\r\nTwitch-Eventsub-Message-Id: {id}\r\n\
         Twitch-Eventsub-Message-Type: notification\r\nTwitch-Eventsub-Message-Timestamp: {time}\r\n\
         Twitch-Eventsub-Message-Signature: {signature}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.push(body[0]);
    (bytes, body)
}

/// A forged request with so large a body, all of it but the last byte.
pub fn unfinished(length: usize) -> Vec<u8> {
    let (mut bytes, body) = request(length, "forged", "somebody-else's");
    bytes.extend_from_slice(&body[1..body.len() - 1]);
    bytes
}

/// Asks as Twitch does, over connections of its own.
#[derive(Clone)]
pub struct Twitch {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Twitch {
    /// With TLS if there is a certificate to trust.
    pub fn new(address: SocketAddr, certificate: Option<&Path>) -> Self {
        let tls = certificate.map(|path| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
            TlsConnector::from(Arc::new(client_config(roots)))
        });
        Self { address, tls }
    }

    /// Sends a signed request over a new connection; the status of its answer.
    pub async fn ask(&self, id: &str) -> std::io::Result<u16> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => exchange(stream, id).await,
            Some(tls) => exchange(tls.connect("localhost".try_into().unwrap(), stream).await?, id).await,
        }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, id: &str) -> std::io::Result<u16> {
    let (mut bytes, body) = request(1_000, id, SECRET);
    bytes.extend_from_slice(&body[1..]);
    stream.write_all(&bytes).await?;
    let (mut answer, mut length) = ([0; 1_024], 0);
    while !answer[..length].ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut answer[length..]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        length += read;
    }
    Ok(std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap())
}

pub struct Listener {
    pub address: SocketAddr,
    pub handle: WebhookHandle,
    pub store: Store,
    options: watch::Sender<Option<WebhookOptions>>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Listener {
    /// With the bounds of the daemon, and with TLS if there is a folder with a certificate.
    pub fn start(certificate: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let store =
            Store::open(StoreOptions::new(path, Duration::from_secs(86_400), 1 << 30, 8_192, 16 << 20))
                .unwrap();
        let listener = Sockets::none().bind(&Listen::Address("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = certificate.map(|folder| {
            let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
            fs::metadata(&files.key).unwrap();
            Tls::load(files).unwrap()
        });
        let keys = WebhookKeys::new(key(SECRET), []);
        let chosen = WebhookOptions::new("https://example.org/hook", listener, tls, keys);
        let (options, receiver) = watch::channel(Some(chosen));
        let on_hint = HintCallback(Arc::new(|_| {}));
        let (webhook, handle) = webhook(receiver, store.clone(), on_hint, None);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(webhook.run(cancel.clone()));
        Self { address, handle, store, options, cancel, task, _folder: folder }
    }

    pub fn status(&self) -> WebhookStatus {
        self.handle.status.borrow().clone().unwrap_or_default()
    }

    pub async fn end(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
        drop(self.options);
        self.store.close().await.unwrap();
    }
}
