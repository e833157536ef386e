//! A request on its way to an engine: head, the body bytes that are held, and
//! the rest of the body, which the client is still sending.
//!
//! Back-pressure is natural: the client is read only when the engine has taken
//! what came before.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::Body;
use hyper::body::Incoming;

use crate::net::wire::Wire;

/// Slices that one writev(2) takes at most.
const SLICES: usize = 16;

/// The client broke its own request: a bad chunk, or it left mid-body.
#[derive(Debug, thiserror::Error)]
#[error("the client's request body broke off: {0}")]
pub struct ClientFault(pub hyper::Error);

/// Why sending stopped.
#[derive(Debug)]
pub(super) enum SendFault {
    Engine(io::Error),
    Client(ClientFault),
}

/// The part of a body that the client is still sending.
#[derive(Debug)]
pub struct Streaming {
    incoming: Incoming,
    chunked: bool,
    ended: bool,
    queue: VecDeque<Bytes>,
}

impl Streaming {
    /// The rest of a body; `chunked` when its length is not declared.
    #[must_use]
    pub fn new(incoming: Incoming, chunked: bool) -> Self {
        Self {
            incoming,
            chunked,
            ended: false,
            queue: VecDeque::new(),
        }
    }

    /// Puts already-read bytes of this body before the rest.
    pub fn hold(&mut self, data: Bytes) {
        if !self.chunked {
            self.queue.push_back(data);
        } else if !data.is_empty() {
            let size = format!("{:x}\r\n", data.len());
            self.queue
                .extend([Bytes::from(size), data, Bytes::from_static(b"\r\n")]);
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientFault>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Err(fault))) => return Poll::Ready(Err(ClientFault(fault))),
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(None) => {
                self.ended = true;
                if self.chunked {
                    self.queue.push_back(Bytes::from_static(b"0\r\n\r\n"));
                }
                return Poll::Ready(Ok(()));
            }
        };
        // Trailers are dropped, as RFC 9110 §6.5.1 allows.
        if let Ok(data) = frame.into_data() {
            self.hold(data);
        }
        Poll::Ready(Ok(()))
    }
}

/// One request, ready to be written; to be sent again as long as all of it is held.
#[derive(Debug)]
pub struct Upload {
    head: Bytes,
    held: Vec<Bytes>,
    /// 0 is the head, n the n-th held piece; beyond them the rest.
    at: usize,
    offset: usize,
    keep: bool,
    rest: Option<Streaming>,
    written: u64,
    /// Whether what was written has left us, too.
    is_flushed: bool,
}

impl Upload {
    /// A request with this body; `keep` when it is to be held for a retry.
    #[must_use]
    pub fn new(held: Vec<Bytes>, keep: bool, rest: Option<Streaming>) -> Self {
        Self {
            head: Bytes::new(),
            held,
            at: 0,
            offset: 0,
            keep,
            rest,
            written: 0,
            is_flushed: false,
        }
    }

    /// A request without a body.
    #[must_use]
    pub fn bodiless() -> Self {
        Self::new(Vec::new(), true, None)
    }

    /// Starts (again) with this head, which names the engine.
    pub fn begin(&mut self, head: Vec<u8>) {
        self.head = Bytes::from(head);
        (self.at, self.offset, self.written) = (0, 0, 0);
        self.is_flushed = false;
    }

    /// The same request once more, to be sent from its start; `None` when not
    /// all of it is held.
    #[must_use]
    pub fn again(&self) -> Option<Self> {
        self.is_held()
            .then(|| Self::new(self.held.clone(), true, None))
    }

    /// Whether all of it is held until it has been answered.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.rest.is_none() && self.keep
    }

    /// Whether it is the client, not the engine, that we wait for.
    #[must_use]
    pub fn awaits_client(&self) -> bool {
        let rest = self.rest.as_ref();
        self.at > self.held.len() && rest.is_some_and(|rest| !rest.ended && rest.queue.is_empty())
    }

    /// Bytes taken by the socket since [`Upload::begin`].
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether all of it has been written, and nothing of it is still with us.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.is_flushed
            && self.at > self.held.len()
            && (self.rest.as_ref()).is_none_or(|r| r.ended && r.queue.is_empty())
    }

    /// Writes until all is written and has left us, or the socket is full.
    pub(super) fn poll_send(
        &mut self,
        stream: &Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFault>> {
        loop {
            if self.at <= self.held.len() {
                std::task::ready!(self.poll_held(stream, cx)).map_err(SendFault::Engine)?;
                continue;
            }
            let Some(rest) = &mut self.rest else {
                return self.poll_flush(stream, cx);
            };
            if rest.queue.is_empty() {
                if rest.ended {
                    return self.poll_flush(stream, cx);
                }
                std::task::ready!(rest.poll_next(cx)).map_err(SendFault::Client)?;
                continue;
            }
            let written = std::task::ready!(poll_queue(&mut rest.queue, stream, cx));
            self.written += written.map_err(SendFault::Engine)? as u64;
        }
    }

    /// An encrypted connection takes more than its socket does.
    fn poll_flush(&mut self, stream: &Wire, cx: &mut Context<'_>) -> Poll<Result<(), SendFault>> {
        std::task::ready!(stream.poll_flush(cx)).map_err(SendFault::Engine)?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_held(&mut self, stream: &Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let pieces = std::iter::once(&self.head).chain(&self.held).skip(self.at);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            let from = if count == 0 { self.offset } else { 0 };
            *slice = IoSlice::new(&piece[from..]);
            count += 1;
        }
        let mut n = std::task::ready!(stream.poll_write_vectored(cx, &slices[..count]))?;
        self.written += n as u64;
        while self.at <= self.held.len() {
            let length = self.piece().len() - self.offset;
            if n < length {
                self.offset += n;
                break;
            }
            n -= length;
            if !self.keep && self.at > 0 {
                self.held[self.at - 1] = Bytes::new();
            }
            (self.at, self.offset) = (self.at + 1, 0);
        }
        Poll::Ready(Ok(()))
    }

    fn piece(&self) -> &Bytes {
        self.at.checked_sub(1).map_or(&self.head, |n| &self.held[n])
    }
}

fn poll_queue(
    queue: &mut VecDeque<Bytes>,
    stream: &Wire,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = queue.len().min(SLICES);
    for (slice, piece) in slices.iter_mut().zip(queue.iter()) {
        *slice = IoSlice::new(piece);
    }
    let written = std::task::ready!(stream.poll_write_vectored(cx, &slices[..count]))?;
    let mut n = written;
    while let Some(front) = queue.front_mut() {
        if n < front.len() {
            front.advance(n);
            break;
        }
        n -= front.len();
        queue.pop_front();
    }
    Poll::Ready(Ok(written))
}

#[cfg(test)]
mod tests;
