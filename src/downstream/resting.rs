//! Clients of HTTP/1 that rest.
//!
//! Invariant: what is dropped has nothing unread and nothing unsent: hyper was
//! asked first, and what it had read comes again.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http_body::Body;
use tokio::net::TcpStream;

use super::conn::{ConnState, Handled};
use super::{Answering, Asked, Shared, http1};
use crate::drain::{DrainPhase, DrainWatch};
use crate::net::wire::Wire;

/// Serves a client of HTTP/1, and drops what serves it while it rests: hyper's
/// buffers and all else are five sixths of a connection's memory.
pub(super) async fn by_turns<B, H>(
    stream: &Rc<Wire>,
    state: &Rc<ConnState>,
    shared: &Shared,
    handle: H,
) where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H: Fn(Asked, Handled) -> Answering<B> + Unpin + Clone + 'static,
{
    let mut early = Bytes::new();
    loop {
        let of = (shared, early);
        early = match Box::pin(http1(stream, state, of, handle.clone())).await {
            Some(unread) => unread,
            None => return,
        };
        if early.is_empty() && !wakes(stream.tcp(), state, &shared.drain).await {
            return;
        }
    }
}

/// Waits until a resting client sends something; false when it will not.
async fn wakes(stream: &TcpStream, state: &ConnState, drain: &DrainWatch) -> bool {
    let mut first = [0; 1];
    let mut peeking = pin!(stream.peek(&mut first));
    let peeked = poll_fn(|cx| {
        if state.deadline.expired(cx) || drain.phase() >= DrainPhase::Finish {
            return Poll::Ready(Ok(0));
        }
        let peeked = peeking.as_mut().poll(cx);
        if peeked.is_pending() && state.leaves(stream) {
            return Poll::Ready(Ok(0));
        }
        peeked
    });
    matches!(peeked.await, Ok(1..))
}
