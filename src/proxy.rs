//! One request from head to end; the file to read first.
//!
//! facts → model → decide → send → relay. Bytes forwarded are bytes received:
//! only `headers` alters a head, and a body is never rebuilt.

pub mod attempt;
pub mod body;
pub mod error;
pub mod facts;
pub mod headers;
pub mod meter;
mod multipart;
pub mod peek;
mod splice;
mod usage;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::config::Routing;
use crate::downstream::{Handled, Serving};
use crate::drain::{DrainPhase, DrainWatch};
use crate::fleet::engine::Outcome;
use crate::fleet::{Candidate, Model, Snapshot};
use crate::metrics::ProcessMetrics;
use crate::policy::Asked;
use crate::upstream::{AnswerHead, Pool, Streaming, Upload};
use attempt::{Answer, Sending};
use body::{ObservedBody, Relay, RelayParts};
use error::ProxyError;
use facts::{Budget, Peeked, Peeking, Written};
use headers::{Outgoing, Pinned, RequestFraming};
use meter::{Meter, RecordSink};
use splice::splice;

/// Methods longer than this are no methods that anyone uses.
const MAX_METHOD: usize = 32;

/// What a worker needs to serve requests.
#[derive(Debug)]
pub struct Proxy {
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    settings: ProxySettings,
    pool: Rc<Pool>,
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
        };
        let mut response = match exchange.run(body, serving).await {
            Ok(response) => response,
            Err((serving, error)) => own_error(&error, serving),
        };
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
}

type Failed = (Serving, ProxyError);

impl Exchange<'_> {
    async fn run(&self, body: Incoming, serving: Serving) -> Result<ProxyResponse, Failed> {
        let mut peeked = match self.peek(body, &serving).await {
            Ok(peeked) => peeked,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let model = match self.model(&peeked) {
            Ok(model) => Arc::clone(model),
            Err(error) => return Err((serving, self.counted(error))),
        };
        let pinned = match self.pinned() {
            Ok(pinned) => pinned,
            Err(error) => return Err((serving, self.counted(error))),
        };
        let settings = &self.proxy.settings;
        let mut meter = Meter::begin(Arc::clone(&model), self.began, settings.records.clone());
        let upgrade = headers::asks_upgrade(self.head);
        rename(&mut peeked, &model.name);
        let session = peeked.facts.session.take();
        let (upload, framing, share) = self.upload(peeked, &meter);
        let sending = Sending {
            pool: &self.proxy.pool,
            policy: self.snapshot.policy,
            asked: Asked {
                session: session.as_deref(),
            },
            pinned,
            model: &model,
            outgoing: Outgoing {
                head: self.head,
                request_id: self.id,
                peer: serving.peer(),
                framing,
                upgrade,
            },
            deadline: serving.deadline(),
            timeouts: &self.snapshot.settings.timeouts,
            metrics: &settings.metrics,
            logged_since: settings.log_requests.then_some(self.began),
        };
        let sent = sending.send(upload, &mut meter).await;
        drop(share);
        match sent {
            Ok(answer) => Ok(self.relay(answer, meter, serving)),
            Err(error) => {
                meter.answered(error.status().as_u16());
                Err((serving, error))
            }
        }
    }

    async fn peek(&self, body: Incoming, serving: &Serving) -> Result<Peeked, ProxyError> {
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
            session_key: match &settings.routing {
                Routing::Session { key } => Some(key),
                Routing::RoundRobin => None,
            },
        };
        facts::peek(self.head, body, peeking).await
    }

    /// The model that the request is for; all engines when it names none.
    fn model(&self, peeked: &Peeked) -> Result<&Arc<Model>, ProxyError> {
        if peeked.out_of_reach {
            let only = self.snapshot.only_model();
            return only.ok_or(ProxyError::BodyTooLarge(
                self.snapshot.settings.limits.max_peek_bytes,
            ));
        }
        match &peeked.facts.model {
            None => Ok(&self.snapshot.all),
            Some(name) => {
                let known = self.snapshot.model(name);
                known.ok_or_else(|| ProxyError::ModelNotFound(name.clone()))
            }
        }
    }

    /// The engine that the request itself names.
    fn pinned(&self) -> Result<Option<&Candidate>, ProxyError> {
        match &self.pinned {
            Pinned::No => Ok(None),
            Pinned::Unnamed => Err(ProxyError::NoEngineId),
            Pinned::To(id) => {
                let mut all = self.snapshot.all.candidates.list().iter();
                let named = all.find(|one| one.engine.url.text() == id);
                let found = named.ok_or_else(|| ProxyError::EngineNotFound(id.clone()));
                found.map(Some)
            }
        }
    }

    fn upload(&self, peeked: Peeked, meter: &Meter) -> (Upload, RequestFraming, facts::Share) {
        let held = peeked.held_bytes as u64;
        let declared = peeked
            .rest
            .as_ref()
            .and_then(|rest| rest.size_hint().exact());
        let framing = match (&peeked.rest, declared) {
            (Some(_), Some(left)) => RequestFraming::Length(held + left),
            (Some(_), None) => RequestFraming::Chunked,
            (None, _) if held > 0 => RequestFraming::Length(held),
            // A method that may have a body says that it has none.
            (None, _) if self.head.headers.contains_key(CONTENT_LENGTH) => {
                RequestFraming::Length(0)
            }
            (None, _) if self.head.method == Method::POST => RequestFraming::Length(0),
            (None, _) => RequestFraming::None,
        };
        meter.uploaded(held + declared.unwrap_or(0));
        let limits = &self.snapshot.settings.limits;
        let upload = match peeked.rest {
            None => Upload::new(
                peeked.held,
                peeked.held_bytes <= limits.max_replay_bytes,
                None,
            ),
            Some(rest) => {
                let mut streaming = Streaming::new(rest, framing == RequestFraming::Chunked);
                for piece in peeked.held {
                    streaming.hold(piece);
                }
                Upload::new(Vec::new(), false, Some(streaming))
            }
        };
        (upload, framing, peeked.share)
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

/// Puts the model's own name where the request has an alias of it.
fn rename(peeked: &mut Peeked, model: &str) {
    let Some(asked) = &peeked.facts.model else {
        return;
    };
    if asked == model {
        return;
    }
    if let Some((at, written)) = peeked.model_at.take() {
        let name = match written {
            Written::Json => serde_json::Value::from(model).to_string(),
            Written::Plain => model.to_owned(),
        };
        splice(&mut peeked.held, at, Bytes::from(name));
        peeked.held_bytes = peeked.held.iter().map(Bytes::len).sum();
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

/// An answer of our own with these bytes.
#[must_use]
pub fn own(data: Bytes, serving: Serving) -> ProxyResponse {
    Response::new(ObservedBody::Own { data, serving })
}

/// An error of our own.
fn own_error(error: &ProxyError, serving: Serving) -> ProxyResponse {
    let mut response = own(Bytes::from(error.body()), serving);
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(error, ProxyError::Method(_)) {
        let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        headers.insert(ALLOW, allow);
    }
    response
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
