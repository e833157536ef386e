//! One request from head to end; the file to read first.
//!
//! facts → model → decide → send → relay. Bytes forwarded are bytes received:
//! only `headers` alters a head, and a body is never rebuilt.

pub mod admit;
mod ask;
pub mod attempt;
pub mod body;
pub mod budget;
pub mod choose;
pub mod error;
pub mod facts;
mod fingerprint;
mod give;
pub mod headers;
pub mod meter;
mod models;
mod multipart;
pub mod offline;
mod orca;
mod own;
pub mod peek;
mod ready;
pub mod retry;
mod splice;
pub mod tries;
mod upload;
mod usage;
pub mod verdict;
mod wishes;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use fastrand::Rng;
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Version};
use hyper::body::Incoming;

use crate::config::Timeouts;
use crate::decisions::DecisionLog;
use crate::downstream::{Handled, Serving};
use crate::drain::{DrainPhase, DrainWatch};
use crate::fleet::Snapshot;
use crate::fleet::gate::Places;
use crate::fleet::orca::Answers;
use crate::metrics::ProcessMetrics;
use crate::policy::Policy;
use crate::report::{Report, Reporter};
use crate::upstream::{Pool, Upload};
use attempt::{Attempt, Hurry};
use body::ObservedBody;
use choose::Choosing;
use error::{ProxyError, Refusals};
use facts::Budget;
use give::{Held, Told};
use headers::{Outgoing, Pinned, RequestFraming};
use meter::Meter;
pub use own::own;
use own::own_error;
use ready::Ready;
use retry::RetryBudget;
use tries::{Answer, Sending};

/// What a worker needs to serve requests.
#[derive(Debug)]
pub struct Proxy {
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    settings: ProxySettings,
    pool: Rc<Pool>,
    rng: RefCell<Rng>,
    retries: RetryBudget,
    reporter: Rc<Reporter>,
}

/// What all workers' proxies share.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Bytes of bodies held by the process.
    pub budget: Budget,
    /// Process-wide handles.
    pub metrics: Arc<ProcessMetrics>,
    /// Whether we are stopping.
    pub drain: DrainWatch,
    /// Whether each choice of an engine is logged.
    pub log_requests: bool,
    /// Where decisions that are to be explained are kept.
    pub decisions: Arc<DecisionLog>,
    /// The greatest age of what engines told that counts.
    pub stale_after: Duration,
    /// Places, where requests in flight are limited.
    pub places: Places,
    /// Requests that got an error of ours.
    pub refusals: Arc<Refusals>,
    /// How many workers share a process's budget of retries.
    pub workers: usize,
}

/// The answer to every request.
pub type ProxyResponse = Response<ObservedBody>;

impl Proxy {
    /// A proxy that sees the published snapshots and uses this pool.
    #[must_use]
    pub fn new(
        published: Arc<ArcSwap<Snapshot>>,
        settings: ProxySettings,
        pool: Rc<Pool>,
        reporter: Rc<Reporter>,
    ) -> Rc<Self> {
        Rc::new(Self {
            snapshot: RefCell::new(Cache::new(published)),
            settings,
            pool,
            rng: RefCell::new(Rng::new()),
            retries: RetryBudget::default(),
            reporter,
        })
    }

    /// Serves one request: with an engine's answer, or an error of our own.
    pub async fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        handled: Handled,
    ) -> ProxyResponse {
        let began = Instant::now();
        let serving = handled.serve(request.version());
        let (mut head, body) = request.into_parts();
        let pinned = headers::take_pin(&mut head);
        let id = headers::request_id(&head.headers);
        let snapshot = Arc::clone(self.snapshot.borrow_mut().load());
        let named = id.to_str().unwrap_or_default();
        let report = self.reporter.begin(&head, named, serving.peer(), began);
        let exchange = Exchange {
            proxy: &self,
            snapshot: &snapshot,
            head: &head,
            pinned,
            id: &id,
            began,
            told: RefCell::default(),
            report: Cell::new(report),
            is_counted: Cell::new(false),
        };
        let mut response = match exchange.run(body, serving).await {
            Ok(response) => response,
            Err((serving, error)) => own_error(&error, serving, &self.settings.refusals),
        };
        exchange.tell(&mut response);
        drop(exchange);
        response.headers_mut().insert(headers::REQUEST_ID, id);
        if self.settings.drain.phase() != DrainPhase::Run && head.version < Version::HTTP_2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().entry(CONNECTION).or_insert(close);
        }
        response
    }
}

/// One request on its way; everything in it lives as long as the handler.
struct Exchange<'a> {
    proxy: &'a Rc<Proxy>,
    snapshot: &'a Snapshot,
    head: &'a Parts,
    pinned: Pinned,
    id: &'a HeaderValue,
    began: Instant,
    told: RefCell<Option<Told>>,
    /// Taken by the meter; left here, the client has gone before there was one.
    report: Cell<Option<Report>>,
    /// Whether it has an account.
    is_counted: Cell<bool>,
}

/// A request that was let in.
struct Admitted<'a> {
    ready: &'a Ready<'a>,
    policy: &'a Arc<Policy>,
    framing: RequestFraming,
    timeouts: &'a Timeouts,
    first_token: Option<Duration>,
    orca: Option<Answers>,
    hurry: Hurry,
    is_explained: bool,
}

type Failed = (Serving, ProxyError);

impl Exchange<'_> {
    async fn run(&self, body: Incoming, serving: Serving) -> Result<ProxyResponse, Failed> {
        let (wishes, policy) = match self.wishes() {
            Ok(asked) => asked,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let settings = &self.snapshot.settings;
        let timeouts = policy.spec.timeouts.as_ref().unwrap_or(&settings.timeouts);
        let total = wishes.timeout.into_iter().chain(timeouts.total).min();
        let deadline = serving.deadline();
        deadline.limit(total.map(|total| self.began + total));
        let mut peeked = match self.peek(body, &serving, policy).await {
            Ok(peeked) => peeked,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let ready = match self.ready(&wishes, policy, &mut peeked, serving.peer()) {
            Ok(ready) => ready,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let model = Arc::clone(ready.model);
        let mut meter = self.meter(model);
        let is_stream = peeked.facts.stream;
        let (upload, framing, share) = upload::of(self.head, peeked, &settings.limits, &mut meter);
        meter.asks_stream(is_stream);
        let permit = match self.admit(&ready, &wishes, deadline).await {
            Ok(permit) => permit,
            Err(error) => {
                meter.refused(&error);
                return Err((serving, error));
            }
        };
        let admitted = Admitted {
            ready: &ready,
            policy,
            framing,
            timeouts,
            first_token: timeouts.first_token.filter(|_| is_stream),
            orca: self.orca(is_stream),
            hurry: if total.is_some() && total == wishes.timeout {
                Hurry::Client
            } else {
                Hurry::Ours
            },
            is_explained: wishes.explain,
        };
        let sent = self.send(&admitted, upload, &serving, &mut meter).await;
        drop(share);
        match sent {
            Ok(answer) => {
                let held = Held {
                    meter,
                    permit,
                    serving,
                    idle: timeouts.engine_idle,
                };
                Ok(self.give(answer, held))
            }
            Err(error) => {
                meter.refused(&error);
                Err((serving, error))
            }
        }
    }

    /// Sends it until an engine answers.
    async fn send(
        &self,
        admitted: &Admitted<'_>,
        upload: Upload,
        serving: &Serving,
        meter: &mut Meter,
    ) -> Result<Answer, ProxyError> {
        let settings = &self.proxy.settings;
        let Admitted {
            ready,
            policy,
            framing,
            timeouts,
            first_token,
            orca,
            hurry,
            is_explained,
        } = *admitted;
        let (trace, overhead) = (meter.onward(), Cell::new(None));
        let outgoing = Outgoing {
            trace: trace.as_ref(),
            head: self.head,
            request_id: self.id,
            peer: serving.peer(),
            framing,
            upgrade: headers::asks_upgrade(self.head),
            orca,
        };
        let sending = Sending {
            attempt: Attempt {
                pool: &self.proxy.pool,
                outgoing: &outgoing,
                deadline: serving.deadline(),
                timeouts,
                first_token,
                hurry,
                leaves_no_trace: self.head.method.is_safe() || ready.is_inference,
                commit: self.snapshot.settings.retry.until,
                metrics: &settings.metrics,
                overhead: &overhead,
            },
            choosing: Choosing {
                snapshot: self.snapshot,
                policy,
                model: ready.model,
                asked: &ready.asked,
                prints: &ready.prints,
                pinned: ready.pinned,
                rng: &self.proxy.rng,
                stale_after: settings.stale_after,
                log: (is_explained || self.is_sampled()).then_some(&*settings.decisions),
                request_id: self.id.to_str().unwrap_or_default(),
                recorded: Cell::new(None),
                reason: Cell::default(),
            },
            settings: &self.snapshot.settings,
            budget: &self.proxy.retries,
            workers: settings.workers,
            logged_since: settings.log_requests.then_some(self.began),
            attempts: Cell::new(0),
        };
        let sent = sending.send(upload, meter).await;
        meter.overhead(overhead.get());
        if is_explained {
            let engine = sent.as_ref().ok().map(|answer| answer.slot.engine());
            *self.told.borrow_mut() = Some(Told {
                policy: ready.pinned.is_none().then(|| Arc::clone(policy)),
                decision: sending.choosing.recorded.get(),
                engine: engine.map(|engine| engine.url.text().to_owned()),
                attempts: sending.attempts.get(),
            });
        }
        sent
    }

    /// Whether its decision is recorded though nobody asked.
    fn is_sampled(&self) -> bool {
        self.is_one_of(self.snapshot.settings.routing.decision_sample)
    }

    fn is_one_of(&self, share: f64) -> bool {
        share > 0.0 && self.proxy.rng.borrow_mut().f64() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that a function of this shape returns.
    fn size_of_future<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_under_way_is_small() {
        let size = size_of_future(|(proxy, request, handled): (Rc<Proxy>, _, _)| {
            proxy.handle(request, handled)
        });
        assert!(
            size <= 4096,
            "{size} bytes while the engine has not answered"
        );
        let size = size_of::<ObservedBody>() + size_of::<body::Relay>();
        assert!(size <= 1024, "{size} bytes for each open stream");
    }
}
