//! The client's socket as hyper sees it, and the plain relay that follows an
//! upgrade.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Shared;
use super::conn::ConnState;
use crate::drain::DrainPhase;
use crate::net;

/// Bytes of one read while a head is expected.
const HEAD_READ: usize = 16 << 10;

/// A client's socket; tells the connection's state what passes.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: Rc<TcpStream>,
    state: Rc<ConnState>,
}

impl ClientIo {
    pub(super) fn new(stream: Rc<TcpStream>, state: Rc<ConnState>) -> Self {
        Self { stream, state }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A head is measured between two reads: small ones keep to its bound.
        let most = if self.state.is_serving() {
            usize::MAX
        } else {
            HEAD_READ
        };
        let read = std::task::ready!(net::poll_read(&self.stream, cx, &mut into.limit(most)))?;
        if read > 0 {
            self.state.head_begins();
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
        let written = net::poll_write_vectored(&self.stream, cx, from);
        if written.is_pending() {
            self.state.write_stalls();
        } else {
            self.state.write_moves();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this only when nothing is left in its own buffer.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

/// How long one way of a tunnel may go on once the other has ended.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// Relays bytes both ways until both sides have ended, one has failed, or we
/// stop. Each way holds 16 KiB at most.
pub(super) async fn tunnel(
    (client, client_early): (&TcpStream, Bytes),
    (engine, engine_early): (&TcpStream, Bytes),
    shared: &Shared,
) {
    let mut up = pin!(relay(client, engine, client_early));
    let mut down = pin!(relay(engine, client, engine_early));
    let stop = shared.watch.deadline();
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
        if up_ended && down_ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

async fn relay(from: &TcpStream, to: &TcpStream, early: Bytes) -> io::Result<()> {
    const HELD: usize = 16 << 10;
    let mut held = BytesMut::from(early);
    loop {
        while held.has_remaining() {
            let slices = [IoSlice::new(&held)];
            let written = poll_fn(|cx| net::poll_write_vectored(to, cx, &slices)).await?;
            held.advance(written);
        }
        held.clear();
        held.reserve(HELD);
        if poll_fn(|cx| net::poll_read(from, cx, &mut held)).await? == 0 {
            return socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write);
        }
    }
}
