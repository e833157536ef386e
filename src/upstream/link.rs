//! One connection to an engine, and one exchange on it up to the answer's head.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::answer::AnswerBody;
use super::codec::{AnswerHead, Asked, ProtocolFault, parse_head};
use super::pool::Pool;
use super::upload::{ClientFault, SendFault, Upload};
use crate::fleet::Engine;
use crate::net::wire::Wire;

/// Interim (1xx) answers that are skipped before one request's answer.
const MAX_INTERIM: u8 = 16;

/// Why there is no answer, or no whole one; what may be done about it follows
/// from the kind alone.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not one byte of the request left us: safe to send elsewhere.
    #[error("could not reach the engine: {0}")]
    Unsent(io::Error),
    /// The engine had closed an idle connection just as it was reused: safe to
    /// send again, and nobody's fault.
    #[error("the idle connection had been closed")]
    Stale,
    /// The connection broke after the request was sent.
    #[error("the engine's connection broke: {0}")]
    Broken(io::Error),
    /// The engine sent something that is not HTTP.
    #[error("the engine broke the protocol: {0}")]
    Protocol(#[from] ProtocolFault),
    /// The client's fault, never the engine's.
    #[error(transparent)]
    Client(ClientFault),
    /// The engine was silent past a deadline.
    #[error("the engine sent nothing for too long")]
    Silent,
    /// The request's own time was up, which is nobody's fault.
    #[error("the request's time was up")]
    Expired,
    /// The time that we give a request was up, and the engine had told nothing.
    #[error("the engine sent nothing within the request's time")]
    Overdue,
    /// We had no socket for it: no engine's fault.
    #[error("out of sockets: {0}")]
    NoSocket(io::Error),
}

/// Not enough descriptors, in the process or the system; no free port; no memory.
const OUT_OF_SOCKETS: [i32; 5] = [
    rustix::io::Errno::NFILE.raw_os_error(),
    rustix::io::Errno::MFILE.raw_os_error(),
    rustix::io::Errno::ADDRNOTAVAIL.raw_os_error(),
    rustix::io::Errno::NOBUFS.raw_os_error(),
    rustix::io::Errno::NOMEM.raw_os_error(),
];

impl Fault {
    /// Of an error in connecting.
    #[must_use]
    pub fn connecting(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) if OUT_OF_SOCKETS.contains(&errno) => Self::NoSocket(error),
            _ => Self::Unsent(error),
        }
    }
}

/// What was seen of an exchange that broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Bytes of the request that the socket took.
    pub written: u64,
    /// Whether any byte of an answer came.
    pub heard: bool,
    /// Whether the connection had served a request before.
    pub reused: bool,
}

impl Evidence {
    /// The kind of fault.
    #[must_use]
    pub fn fault(self, error: io::Error) -> Fault {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let closed = matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof);
        if self.reused && !self.heard && closed {
            Fault::Stale
        } else if self.written == 0 && !self.heard {
            Fault::Unsent(error)
        } else {
            Fault::Broken(error)
        }
    }
}

/// An engine's open connection, counted until it is dropped.
#[derive(Debug)]
pub struct Open(Arc<Engine>);

impl Open {
    fn count(engine: &Arc<Engine>) -> Self {
        engine.open.fetch_add(1, Relaxed);
        Self(Arc::clone(engine))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A connection to an engine.
#[derive(Debug)]
pub struct Link {
    stream: Rc<Wire>,
    open: Open,
    reused: bool,
    /// Whether any byte of the current answer has been read.
    heard: bool,
}

impl Link {
    pub(super) fn new(stream: Wire, engine: &Arc<Engine>) -> Self {
        Self {
            stream: Rc::new(stream),
            open: Open::count(engine),
            reused: false,
            heard: false,
        }
    }

    pub(super) fn engine_key(&self) -> u64 {
        self.open.0.key
    }

    pub(super) fn begin_reuse(&mut self) {
        self.reused = true;
        self.heard = false;
    }

    pub(super) fn stream(&self) -> &Rc<Wire> {
        &self.stream
    }

    /// Whether the socket has neither data nor an end to tell of. A system
    /// call is made only when the runtime has seen an event on it.
    pub(super) fn is_silent(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // One byte at most: were there one, the connection is not reused.
        let mut byte = [0u8; 1];
        (self.stream)
            .poll_read(&mut cx, &mut byte.as_mut_slice())
            .is_pending()
    }

    /// Sends `upload` and reads the answer's head, both at once, since an
    /// engine may answer before the upload has ended.
    ///
    /// # Errors
    /// Each [`Fault`] but `Silent`; the link is then of no more use.
    pub fn poll_exchange(
        &mut self,
        upload: &mut Upload,
        reading: &mut Reading,
        pool: &Pool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, Fault>> {
        if reading.send_error.is_none() && !upload.ended() {
            match upload.poll_send(&self.stream, cx) {
                // An engine that answers early may close before it has read
                // all: the answer is in the socket and worth more than EPIPE.
                Poll::Ready(Err(SendFault::Engine(e))) => reading.send_error = Some(e),
                Poll::Ready(Err(SendFault::Client(e))) => {
                    return Poll::Ready(Err(Fault::Client(e)));
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            let mut scratch = pool.scratch();
            let read = match self.stream.poll_read(cx, &mut *scratch) {
                Poll::Pending => match reading.send_error.take() {
                    None => return Poll::Pending,
                    Some(e) => Err(e),
                },
                Poll::Ready(Ok(0)) => Err(reading.send_error.take().unwrap_or_else(ended)),
                Poll::Ready(other) => other,
            };
            if let Err(e) = read {
                let evidence = Evidence {
                    written: upload.written(),
                    heard: self.heard,
                    reused: self.reused,
                };
                return Poll::Ready(Err(evidence.fault(e)));
            }
            self.heard = true;
            let head = reading.head(&scratch);
            drop(scratch);
            match head {
                Ok(None) => {}
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Err(fault) => return Poll::Ready(Err(fault.into())),
            }
        }
    }

    /// The answer's body, which owns the link from now on and gives it back to
    /// `pool` at its end; `unsent` is the request, if it is not wholly written.
    #[must_use]
    pub fn into_body(
        self,
        head: &AnswerHead,
        reading: Reading,
        unsent: Option<Upload>,
        pool: &Rc<Pool>,
    ) -> AnswerBody {
        AnswerBody::new(self, head, reading.into_rest(), unsent, Rc::clone(pool))
    }

    /// The socket, and bytes read beyond the head, once both sides have
    /// switched to another protocol; and what counts it as open.
    #[must_use]
    pub fn into_tunnel(self, reading: Reading) -> (Rc<Wire>, Bytes, Open) {
        (self.stream, reading.into_rest(), self.open)
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer")
}

/// What has been read of an answer before its body.
#[derive(Debug)]
pub struct Reading {
    /// The part of a head that has been read, while it is not whole.
    bytes: BytesMut,
    /// What was read beyond the head.
    rest: Bytes,
    asked: Asked,
    interim: u8,
    send_error: Option<io::Error>,
}

impl Reading {
    /// Nothing read yet, of the answer to a request with this method;
    /// `upgrade` when it asked to switch protocols.
    #[must_use]
    pub fn new(method: &http::Method, upgrade: bool) -> Self {
        Self {
            bytes: BytesMut::new(),
            rest: Bytes::new(),
            asked: Asked {
                head_only: method == http::Method::HEAD,
                upgrade,
            },
            interim: 0,
            send_error: None,
        }
    }

    /// The final head, when `read` makes it whole; interim ones are skipped.
    fn head(&mut self, read: &[u8]) -> Result<Option<AnswerHead>, ProtocolFault> {
        let mut bytes = if self.bytes.is_empty() {
            Bytes::copy_from_slice(read)
        } else {
            self.bytes.extend_from_slice(read);
            std::mem::take(&mut self.bytes).freeze()
        };
        loop {
            let Some((head, length)) = parse_head(&bytes, self.asked)? else {
                self.bytes = BytesMut::from(bytes);
                return Ok(None);
            };
            bytes = bytes.slice(length..);
            if !head.status.is_informational() || head.status.as_u16() == 101 {
                self.rest = bytes;
                return Ok(Some(head));
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(ProtocolFault::TooManyInterim);
            }
        }
    }

    fn into_rest(self) -> Bytes {
        self.rest
    }
}
