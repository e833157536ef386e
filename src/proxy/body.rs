//! The body that the client gets: the engine's, untouched, watched as it
//! passes; or our own few bytes.
//!
//! A body that the engine cut is never made to look complete: it ends with an
//! error, which closes the connection without the terminating chunk. Only at
//! an event's boundary of an event stream is one `error` event put before that.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::admit::Permit;
use super::error::{CUT_EVENT, LATE_EVENT, ProxyError};
use super::infer::retold::Retold;
use super::meter::Meter;
use crate::downstream::Serving;
use crate::fleet::engine::Outcome;
use crate::fleet::load::InFlight;
use crate::upstream::{AnswerBody, Fault};

/// The body of every answer.
#[derive(Debug)]
pub enum ObservedBody {
    /// Bytes of our own.
    Own {
        /// What is still to be given.
        data: Bytes,
        /// Ends the request when dropped.
        serving: Serving,
    },
    /// An engine's; boxed, since hyper moves a body several times.
    Relay(Box<Relay>),
    /// An engine's, in other words.
    Retold(Box<Retold>),
}

/// An engine's body on its way.
#[derive(Debug)]
pub struct Relay {
    answer: AnswerBody,
    /// A piece that was waited for before the head was given.
    first: Option<Bytes>,
    /// Until the end, or the fault.
    slot: Option<InFlight>,
    outcome: Outcome,
    meter: Meter,
    serving: Serving,
    /// Its places among the requests that were let in.
    #[expect(dead_code, reason = "held, not read: given up by being dropped")]
    permit: Permit,
    idle: Duration,
    events: Events,
    /// An error that waits for what came before it to be flushed.
    held: Option<Fault>,
}

/// What is known of an event stream's shape.
#[derive(Debug)]
struct Events {
    /// Whether the body is one, and may be ended by an event of ours.
    may_tell: bool,
    is_stream: bool,
    /// The last bytes given to the client.
    tail: [u8; Events::TAIL],
}

impl Events {
    const TAIL: usize = 20;

    fn pass(&mut self, data: &[u8]) {
        let new = &data[data.len().saturating_sub(Self::TAIL)..];
        self.tail.rotate_left(new.len());
        self.tail[Self::TAIL - new.len()..].copy_from_slice(new);
    }

    fn at_boundary(&self) -> bool {
        [b"\n\n".as_slice(), b"\r\n\r\n"]
            .iter()
            .any(|end| self.tail.ends_with(end))
    }

    /// Whether its last line was the end's; not that a line ended so.
    fn done(&self) -> bool {
        let text = self.tail.trim_ascii_end();
        text.ends_with(b"\ndata: [DONE]") || text.ends_with(b"\ndata:[DONE]")
    }
}

/// Whether a stream ends at a boundary, and with `[DONE]`.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn seen_at_end(pieces: &[&[u8]]) -> (bool, bool) {
    let mut events = Events {
        may_tell: true,
        is_stream: true,
        tail: [b'\n'; Events::TAIL],
    };
    pieces.iter().for_each(|piece| events.pass(piece));
    (events.at_boundary(), events.done())
}

/// Everything that goes from the attempt to the body.
#[derive(Debug)]
pub struct RelayParts {
    /// The engine's body.
    pub answer: AnswerBody,
    /// Its first piece, if it has been read.
    pub first: Option<Bytes>,
    /// When the first piece is due, if that is limited.
    pub first_by: Option<Instant>,
    /// Its places among the requests that were let in.
    pub permit: Permit,
    /// The engine's slot.
    pub slot: InFlight,
    /// How the request ends if the body ends well.
    pub outcome: Outcome,
    /// The request's account.
    pub meter: Meter,
    /// The request.
    pub serving: Serving,
    /// Longest silence of the engine.
    pub idle: Duration,
    /// Whether the body is an event stream.
    pub is_stream: bool,
    /// Whether a cut stream ends with an event of ours.
    pub error_events: bool,
}

impl Relay {
    /// A body that has given nothing yet.
    #[must_use]
    pub fn new(parts: RelayParts) -> Self {
        // The head: an error before the first piece would lose it too.
        parts.serving.frame_given();
        let deadline = parts.serving.deadline();
        deadline.set(parts.idle);
        if let (Some(at), None) = (parts.first_by, &parts.first) {
            deadline.until(at);
        }
        let mut meter = parts.meter;
        if parts.is_stream {
            meter.streams();
        }
        let mut relay = Self {
            answer: parts.answer,
            first: parts.first,
            permit: parts.permit,
            slot: Some(parts.slot),
            outcome: parts.outcome,
            meter,
            serving: parts.serving,
            idle: parts.idle,
            events: Events {
                may_tell: parts.is_stream && parts.error_events,
                is_stream: parts.is_stream,
                tail: [b'\n'; Events::TAIL],
            },
            held: None,
        };
        if relay.is_ended() {
            relay.complete(Instant::now());
        }
        relay
    }

    /// Whether all of the body has been given.
    pub(super) fn is_ended(&self) -> bool {
        self.answer.ended() && self.first.is_none() && self.held.is_none()
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(slot) = self.slot.take() {
            slot.settle(outcome);
        }
    }

    /// The answer has been given to its end.
    fn complete(&mut self, now: Instant) {
        if let Some(slot) = self.slot.take() {
            slot.settle_at(self.outcome, now);
        }
        self.meter.ends(now);
        self.meter.completes();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.held.is_some() {
            std::task::ready!(self.serving.poll_flushed(cx));
            return Poll::Ready(self.held.take().map(Err));
        }
        match std::task::ready!(self.poll_piece(cx)) {
            Some(Ok(data)) => self.give(data),
            Some(Err(fault)) => self.cut(fault, cx),
            None => Poll::Ready(None),
        }
    }

    /// The next piece as the engine sent it; with its fault the body has ended.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Fault>>> {
        // A clean close is no end of a stream that has not said [DONE].
        let by_close = self.answer.ends_by_close() && self.events.is_stream;
        let polled = match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.answer.poll_data(cx),
        };
        match polled {
            Poll::Pending if self.serving.deadline().expired(cx) => {
                let (outcome, fault) = if self.serving.deadline().is_over() {
                    (Outcome::Unrelated, Fault::Expired)
                } else {
                    (Outcome::Timeout, Fault::Silent)
                };
                Poll::Ready(Some(Err(self.broken(fault, outcome))))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(data))) => {
                let now = Instant::now();
                self.meter.piece(&data, now);
                if let Some(slot) = &mut self.slot {
                    slot.delivered(1, now);
                }
                self.events.pass(&data);
                self.serving.deadline().set(self.idle);
                if self.answer.ended() {
                    self.complete(now);
                }
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Ready(None) if by_close && !self.events.done() => {
                let unfinished = std::io::Error::other("closed before the stream was done");
                let fault = Fault::Broken(unfinished);
                Poll::Ready(Some(Err(self.broken(fault, Outcome::Failure))))
            }
            Poll::Ready(None) => {
                self.complete(Instant::now());
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(fault))) => {
                Poll::Ready(Some(Err(self.broken(fault, Outcome::Failure))))
            }
        }
    }

    /// Takes down that the engine's body ends here, before its end.
    pub(super) fn broken(&mut self, fault: Fault, outcome: Outcome) -> Fault {
        self.settle(outcome);
        tracing::warn!(target: "pilotfish::proxy", %fault, "an engine's answer broke off");
        self.meter.breaks_off(&fault);
        self.serving.gives_last();
        fault
    }

    /// Whether it is an event stream.
    pub(super) fn is_stream(&self) -> bool {
        self.events.is_stream
    }

    /// Whether a cut may be told of in the stream itself.
    pub(super) fn may_tell(&self) -> bool {
        self.events.may_tell
    }

    /// Ready once the client has been sent all that it was given.
    pub(super) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        self.serving.poll_flushed(cx)
    }

    /// The client gets no answer of the engine, but these last words of ours, for
    /// that error if there is one.
    pub(super) fn gives_own(&mut self, error: Option<&ProxyError>) {
        if let Some(error) = error {
            self.meter.refused(error);
        }
        self.serving.gives_last();
    }

    /// Ends the client's answer.
    fn cut(
        &mut self,
        fault: Fault,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let is_overdue = matches!(fault, Fault::Expired);
        self.held = Some(fault);
        if self.events.may_tell && self.events.at_boundary() && !self.events.done() {
            let event = if is_overdue { LATE_EVENT } else { CUT_EVENT };
            return self.give(Bytes::from_static(event.as_bytes()));
        }
        self.poll(cx)
    }

    pub(super) fn give(&self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.serving.frame_given();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

/// Nobody asks for more while the client takes nothing: then what drops an
/// answer that has not ended may be the time of the whole.
impl Drop for Relay {
    fn drop(&mut self) {
        if self.slot.is_some() && self.serving.deadline().is_over() {
            self.meter.breaks_off(&Fault::Expired);
        }
    }
}

impl Body for ObservedBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.get_mut() {
            Self::Own { data, .. } if data.is_empty() => Poll::Ready(None),
            Self::Own { data, .. } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(data))))),
            Self::Relay(relay) => relay.poll(cx),
            Self::Retold(retold) => retold.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { data, .. } => data.is_empty(),
            Self::Relay(relay) => relay.is_ended(),
            Self::Retold(retold) => retold.is_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { data, .. } => SizeHint::with_exact(data.len() as u64),
            Self::Relay(relay) => {
                let first = relay.first.as_ref().map_or(0, Bytes::len) as u64;
                let left = relay.answer.left().map(|left| left + first);
                left.map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            Self::Retold(retold) => retold.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_and_ends_are_told_from_the_last_bytes() {
        let after = |pieces: &[&str]| {
            let mut events = Events {
                may_tell: true,
                is_stream: true,
                tail: [b'\n'; Events::TAIL],
            };
            pieces
                .iter()
                .for_each(|piece| events.pass(piece.as_bytes()));
            (events.at_boundary(), events.done())
        };
        assert_eq!(after(&[]), (true, false));
        assert_eq!(after(&["data: {}\n\n"]), (true, false));
        assert_eq!(after(&["data: {}\r\n\r\n"]), (true, false));
        assert_eq!(after(&["data: {}\n"]), (false, false));
        assert_eq!(after(&["data: {}\n", "\n"]), (true, false));
        assert_eq!(after(&["data: [DO", "NE]\n\n"]), (true, true));
        assert_eq!(after(&["data: {}\n\ndata: [DONE]\n\n"]), (true, true));
        assert_eq!(after(&["data: {}\n\ndata: [DONE]\r\n\r\n"]), (true, true));
        assert_eq!(after(&["data: they wrote data: [DONE]\n\n"]), (true, false));
    }
}
