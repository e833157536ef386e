//! One request from head to end; the file to read first.
//!
//! facts → model → decide → send → relay. Bytes forwarded are bytes received:
//! only `headers` alters a head, and a body is never rebuilt.

mod ask;
pub mod attempt;
pub mod body;
pub mod budget;
pub mod choose;
pub mod error;
pub mod facts;
mod fingerprint;
pub mod headers;
pub mod meter;
mod models;
mod multipart;
pub mod offline;
mod own;
pub mod peek;
mod splice;
mod upload;
mod usage;
mod wishes;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use fastrand::Rng;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;

use crate::decisions::DecisionLog;
use crate::downstream::{Handled, Serving};
use crate::drain::{DrainPhase, DrainWatch};
use crate::fleet::engine::Outcome;
use crate::fleet::{Candidate, Model, Snapshot};
use crate::metrics::ProcessMetrics;
use crate::policy::memory::Fingerprint;
use crate::policy::{Asked, Policy};
use crate::upstream::{AnswerHead, Pool};
use attempt::{Answer, Sending};
use body::{ObservedBody, Relay, RelayParts};
use choose::Choosing;
use error::ProxyError;
use facts::{Budget, Peeked, Peeking};
use headers::{Outgoing, Pinned};
use meter::{Meter, RecordSink};
pub use own::own;
use own::own_error;
use splice::rename;
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
            Err((serving, error)) => own_error(&error, serving),
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
}

/// Who was chosen, for a client that asked.
struct Told {
    /// `None`: nobody was asked, the request named its engine.
    policy: Option<Arc<Policy>>,
    decision: Option<u64>,
    engine: Option<String>,
}

type Failed = (Serving, ProxyError);

impl Exchange<'_> {
    async fn run(&self, body: Incoming, serving: Serving) -> Result<ProxyResponse, Failed> {
        let (wishes, policy) = match self.wishes() {
            Ok(asked) => asked,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let mut peeked = match self.peek(body, &serving, policy).await {
            Ok(peeked) => peeked,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let Ready {
            model,
            pinned,
            asked,
            prints,
        } = match self.ready(&wishes, policy, &mut peeked, serving.peer()) {
            Ok(ready) => ready,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let is_explained = wishes.explain;
        let settings = &self.proxy.settings;
        let model = Arc::clone(model);
        let mut meter = Meter::begin(Arc::clone(&model), self.began, settings.records.clone());
        let limits = &self.snapshot.settings.limits;
        let (upload, framing, share) = upload::of(self.head, peeked, limits, &meter);
        let sending = Sending {
            pool: &self.proxy.pool,
            choosing: Choosing {
                snapshot: self.snapshot,
                policy,
                model: &model,
                asked: &asked,
                prints: &prints,
                pinned,
                rng: &self.proxy.rng,
                stale_after: settings.stale_after,
                log: (is_explained || self.is_sampled()).then_some(&*settings.decisions),
                request_id: self.id.to_str().unwrap_or_default(),
                recorded: std::cell::Cell::new(None),
            },
            outgoing: Outgoing {
                head: self.head,
                request_id: self.id,
                peer: serving.peer(),
                framing,
                upgrade: headers::asks_upgrade(self.head),
            },
            deadline: serving.deadline(),
            timeouts: &self.snapshot.settings.timeouts,
            metrics: &settings.metrics,
            logged_since: settings.log_requests.then_some(self.began),
        };
        let sent = sending.send(upload, &mut meter).await;
        if is_explained {
            let engine = sent.as_ref().ok().map(|answer| answer.slot.engine());
            *self.told.borrow_mut() = Some(Told {
                policy: pinned.is_none().then(|| Arc::clone(policy)),
                decision: sending.choosing.recorded.get(),
                engine: engine.map(|engine| engine.url.text().to_owned()),
            });
        }
        drop(share);
        match sent {
            Ok(answer) => Ok(self.relay(answer, meter, serving)),
            Err(error) => {
                meter.answered(error.status().as_u16());
                Err((serving, error))
            }
        }
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
        })
    }

    fn is_sampled(&self) -> bool {
        let share = self.snapshot.settings.routing.decision_sample;
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

    /// Says who was chosen, if the client asked.
    fn tell(&self, response: &mut ProxyResponse) {
        let Some(told) = self.told.borrow_mut().take() else {
            return;
        };
        let decision = told.decision.map(|id| id.to_string());
        for (name, value) in [
            ("x-pilotfish-engine", told.engine.as_deref()),
            (
                "x-pilotfish-policy",
                told.policy.as_ref().map(|policy| &*policy.spec.name),
            ),
            ("x-pilotfish-decision", decision.as_deref()),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
    }

    /// Makes an engine's answer the client's.
    fn relay(&self, mut answer: Answer, mut meter: Meter, serving: Serving) -> ProxyResponse {
        let status = answer.head.status;
        meter.answered(status.as_u16());
        headers::for_client(&mut answer.head);
        if status.as_u16() == 101 {
            let (engine, early) = answer.link.into_tunnel(answer.reading);
            let counted = (answer.slot.ending(Outcome::Success), meter);
            serving.tunnel(engine, early, Box::new(counted));
            let mut response = own(Bytes::new(), serving);
            *response.status_mut() = status;
            *response.headers_mut() = answer.head.headers;
            // The engine's `Upgrade` is still there.
            let upgrade = HeaderValue::from_static("upgrade");
            response.headers_mut().insert(CONNECTION, upgrade);
            return response;
        }
        let body = answer.link.into_body(
            &answer.head,
            answer.reading,
            answer.upload,
            &self.proxy.pool,
        );
        let settings = &self.snapshot.settings;
        let relay = Relay::new(RelayParts {
            answer: body,
            slot: answer.slot,
            outcome: Outcome::of_status(status.as_u16()),
            meter,
            serving,
            idle: settings.timeouts.engine_idle,
            is_stream: is_event_stream(&answer.head),
            error_events: settings.stream_error_events,
        });
        let mut response = Response::new(ObservedBody::Relay(Box::new(relay)));
        *response.status_mut() = status;
        *response.headers_mut() = answer.head.headers;
        response
    }

    /// Counts an error that belongs to no known model.
    fn counted(&self, error: ProxyError) -> ProxyError {
        let sink = self.proxy.settings.records.clone();
        let mut meter = Meter::begin(Arc::clone(&self.snapshot.all), self.began, sink);
        meter.answered(error.status().as_u16());
        error
    }
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
        let size = size_of::<ObservedBody>() + size_of::<Relay>();
        assert!(size <= 1024, "{size} bytes for each open stream");
    }
}
