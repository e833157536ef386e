//! HTTP/2 clients that open streams only to reset them.
//!
//! hyper bounds those that it has not taken up yet; these are the ones that we
//! have begun to serve. Each has cost us an engine's connection, and the
//! client two frames.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Response;

use super::Answering;
use super::conn::ConnState;

/// Streams that a client may reset before their answers have begun, within
/// [`WITHIN`] and beyond those that were answered well. A gateway in front of
/// us may cancel often, so this is far above what people do.
const MOST: u32 = 1000;
/// The window in which they are counted.
const WITHIN: Duration = Duration::from_secs(10);

/// Streams that a client gave up, of late.
#[derive(Debug)]
pub(super) struct Resets {
    count: Cell<u32>,
    since: Cell<Instant>,
}

impl Resets {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            count: Cell::new(0),
            since: Cell::new(now),
        }
    }

    pub(super) fn add(&self, now: Instant) {
        if now.saturating_duration_since(self.since.get()) > WITHIN {
            self.since.set(now);
            self.count.set(0);
        }
        self.count.set(self.count.get().saturating_add(1));
    }

    pub(super) fn forgive_one(&self) {
        self.count.set(self.count.get().saturating_sub(1));
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.count.get() > MOST
    }
}

/// A stream whose answer has not begun; one that is dropped before was reset.
pub(super) struct Unanswered<B> {
    /// `None`: it gets none.
    answering: Option<Answering<B>>,
    conn: Option<Rc<ConnState>>,
}

impl<B> Unanswered<B> {
    pub(super) fn new(answering: Answering<B>, conn: &Rc<ConnState>) -> Self {
        Self {
            answering: Some(answering),
            conn: Some(Rc::clone(conn)),
        }
    }

    /// A request that is malformed: its stream is reset.
    pub(super) fn malformed(conn: &Rc<ConnState>) -> Self {
        Self {
            answering: None,
            conn: Some(Rc::clone(conn)),
        }
    }
}

impl<B> Future for Unanswered<B> {
    type Output = Result<Response<B>, h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answering) = &mut self.answering else {
            return Poll::Ready(Err(h2::Reason::PROTOCOL_ERROR.into()));
        };
        let Ok(answered) = std::task::ready!(answering.as_mut().poll(cx));
        // An error is no progress: cheap requests must not pay for dear ones.
        let is_good = |answer: &Response<B>| answer.status().as_u16() < 400;
        if let Some(conn) = self.conn.take()
            && is_good(&answered)
        {
            conn.resets.forgive_one();
        }
        Poll::Ready(Ok(answered))
    }
}

impl<B> Drop for Unanswered<B> {
    fn drop(&mut self) {
        if let Some(conn) = &self.conn {
            conn.stream_reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_in_a_short_time_without_answers_are_too_many() {
        let start = Instant::now();
        let resets = Resets::new(start);
        for _ in 0..5 * MOST {
            resets.add(start);
            resets.forgive_one();
        }
        assert!(!resets.are_too_many(), "as many were answered");
        for second in 0..60 {
            for _ in 0..MOST / 20 {
                resets.add(start + Duration::from_secs(second));
            }
        }
        assert!(!resets.are_too_many(), "they took their time");
        let later = start + Duration::from_secs(100);
        for _ in 0..MOST {
            resets.add(later);
        }
        assert!(!resets.are_too_many());
        resets.add(later);
        assert!(resets.are_too_many());
    }
}
