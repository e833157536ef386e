//! Sending one request to an engine, and to another one when the first was
//! never reached: up to the answer's head.
//!
//! What may be repeated follows from the kind of fault alone ([`Fault`]): what
//! was never sent may go anywhere, what met a connection that had just been
//! closed may go there again, and all else is the client's to repeat.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::config::Timeouts;
use crate::downstream::watch::Deadline;
use crate::fleet::Engine;
use crate::fleet::engine::Outcome;
use crate::fleet::load::InFlight;
use crate::metrics::ProcessMetrics;
use crate::policy::{Refusal, Tried};
use crate::upstream::{AnswerHead, Fault, Link, Pool, Reading, Upload};

use super::choose::Choosing;
use super::error::ProxyError;
use super::headers::{self, Outgoing};
use super::meter::Meter;

/// What a request needs to be sent.
#[derive(Debug)]
pub struct Sending<'a> {
    /// The worker's connections.
    pub pool: &'a Rc<Pool>,
    /// Who is to get it.
    pub choosing: Choosing<'a>,
    /// The head to send.
    pub outgoing: Outgoing<'a>,
    /// The request's deadline.
    pub deadline: &'a Deadline,
    /// How long each phase may last.
    pub timeouts: &'a Timeouts,
    /// Process-wide handles.
    pub metrics: &'a ProcessMetrics,
    /// When the request began, if its choice is to be logged.
    pub logged_since: Option<Instant>,
}

/// An answer whose head has been read.
#[derive(Debug)]
pub struct Answer {
    /// The engine's head.
    pub head: AnswerHead,
    /// The connection that the body will come on.
    pub link: Link,
    /// What was read beyond the head.
    pub reading: Reading,
    /// What is left of the request.
    pub upload: Upload,
    /// The engine's slot.
    pub slot: InFlight,
}

impl Sending<'_> {
    /// Tries engines until one answers.
    ///
    /// # Errors
    /// When none does, or the client's body is at fault.
    pub async fn send(&self, mut upload: Upload, meter: &mut Meter) -> Result<Answer, ProxyError> {
        let mut tried = Tried::default();
        let (mut last, mut refused) = (None, Refusal::Nobody);
        while !tried.exhausted() {
            let picked_at = Instant::now();
            let chosen = match self.choosing.choose(&tried, picked_at) {
                Ok(chosen) => chosen,
                Err(refusal) => {
                    refused = refusal;
                    break;
                }
            };
            let engine = &chosen.engine;
            if last.is_some() {
                self.metrics.retries_unsent.increment(1);
            }
            meter.chosen(chosen, self.choosing.policy.spec.kind.name());
            let slot = self.choosing.take(chosen, picked_at);
            tried.add(engine);
            if let Some(began) = self.logged_since {
                self.log_choice(engine, began);
            }
            let fault = match self.attempt(engine, &mut upload, picked_at).await {
                Ok((head, link, reading)) => {
                    return Ok(Answer {
                        head,
                        link,
                        reading,
                        upload,
                        slot,
                    });
                }
                Err(fault) => fault,
            };
            let url = engine.url.text();
            tracing::warn!(target: "pilotfish::proxy", engine = url, %fault, "no answer");
            match fault {
                Fault::Unsent(_) => {
                    slot.settle(Outcome::Failure);
                    last = Some(fault);
                }
                Fault::Client(e) => return Err(ProxyError::BodyBroke(e.0.to_string())),
                Fault::Silent if upload.awaits_client() => return Err(ProxyError::BodyLate),
                Fault::Silent => {
                    slot.settle(Outcome::Timeout);
                    return Err(ProxyError::EngineLate);
                }
                Fault::Stale | Fault::Broken(_) | Fault::Protocol(_) => {
                    slot.settle(Outcome::Failure);
                    return Err(ProxyError::EngineFailed(fault.to_string()));
                }
            }
        }
        let name = &self.choosing.model.name;
        Err(match (last, refused) {
            (Some(fault), _) => ProxyError::EngineFailed(fault.to_string()),
            (None, Refusal::Nobody) if name.is_empty() => ProxyError::NoEngine,
            (None, Refusal::Nobody) => ProxyError::ModelUnavailable(name.to_string()),
            (None, refusal) => ProxyError::Refused(refusal),
        })
    }

    /// The line that scripts written for the reference router look for.
    fn log_choice(&self, engine: &Engine, began: Instant) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        tracing::info!(
            "Routing request {} with session id {} to {} at {:.6}, process time = {:.4}",
            self.outgoing.request_id.to_str().unwrap_or_default(),
            one_line(self.choosing.session().unwrap_or("None")),
            engine.url.text(),
            seconds(now.unwrap_or_default()),
            seconds(began.elapsed()),
        );
    }

    /// One engine: on an idle connection if there is one, and once more on a
    /// fresh one if that had just been closed.
    async fn attempt(
        &self,
        engine: &Arc<Engine>,
        upload: &mut Upload,
        picked_at: Instant,
    ) -> Result<(AnswerHead, Link, Reading), Fault> {
        let idle = upload
            .replayable()
            .then(|| self.pool.take(engine))
            .flatten();
        if let Some(link) = idle {
            upload.begin(headers::for_engine(&self.outgoing, &engine.url));
            match self.exchange(link, upload, picked_at).await {
                Err(Fault::Stale) if upload.replayable() => {
                    engine.stale.fetch_add(1, Relaxed);
                    self.metrics.retries_stale.increment(1);
                }
                other => return other,
            }
        }
        self.deadline.clear();
        let connecting = Instant::now();
        let link = self.pool.connect(engine).await.map_err(Fault::Unsent)?;
        let started = picked_at + connecting.elapsed();
        upload.begin(headers::for_engine(&self.outgoing, &engine.url));
        self.exchange(link, upload, started).await
    }

    /// Sends on `link` and waits for the head. `started` is when our own work
    /// began, for the overhead.
    async fn exchange(
        &self,
        mut link: Link,
        upload: &mut Upload,
        started: Instant,
    ) -> Result<(AnswerHead, Link, Reading), Fault> {
        let mut reading = Reading::new(&self.outgoing.head.method, self.outgoing.upgrade);
        let mut sent = None;
        let head = std::future::poll_fn(|cx| {
            let exchanged = link.poll_exchange(upload, &mut reading, self.pool, cx);
            if exchanged.is_ready() {
                return exchanged;
            }
            self.watch_progress(upload, &mut sent, started);
            if self.deadline.expired(cx) {
                return Poll::Ready(Err(Fault::Silent));
            }
            Poll::Pending
        })
        .await?;
        Ok((head, link, reading))
    }

    /// Moves the deadline when the upload moves: first the client must go on
    /// sending, then the engine must answer.
    fn watch_progress(&self, upload: &Upload, sent: &mut Option<u64>, started: Instant) {
        let written = upload.written();
        if *sent == Some(written) {
            return;
        }
        let first = sent.replace(written).is_none();
        if upload.ended() {
            self.deadline.set(self.timeouts.engine_head);
            if first {
                self.metrics.overhead.record(seconds(started.elapsed()));
            }
        } else {
            self.deadline.set(self.timeouts.client_body_idle);
        }
    }
}

/// An id as a line may show it: none can write a line of its own.
fn one_line(id: &str) -> Cow<'_, str> {
    if id.contains(char::is_control) {
        return Cow::Owned(id.escape_debug().to_string());
    }
    Cow::Borrowed(id)
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
