//! An answer's body: it owns the connection, reads it when it is polled, and
//! gives it back at the body's proper end. Dropping it earlier closes the
//! connection, and that is what tells the engine to stop.

use std::cell::Cell;
use std::io;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::codec::{AnswerHead, Decoder};
use super::link::{Fault, Link};
use super::pool::Pool;
use super::upload::Upload;
use crate::net::wire::Wire;

/// The body of an engine's answer.
#[derive(Debug)]
pub struct AnswerBody {
    link: Option<Link>,
    pool: Rc<Pool>,
    decoder: Decoder,
    /// What was read together with the head.
    rest: Bytes,
    keep_alive: bool,
    idle_for: Option<NonZeroU32>,
    uploading: Option<Uploading>,
}

/// An upload that goes on while the answer is read. It needs a task of its
/// own: a client that reads nothing before it has sent all stops the answer's
/// body from being polled, and the two would wait for each other.
#[derive(Debug)]
struct Uploading {
    task: JoinHandle<()>,
    ended: Rc<Cell<bool>>,
}

impl Uploading {
    fn spawn(mut upload: Upload, stream: Rc<Wire>) -> Self {
        let ended = Rc::new(Cell::new(false));
        let tell = Rc::clone(&ended);
        let task = tokio::task::spawn_local(async move {
            let sent = std::future::poll_fn(|cx| upload.poll_send(&stream, cx)).await;
            tell.set(sent.is_ok());
        });
        Self { task, ended }
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AnswerBody {
    pub(super) fn new(
        link: Link,
        head: &AnswerHead,
        rest: Bytes,
        unsent: Option<Upload>,
        pool: Rc<Pool>,
    ) -> Self {
        let stream = || Rc::clone(link.stream());
        let uploading = unsent.map(|upload| Uploading::spawn(upload, stream()));
        let mut body = Self {
            link: Some(link),
            pool,
            decoder: Decoder::new(head.framing),
            rest,
            keep_alive: head.keep_alive,
            idle_for: head.idle_for,
            uploading,
        };
        if body.decoder.ended() {
            body.release();
        }
        body
    }

    /// Whether all of it has been given out.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.decoder.ended()
    }

    /// Bytes still to come, when the engine declared them.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// Whether its end is the connection's: then a clean end may be a cut.
    #[must_use]
    pub fn ends_by_close(&self) -> bool {
        self.decoder.ends_by_close()
    }

    /// The next bytes, as many as one read brings; `None` at the end.
    ///
    /// # Errors
    /// [`Fault::Broken`] when the engine cut the body short,
    /// [`Fault::Protocol`] when its framing is wrong.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        loop {
            if self.decoder.ended() {
                return Poll::Ready(None);
            }
            if let Some(fault) = self.decoder.fault() {
                return Poll::Ready(Some(Err(fault.into())));
            }
            let decoded = if self.rest.is_empty() {
                let Some(link) = &self.link else {
                    return Poll::Ready(None);
                };
                let mut scratch = self.pool.scratch();
                match std::task::ready!(link.stream().poll_read(cx, &mut *scratch)) {
                    Ok(0) => {
                        drop(scratch);
                        return Poll::Ready(self.closed());
                    }
                    Err(e) => return Poll::Ready(Some(Err(Fault::Broken(e)))),
                    Ok(_) => {}
                }
                let decoded = self.decoder.decode(&scratch, Bytes::copy_from_slice);
                // Bytes beyond the end make the connection unfit for reuse.
                self.keep_alive &= decoded.as_ref().is_ok_and(|d| d.used == scratch.len());
                decoded
            } else {
                let rest = std::mem::take(&mut self.rest);
                let decoded = self.decoder.decode(&rest, |part| rest.slice_ref(part));
                self.keep_alive &= decoded.as_ref().is_ok_and(|d| d.used == rest.len());
                decoded
            };
            let data = match decoded {
                Ok(decoded) => decoded.data,
                Err(fault) => return Poll::Ready(Some(Err(fault.into()))),
            };
            if self.decoder.ended() {
                self.release();
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }

    fn closed(&mut self) -> Option<Result<Bytes, Fault>> {
        self.link = None;
        if self.decoder.ends_by_close() {
            self.decoder = Decoder::Ended;
            return None;
        }
        let cut = io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed in the midst of the body",
        );
        Some(Err(Fault::Broken(cut)))
    }

    /// At the proper end: gives the connection back if it may serve again.
    fn release(&mut self) {
        let sent = self
            .uploading
            .take()
            .is_none_or(|upload| upload.ended.get());
        if let Some(link) = self.link.take()
            && self.keep_alive
            && sent
            && self.rest.is_empty()
        {
            self.pool.put(link, self.idle_for);
        }
    }
}
