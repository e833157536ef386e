//! Sending one request: to an engine, and to another one as long as that is
//! safe, allowed and paid for.
//!
//! Whoever can still fail is owned here by value, and dropping it is cancelling
//! it. What follows from a failure is decided by one table ([`Verdict`]); each
//! new try decides anew, without the engines that were tried.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use crate::config::Settings;
use crate::fleet::engine::Outcome;
use crate::fleet::load::InFlight;
use crate::fleet::{Candidate, Engine};
use crate::metrics::ProcessMetrics;
use crate::policy::reason::Reason;
use crate::policy::{Refusal, Tried};
use crate::trace::context::Onward;
use crate::upstream::{Fault, Upload};

use super::attempt::{Answered, Attempt};
use super::choose::Choosing;
use super::error::ProxyError;
use super::headers;
use super::meter::Meter;
use super::retry::RetryBudget;
use super::verdict::{CLIENT_BROKE_OFF, Cause, Repeat, Verdict, told, word};

/// The pause before the same engine is asked again: any up to the first, doubled
/// each time, up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));

/// What a request needs to be sent.
#[derive(Debug)]
pub struct Sending<'a> {
    /// How one attempt is made.
    pub attempt: Attempt<'a>,
    /// Who is to get it.
    pub choosing: Choosing<'a>,
    /// What is in force.
    pub settings: &'a Settings,
    /// The worker's budget.
    pub budget: &'a RetryBudget,
    /// Workers that share its reserve.
    pub workers: usize,
    /// When the request began, if its choice is to be logged.
    pub logged_since: Option<Instant>,
    /// Attempts made.
    pub attempts: Cell<u32>,
}

/// An answer for the client.
#[derive(Debug)]
pub struct Answer {
    /// The answer.
    pub answered: Box<Answered>,
    /// The engine's slot.
    pub slot: InFlight,
}

/// A request on its way: what of it can still be sent, and what came so far.
#[derive(Debug)]
struct Tries {
    /// `None`: it went with an answer, and cannot be sent again.
    upload: Option<Upload>,
    /// Engines that are not asked again.
    tried: Tried,
    /// Attempts that were repetitions of what an engine had.
    repeated: u32,
    /// Pauses made.
    pauses: u32,
    /// A first answer that is given if nobody has a better one.
    held: Option<Answer>,
    /// The fault that counts, and what it means.
    last: Option<(Fault, Verdict)>,
    /// Whether the last engine did not get it.
    is_unsent: bool,
}

/// What follows an attempt: an answer, an error, or (`None`) one more attempt.
type Next = Result<Option<Answer>, ProxyError>;

impl Sending<'_> {
    /// Tries engines until one answers.
    ///
    /// # Errors
    /// When none does, or the client's body is at fault.
    pub async fn send(&self, upload: Upload, meter: &mut Meter) -> Result<Answer, ProxyError> {
        let mut tries = Tries {
            upload: Some(upload),
            tried: Tried::default(),
            repeated: 0,
            pauses: 0,
            held: None,
            last: None,
            is_unsent: false,
        };
        loop {
            let next = match self.claim(&tries.tried) {
                Ok((chosen, slot)) => self.attempt(chosen, slot, &mut tries, meter).await,
                Err(_) if self.may_pause(&tries) => {
                    // Boxed, as few requests come here and all would keep its place.
                    Box::pin(self.pause(&mut tries)).await;
                    Ok(None)
                }
                Err(refusal) => self.give_up(refusal, &mut tries),
            };
            if let Some(answer) = next? {
                return Ok(answer);
            }
        }
    }

    /// An engine that was not tried, with a slot on it.
    fn claim(&self, tried: &Tried) -> Result<(&Candidate, InFlight), Refusal> {
        if tried.exhausted() {
            return Err(Refusal::Nobody);
        }
        self.choosing.claim(tried, Instant::now())
    }

    async fn attempt(
        &self,
        chosen: &Candidate,
        slot: InFlight,
        tries: &mut Tries,
        meter: &mut Meter,
    ) -> Next {
        let engine = &chosen.engine;
        let policy = self.choosing.pinned.is_none();
        let policy = policy.then_some(&self.choosing.policy.spec.name);
        let span = self.attempt.outgoing.trace.map_or(0, Onward::next);
        meter.chosen(chosen, policy, (slot.since(), span));
        if self.attempts.get() == 0 {
            let now = self.choosing.snapshot.clock(slot.since());
            self.budget.deposit(now);
        } else {
            self.choosing.reason.set(Reason::Retry);
        }
        self.choosing
            .policy
            .decisions
            .count(self.choosing.reason.get());
        if std::mem::take(&mut tries.is_unsent) {
            self.metrics().retries.unsent.increment(1);
        }
        tries.tried.add(engine);
        self.attempts.set(self.attempts.get() + 1);
        if let Some(began) = self.logged_since {
            self.log_choice(engine, began);
        }
        let upload = &mut tries.upload;
        match self.attempt.run(engine, upload, slot.since()).await {
            Ok(answered) => {
                meter.tried(Ok(answered.head.status.as_u16()));
                self.answered(Answer { answered, slot }, tries)
            }
            // No engine is late that has not been told all.
            Err(Fault::Silent) if upload.as_ref().is_some_and(Upload::awaits_client) => {
                meter.tried(Err(CLIENT_BROKE_OFF));
                Err(ProxyError::BodyLate)
            }
            Err(fault) => {
                meter.tried(Err(word(&fault)));
                let url = engine.url.text();
                tracing::warn!(target: "pilotfish::proxy", engine = url, %fault, "no answer");
                self.failed(fault, slot, tries)
            }
        }
    }

    /// An answer has come: it is the client's, unless another engine may give a
    /// better one.
    fn answered(&self, mut answer: Answer, tries: &mut Tries) -> Next {
        let head = &answer.answered.head;
        let verdict = Verdict::of_status(head.status.as_u16());
        let Repeat::If(cause) = verdict.repeat else {
            return Ok(Some(answer));
        };
        let retry_after = headers::retry_after(&head.headers, SystemTime::now());
        answer
            .slot
            .answered(verdict.outcome, retry_after, Instant::now());
        if let Some(first) = tries.held.take() {
            answer.slot.settle(verdict.outcome);
            return Ok(Some(first));
        }
        // Only if another one is ready now: a request in trouble never waits.
        if self.is_other_open(&tries.tried) && self.may_repeat(cause, tries) {
            tries.held = Some(answer);
            return Ok(None);
        }
        Ok(Some(answer))
    }

    /// No answer has come.
    fn failed(&self, fault: Fault, slot: InFlight, tries: &mut Tries) -> Next {
        let verdict = Verdict::of_fault(&fault);
        slot.settle(verdict.outcome);
        let is_repeated = match verdict.repeat {
            Repeat::Never => false,
            Repeat::Elsewhere => true,
            Repeat::If(cause) => tries.held.is_none() && self.may_repeat(cause, tries),
        };
        if is_repeated {
            // What one engine had is more than what another did not.
            let had = matches!(&tries.last, Some((_, last)) if last.repeat != Repeat::Elsewhere);
            if !had || verdict.repeat != Repeat::Elsewhere {
                tries.last = Some((fault, verdict));
            }
            tries.is_unsent = verdict.repeat == Repeat::Elsewhere;
            return Ok(None);
        }
        match tries.held.take() {
            Some(first) => Ok(Some(first)),
            None => Err(told(&fault)),
        }
    }

    /// Whether what an engine had may be sent to another one, which is then
    /// counted.
    fn may_repeat(&self, cause: Cause, tries: &mut Tries) -> bool {
        let retry = &self.settings.retry;
        let is_held = tries.upload.as_ref().is_some_and(Upload::is_held);
        let is_fit = is_held && self.attempt.leaves_no_trace;
        if !is_fit || tries.repeated >= retry.attempts || !cause.is_in(&retry.on) {
            return false;
        }
        let now = self.choosing.snapshot.clock(Instant::now());
        if !self.budget.withdraw(now, retry, self.workers) {
            self.metrics().retries.denied.increment(1);
            return false;
        }
        tries.repeated += 1;
        let retries = &self.metrics().retries;
        let counter = match cause {
            Cause::Reset => &retries.reset,
            Cause::Busy => &retries.busy,
            Cause::Timeout => &retries.timeout,
            Cause::ServerError => &retries.server_error,
        };
        counter.increment(1);
        true
    }

    fn is_other_open(&self, tried: &Tried) -> bool {
        let now = self.choosing.snapshot.clock(Instant::now());
        let mut others = self.choosing.model.candidates.list().iter();
        self.choosing.pinned.is_none()
            && others.any(|one| {
                let is_idle = one.spec.closed.is_none() && one.engine.health.is_up(now);
                is_idle && !tried.contains(&one.engine)
            })
    }

    /// Whether there is nobody else, and the repetition that is paid for may go
    /// to an engine that was tried.
    fn may_pause(&self, tries: &Tries) -> bool {
        let is_paid =
            matches!(&tries.last, Some((_, verdict)) if verdict.repeat != Repeat::Elsewhere);
        is_paid && tries.held.is_none() && tries.pauses < tries.repeated
    }

    async fn pause(&self, tries: &mut Tries) {
        let (first, most) = BACKOFF;
        let ceiling = (first * (1 << tries.pauses.min(10))).min(most);
        let pause = ceiling.mul_f64(self.choosing.rng.borrow_mut().f64());
        tries.pauses += 1;
        tries.tried = Tried::default();
        // Nothing is waited for but the pause; what follows sees the time of the whole.
        let deadline = self.attempt.deadline;
        deadline.clear();
        let mut sleep = Box::pin(tokio::time::sleep(pause));
        std::future::poll_fn(|cx| match sleep.as_mut().poll(cx) {
            Poll::Pending if deadline.expired(cx) => Poll::Ready(()),
            other => other,
        })
        .await;
    }

    /// There is nobody left to ask.
    fn give_up(&self, refusal: Refusal, tries: &mut Tries) -> Next {
        if let Some(first) = tries.held.take() {
            return Ok(Some(first));
        }
        let name = &self.choosing.model.name;
        if let Some((fault, verdict)) = &tries.last
            // One had it, or we are to blame.
            && (verdict.repeat != Repeat::Elsewhere || verdict.outcome == Outcome::Unrelated)
        {
            return Err(told(fault));
        }
        Err(match refusal {
            Refusal::Nobody | Refusal::AllUnhealthy if name.is_empty() => ProxyError::NoEngine,
            Refusal::Nobody => self.unavailable(),
            Refusal::AllUnhealthy if !self.choosing.is_federated() => self.unavailable(),
            refusal => {
                if refusal == Refusal::Full {
                    self.metrics().refused.increment(1);
                }
                ProxyError::Refused(refusal)
            }
        })
    }

    /// No engine of the model can be asked now.
    fn unavailable(&self) -> ProxyError {
        super::admit::unavailable(self.choosing.snapshot, self.choosing.model)
    }

    fn metrics(&self) -> &ProcessMetrics {
        self.attempt.metrics
    }

    /// The line that scripts written for the reference router look for.
    fn log_choice(&self, engine: &Arc<Engine>, began: Instant) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        tracing::info!(
            "Routing request {} with session id {} to {} at {:.6}, process time = {:.4}",
            self.choosing.request_id,
            one_line(self.choosing.session().unwrap_or("None")),
            engine.url.text(),
            now.unwrap_or_default().as_secs_f64(),
            began.elapsed().as_secs_f64(),
        );
    }
}

/// An id as a line may show it: none can write a line of its own.
fn one_line(id: &str) -> Cow<'_, str> {
    if id.contains(char::is_control) {
        return Cow::Owned(id.escape_debug().to_string());
    }
    Cow::Borrowed(id)
}
