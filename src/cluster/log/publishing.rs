//! Publishing to a stream, and patience with servers that do not know who leads it.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{Context, PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// Time limit of an acknowledgement.
const ACK_LIMIT: Duration = Duration::from_secs(5);
/// Time for which a server may lack what another one knows: that there is a stream by now, and who leads it.
const NEWS: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const AGAIN: Duration = Duration::from_millis(50);

/// Makes an attempt again for as long as the server may not have heard of the stream yet, right after it was made by another
/// host over another server.
pub(super) async fn once_known<T, E, F>(
    attempt: impl Fn() -> F,
    is_unknown: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let begun = Instant::now();
    loop {
        match attempt().await {
            Err(error) if is_unknown(&error) && begun.elapsed() < NEWS => tokio::time::sleep(AGAIN).await,
            outcome => return outcome,
        }
    }
}

/// Publishes a message of this subject, these headers and this payload, and waits for the acknowledgement. The message is
/// made anew for each attempt: mostly there is one, for which nothing has to be copied.
pub(super) async fn publish(
    context: &Context,
    message: impl Fn() -> (String, HeaderMap, Bytes),
) -> Result<Result<PublishAck, PublishError>, Elapsed> {
    let send = || {
        let (subject, headers, payload) = message();
        let sent = context.publish_with_headers(subject, headers, payload);
        async { sent.await?.await }
    };
    let is_unknown = |error: &PublishError| error.kind() == PublishErrorKind::StreamNotFound;
    tokio::time::timeout(ACK_LIMIT, once_known(send, is_unknown)).await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_unknown_at_first_is_waited_for_and_other_failures_are_not() {
        let (begun, count) = (Instant::now(), &Cell::new(0));
        let attempts = |outcome: fn(u32) -> Result<u32, &'static str>| {
            count.set(0);
            let attempt = move || {
                count.set(count.get() + 1);
                std::future::ready(outcome(count.get()))
            };
            once_known(attempt, |error| *error == "unknown")
        };
        assert_eq!(attempts(|nth| if nth < 4 { Err("unknown") } else { Ok(nth) }).await, Ok(4));
        assert_eq!((attempts(|_| Err("refused")).await, count.get()), (Err("refused"), 1));
        assert!(begun.elapsed() < NEWS);
        assert_eq!(attempts(|_| Err("unknown")).await, Err("unknown"));
        assert!(begun.elapsed() >= NEWS, "it gives up");
    }
}
