//! How a connection ends whose client may still be sending.

use std::future::poll_fn;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::net;
use crate::net::wire::Wire;

/// What is discarded, and for how long, of an upload that nobody wanted: a
/// close with unread bytes is a reset, and would eat our answer.
const LINGER: (usize, Duration) = (256 << 10, Duration::from_secs(1));

/// Ends our side and discards what the client still sends, within bounds.
pub(super) async fn linger(stream: &Wire) {
    let ending = poll_fn(|cx| stream.poll_shutdown(cx));
    let ended = tokio::time::timeout(LINGER.1, ending).await;
    if matches!(ended, Ok(Ok(()))) {
        discard(stream.tcp()).await;
    }
}

/// Discards what a client still sends, within bounds.
pub(super) async fn discard(stream: &TcpStream) {
    let (mut left, within) = LINGER;
    let mut discard = Vec::with_capacity(8 << 10);
    let discarding = async {
        while left > 0 {
            discard.clear();
            match poll_fn(|cx| net::poll_read(stream, cx, &mut discard)).await {
                Ok(0) | Err(_) => return,
                Ok(n) => left = left.saturating_sub(n),
            }
        }
    };
    // Late is as good as done.
    let _ = tokio::time::timeout(within, discarding).await;
}
