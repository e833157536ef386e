//! What a connection's parts know of each other: the socket's wrapper, the
//! task, the handler and the answer's body.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Version;
use tokio::net::TcpStream;

use super::Shared;
use super::idle::IdleQueue;
use super::resets::Resets;
use super::watch::{Deadline, Watch};
use crate::config::Timeouts;
use crate::net;

/// How long an HTTP/2 client that was asked to leave may take.
const LEAVING: Duration = Duration::from_secs(5);

/// What the client is expected to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Send a request, some time.
    Idle,
    /// Finish the head that it has begun.
    Head,
    /// Wait for our answer, or take it.
    Request,
}

/// What is joined to the client's connection after an upgrade.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) engine: Rc<TcpStream>,
    pub(super) early: Bytes,
    #[expect(dead_code, reason = "held, not read: it counts by being dropped")]
    counted: Box<dyn Any>,
}

/// The state of one client connection.
#[derive(Debug)]
pub struct ConnState {
    /// Who is at the other end: the address as `X-Forwarded-For` has it.
    peer: Box<str>,
    pub(super) deadline: Rc<Deadline>,
    request_deadline: Rc<Deadline>,
    timeouts: Timeouts,
    phase: Cell<Phase>,
    serving: Cell<u32>,
    stalled: Cell<bool>,
    /// Whether frames were given to hyper that it has not flushed.
    dirty: Cell<bool>,
    /// Who waits for that: several of HTTP/2's streams may.
    flushed: RefCell<Vec<Waker>>,
    tunnel: RefCell<Option<Tunnel>>,
    http2: Cell<bool>,
    /// Whether the answer under way ends where the connection does: to a
    /// client of HTTP/1.0, who would take a cut for the end.
    ends_by_close: Cell<bool>,
    idle: Rc<IdleQueue>,
    /// Itself, for the queue.
    this: Weak<Self>,
    /// Since when it rests, if it does; coarse.
    since: Cell<Instant>,
    /// Whether it has a place in the queue for that time.
    queued: Cell<Option<Instant>>,
    asked_to_leave: Cell<bool>,
    pub(super) resets: Resets,
}

impl ConnState {
    pub(super) fn new(peer: SocketAddr, shared: &Shared) -> Rc<Self> {
        let deadline = shared.watch.deadline();
        let timeouts = shared.timeouts.get();
        // The first bytes are due as soon as a head is.
        deadline.set(timeouts.client_head);
        let now = shared.watch.now();
        let state = Rc::new_cyclic(|this| Self {
            peer: peer.ip().to_canonical().to_string().into(),
            deadline,
            request_deadline: shared.watch.deadline(),
            timeouts,
            phase: Cell::new(Phase::Idle),
            serving: Cell::new(0),
            stalled: Cell::new(false),
            dirty: Cell::new(false),
            flushed: RefCell::default(),
            tunnel: RefCell::default(),
            http2: Cell::new(false),
            ends_by_close: Cell::new(false),
            idle: Rc::clone(&shared.idle),
            this: Weak::clone(this),
            since: Cell::new(now),
            queued: Cell::new(None),
            asked_to_leave: Cell::new(false),
            resets: Resets::new(now),
        });
        state.queue();
        state
    }

    /// Whether a request's deadline has passed without its handler or its
    /// answer's body having noticed: the client takes nothing, so nobody asks
    /// them.
    pub(super) fn is_overdue(&self, cx: &Context<'_>) -> bool {
        let stall = self.timeouts.client_write_stall;
        self.is_serving() && self.request_deadline.is_overdue(stall, cx)
    }

    /// How long a client may take nothing though there is something.
    pub(super) fn stall(&self) -> Duration {
        self.timeouts.client_write_stall
    }

    pub(super) fn is_serving(&self) -> bool {
        self.phase.get() == Phase::Request
    }

    /// Bytes have arrived: if none were expected, a head begins.
    pub(super) fn head_begins(&self) {
        if self.phase.get() == Phase::Idle && !self.http2.get() {
            self.phase.set(Phase::Head);
            self.asked_to_leave.set(false);
            self.deadline.set(self.timeouts.client_head);
        }
    }

    /// The socket took nothing: the client must take something in time.
    pub(super) fn write_stalls(&self) {
        // A head's deadline comes sooner, and must not be put off.
        if !self.stalled.replace(true) && self.phase.get() != Phase::Head {
            self.deadline.set(self.timeouts.client_write_stall);
        }
    }

    pub(super) fn write_moves(&self) {
        if !self.stalled.replace(false) {
            return;
        }
        match self.phase.get() {
            Phase::Idle => self.rest(),
            Phase::Head => {}
            Phase::Request => self.deadline.clear(),
        }
    }

    pub(super) fn flushed(&self) {
        if self.dirty.replace(false) {
            self.flushed.take().into_iter().for_each(Waker::wake);
        }
    }

    /// A head that did not end in time gets an answer, if nothing else is
    /// being written; silence is all that an idle connection gets.
    pub(super) fn answer_late(&self, stream: &TcpStream) {
        const LATE: &str = concat!(
            "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n",
            "content-length: 129\r\nconnection: close\r\n\r\n",
            r#"{"error":{"message":"The request's head did not end in time.","type":"invalid_request_error","param":null,"code":"head_timeout"}}"#,
        );
        if self.phase.get() == Phase::Head && !self.stalled.get() {
            // Best effort: the client may not be there any more.
            let _ = stream.try_write(LATE.as_bytes());
        }
    }

    /// HTTP/2 has no heads to wait for: any frame may come at any time.
    pub(super) fn speaks_http2(&self) {
        self.http2.set(true);
        self.deadline.set(self.timeouts.client_idle);
    }

    pub(super) fn ends_by_close(&self) -> bool {
        self.ends_by_close.get()
    }

    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        let tunnel = self.tunnel.borrow_mut().take();
        if tunnel.is_some() {
            // It is never idle again.
            self.phase.set(Phase::Request);
        }
        tunnel
    }

    /// Whether it has been between requests since then, with all written.
    pub(super) fn rests_since(&self, since: Instant) -> bool {
        self.rests() && self.since.get() == since
    }

    /// Others need its room.
    pub(super) fn ask_to_leave(&self) {
        self.asked_to_leave.set(true);
        self.deadline.wake();
    }

    #[cfg(test)]
    pub(super) fn is_asked_to_leave(&self) -> bool {
        self.asked_to_leave.get()
    }

    /// Whether it has been asked to leave and nothing of a request has come.
    /// To be asked of once hyper has read what it wanted.
    pub(super) fn leaves(&self, stream: &TcpStream) -> bool {
        if !self.asked_to_leave.replace(false) || !self.rests() || net::has_unread(stream) {
            return false;
        }
        self.idle.count_closed();
        true
    }

    /// The same, of an HTTP/2 connection: what is under way may end.
    pub(super) fn leaves_http2(&self) -> bool {
        if !self.asked_to_leave.replace(false) || !self.rests() {
            return false;
        }
        self.deadline.set(LEAVING);
        self.idle.count_closed();
        true
    }

    /// An HTTP/2 stream was dropped before its answer had begun.
    pub(super) fn stream_reset(&self) {
        self.resets.add(self.deadline.now());
        if self.resets.are_too_many() {
            self.deadline.wake();
        }
    }

    fn rests(&self) -> bool {
        self.phase.get() == Phase::Idle && !self.stalled.get()
    }

    /// Between two requests.
    fn rest(&self) {
        self.deadline.set(self.timeouts.client_idle);
        self.since.set(self.deadline.now());
        self.queue();
    }

    fn queue(&self) {
        let since = self.since.get();
        if self.queued.replace(Some(since)) != Some(since) {
            self.idle.push(Weak::clone(&self.this), since);
        }
    }

    fn begin(&self) {
        self.serving.set(self.serving.get() + 1);
        self.asked_to_leave.set(false);
        let before = self.phase.replace(Phase::Request);
        if !self.stalled.get() {
            self.deadline.clear();
        } else if before == Phase::Head {
            self.deadline.set(self.timeouts.client_write_stall);
        }
    }

    fn end(&self) {
        self.serving.set(self.serving.get() - 1);
        if self.serving.get() == 0 {
            self.phase.set(Phase::Idle);
            self.stalled.set(false);
            self.rest();
        }
    }
}

/// What a handler is given beside the request.
#[derive(Debug, Clone)]
pub struct Handled {
    conn: Rc<ConnState>,
    deadline: Rc<Deadline>,
}

impl Handled {
    /// HTTP/1 serves one request at a time, so they share one deadline.
    pub(super) fn http1(conn: &Rc<ConnState>) -> Self {
        Self {
            conn: Rc::clone(conn),
            deadline: Rc::clone(&conn.request_deadline),
        }
    }

    pub(super) fn http2(conn: &Rc<ConnState>, watch: &Rc<Watch>) -> Self {
        Self {
            conn: Rc::clone(conn),
            deadline: watch.deadline(),
        }
    }

    /// The request's deadline.
    pub(super) fn deadline(&self) -> Rc<Deadline> {
        Rc::clone(&self.deadline)
    }

    /// Marks a request of this version as being served until the guard is
    /// dropped.
    #[must_use]
    pub fn serve(self, version: Version) -> Serving {
        self.conn.begin();
        self.conn.ends_by_close.set(version < Version::HTTP_11);
        self.deadline.clear();
        self.deadline.limit(None);
        Serving(self)
    }
}

/// A request that is being served; held by the handler, then by the answer's
/// body, whose end is the request's.
#[derive(Debug)]
pub struct Serving(Handled);

impl Serving {
    /// The address of who sent it.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.0.conn.peer
    }

    /// The request's deadline.
    #[must_use]
    pub fn deadline(&self) -> &Deadline {
        &self.0.deadline
    }

    /// What is still given is the end: the client has only to take it.
    pub fn gives_last(&self) {
        self.0.deadline.limit(None);
        self.0.deadline.set(self.0.conn.timeouts.client_write_stall);
    }

    /// A frame is given to hyper.
    pub fn frame_given(&self) {
        self.0.conn.dirty.set(true);
    }

    /// Ready once all frames given have been flushed. An error returned before
    /// that would lose them: hyper drops what it has buffered.
    pub fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.0.conn.dirty.get() {
            return Poll::Ready(());
        }
        let mut flushed = self.0.conn.flushed.borrow_mut();
        if !flushed.iter().any(|waker| waker.will_wake(cx.waker())) {
            flushed.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Joins the client's connection to the engine's, once our 101 is out.
    /// `early` was read beyond the engine's head; `counted` lives as long as
    /// the tunnel.
    pub fn tunnel(&self, engine: Rc<TcpStream>, early: Bytes, counted: Box<dyn Any>) {
        *self.0.conn.tunnel.borrow_mut() = Some(Tunnel {
            engine,
            early,
            counted,
        });
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.conn.end();
    }
}
