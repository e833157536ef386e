//! One attempt: a request sent to one engine, up to the point from which on
//! only this engine can answer it (the head of its answer, or the first piece
//! of the body).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};

use crate::config::{Commit, Timeouts};
use crate::downstream::watch::Deadline;
use crate::fleet::Engine;
use crate::metrics::ProcessMetrics;
use crate::upstream::{AnswerBody, AnswerHead, Fault, Link, Pool, Reading, Upload};

use super::headers::{self, Outgoing};
use super::orca;

/// An idle connection that the engine had closed tells so at once; what breaks
/// later was closed in the midst of our request.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// What an attempt needs.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The worker's connections.
    pub pool: &'a Rc<Pool>,
    /// The head to send.
    pub outgoing: &'a Outgoing<'a>,
    /// The request's deadline.
    pub deadline: &'a Deadline,
    /// How long each phase may last.
    pub timeouts: &'a Timeouts,
    /// When the first piece of the answer is due, after the request's end.
    pub first_token: Option<Duration>,
    /// Until when another engine may answer instead.
    pub commit: Commit,
    /// Who set the time of the whole.
    pub hurry: Hurry,
    /// Whether an engine that had the request keeps nothing of it: it asks for an
    /// inference, or only reads. What else it may be, engines know.
    pub leaves_no_trace: bool,
    /// Process-wide handles.
    pub metrics: &'a ProcessMetrics,
    /// Our own work for the last one that was written.
    pub overhead: &'a Cell<Option<Duration>>,
}

/// Who set the time of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hurry {
    /// The request itself: its time says nothing of an engine.
    Client,
    /// The configuration: an engine that has told nothing by then is late.
    Ours,
}

/// An answer whose head has been read.
#[derive(Debug)]
pub struct Answered {
    /// The engine's head.
    pub head: AnswerHead,
    /// What comes after it.
    pub flow: Flow,
    /// The first piece of the body, if it was waited for.
    pub first: Option<Bytes>,
    /// When the first piece is due.
    pub first_by: Option<Instant>,
    /// Whether the body is an event stream.
    pub is_stream: bool,
}

/// What comes after an answer's head.
#[derive(Debug)]
pub enum Flow {
    /// A body.
    Body(AnswerBody),
    /// Another protocol.
    Tunnel(Link, Reading),
}

/// A head, and what it came on.
type Exchanged = (AnswerHead, Link, Reading, Option<Instant>);

impl Attempt<'_> {
    /// Sends `upload` to `engine`. What can be sent again is left.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn run(
        &self,
        engine: &Arc<Engine>,
        upload: &mut Option<Upload>,
        picked_at: Instant,
    ) -> Result<Box<Answered>, Fault> {
        let Some(sending) = upload else {
            let gone = std::io::Error::other("the request cannot be sent again");
            return Err(Fault::Broken(gone));
        };
        self.overhead.set(None);
        let asked = self.outgoing.asks(engine);
        let (mut head, link, reading, first_by) = self.head(engine, sending, picked_at).await?;
        if let Some(answers) = asked {
            orca::take(&mut head, engine, answers, self.deadline.now());
        }
        if head.status.as_u16() == 101 {
            return Ok(Box::new(Answered {
                head,
                flow: Flow::Tunnel(link, reading),
                first: None,
                first_by: None,
                is_stream: false,
            }));
        }
        // Only what is still being written goes with the answer.
        let unsent = upload.take_if(|upload| !upload.ended());
        if let Some(unsent) = &unsent {
            *upload = unsent.again();
        }
        let is_stream = is_event_stream(&head);
        // A whole answer comes with its head, or soon after: there is nothing to
        // be seen in the head alone.
        let is_whole = upload.is_some();
        let is_held = is_whole && (self.commit == Commit::FirstPiece || !is_stream);
        let mut body = link.into_body(&head, reading, unsent, self.pool);
        let first = if is_held && head.status.is_success() && !body.ended() {
            self.first_piece(&mut body, first_by).await?
        } else {
            None
        };
        // Boxed: it passes through several hands.
        Ok(Box::new(Answered {
            head,
            flow: Flow::Body(body),
            first,
            first_by,
            is_stream,
        }))
    }

    /// The first piece of the body, within its time.
    async fn first_piece(
        &self,
        body: &mut AnswerBody,
        first_by: Option<Instant>,
    ) -> Result<Option<Bytes>, Fault> {
        match first_by {
            Some(at) => self.deadline.until(at),
            None => self.deadline.set(self.timeouts.engine_idle),
        }
        let first = std::future::poll_fn(|cx| match body.poll_data(cx) {
            Poll::Pending if self.deadline.expired(cx) => Poll::Ready(Some(Err(self.late(None)))),
            other => other,
        });
        first.await.transpose()
    }

    /// Which deadline has passed. If it is the whole's, an engine is late only
    /// if it had most of that time for itself.
    fn late(&self, written_at: Option<Instant>) -> Fault {
        if !self.deadline.is_over() {
            return Fault::Silent;
        }
        let had = written_at.map(|at| self.deadline.now().saturating_duration_since(at));
        let is_late = had
            .zip(self.timeouts.total)
            .is_some_and(|(had, total)| had >= total / 2);
        if self.hurry == Hurry::Ours && is_late {
            Fault::Overdue
        } else {
            Fault::Expired
        }
    }

    /// On an idle connection if there is one, and once more on a fresh one if
    /// that had just been closed.
    async fn head(
        &self,
        engine: &Arc<Engine>,
        upload: &mut Upload,
        picked_at: Instant,
    ) -> Result<Exchanged, Fault> {
        // What may leave a trace goes out where no connection can be stale.
        let may_reuse = upload.is_held() && self.leaves_no_trace;
        let idle = may_reuse.then(|| self.pool.take(engine)).flatten();
        let mut had_some = false;
        if let Some(link) = idle {
            upload.begin(headers::for_engine(self.outgoing, engine));
            match self.exchange(link, upload, picked_at).await {
                Err(Fault::Stale) if picked_at.elapsed() < STALE_WITHIN => {
                    had_some = upload.written() > 0;
                    engine.stale.fetch_add(1, Relaxed);
                    self.metrics.retries.stale.increment(1);
                }
                other => return other,
            }
        }
        self.deadline.clear();
        let connecting = Instant::now();
        let afresh = async {
            let link = self.connect(engine).await?;
            let started = picked_at + connecting.elapsed();
            upload.begin(headers::for_engine(self.outgoing, engine));
            self.exchange(link, upload, started).await
        };
        afresh.await.map_err(|fault| match fault {
            // It may have had the request before it went.
            Fault::Unsent(error) | Fault::NoSocket(error) if had_some => Fault::Broken(error),
            other => other,
        })
    }

    async fn connect(&self, engine: &Arc<Engine>) -> Result<Link, Fault> {
        // Boxed: while the engine works, its place would be kept.
        let mut connecting = Box::pin(self.pool.connect(engine));
        let link = std::future::poll_fn(|cx| match connecting.as_mut().poll(cx) {
            Poll::Pending if self.deadline.expired(cx) => Poll::Ready(None),
            other => other.map(Some),
        });
        let link = link.await.ok_or(Fault::Expired)?;
        link.map_err(Fault::connecting)
    }

    /// Sends on `link` and waits for the head. `started` is when our own work
    /// began, for the overhead.
    async fn exchange(
        &self,
        mut link: Link,
        upload: &mut Upload,
        started: Instant,
    ) -> Result<Exchanged, Fault> {
        let mut reading = Reading::new(&self.outgoing.head.method, self.outgoing.upgrade);
        let mut progress = Progress::default();
        let head = std::future::poll_fn(|cx| {
            let exchanged = link.poll_exchange(upload, &mut reading, self.pool, cx);
            if exchanged.is_ready() {
                return exchanged;
            }
            self.watch(upload, &mut progress, started);
            if self.deadline.expired(cx) {
                return Poll::Ready(Err(self.late(progress.written_at)));
            }
            Poll::Pending
        })
        .await?;
        Ok((head, link, reading, progress.first_by))
    }

    /// Moves the deadline when the upload moves: first the client must go on
    /// sending, then the engine must answer.
    fn watch(&self, upload: &Upload, progress: &mut Progress, started: Instant) {
        let now = (upload.written(), upload.ended());
        if progress.sent == Some(now) {
            return;
        }
        let is_first = progress.sent.replace(now).is_none();
        if !upload.ended() {
            self.deadline.set(self.timeouts.client_body_idle);
            return;
        }
        let (head, first) = (self.timeouts.engine_head, self.first_token);
        self.deadline
            .set(first.map_or(head, |first| first.min(head)));
        progress.written_at = Some(self.deadline.now());
        progress.first_by = first.map(|first| self.deadline.now() + first);
        if is_first {
            let overhead: Duration = started.elapsed();
            self.metrics.overhead.observe(overhead);
            self.overhead.set(Some(overhead));
        }
    }
}

/// How far an exchange has come.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes written, and whether that is all, when it was last looked at.
    sent: Option<(u64, bool)>,
    /// When all was written.
    written_at: Option<Instant>,
    /// When the first piece of the answer is due.
    first_by: Option<Instant>,
}

fn is_event_stream(head: &AnswerHead) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| {
        let name = b"text/event-stream";
        value
            .get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
    })
}
