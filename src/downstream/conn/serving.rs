//! What a handler is given beside the request, and what it holds while the
//! request is served.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;

use super::{ConnState, Tunnel};
use crate::downstream::watch::{Deadline, Watch};
use crate::net::wire::Wire;

/// What a handler is given beside the request.
#[derive(Debug, Clone)]
pub struct Handled {
    conn: Rc<ConnState>,
    deadline: Rc<Deadline>,
}

impl Handled {
    /// HTTP/1 serves one request at a time, so they share one deadline.
    pub(in crate::downstream) fn http1(conn: &Rc<ConnState>) -> Self {
        Self {
            conn: Rc::clone(conn),
            deadline: Rc::clone(&conn.request_deadline),
        }
    }

    pub(in crate::downstream) fn http2(conn: &Rc<ConnState>, watch: &Rc<Watch>) -> Self {
        Self {
            conn: Rc::clone(conn),
            deadline: watch.deadline(),
        }
    }

    /// The request's deadline.
    pub(in crate::downstream) fn deadline(&self) -> Rc<Deadline> {
        Rc::clone(&self.deadline)
    }

    /// Who sent it, by the certificate that the connection was opened with.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<str>> {
        self.conn.identity.get()
    }

    /// Marks a request of this version as being served until the guard is
    /// dropped.
    #[must_use]
    pub fn serve(self, version: Version) -> Serving {
        self.conn.begin();
        self.conn.ends_by_close.set(version < Version::HTTP_11);
        self.deadline.clear();
        self.deadline.limit(None);
        Serving {
            of: self,
            held: None,
        }
    }
}

/// A request that is being served; held by the handler, then by the answer's
/// body, whose end is the request's.
#[derive(Debug)]
pub struct Serving {
    of: Handled,
    /// It counts by being dropped.
    held: Option<Box<dyn Any>>,
}

impl Serving {
    /// The address of who sent it.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.of.conn.peer
    }

    /// Whether it came encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.of.conn.is_tls.get()
    }

    /// Whether what its sender tells of those before it is believed.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.of.conn.is_trusted
    }

    /// Who sent it, by the certificate that the connection was opened with.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<str>> {
        self.of.conn.identity.get()
    }

    /// Holds something until the request ends.
    pub fn hold(&mut self, it: Box<dyn Any>) {
        self.held = Some(it);
    }

    /// The request's deadline.
    #[must_use]
    pub fn deadline(&self) -> &Deadline {
        &self.of.deadline
    }

    /// What is still given is the end: the client has only to take it.
    pub fn gives_last(&self) {
        self.of.deadline.limit(None);
        self.of
            .deadline
            .set(self.of.conn.timeouts.client_write_stall);
    }

    /// A frame is given to hyper.
    pub fn frame_given(&self) {
        self.of.conn.dirty.set(true);
    }

    /// Ready once all frames given have been flushed. An error returned before
    /// that would lose them: hyper drops what it has buffered.
    pub fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.of.conn.dirty.get() {
            return Poll::Ready(());
        }
        let mut flushed = self.of.conn.flushed.borrow_mut();
        if !flushed.iter().any(|waker| waker.will_wake(cx.waker())) {
            flushed.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Joins the client's connection to the engine's, once our 101 is out.
    /// `early` was read beyond the engine's head; `counted` lives as long as
    /// the tunnel.
    pub fn tunnel(&mut self, engine: Rc<Wire>, early: Bytes, counted: Box<dyn Any>) {
        // The request goes on for as long as the tunnel.
        let counted: Box<dyn Any> = Box::new((counted, self.held.take()));
        *self.of.conn.tunnel.borrow_mut() = Some(Tunnel {
            engine,
            early,
            counted,
        });
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.of.conn.end();
    }
}
