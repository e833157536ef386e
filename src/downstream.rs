//! The client's side: one task per connection that sniffs the protocol,
//! serves requests, and knows at once when the client is gone.
//!
//! Invariant: whatever ends a connection (the client, a deadline, a drain) does
//! so by dropping it, and dropping it aborts what the engine does for it.

mod conn;
mod frames;
pub mod handshake;
mod head;
pub mod idle;
mod io;
mod linger;
mod resets;
mod resting;
pub mod strict;
pub mod watch;

pub use conn::{ConnState, Handled, Serving};
pub use head::{Asked, HeadFault, Refused};

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Body;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::config::Timeouts;
use crate::config::forwarded::TrustedProxies;
use crate::drain::{DrainPhase, DrainWatch};
use crate::net;
use crate::net::wire::Wire;
use handshake::Handshakes;
use idle::IdleQueue;
use io::ClientIo;
use linger::{discard, linger};
use resets::Unanswered;
use strict::{Unparsed, Unseen};
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
    /// Whose word on those before them is taken.
    pub trusted: Arc<TrustedProxies>,
    /// Who is told of what was refused before it was a request.
    pub unseen: Rc<Unseen>,
    /// How clients shake hands; `None`: in clear text.
    pub tls: Option<Handshakes>,
}

/// A handler's future. Boxed, since hyper keeps the place of a handler's
/// future while its answer streams: so an open stream does not pay for it.
pub type Answering<B> = Pin<Box<dyn Future<Output = Result<Response<B>, Infallible>>>>;

/// Serves one client until it leaves, is too slow, or we stop.
pub async fn serve<B, H>(stream: TcpStream, peer: SocketAddr, shared: Rc<Shared>, handle: H)
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H: Fn(Asked, Handled) -> Answering<B> + Unpin + Clone + 'static,
{
    let state = ConnState::new(peer, &shared);
    let (stream, speaks) = match &shared.tls {
        Some(handshakes) => {
            // Not kept while HTTP is spoken.
            let shaking = Box::pin(handshakes.shake(stream, &state, &shared.drain));
            let Some(shaken) = shaking.await else {
                return;
            };
            // A head is due, as from a new connection.
            state.deadline.set(shared.timeouts.get().client_head);
            let speaks = match shaken.is_http2 {
                true => Sniffed::Http2,
                false => Sniffed::Http1,
            };
            (Rc::new(shaken.wire), speaks)
        }
        None => {
            let stream = Rc::new(Wire::Plain(stream));
            let sniffed = sniff(&stream, &state, &shared.drain).await;
            (stream, sniffed)
        }
    };
    match speaks {
        Sniffed::Http1 => resting::by_turns(&stream, &state, &shared, handle).await,
        Sniffed::Http2 => {
            let (stream, state) = (Rc::clone(&stream), Rc::clone(&state));
            Box::pin(http2(stream, state, &shared, handle)).await;
        }
        Sniffed::Nothing => {}
    }
    // An end that is not announced looks like an attack (RFC 8446 §6.1); an answer
    // that is cut is to look like that.
    if stream.is_tls() && !state.is_cut.get() {
        // Best effort: the client may not be there any more.
        let mut cx = Context::from_waker(Waker::noop());
        let _ = stream.poll_shutdown(&mut cx);
    }
}

enum Sniffed {
    Http1,
    Http2,
    Nothing,
}

/// Waits for the first bytes, until they differ from HTTP/2's preface: half of
/// one is due in time, as a head is.
async fn sniff(stream: &Wire, state: &ConnState, drain: &DrainWatch) -> Sniffed {
    const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut first = [0; PREFACE.len()];
    loop {
        let peeked = {
            let mut peeking = pin!(stream.tcp().peek(&mut first));
            poll_fn(|cx| {
                if state.deadline.expired(cx) || drain.phase() >= DrainPhase::Finish {
                    return Poll::Ready(Ok(0));
                }
                let peeked = peeking.as_mut().poll(cx);
                if peeked.is_pending() && state.leaves(stream.tcp()) {
                    return Poll::Ready(Ok(0));
                }
                peeked
            })
            .await
        };
        match peeked {
            Ok(0) | Err(_) => return Sniffed::Nothing,
            Ok(_) if first == *PREFACE => return Sniffed::Http2,
            Ok(n) if first[..n] == PREFACE[..n] => {
                // Its end would wake us for ever.
                if has_left(stream.tcp()).await {
                    return Sniffed::Nothing;
                }
                // Too short to tell; wait for more without spinning.
                net::settle(stream.tcp(), Interest::READABLE);
                state.head_begins();
            }
            Ok(_) => return Sniffed::Http1,
        }
    }
}

/// Whether the client has ended its side, though bytes wait.
async fn has_left(stream: &TcpStream) -> bool {
    let mut gone = pin!(stream.ready(Interest::PRIORITY));
    poll_fn(|cx| Poll::Ready(gone.as_mut().poll(cx).is_ready())).await
}

/// Why a connection's task ends.
enum End {
    /// hyper is done with it: answered `Connection: close`, an error, a drain.
    Done,
    /// Nothing further is to be said.
    Cut,
    /// The same, to a client that would take a mere end for the answer's.
    Reset,
    /// The client rests.
    Rest,
}

impl End {
    /// Whether an answer is cut by it.
    fn cuts(&self, state: &ConnState) -> bool {
        match self {
            Self::Reset => true,
            Self::Cut => state.is_serving(),
            Self::Done | Self::Rest => false,
        }
    }
}

/// Serves until the connection ends, or the client has rested for a while: then
/// it is what was read of it and not taken up.
async fn http1<B, H>(
    stream: &Rc<Wire>,
    state: &Rc<ConnState>,
    (shared, early): (&Shared, Bytes),
    handle: H,
) -> Option<Bytes>
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H: Fn(Asked, Handled) -> Answering<B> + Unpin + Clone + 'static,
{
    let io = ClientIo::new(Rc::clone(stream), Rc::clone(state)).after(early);
    let io = TokioIo::new(io);
    let handled = Handled::http1(state);
    let strict = Rc::clone(state);
    let service = service_fn(move |request| {
        let found = strict.strict.check(&request);
        handle(head::asked(request, found), handled.clone())
    });
    let mut conn = hyper::server::conn::http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .max_header_size(MAX_BUFFER)
        .serve_connection(io, service);
    let mut gone = pin!(stream.tcp().ready(Interest::PRIORITY));
    let (mut left, mut stopping) = (false, false);
    let end = poll_fn(|cx| {
        left = left || gone.as_mut().poll(cx).is_ready();
        // hyper does not look for the end while unread bytes wait; we do.
        if left && state.is_serving() {
            return Poll::Ready(End::Cut);
        }
        if state.deadline.expired(cx) {
            if state.rests_for_long() {
                return Poll::Ready(End::Rest);
            }
            state.answer_late(stream);
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
            Poll::Ready(Err(error)) if error.is_parse() => {
                // What it answered went out behind another answer, or not at all.
                state.strict.tell(Unparsed::of_parser(&error));
                Poll::Ready(End::Done)
            }
            Poll::Ready(Err(_)) if state.ends_by_close() => Poll::Ready(End::Reset),
            Poll::Ready(_) => Poll::Ready(End::Done),
            Poll::Pending if state.leaves(stream.tcp()) => Poll::Ready(End::Cut),
            Poll::Pending if !state.is_overdue(cx) => Poll::Pending,
            Poll::Pending if state.ends_by_close() => Poll::Ready(End::Reset),
            Poll::Pending => Poll::Ready(End::Cut),
        }
    })
    .await;
    if let Some(mut tunnel) = state.take_tunnel() {
        let client_early = conn.into_parts().read_buf;
        let early = std::mem::take(&mut tunnel.early);
        io::tunnel((stream, client_early), (&tunnel.engine, early), shared).await;
        return None;
    }
    if let End::Rest = end {
        // Copied: even nothing would hold the buffer that it was read into.
        return Some(Bytes::copy_from_slice(&conn.into_parts().read_buf));
    }
    state.is_cut.set(end.cuts(state));
    drop(conn);
    match end {
        End::Done => linger(stream).await,
        End::Reset => net::reset_on_close(stream.tcp()),
        End::Cut | End::Rest => {}
    }
    None
}

async fn http2<B, H>(stream: Rc<Wire>, state: Rc<ConnState>, shared: &Shared, handle: H)
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H: Fn(Asked, Handled) -> Answering<B> + Unpin + Clone + 'static,
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
        if head::is_malformed(&request) {
            serving.strict.count(Unparsed::Bad);
            return Unanswered::malformed(&serving);
        }
        let found = head::check(&request);
        Unanswered::new(handle(head::asked(request, found), handled), &serving)
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
        state.turn_begins();
        if state.deadline.expired(cx) || state.is_a_nuisance() {
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
