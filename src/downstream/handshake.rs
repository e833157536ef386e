//! TLS handshakes: from an accepted socket to one that HTTP is spoken on.
//!
//! A handshake costs as much as ten requests, so they take turns: one step of
//! one of them in each round of a worker's event loop, and streams are served
//! between. Those under way are bounded; who keeps us waiting makes room.
//!
//! Invariant: nothing of a handshake is held before its client has sent a byte,
//! and all of it ends by the deadline that the connection was accepted with.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::rustls::{Error, HandshakeKind};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::conn::ConnState;
use super::discard;
use crate::drain::{DrainPhase, DrainWatch};
use crate::metrics::{HandshakeFailure, ProcessMetrics};
use crate::net::wire::{Socket, Wire};
use crate::tls::Tls;
use crate::tls::der::Certificate;
use crate::tls::server::H2;

/// Handshakes under way on a worker at once; more wait.
const MOST: usize = 256;
/// How long a client may keep a handshake waiting when others wait for its
/// place: several round trips around the world.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often who waits for a place looks whether one is to be made.
const LOOK: Duration = Duration::from_millis(50);
/// What a client gets that speaks plain HTTP.
const PLAIN: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n",
    "content-length: 129\r\nconnection: close\r\n\r\n",
    r#"{"error":{"message":"This port speaks HTTPS: use https://.","type":"invalid_request_error","param":null,"code":"https_expected"}}"#,
);

/// The handshakes of a worker.
#[derive(Debug)]
pub struct Handshakes {
    tls: Arc<Tls>,
    metrics: Arc<ProcessMetrics>,
    /// Held by who takes a step, until the event loop has gone round.
    turn: Semaphore,
    places: Semaphore,
    /// Held by who is next to get a place.
    line: Semaphore,
    /// Those that wait for their clients, the earliest first.
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    begun: Cell<u64>,
}

/// A handshake that waits for its client.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    conn: Rc<ConnState>,
    is_to_leave: Rc<Cell<bool>>,
}

/// A connection that HTTP can be spoken on.
pub(super) struct Shaken {
    pub(super) wire: Wire,
    pub(super) is_http2: bool,
}

impl Handshakes {
    /// None under way; they are counted in `metrics`.
    #[must_use]
    pub fn new(tls: Arc<Tls>, metrics: Arc<ProcessMetrics>) -> Self {
        Self::with_places(tls, metrics, MOST)
    }

    fn with_places(tls: Arc<Tls>, metrics: Arc<ProcessMetrics>, places: usize) -> Self {
        Self {
            tls,
            metrics,
            turn: Semaphore::new(1),
            places: Semaphore::new(places),
            line: Semaphore::new(1),
            waiting: RefCell::default(),
            begun: Cell::new(0),
        }
    }

    /// Shakes hands with a client; `None` when that came to nothing.
    pub(super) async fn shake(
        &self,
        stream: TcpStream,
        conn: &Rc<ConnState>,
        drain: &DrainWatch,
    ) -> Option<Shaken> {
        let socket = Socket::new(stream);
        let first = until_late(conn, drain, first_byte(socket.tcp(), conn));
        let first = first.await??;
        if first.is_ascii_uppercase() {
            self.metrics.tls.failed(HandshakeFailure::Plain);
            // Best effort: the client may not be there any more.
            let _ = socket.tcp().try_write(PLAIN.as_bytes());
            end(&socket).await;
            return None;
        }
        let begun = Instant::now();
        let shaken = {
            let Some(Some(_place)) = until_late(conn, drain, self.place()).await else {
                self.metrics.tls.failed(HandshakeFailure::Timeout);
                return None;
            };
            self.step_by_step(&socket, conn, drain).await
        };
        match shaken {
            Ok(stream) => Some(self.shaken(stream, socket, conn, begun)),
            Err(why) => {
                self.metrics.tls.failed(why);
                if !matches!(why, HandshakeFailure::Left | HandshakeFailure::Crowded) {
                    end(&socket).await;
                }
                None
            }
        }
    }

    async fn step_by_step(
        &self,
        socket: &Socket,
        conn: &Rc<ConnState>,
        drain: &DrainWatch,
    ) -> Result<TlsStream<Socket>, HandshakeFailure> {
        let acceptor = TlsAcceptor::from(self.tls.config());
        let mut accept = acceptor.accept(socket.clone());
        let number = self.begun.replace(self.begun.get() + 1);
        loop {
            let step = until_late(conn, drain, self.step(&mut accept)).await;
            match step.ok_or(HandshakeFailure::Timeout)? {
                Poll::Ready(Ok(stream)) => return Ok(stream),
                Poll::Ready(Err(error)) => return Err(why(&error)),
                Poll::Pending => {}
            }
            let is_to_leave = Rc::new(Cell::new(false));
            let waiting = Waiting {
                since: Instant::now(),
                conn: Rc::clone(conn),
                is_to_leave: Rc::clone(&is_to_leave),
            };
            self.waiting.borrow_mut().insert(number, waiting);
            let woken = until_late(conn, drain, woken(socket.tcp(), conn, &is_to_leave)).await;
            self.waiting.borrow_mut().remove(&number);
            match woken {
                Some(Woken::Goes) => {}
                Some(Woken::Leaves) => return Err(HandshakeFailure::Crowded),
                None => return Err(HandshakeFailure::Timeout),
            }
        }
    }

    /// One step, once it is ours to take; then everyone else has a turn.
    async fn step(&self, accept: &mut Accept<Socket>) -> Poll<io::Result<TlsStream<Socket>>> {
        // It is never closed.
        let _turn = self.turn.acquire().await;
        let step = poll_fn(|cx| Poll::Ready(Pin::new(&mut *accept).poll(cx))).await;
        // It comes back when the event loop has looked at all sockets.
        tokio::task::yield_now().await;
        step
    }

    /// Waits for a place. Who is first in line makes room where a client has
    /// kept a handshake waiting for too long.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        let _first = self.line.acquire().await.ok()?;
        let mut place = pin!(self.places.acquire());
        loop {
            self.make_room(Instant::now());
            if let Ok(place) = tokio::time::timeout(LOOK, place.as_mut()).await {
                return place.ok();
            }
        }
    }

    /// Asks the one to leave that waits for its client since the earliest, if
    /// that is too long ago.
    fn make_room(&self, now: Instant) {
        let waiting = self.waiting.borrow();
        let mut all = waiting.values().filter(|one| !one.is_to_leave.get());
        if let Some(one) = all.find(|one| now >= one.since + PATIENCE) {
            one.is_to_leave.set(true);
            one.conn.deadline.wake();
        }
    }

    fn shaken(
        &self,
        stream: TlsStream<Socket>,
        socket: Socket,
        conn: &ConnState,
        begun: Instant,
    ) -> Shaken {
        let (_, session) = stream.get_ref();
        let counts = &self.metrics.tls;
        match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => counts.resumed.increment(1),
            _ => counts.full.increment(1),
        }
        counts.seconds.observe(begun.elapsed());
        let is_http2 = session.alpn_protocol() == Some(H2);
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let identity = shown.and_then(|shown| Certificate::parse(shown)?.identity());
        conn.is_tls.set(true);
        if let Some(identity) = identity {
            // It is told but once.
            let _ = conn.identity.set(identity);
        }
        let wire = Wire::tls(stream.into(), socket);
        Shaken { wire, is_http2 }
    }
}

/// What woke a handshake that waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// Something came, or may have.
    Goes,
    /// Others need its room.
    Leaves,
}

/// Waits until the client has sent something, or taken what we had to say. The
/// socket is asked, not the wake-up awaited: that may have come during our turn.
async fn woken(stream: &TcpStream, conn: &ConnState, is_to_leave: &Cell<bool>) -> Woken {
    let mut is_full = None;
    poll_fn(|cx| {
        if is_to_leave.get() || conn.leaves(stream) {
            return Poll::Ready(Woken::Leaves);
        }
        // A step that could not write all has found the socket full.
        let writable = stream.poll_write_ready(cx);
        let ready = match *is_full.get_or_insert(writable.is_pending()) {
            true => writable,
            false => stream.poll_read_ready(cx),
        };
        ready.map(|_| Woken::Goes)
    })
    .await
}

/// The first byte, once it is there; `None` at the end.
async fn first_byte(stream: &TcpStream, conn: &ConnState) -> Option<u8> {
    let mut first = [0];
    let peeked = {
        let mut peeking = pin!(stream.peek(&mut first));
        poll_fn(|cx| {
            let peeked = peeking.as_mut().poll(cx);
            if peeked.is_pending() && conn.leaves(stream) {
                return Poll::Ready(Ok(0));
            }
            peeked
        })
        .await
    };
    matches!(peeked, Ok(1)).then_some(first[0])
}

/// `None` when the connection's deadline passes before, or we stop.
async fn until_late<T>(
    conn: &ConnState,
    drain: &DrainWatch,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if conn.deadline.expired(cx) || drain.phase() >= DrainPhase::Finish {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Ends our side; what the client still sends would else make a reset of it, and
/// eat what we said last.
async fn end(socket: &Socket) {
    let tcp = socket2::SockRef::from(socket.tcp());
    if tcp.shutdown(std::net::Shutdown::Write).is_ok() {
        discard(socket.tcp()).await;
    }
}

fn why(error: &io::Error) -> HandshakeFailure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => {
            HandshakeFailure::Certificate
        }
        Some(Error::AlertReceived(_)) => HandshakeFailure::Refused,
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Left,
    }
}

#[cfg(test)]
mod tests;
