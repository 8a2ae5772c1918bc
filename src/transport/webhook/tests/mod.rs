//! The listener over real sockets, with clients that behave and clients that do not.

mod connections;
mod requests;
mod sockets;
mod storing;
mod tls;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Instant;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::event::{Seq, StoredEvent};
use crate::model::hint::Hint;
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::model::webhook::WebhookKey;
use crate::model::webhook::WebhookKeys;
use crate::store::StoreOptions;
use std::time::Duration;
use std::time::SystemTime;

const WAIT: Duration = Duration::from_secs(20);
const SECRET: &str = "a-secret-of-the-tests";
const PATH: &str = "/twitch/main";

/// Fails a test that would never end.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

fn key(secret: &str) -> WebhookKey {
    WebhookKey::new(Secret::new(secret)).unwrap()
}

fn open_store(folder: &TempDir) -> Store {
    let path = folder.path().join("events.db");
    Store::open(StoreOptions::new(path, Duration::from_secs(86_400), 1 << 30, 10_000, 64 << 20)).unwrap()
}

fn listener() -> Arc<Listener> {
    Sockets::none().bind(&Listen::Address("127.0.0.1:0".parse().unwrap())).unwrap()
}

/// A running listener.
struct Server {
    folder: TempDir,
    store: Store,
    options: watch::Sender<Option<WebhookOptions>>,
    address: SocketAddr,
    handle: WebhookHandle,
    hints: Arc<Mutex<Vec<Hint>>>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut WebhookOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(&folder);
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let keys = WebhookKeys::new(key(SECRET), []);
        let mut chosen = WebhookOptions::new(format!("https://example.org{PATH}"), listener, None, keys);
        change(&mut chosen);
        let (options, receiver) = watch::channel(Some(chosen));
        let hints: Arc<Mutex<Vec<Hint>>> = Arc::default();
        let heard = Arc::clone(&hints);
        let on_hint = HintCallback(Arc::new(move |hint| heard.lock().unwrap().push(hint)));
        let (webhook, handle) = webhook(receiver, store.clone(), on_hint, None);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(webhook.run(cancel.clone()));
        Self { folder, store, options, address, handle, hints, cancel, task }
    }

    fn change(&self, change: impl FnOnce(&mut WebhookOptions)) {
        self.options.send_modify(|options| change(options.as_mut().unwrap()));
    }

    async fn connect(&self) -> Client<TcpStream> {
        Client::to(self.address).await
    }

    async fn stored(&self) -> Vec<StoredEvent> {
        self.store.read_after(Seq(0), usize::MAX, usize::MAX).await.unwrap()
    }

    async fn ids(&self) -> Vec<String> {
        self.stored().await.iter().map(|stored| stored.event.message_id.to_string()).collect()
    }

    /// Waits for a status.
    async fn until(&self, what: &str, mut like: impl FnMut(&WebhookStatus) -> bool) -> WebhookStatus {
        let mut status = self.handle.status.clone();
        let found = soon(what, status.wait_for(|status| status.as_ref().is_some_and(&mut like))).await;
        found.unwrap().clone().unwrap()
    }

    async fn end(self) {
        self.cancel.cancel();
        soon("the end", self.task).await.unwrap();
    }
}

struct Client<T> {
    stream: T,
    read: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let of_name = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        Some(self.head.lines().skip(1).find(of_name)?.split_once(':')?.1.trim())
    }
}

impl Client<TcpStream> {
    async fn to(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next answer. `None` means that the connection has ended.
    async fn answer(&mut self) -> Option<Answer> {
        soon("an answer", async {
            loop {
                if let Some(answer) = self.parse() {
                    return Some(answer);
                }
                match self.stream.read_buf(&mut self.read).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    fn parse(&mut self) -> Option<Answer> {
        let end = self.read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if self.read.len() < end + length {
            return None;
        }
        answer.body = self.read[end..end + length].to_vec();
        self.read.drain(..end + length);
        Some(answer)
    }

    async fn ask(&mut self, request: &Post) -> Answer {
        self.send(request.bytes()).await;
        self.answer().await.expect("an answer")
    }

    /// Whether the server has closed the connection without an answer.
    async fn is_ended(&mut self) -> bool {
        self.answer().await.is_none()
    }
}

/// A request as Twitch makes it.
#[derive(Clone)]
struct Post {
    id: String,
    timestamp: String,
    kind: &'static str,
    body: Vec<u8>,
    secret: &'static str,
    query: String,
}

impl Post {
    fn new(kind: &'static str, id: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            id: id.to_owned(),
            timestamp: Timestamp(SystemTime::now()).to_string(),
            kind,
            body: body.into(),
            secret: SECRET,
            query: format!("?key={}", key(SECRET).id),
        }
    }

    fn event(id: &str) -> Self {
        Self::new("notification", id, notification(id))
    }

    fn signature(&self) -> String {
        key(self.secret).signer.sign(self.id.as_bytes(), self.timestamp.as_bytes(), &self.body)
    }

    /// The head, with these lines in place of the length.
    fn head(&self, length: &str) -> String {
        self.head_signed(length, &self.signature())
    }

    fn head_signed(&self, length: &str, signature: &str) -> String {
        let mut head = format!("POST {PATH}{} HTTP/1.1\r\nHost: example.org\r\n", self.query);
        let _ = write!(
            head,
            "Content-Type: application/json\r\nTwitch-Eventsub-Message-Id: {}\r\n\
             Twitch-Eventsub-Message-Retry: 0\r\nTwitch-Eventsub-Message-Type: {}\r\n\
             Twitch-Eventsub-Message-Timestamp: {}\r\nTwitch-Eventsub-Message-Signature: {signature}\r\n\
             {length}\r\n\r\n",
            self.id, self.kind, self.timestamp
        );
        head
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head(&format!("Content-Length: {}", self.body.len())).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn notification(id: &str) -> String {
    format!(
        r#"{{"subscription":{{"id":"s-1","status":"enabled","type":"stream.online","version":"1","cost":0,"condition":{{"broadcaster_user_id":"7"}}}},"event":{{"id":"{id}","broadcaster_user_id":"7","viewers":1.50}}}}"#
    )
}
