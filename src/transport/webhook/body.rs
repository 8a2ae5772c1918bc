//! Receiving the body of a request whose signature is not known to hold yet.
//!
//! A body that arrives at once is passed on as it is. An incomplete body counts against the bytes that all
//! connections together may hold. Large bodies are received into memory that is mapped for them alone: the
//! system gets it back when the body is done, whereas the allocator would keep most of it after an attack.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use memmap2::{Advice, MmapMut};

use super::counters::Reason;
use super::refusal::Refusal;
use crate::admission::Connection;

/// Bodies with a larger Content-Length are received into mapped memory.
const MAPPED_FROM: usize = 16 << 10;

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(body: Incoming, limit: usize, connection: &Connection) -> Result<Bytes, Refusal> {
    let received = receive(body, limit, connection).await;
    connection.release();
    received
}

async fn receive(mut body: Incoming, limit: usize, connection: &Connection) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::Size, "its body is larger than any of Twitch's")
    };
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(too_large());
    }
    let announced = hint.exact().and_then(|size| usize::try_from(size).ok());
    let mut first = Bytes::new();
    let mut rest: Option<Buffer> = None;
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::new(StatusCode::BAD_REQUEST, Reason::Broken, "its body broke off");
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        if first.len() + rest.as_ref().map_or(0, Buffer::len) + piece.len() > limit {
            return Err(too_large());
        }
        if !body.is_end_stream() && !connection.hold(piece.len()) {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Reason::Crowded,
                "too many bodies are unfinished",
            ));
        }
        if first.is_empty() && rest.is_none() {
            first = piece;
            continue;
        }
        let buffer = match &mut rest {
            Some(buffer) => buffer,
            None => {
                let mut buffer = Buffer::new(announced.unwrap_or(limit));
                buffer.push(&std::mem::take(&mut first));
                rest.insert(buffer)
            }
        };
        buffer.push(&piece);
    }
    Ok(rest.map_or(first, Buffer::freeze))
}

enum Buffer {
    Small(BytesMut),
    Mapped(MmapMut, usize),
}

impl Buffer {
    /// A buffer for `size` bytes. Mapped memory is not allocated before it is written to, so a client gains
    /// nothing by announcing much and sending little.
    fn new(size: usize) -> Self {
        if size < MAPPED_FROM {
            return Self::Small(BytesMut::new());
        }
        match MmapMut::map_anon(size) {
            Ok(map) => {
                // A single byte must not allocate a whole huge page.
                let _ = map.advise(Advice::NoHugePage);
                Self::Mapped(map, 0)
            }
            Err(_) => Self::Small(BytesMut::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Mapped(_, length) => *length,
        }
    }

    /// Adds a piece; the caller keeps the sum below the size.
    fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Small(bytes) => bytes.extend_from_slice(piece),
            Self::Mapped(map, length) => {
                map[*length..*length + piece.len()].copy_from_slice(piece);
                *length += piece.len();
            }
        }
    }

    fn freeze(self) -> Bytes {
        match self {
            Self::Small(bytes) => bytes.freeze(),
            Self::Mapped(map, length) => Bytes::from_owner(map).slice(..length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_one_body() {
        for size in [0, 10, MAPPED_FROM - 1, MAPPED_FROM, 300_000] {
            let mut buffer = Buffer::new(size);
            assert_eq!(matches!(buffer, Buffer::Mapped(..)), size >= MAPPED_FROM);
            let pieces: Vec<Vec<u8>> = (0..5_u8).map(|nth| vec![nth; size / 5]).collect();
            pieces.iter().for_each(|piece| buffer.push(piece));
            assert_eq!(buffer.len(), size / 5 * 5);
            assert_eq!(buffer.freeze(), pieces.concat());
        }
    }
}
