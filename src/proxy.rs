//! One request from head to end; the file to read first.
//!
//! facts → model → decide → send → relay. Bytes forwarded are bytes received:
//! only `headers` alters a head, and a body is never rebuilt, but for `infer`.

mod admission;
pub mod admit;
mod ask;
pub mod attempt;
pub mod body;
pub mod budget;
pub mod choose;
pub mod error;
pub mod facts;
mod fingerprint;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod give;
pub mod headers;
pub mod infer;
pub mod meter;
mod models;
mod multipart;
pub mod offline;
mod orca;
mod own;
pub mod peek;
pub mod pieces;
mod ready;
pub mod retry;
pub mod search;
mod selected;
mod settings;
mod smart;
mod splice;
pub mod tries;
mod upload;
mod usage;
mod user_text;
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

use crate::advise::Advisers;
use crate::auth::Caller;
use crate::config::Timeouts;
use crate::downstream::{Handled, Refused, Serving};
use crate::drain::DrainPhase;
use crate::fleet::Snapshot;
use crate::fleet::orca::Answers;
use crate::report::{Report, Reporter};
use crate::select::Selections;
use crate::smart::worker::Asker;
use crate::upstream::{Pool, Upload};
pub use admission::Admission;
use attempt::{Attempt, Hurry};
use body::ObservedBody;
use choose::Choosing;
use error::{ProxyError, Refusals};
use give::{Held, Told};
use headers::{ClientsKey, Outgoing, Pinned, RequestFraming};
use infer::Inference;
use meter::Meter;
pub use own::{METHODS, own, own_error, refuse, unseen};
use ready::{Ready, Source};
use retry::RetryBudget;
pub use settings::ProxySettings;
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
    selections: RefCell<Selections>,
    advisers: Advisers,
    asker: Rc<Asker>,
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
        (reporter, asker): (Rc<Reporter>, Rc<Asker>),
    ) -> Rc<Self> {
        let registry = Arc::clone(&settings.registry);
        Rc::new(Self {
            advisers: Advisers::new(Rc::clone(&pool)),
            snapshot: RefCell::new(Cache::new(published)),
            settings,
            pool,
            rng: RefCell::new(Rng::new()),
            retries: RetryBudget::default(),
            reporter,
            asker,
            selections: RefCell::new(Selections::new(registry)),
        })
    }

    /// Requests that got an error of ours.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.settings.refusals
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.snapshot.borrow_mut().load())
    }

    /// Answers a request whose head nobody is to look at.
    #[must_use]
    pub fn refuse(&self, refused: Refused, handled: Handled) -> ProxyResponse {
        refuse(refused, handled, &self.settings.refusals)
    }

    /// Serves one request: with an engine's answer, or an error of our own. No `async fn`, which would keep its arguments twice.
    pub fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        handled: Handled,
        admission: Admission,
    ) -> impl Future<Output = ProxyResponse> + use<> {
        let began = Instant::now();
        let mut serving = handled.serve(request.version());
        let (caller, denied) = admission::caller(admission, &mut serving);
        let (mut head, body) = request.into_parts();
        let pinned = headers::take_pin(&mut head);
        async move {
            let id = headers::request_id(&head.headers);
            let snapshot = self.snapshot();
            let named = id.to_str().unwrap_or_default();
            let mut report = self.reporter.begin(&head, named, serving.peer(), began);
            if let (Some(caller), Some(report)) = (&caller, &mut report) {
                report.is_of(&caller.name);
            }
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
                inference: None,
                caller: caller.as_ref(),
            };
            let mut response = if let Some(why) = denied {
                let error = exchange.counted(why.into());
                own_error(&error, serving, &self.settings.refusals)
            } else if head.uri.path() == infer::PATH {
                Box::pin(exchange.infer(body, serving)).await
            } else {
                let ran = exchange.run(Source::Client(body), serving).await;
                ran.unwrap_or_else(|(serving, error)| {
                    own_error(&error, serving, &self.settings.refusals)
                })
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
}

/// One request on its way; everything in it lives as long as the handler.
struct Exchange<'a> {
    proxy: &'a Rc<Proxy>,
    snapshot: &'a Snapshot,
    head: &'a Parts,
    pinned: Pinned,
    id: &'a HeaderValue,
    began: Instant,
    told: RefCell<Option<Box<Told>>>,
    /// Taken by the meter; left here, the client has gone before there was one.
    report: Cell<Option<Report>>,
    /// Whether it has an account.
    is_counted: Cell<bool>,
    /// What is known of it beside, if it came by `/v1/infer`.
    inference: Option<&'a Inference<'a>>,
    /// Who sent it, where that matters.
    caller: Option<&'a Arc<Caller>>,
}

/// A request that was let in.
struct Admitted<'a> {
    ready: &'a Ready<'a>,
    framing: RequestFraming,
    timeouts: &'a Timeouts,
    first_token: Option<Duration>,
    orca: Option<Answers>,
    hurry: Hurry,
    is_explained: bool,
}

type Failed = (Serving, ProxyError);

impl Exchange<'_> {
    async fn run(&self, source: Source, serving: Serving) -> Result<ProxyResponse, Failed> {
        let (wishes, policy) = match self.wishes() {
            Ok(asked) => asked,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let settings = &self.snapshot.settings;
        self.limited(&wishes, policy, &serving);
        let mut peeked = match self.peek(source, &serving, (&wishes, policy)).await {
            Ok(peeked) => peeked,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let ready = self.ready(&wishes, policy, &mut peeked, &serving);
        let mut ready = match ready.await {
            Ok(ready) => ready,
            Err(error) => return Err((serving, self.counted(error))),
        };
        // It may be another policy than the one by which the body was read.
        let (timeouts, total) = self.limited(&wishes, &ready.policy, &serving);
        let model = Arc::clone(ready.model);
        let mut meter = self.meter(model);
        meter.teaches(ready.smart.as_mut().and_then(|smart| smart.lesson.take()));
        let is_stream = peeked.facts.stream;
        let (upload, framing, share) = upload::of(self.head, peeked, &settings.limits, &mut meter);
        meter.asks_stream(is_stream);
        let permit = match self.admit(&ready, &wishes, serving.deadline()).await {
            Ok(permit) => permit,
            Err(error) => {
                meter.refused(&error);
                return Err((serving, error));
            }
        };
        let admitted = Admitted {
            ready: &ready,
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
            framing,
            timeouts,
            first_token,
            orca,
            hurry,
            is_explained,
        } = *admitted;
        // Of a request whose block was chosen, that choice is the record.
        let is_recorded = ready.block.is_none() && (is_explained || self.is_sampled());
        let log = is_recorded.then_some(&*settings.decisions);
        let (trace, overhead) = (meter.onward(), Cell::new(None));
        let outgoing = Outgoing {
            trace: trace.as_ref(),
            head: self.head,
            request_id: self.id,
            peer: serving.peer(),
            is_tls: serving.is_tls(),
            is_trusted: serving.is_trusted(),
            framing,
            upgrade: headers::asks_upgrade(self.head),
            orca,
            clients_key: match settings.auth {
                None => ClientsKey::Passes,
                Some(_) => ClientsKey::Ours,
            },
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
                prints: &ready.prints,
                pinned: ready.pinned,
                block: ready.block.as_ref().map(|block| block.reason),
                choice: ready.smart.as_ref().and_then(|smart| smart.choice.as_ref()),
                ..self.choosing(&ready.policy, ready.model, &ready.asked, log)
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
            *self.told.borrow_mut() = Some(Box::new(Told {
                policy: ready.pinned.is_none().then(|| Arc::clone(&ready.policy)),
                decision: (ready.block.as_ref().and_then(|block| block.decision))
                    .or_else(|| sending.choosing.recorded.get()),
                engine: engine.map(|engine| engine.url.text().to_owned()),
                attempts: sending.attempts.get(),
                choice: ready.smart.as_ref().and_then(|smart| smart.choice.clone()),
            }));
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
        let size = size_of_future(
            |(proxy, request, handled, admission): (Rc<Proxy>, _, _, _)| {
                proxy.handle(request, handled, admission)
            },
        );
        assert!(
            size <= 4096,
            "{size} bytes while the engine has not answered"
        );
        let size = size_of::<ObservedBody>() + size_of::<body::Relay>();
        assert!(size <= 1024, "{size} bytes for each open stream");
    }
}
