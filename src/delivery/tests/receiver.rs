//! An HTTP receiver that can misbehave.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The reaction to one request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// This status, with these further headers (each with its line break).
    Status(u16, &'static str),
    /// This status, and the head of the request as its body.
    Repeats(u16),
    Hang,
    Reset,
    /// Something that is no HTTP.
    Garbage,
    /// 200, and a body that does not end.
    Endless,
}

/// A received request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether an answer was sent.
    pub(super) answered: bool,
    /// Time of arrival.
    pub(super) at: Instant,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<Mutex<Vec<Request>>>,
    /// The answers to the next requests; 200 if empty.
    pub(super) script: Arc<Mutex<VecDeque<Answer>>>,
    /// Delay of each answer.
    pub(super) pace: Duration,
}

impl Receiver {
    pub(super) async fn start(script: &[Answer], pace: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            pace,
        };
        let server = receiver.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(socket).await });
            }
        });
        receiver
    }

    async fn serve(&self, socket: TcpStream) -> Option<()> {
        let mut socket = BufReader::new(socket);
        loop {
            let request = read(&mut socket).await?;
            let answer = self.script.lock().unwrap().pop_front().unwrap_or(Answer::Status(200, ""));
            let good = matches!(answer, Answer::Status(200..300, _) | Answer::Endless);
            let head = format!("{} {:?}", request.line, request.headers);
            self.requests.lock().unwrap().push(Request { answered: good, ..request });
            tokio::time::sleep(self.pace).await;
            match answer {
                Answer::Status(status, headers) => {
                    let text = format!("HTTP/1.1 {status} So\r\ncontent-length: 4\r\n{headers}\r\nsaid");
                    socket.write_all(text.as_bytes()).await.ok()?;
                }
                Answer::Repeats(status) => {
                    let length = head.len();
                    let text = format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\n\r\n{head}");
                    socket.write_all(text.as_bytes()).await.ok()?;
                }
                Answer::Hang => std::future::pending().await,
                Answer::Reset => {
                    socket.get_ref().set_zero_linger().ok()?;
                    return None;
                }
                Answer::Garbage => {
                    socket.write_all(b"\x00\xff not HTTP\r\n\r\n").await.ok()?;
                    return None;
                }
                Answer::Endless => {
                    socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
                    while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
                    return None;
                }
            }
        }
    }

    /// When the first request came that was not answered well.
    pub(super) fn paused_at(&self) -> Instant {
        let requests = self.requests.lock().unwrap();
        requests.iter().find(|request| !request.answered).expect("one that was refused").at
    }

    /// The ids of the messages that were answered well, in order of coming.
    pub(super) fn ids(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let good = requests.iter().filter(|request| request.answered);
        good.map(|request| request.header("twitch-eventsub-message-id").to_owned()).collect()
    }
}

async fn read(socket: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let request = Request { line, headers, body: Vec::new(), answered: false, at: Instant::now() };
    let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    socket.read_exact(&mut body).await.ok()?;
    Some(Request { body, ..request })
}
