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
mod own;
pub mod peek;
mod report;
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
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;

use crate::config::Timeouts;
use crate::decisions::DecisionLog;
use crate::downstream::{Handled, Serving};
use crate::drain::{DrainPhase, DrainWatch};
use crate::fleet::gate::Places;
use crate::fleet::{Candidate, Model, Snapshot};
use crate::metrics::ProcessMetrics;
use crate::policy::memory::Fingerprint;
use crate::policy::{Asked, Policy};
use crate::upstream::{Pool, Upload};
use attempt::{Attempt, Hurry};
use body::ObservedBody;
use choose::Choosing;
use error::{ProxyError, Refusals};
use facts::{Budget, Peeked, Peeking};
use give::{Held, Told};
use headers::{Outgoing, Pinned, RequestFraming};
use meter::{Meter, RecordSink};
pub use own::own;
use own::own_error;
use retry::RetryBudget;
use splice::rename;
use tries::{Answer, Sending};
use wishes::Wishes;

/// Methods longer than this are no methods that anyone uses.
const MAX_METHOD: usize = 32;

/// What a worker needs to serve requests.
#[derive(Debug)]
pub struct Proxy {
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    settings: ProxySettings,
    pool: Rc<Pool>,
    rng: RefCell<Rng>,
    retries: RetryBudget,
}

/// What all workers' proxies share.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Bytes of bodies held by the process.
    pub budget: Budget,
    /// Process-wide handles.
    pub metrics: ProcessMetrics,
    /// Whether we are stopping.
    pub drain: DrainWatch,
    /// Whether each choice of an engine is logged.
    pub log_requests: bool,
    /// Where ended requests are told of.
    pub records: Option<RecordSink>,
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
    ) -> Rc<Self> {
        Rc::new(Self {
            snapshot: RefCell::new(Cache::new(published)),
            settings,
            pool,
            rng: RefCell::new(Rng::new()),
            retries: RetryBudget::default(),
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
        let exchange = Exchange {
            proxy: &self,
            snapshot: &snapshot,
            head: &head,
            pinned,
            id: &id,
            began,
            told: RefCell::default(),
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
}

/// A request that is ready to be sent.
struct Ready<'a> {
    model: &'a Arc<Model>,
    pinned: Option<&'a Candidate>,
    asked: Asked,
    prints: Vec<Fingerprint>,
    is_inference: bool,
}

/// A request that was let in.
struct Admitted<'a> {
    ready: &'a Ready<'a>,
    policy: &'a Arc<Policy>,
    framing: RequestFraming,
    timeouts: &'a Timeouts,
    first_token: Option<Duration>,
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
        let sink = self.proxy.settings.records.clone();
        let mut meter = Meter::begin(model, self.began, sink);
        let is_stream = peeked.facts.stream;
        let (upload, framing, share) = upload::of(self.head, peeked, &settings.limits, &meter);
        let permit = match self.admit(&ready, &wishes, deadline).await {
            Ok(permit) => permit,
            Err(error) => {
                meter.answered(error.status().as_u16());
                return Err((serving, error));
            }
        };
        let admitted = Admitted {
            ready: &ready,
            policy,
            framing,
            timeouts,
            first_token: timeouts.first_token.filter(|_| is_stream),
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
                meter.answered(error.status().as_u16());
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
            hurry,
            is_explained,
        } = *admitted;
        let outgoing = Outgoing {
            head: self.head,
            request_id: self.id,
            peer: serving.peer(),
            framing,
            upgrade: headers::asks_upgrade(self.head),
            asks_report: Cell::new(self.asks_report()),
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

    /// What the request's head asks, and of which policy.
    fn wishes(&self) -> Result<(Wishes<'_>, &Arc<Policy>), ProxyError> {
        let allow = &self.snapshot.settings.routing.allow;
        let wishes = Wishes::of(&self.head.headers, allow)?;
        let policy = ask::policy(self.snapshot, &wishes, &self.pinned)?;
        Ok((wishes, policy))
    }

    /// Who may get the request, and by what it is chosen.
    fn ready(
        &self,
        wishes: &Wishes<'_>,
        policy: &Policy,
        peeked: &mut Peeked,
        peer: &str,
    ) -> Result<Ready<'_>, ProxyError> {
        let snapshot = self.snapshot;
        let model = models::choose(snapshot, policy, (wishes, &self.pinned), peeked)?;
        let pinned = models::pinned(snapshot, &self.pinned, wishes, model)?;
        // The body may have taken its time.
        let clock = || snapshot.clock(Instant::now());
        let (asked, prints) = ask::asked(policy, self.head, (wishes, peer), (peeked, model), clock);
        rename(peeked, &model.name);
        Ok(Ready {
            model,
            pinned,
            asked,
            prints,
            is_inference: peeked.facts.is_inference,
        })
    }

    /// Whether its decision is recorded though nobody asked.
    fn is_sampled(&self) -> bool {
        self.is_one_of(self.snapshot.settings.routing.decision_sample)
    }

    /// Whether its engine is asked for a report of its load.
    fn asks_report(&self) -> bool {
        self.is_one_of(self.snapshot.settings.scraping.orca_sample) && report::may_ask(self.head)
    }

    fn is_one_of(&self, share: f64) -> bool {
        share > 0.0 && self.proxy.rng.borrow_mut().f64() < share
    }

    async fn peek(
        &self,
        body: Incoming,
        serving: &Serving,
        policy: &Policy,
    ) -> Result<Peeked, ProxyError> {
        let method = &self.head.method;
        if matches!(*method, Method::CONNECT | Method::TRACE) || method.as_str().len() > MAX_METHOD
        {
            let shown: String = method.as_str().chars().take(MAX_METHOD).collect();
            return Err(ProxyError::Method(shown));
        }
        let settings = &self.snapshot.settings;
        let peeking = Peeking {
            limits: &settings.limits,
            budget: &self.proxy.settings.budget,
            deadline: serving.deadline(),
            idle: settings.timeouts.client_body_idle,
            wanted: ask::wanted(&policy.spec.kind),
        };
        facts::peek(self.head, body, peeking).await
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
