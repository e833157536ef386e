//! Routes that we answer ourselves.
//!
//! What costs nothing is answered by the worker at once; what is O(fleet)
//! (`/metrics`, `/engines`) is made by the control thread, so that a large page
//! cannot hold up a stream.

pub mod attributes;
pub mod blocks;
pub mod body;
pub mod compatible;
pub mod decisions;
pub mod exposition;
pub mod host;
pub mod models;
pub mod page;
pub mod search;
pub mod summary;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};

use crate::downstream::{Handled, Serving};
use crate::drain::{DrainPhase, DrainWatch};
use crate::proxy::body::ObservedBody;
use crate::proxy::headers::{REQUEST_ID, request_id};
use crate::proxy::{METHODS, own};
pub use crate::proxy::{refuse, unseen};
use search::Listing;

/// One of our own routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The process works.
    Health,
    /// The process is alive.
    Live,
    /// New requests are welcome.
    Ready,
    /// Our name and version.
    Version,
    /// Prometheus metrics.
    Metrics,
    /// The fleet, with live state.
    Engines,
    /// The union of the engines' models.
    Models,
    /// A route of the admin listener.
    Admin,
    /// None at all: `OPTIONS *` asks us, not an engine.
    Any,
}

/// A page that the control thread makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// `/metrics`.
    Metrics,
    /// `/engines`.
    Engines,
}

/// A question to the control thread, and where its answer goes.
#[derive(Debug)]
pub enum Ask {
    /// A page that is the same for all who ask.
    Page(Query, oneshot::Sender<Bytes>),
    /// Blocks, for who has asked for these.
    Blocks(Box<Listing>, oneshot::Sender<Bytes>),
}

/// The page behind `/health`, made when the configuration changes.
pub type Health = Arc<ArcSwap<Bytes>>;

impl Route {
    /// The route of that method and path, if it is ours.
    #[must_use]
    pub fn of(method: &Method, path: &str) -> Option<Self> {
        let route = match path {
            "/health" => Self::Health,
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/version" => Self::Version,
            "/metrics" => Self::Metrics,
            "/engines" => Self::Engines,
            // Only the list is ours: what else is under /v1/models is not.
            "/v1/models" if matches!(*method, Method::GET | Method::HEAD) => Self::Models,
            "*" => Self::Any,
            "/config" | "/policy" | "/v1/feedback" => Self::Admin,
            _ if path.starts_with("/debug/") || path.starts_with("/policy/") => Self::Admin,
            _ => return None,
        };
        Some(route)
    }
}

/// What a worker needs to answer them.
#[derive(Debug, Clone)]
pub struct Api {
    /// To the control thread.
    pub control: mpsc::Sender<Ask>,
    /// The union of the engines' model cards.
    pub models: Arc<ArcSwap<Bytes>>,
    /// The page behind `/health`.
    pub health: Health,
    /// Whether every engine has been asked for its models, or had its time.
    pub is_discovered: Arc<AtomicBool>,
    /// Whether we are stopping.
    pub drain: DrainWatch,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// An answer before it is wrapped for the client.
pub struct Page {
    status: StatusCode,
    kind: HeaderValue,
    body: Bytes,
    /// The methods that this path takes.
    allow: HeaderValue,
}

const READ: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

impl Page {
    /// A page of JSON.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            kind: JSON,
            body: body.into(),
            allow: READ,
        }
    }

    /// The same for a path that takes other methods than GET and HEAD.
    #[must_use]
    pub fn allowing(self, methods: &'static str) -> Self {
        let allow = HeaderValue::from_static(methods);
        Self { allow, ..self }
    }
}

impl Api {
    /// Answers one of our own routes.
    pub async fn answer(
        self,
        route: Route,
        request: Request<Incoming>,
        handled: Handled,
    ) -> Answer {
        let (head, _) = request.into_parts();
        let serving = handled.serve(head.version);
        let page = match head.method {
            Method::GET | Method::HEAD => self.page(route).await,
            // Whoever sends something is at the wrong port, whatever the method.
            _ if matches!(route, Route::Admin | Route::Any) => self.page(route).await,
            Method::OPTIONS => Page::json(StatusCode::NO_CONTENT, ""),
            _ => Page::json(StatusCode::METHOD_NOT_ALLOWED, method_error()),
        };
        finish(page, &head, serving)
    }

    async fn page(self, route: Route) -> Page {
        match route {
            Route::Health if self.control.is_closed() => Page::json(
                StatusCode::SERVICE_UNAVAILABLE,
                r#"{"status":"Service discovery module is down."}"#,
            ),
            Route::Health => Page::json(StatusCode::OK, Bytes::clone(&self.health.load())),
            Route::Live => Page::json(StatusCode::OK, r#"{"status":"alive"}"#),
            Route::Ready if self.drain.phase() == DrainPhase::Run => {
                if self.is_discovered.load(Relaxed) {
                    Page::json(StatusCode::OK, r#"{"status":"ready"}"#)
                } else {
                    let page =
                        r#"{"status":"finding the engines, and asking them for their models"}"#;
                    Page::json(StatusCode::SERVICE_UNAVAILABLE, page)
                }
            }
            Route::Ready => Page::json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"draining"}"#),
            Route::Version => {
                let version = concat!(r#"{"version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
                Page::json(StatusCode::OK, version)
            }
            Route::Models => Page::json(StatusCode::OK, Bytes::clone(&self.models.load())),
            Route::Admin => Page::json(StatusCode::NOT_FOUND, ADMIN),
            Route::Any => Page::json(StatusCode::NO_CONTENT, "").allowing(METHODS),
            Route::Metrics => self.ask(Query::Metrics, TEXT).await,
            Route::Engines => self.ask(Query::Engines, JSON).await,
        }
    }

    /// Has the control thread make a page.
    async fn ask(&self, query: Query, kind: HeaderValue) -> Page {
        let (reply, answer) = oneshot::channel();
        if self.control.try_send(Ask::Page(query, reply)).is_ok()
            && let Ok(body) = answer.await
        {
            return Page {
                kind,
                ..Page::json(StatusCode::OK, body)
            };
        }
        let busy = r#"{"error":{"message":"Too many status requests at once.","type":"server_error","param":null,"code":"overloaded"}}"#;
        Page::json(StatusCode::SERVICE_UNAVAILABLE, busy)
    }
}

/// What the public listener says of the admin listener's routes.
const ADMIN: &str = r#"{"error":{"message":"This is served by the admin listener: see --admin-port.","type":"invalid_request_error","param":null,"code":"not_found"}}"#;

fn method_error() -> &'static str {
    r#"{"error":{"message":"Only GET and HEAD are allowed here.","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}"#
}

/// What a client gets.
pub type Answer = Response<ObservedBody>;

/// Answers a request, of which only the head is left, with a page.
pub fn finish(page: Page, head: &Parts, serving: Serving) -> Answer {
    let length = HeaderValue::from(page.body.len());
    let body = if head.method == Method::HEAD {
        Bytes::new()
    } else {
        page.body
    };
    let id = request_id(&head.headers);
    let mut response = own(body, serving);
    *response.status_mut() = page.status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    match page.status {
        StatusCode::NO_CONTENT | StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, page.allow);
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from(1));
        }
        _ => {}
    }
    if page.status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, page.kind);
        headers.insert(http::header::CONTENT_LENGTH, length);
    }
    response
}
