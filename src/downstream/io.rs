//! The client's socket as hyper sees it, and the plain relay that follows an
//! upgrade.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use super::conn::ConnState;
use super::strict::Unparsed;
use crate::drain::DrainPhase;
use crate::net::wire::Wire;

/// Bytes of one read while a head is expected.
const HEAD_READ: usize = 16 << 10;

/// A client's socket; tells the connection's state what passes.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: Rc<Wire>,
    state: Rc<ConnState>,
    /// What was read of it before, and comes first.
    early: Bytes,
}

impl ClientIo {
    pub(super) fn new(stream: Rc<Wire>, state: Rc<ConnState>) -> Self {
        Self {
            stream,
            state,
            early: Bytes::new(),
        }
    }

    /// The same where these bytes have been read already.
    pub(super) fn after(self, early: Bytes) -> Self {
        Self { early, ..self }
    }
}

impl ClientIo {
    /// Writes an answer of ours in place of hyper's, which counts as written.
    fn poll_instead(
        &self,
        unparsed: Unparsed,
        theirs: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let ours = unparsed.answer();
        let ours = [IoSlice::new(ours.as_bytes())];
        // It is small: a socket that takes no more than a part of it is lost.
        std::task::ready!(self.stream.poll_write_vectored(cx, &ours))?;
        self.state.strict.tell(unparsed);
        Poll::Ready(Ok(theirs.iter().map(|slice| slice.len()).sum()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let length = self.early.len().min(into.remaining());
            into.put_slice(&self.early.split_to(length));
            self.state.head_begins();
            return Poll::Ready(Ok(()));
        }
        if !self.state.has_turn() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // A head is measured between two reads: small ones keep to its bound.
        let most = if self.state.is_serving() {
            usize::MAX
        } else {
            HEAD_READ
        };
        let before = into.filled().len();
        let read = std::task::ready!(self.stream.poll_read(cx, &mut (&mut *into).limit(most)))?;
        if read > 0 {
            self.state.head_begins();
            self.state.reads(&into.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Looked for where no request is being answered.
        let strict = &self.state.strict;
        let unparsed = (!self.state.is_serving()).then(|| strict.unparsed(from));
        let before = self.stream.taken();
        let written = match unparsed.flatten() {
            None => self.stream.poll_write_vectored(cx, from),
            Some(unparsed) => self.poll_instead(unparsed, from, cx),
        };
        let moves = match before {
            None => written.is_ready(),
            before => self.stream.taken() != before,
        };
        if moves {
            self.state.write_moves();
        } else if written.is_pending() {
            self.state.write_stalls();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this only when nothing is left in its own buffer.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.stream.taken();
        let flushed = self.stream.poll_flush(cx);
        if flushed.is_ready() || self.stream.taken() != before {
            self.state.write_moves();
        }
        if flushed.is_pending() {
            self.state.write_stalls();
        } else {
            self.state.flushed();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }
}

/// How long one way of a tunnel may go on once the other has ended.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// Relays bytes both ways until both sides have ended, one has failed, neither
/// has said anything for as long as an engine may be silent, or we stop. Each
/// way holds 16 KiB at most.
pub(super) async fn tunnel(
    (client, client_early): (&Wire, Bytes),
    (engine, engine_early): (&Wire, Bytes),
    shared: &Shared,
) {
    let moved = Cell::new(true);
    let mut up = pin!(relay(client, engine, client_early, &moved));
    let mut down = pin!(relay(engine, client, engine_early, &moved));
    let stop = shared.watch.deadline();
    let silence = shared.timeouts.get().engine_idle;
    let (mut up_ended, mut down_ended) = (false, false);
    poll_fn(|cx| {
        // It wakes us at a change of phase, too.
        if stop.expired(cx) || shared.drain.phase() == DrainPhase::Cut {
            return Poll::Ready(());
        }
        for (way, ended) in [
            (
                up.as_mut() as Pin<&mut dyn Future<Output = _>>,
                &mut up_ended,
            ),
            (down.as_mut(), &mut down_ended),
        ] {
            if *ended {
                continue;
            }
            match way.poll(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    *ended = true;
                    stop.set(HALF_CLOSED);
                }
                Poll::Pending => {}
            }
        }
        if moved.take() && !up_ended && !down_ended {
            stop.set(silence);
        }
        if up_ended && down_ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

async fn relay(from: &Wire, to: &Wire, early: Bytes, moved: &Cell<bool>) -> io::Result<()> {
    const HELD: usize = 16 << 10;
    let mut held = BytesMut::from(early);
    loop {
        while held.has_remaining() {
            let slices = [IoSlice::new(&held)];
            let written = poll_fn(|cx| to.poll_write_vectored(cx, &slices)).await?;
            held.advance(written);
            moved.set(true);
        }
        poll_fn(|cx| to.poll_flush(cx)).await?;
        held.clear();
        held.reserve(HELD);
        if poll_fn(|cx| from.poll_read(cx, &mut held)).await? == 0 {
            return poll_fn(|cx| to.poll_shutdown(cx)).await;
        }
    }
}
