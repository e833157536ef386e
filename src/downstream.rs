//! The client's side: one task per connection that sniffs the protocol,
//! serves requests, and knows at once when the client is gone.
//!
//! Invariant: whatever ends a connection (the client, a deadline, a drain) does
//! so by dropping it, and dropping it aborts what the engine does for it.

mod conn;
pub mod idle;
mod io;
mod resets;
pub mod watch;

pub use conn::{ConnState, Handled, Serving};

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::config::Timeouts;
use crate::drain::{DrainPhase, DrainWatch};
use crate::net;
use idle::IdleQueue;
use io::ClientIo;
use resets::Unanswered;
use watch::{Deadline, Watch};

/// Bytes that hyper buffers for one connection, each way.
const MAX_BUFFER: usize = 64 << 10;
/// Streams that one HTTP/2 client may have open: enough for a busy gateway,
/// and a bound on what one connection may hold.
const MAX_STREAMS: u32 = 128;
/// Bytes of one HTTP/2 header list.
const MAX_HEADER_LIST: u32 = 32 << 10;
/// Bytes of one HTTP/2 frame, the least that the protocol allows: a larger one
/// would be held whole.
const MAX_FRAME: u32 = 16 << 10;
/// Bytes that an HTTP/2 client may send before we take them, of one stream and
/// of all of them together: what one connection's uploads may hold.
const WINDOW: u32 = 1 << 20;
/// Bytes that wait for one slow reader of a stream; beyond it its engine does.
const MAX_SEND: usize = 64 << 10;
/// Streams that were reset before we took them up: hyper gives up the
/// connection beyond it.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that hyper itself reset for a client's errors (those beyond
/// `MAX_STREAMS` too), in the life of a connection, which then ends.
const MAX_ERROR_RESETS: usize = 1024;
/// What is discarded, and for how long, of an upload that nobody wanted: a
/// close with unread bytes is a reset, and would eat our answer.
const LINGER: (usize, Duration) = (256 << 10, Duration::from_secs(1));

/// What every connection of a worker shares.
#[derive(Debug)]
pub struct Shared {
    /// Deadlines.
    pub watch: Rc<Watch>,
    /// How long each phase may last.
    pub timeouts: Cell<Timeouts>,
    /// Whether we are stopping.
    pub drain: DrainWatch,
    /// Who leaves first when room is needed.
    pub idle: Rc<IdleQueue>,
}

/// A handler's future. Boxed, since hyper keeps the place of a handler's
/// future while its answer streams: so an open stream does not pay for it.
pub type Answering<B> = Pin<Box<dyn Future<Output = Result<Response<B>, Infallible>>>>;

/// Serves one client until it leaves, is too slow, or we stop.
pub async fn serve<B, H>(stream: TcpStream, peer: SocketAddr, shared: Rc<Shared>, handle: H)
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H: Fn(Request<Incoming>, Handled) -> Answering<B> + Unpin + Clone + 'static,
{
    let stream = Rc::new(stream);
    let state = ConnState::new(peer, &shared);
    match sniff(&stream, &state, &shared.drain).await {
        Sniffed::Http1 => http1(stream, state, &shared, handle).await,
        Sniffed::Http2 => Box::pin(http2(stream, state, &shared, handle)).await,
        Sniffed::Nothing => {}
    }
}

enum Sniffed {
    Http1,
    Http2,
    Nothing,
}

/// Waits for the first bytes: `PRI ` starts HTTP/2's preface.
async fn sniff(stream: &TcpStream, state: &ConnState, drain: &DrainWatch) -> Sniffed {
    const PREFACE: &[u8; 4] = b"PRI ";
    let mut first = [0; 4];
    loop {
        let peeked = {
            let mut peeking = pin!(stream.peek(&mut first));
            poll_fn(|cx| {
                if state.deadline.expired(cx) || drain.phase() >= DrainPhase::Finish {
                    return Poll::Ready(Ok(0));
                }
                let peeked = peeking.as_mut().poll(cx);
                if peeked.is_pending() && state.leaves(stream) {
                    return Poll::Ready(Ok(0));
                }
                peeked
            })
            .await
        };
        match peeked {
            Ok(0) | Err(_) => return Sniffed::Nothing,
            Ok(4) if first == *PREFACE => return Sniffed::Http2,
            Ok(n) if n < 4 && first[..n] == PREFACE[..n] => {
                // Too short to tell; wait for more without spinning.
                net::settle(stream, Interest::READABLE);
                state.head_begins();
            }
            Ok(_) => return Sniffed::Http1,
        }
    }
}

/// Why a connection's task ends.
enum End {
    /// hyper is done with it: answered `Connection: close`, an error, a drain.
    Done,
    /// Nothing further is to be said.
    Cut,
    /// The same, to a client that would take a mere end for the answer's.
    Reset,
}

async fn http1<B, H>(stream: Rc<TcpStream>, state: Rc<ConnState>, shared: &Shared, handle: H)
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H: Fn(Request<Incoming>, Handled) -> Answering<B> + Unpin + Clone + 'static,
{
    let io = TokioIo::new(ClientIo::new(Rc::clone(&stream), Rc::clone(&state)));
    let handled = Handled::http1(&state);
    let service = service_fn(move |request| handle(request, handled.clone()));
    let mut conn = hyper::server::conn::http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .max_header_size(MAX_BUFFER)
        .serve_connection(io, service);
    let mut gone = pin!(stream.ready(Interest::PRIORITY));
    let (mut left, mut stopping) = (false, false);
    let end = poll_fn(|cx| {
        left = left || gone.as_mut().poll(cx).is_ready();
        // hyper does not look for the end while unread bytes wait; we do.
        if left && state.is_serving() {
            return Poll::Ready(End::Cut);
        }
        if state.deadline.expired(cx) {
            state.answer_late(&stream);
            return Poll::Ready(End::Cut);
        }
        match shared.drain.phase() {
            DrainPhase::Cut => return Poll::Ready(End::Cut),
            DrainPhase::Finish if !stopping => {
                stopping = true;
                Pin::new(&mut conn).graceful_shutdown();
            }
            _ => {}
        }
        match conn.poll_without_shutdown(cx) {
            Poll::Ready(Err(_)) if state.ends_by_close() => Poll::Ready(End::Reset),
            Poll::Ready(_) => Poll::Ready(End::Done),
            Poll::Pending if state.leaves(&stream) => Poll::Ready(End::Cut),
            Poll::Pending if !state.is_overdue(cx) => Poll::Pending,
            Poll::Pending if state.ends_by_close() => Poll::Ready(End::Reset),
            Poll::Pending => Poll::Ready(End::Cut),
        }
    })
    .await;
    if let Some(mut tunnel) = state.take_tunnel() {
        let client_early = conn.into_parts().read_buf;
        let early = std::mem::take(&mut tunnel.early);
        io::tunnel((&stream, client_early), (&tunnel.engine, early), shared).await;
        return;
    }
    drop(conn);
    match end {
        End::Done => linger(&stream).await,
        End::Reset => net::reset_on_close(&stream),
        End::Cut => {}
    }
}

async fn http2<B, H>(stream: Rc<TcpStream>, state: Rc<ConnState>, shared: &Shared, handle: H)
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H: Fn(Request<Incoming>, Handled) -> Answering<B> + Unpin + Clone + 'static,
{
    state.speaks_http2();
    let io = TokioIo::new(ClientIo::new(Rc::clone(&stream), Rc::clone(&state)));
    let (serving, watch) = (Rc::clone(&state), Rc::clone(&shared.watch));
    let executor = LocalExecutor {
        next: Rc::default(),
        stall: state.stall(),
    };
    let next = Rc::clone(&executor.next);
    let service = service_fn(move |request| {
        let handled = Handled::http2(&serving, &watch);
        next.set(Some(handled.deadline()));
        Unanswered::new(handle(request, handled), &serving)
    });
    let conn = hyper::server::conn::http2::Builder::new(executor)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(MAX_SEND)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .serve_connection(io, service);
    let mut conn = pin!(conn);
    let mut stopping = false;
    poll_fn(|cx| {
        if state.deadline.expired(cx) || state.resets.are_too_many() {
            return Poll::Ready(());
        }
        match shared.drain.phase() {
            DrainPhase::Cut => return Poll::Ready(()),
            phase if !stopping && (phase == DrainPhase::Finish || state.leaves_http2()) => {
                stopping = true;
                conn.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        conn.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// Ends our side and discards what the client still sends, within bounds.
async fn linger(stream: &TcpStream) {
    if socket2::SockRef::from(stream)
        .shutdown(std::net::Shutdown::Write)
        .is_err()
    {
        return;
    }
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

/// Runs HTTP/2's stream tasks on the worker's own thread, each within its
/// request's deadline: while a client has no window for a stream, hyper asks
/// neither its handler nor its body.
#[derive(Clone)]
struct LocalExecutor {
    /// Of the request whose stream is run next: hyper runs it as soon as the
    /// service has been called.
    next: Rc<Cell<Option<Rc<Deadline>>>>,
    /// How long it may take nothing.
    stall: Duration,
}

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let Some(deadline) = self.next.take() else {
            tokio::task::spawn_local(future);
            return;
        };
        let stall = self.stall;
        tokio::task::spawn_local(async move {
            let mut future = Box::pin(future);
            // Dropped with its time, it resets the stream.
            poll_fn(|cx| match future.as_mut().poll(cx) {
                Poll::Pending if deadline.is_overdue(stall, cx) => Poll::Ready(()),
                other => other.map(drop),
            })
            .await;
        });
    }
}
