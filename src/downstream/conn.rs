//! What a connection's parts know of each other: the socket's wrapper, the
//! task, the handler and the answer's body.

mod leaving;
mod serving;

pub use serving::{Handled, Serving};

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Shared;
use super::frames::Frames;
use super::idle::IdleQueue;
use super::resets::Resets;
use super::strict::{Strict, Unparsed};
use super::watch::Deadline;
use crate::config::Timeouts;
use crate::net::wire::Wire;

/// How long a client of HTTP/1 rests before what serves it is dropped: long
/// beside what making it anew costs, short enough for many to come and rest.
const REST: Duration = Duration::from_millis(200);
/// Bytes of HTTP/2 that one client gets worked through before others have their
/// turn: frames may be as short as nine bytes.
const TURN: usize = 32 << 10;

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
    pub(super) engine: Rc<Wire>,
    pub(super) early: Bytes,
    #[expect(dead_code, reason = "held, not read: it counts by being dropped")]
    counted: Box<dyn Any>,
}

/// The state of one client connection.
#[derive(Debug)]
pub struct ConnState {
    /// Who is at the other end: the address as `X-Forwarded-For` has it.
    peer: Box<str>,
    /// Whether it is encrypted.
    pub(super) is_tls: Cell<bool>,
    /// Whether what it tells of those before it is believed.
    is_trusted: bool,
    /// Who that is, by its certificate.
    pub(super) identity: OnceCell<Arc<str>>,
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
    /// Whether it ends amid an answer.
    pub(super) is_cut: Cell<bool>,
    /// Whether its rest is a short one so far.
    is_short: Cell<bool>,
    pub(super) resets: Resets,
    frames: RefCell<Frames>,
    /// Bytes read since the task was woken, of HTTP/2.
    turn: Cell<usize>,
    pub(super) strict: Strict,
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
            is_tls: Cell::new(false),
            is_trusted: shared.trusted.contains(peer.ip()),
            strict: Strict::new(&shared.unseen),
            identity: OnceCell::new(),
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
            is_cut: Cell::new(false),
            is_short: Cell::new(false),
            resets: Resets::new(now),
            frames: RefCell::default(),
            turn: Cell::new(0),
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
            self.is_short.set(false);
            self.asked_to_leave.set(false);
            self.deadline.set(self.timeouts.client_head);
        }
    }

    /// Bytes have arrived.
    pub(super) fn reads(&self, bytes: &[u8]) {
        if self.http2.get() {
            let mut frames = self.frames.borrow_mut();
            frames.push(bytes, self.deadline.now());
            self.turn.set(self.turn.get().saturating_add(bytes.len()));
        } else {
            self.strict.read(bytes);
        }
    }

    /// The task of an HTTP/2 connection was woken.
    pub(super) fn turn_begins(&self) {
        self.turn.set(0);
    }

    /// Whether it may read on before others have their turn. HTTP/1 serves one
    /// request at a time, and needs no such bound.
    pub(super) fn has_turn(&self) -> bool {
        self.turn.get() < TURN
    }

    /// Whether an HTTP/2 client does what only an attacker would.
    pub(super) fn is_a_nuisance(&self) -> bool {
        self.resets.are_too_many() || self.frames.borrow().are_too_many()
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
    pub(super) fn answer_late(&self, stream: &Wire) {
        if self.phase.get() == Phase::Head && !self.stalled.get() {
            // Best effort: the client may not be there any more.
            let mut cx = Context::from_waker(Waker::noop());
            let late = Unparsed::Late.answer();
            let _ = stream.poll_write_vectored(&mut cx, &[IoSlice::new(late.as_bytes())]);
            self.strict.tell(Unparsed::Late);
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

    /// Whether the deadline that has passed was but that of a short rest; then
    /// the whole one begins.
    pub(super) fn rests_for_long(&self) -> bool {
        if !self.is_short.replace(false) || !self.rests() {
            return false;
        }
        self.deadline.set(self.timeouts.client_idle - REST);
        true
    }

    /// Between two requests.
    fn rest(&self) {
        let idle = self.timeouts.client_idle;
        let is_short = !self.http2.get() && idle > REST;
        self.is_short.set(is_short);
        self.deadline.set(if is_short { REST } else { idle });
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
