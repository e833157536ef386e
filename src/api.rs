//! Routes that we answer ourselves.
//!
//! What costs nothing is answered by the worker at once; what is O(fleet)
//! (`/metrics`, `/engines`) is made by the control thread, so that a large page
//! cannot hold up a stream.

pub mod attributes;
pub mod compatible;
pub mod decisions;
pub mod exposition;
pub mod host;
pub mod models;
pub mod page;
pub mod summary;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};

use crate::downstream::{Handled, Serving};
use crate::drain::{DrainPhase, DrainWatch};
use crate::proxy::body::ObservedBody;
use crate::proxy::headers::{REQUEST_ID, request_id};
use crate::proxy::own;

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
pub struct Ask {
    /// The page to make.
    pub query: Query,
    /// Where it goes.
    pub reply: oneshot::Sender<Bytes>,
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
            "/config" => Self::Admin,
            _ if path.starts_with("/debug/") => Self::Admin,
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
}

impl Page {
    /// A page of JSON.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            kind: JSON,
            body: body.into(),
        }
    }
}

impl Api {
    /// Answers one of our own routes.
    pub async fn answer(
        self,
        route: Route,
        request: Request<Incoming>,
        handled: Handled,
    ) -> Response<ObservedBody> {
        let serving = handled.serve(request.version());
        let page = match *request.method() {
            Method::GET | Method::HEAD => self.page(route).await,
            Method::OPTIONS => Page::json(StatusCode::NO_CONTENT, ""),
            _ => Page::json(StatusCode::METHOD_NOT_ALLOWED, method_error()),
        };
        finish(page, &request, serving)
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
                    let page = r#"{"status":"asking the engines for their models"}"#;
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
            Route::Metrics => self.ask(Query::Metrics, TEXT).await,
            Route::Engines => self.ask(Query::Engines, JSON).await,
        }
    }

    /// Has the control thread make a page.
    async fn ask(&self, query: Query, kind: HeaderValue) -> Page {
        let (reply, answer) = oneshot::channel();
        if self.control.try_send(Ask { query, reply }).is_ok()
            && let Ok(body) = answer.await
        {
            let status = StatusCode::OK;
            return Page { status, kind, body };
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

/// Answers a request with a page that is there already.
pub fn respond(
    request: &Request<Incoming>,
    handled: Handled,
    page: Page,
) -> Response<ObservedBody> {
    let serving = handled.serve(request.version());
    finish(page, request, serving)
}

fn finish(page: Page, request: &Request<Incoming>, serving: Serving) -> Response<ObservedBody> {
    let length = HeaderValue::from(page.body.len());
    let body = if request.method() == Method::HEAD {
        Bytes::new()
    } else {
        page.body
    };
    let id = request_id(request.headers());
    let mut response = own(body, serving);
    *response.status_mut() = page.status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    match page.status {
        StatusCode::NO_CONTENT | StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
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
