//! The admin listener: for those who run us, on an address of its own.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::Value;

use super::secrets::AdminToken;
use super::{Control, feedback, policies};
use crate::api::{Answer, Page, decisions, finish, refuse, unseen};
use crate::auth::Token;
use crate::config::Timeouts;
use crate::config::auth::KeptSecret;
use crate::downstream::idle::IdleQueue;
use crate::downstream::watch::{TICK, Watch};
use crate::downstream::{self, Asked, Handled, Shared};
use crate::drain::DrainWatch;
use crate::{net, telemetry};

/// Connections at once; more wait.
const MOST: usize = 64;

/// The listener, and what serving it needs.
#[derive(Debug)]
pub struct Admin {
    /// Where it listens.
    pub listener: StdListener,
    /// Whether we are stopping.
    pub drain: DrainWatch,
    /// Deadlines of its clients.
    pub timeouts: Timeouts,
    /// What it asks for; `None`: nothing.
    pub token: Option<KeptSecret>,
}

impl Admin {
    /// Where it really listens.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self, control: Rc<Control>) {
        let listener = match net::register(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the admin listener is lost");
                return std::future::pending().await;
            }
        };
        let shared = Rc::new(Shared {
            watch: Watch::new(Instant::now()),
            timeouts: Cell::new(self.timeouts),
            drain: self.drain,
            idle: Rc::new(IdleQueue::new(crate::metrics::Counter::default())),
            trusted: std::sync::Arc::default(),
            unseen: unseen(std::sync::Arc::clone(&control.sources.refusals)),
            tls: None,
        });
        let mut token = self.token.map(AdminToken::new);
        let mut again = tokio::time::interval(AdminToken::EVERY);
        let mut tick = tokio::time::interval(TICK);
        let mut open = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                now = tick.tick() => shared.watch.sweep(now.into_std()),
                _ = again.tick() => token.iter_mut().for_each(AdminToken::refresh),
                Some(_) = open.join_next() => {}
                accepted = net::accept(&listener), if open.len() < MOST => match accepted {
                    Ok((stream, peer)) => {
                        let control = Rc::clone(&control);
                        let token = token.as_ref().map(AdminToken::token);
                        let handle = move |asked: Asked, handled: Handled| {
                            // Looked at for each request: the connection may outlive it.
                            let (control, token) = (Rc::clone(&control), token.clone());
                            let answering: downstream::Answering<_> =
                                Box::pin(answer((control, token), asked, handled));
                            answering
                        };
                        open.spawn_local(downstream::serve(stream, peer, Rc::clone(&shared), handle));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }
}

async fn answer(
    (control, token): (Rc<Control>, Option<Rc<Cell<Token>>>),
    asked: Asked,
    handled: Handled,
) -> Result<Answer, Infallible> {
    let (head, body) = match asked {
        Ok(request) => request.into_parts(),
        Err(refused) => return Ok(refuse(*refused, handled, &control.sources.refusals)),
    };
    let serving = handled.serve(head.version);
    if token.is_some_and(|token| !token.get().is_shown(&head.headers)) {
        let message = "No valid token was given: send it as 'Authorization: Bearer TOKEN'.";
        let page = error(StatusCode::UNAUTHORIZED, message);
        let mut answer = finish(page, &head, serving);
        let bearer = HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        return Ok(answer);
    }
    let page = if head.uri.path() == feedback::PATH {
        feedback::page(&control, &head, body, serving.deadline()).await
    } else if policies::is_route(head.uri.path()) {
        policies::page(&control, &head, body, serving.deadline()).await
    } else {
        page(&control, &head)
    };
    Ok(finish(page, &head, serving))
}

fn page(control: &Control, head: &Parts) -> Page {
    match (&head.method, head.uri.path()) {
        (&Method::GET | &Method::HEAD, "/config") => json(StatusCode::OK, &control.config_page()),
        (&Method::GET | &Method::HEAD, "/debug/log-level") => json(
            StatusCode::OK,
            &serde_json::json!({"level": telemetry::level()}),
        ),
        (&Method::PUT, "/debug/log-level") => set_level(head.uri.query().unwrap_or_default()),
        (&Method::GET | &Method::HEAD, path) if path.starts_with("/debug/decisions") => {
            decisions(control, path, head.uri.query().unwrap_or_default())
        }
        (_, "/config" | "/debug/log-level" | "/debug/decisions") => error(
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not allowed here.",
        ),
        _ => error(
            StatusCode::NOT_FOUND,
            "Here are GET /config, GET, POST, PUT and DELETE /policy, POST /v1/feedback, GET /debug/decisions?last=N, GET /debug/decisions/ID, \
             GET /debug/log-level and PUT /debug/log-level?level=LEVEL.",
        ),
    }
}

/// Decisions that a page shows when it is not told how many.
const USUAL: usize = 20;

/// Bytes of a page of decisions at most; those that do not fit are left out.
const MOST_PAGE: usize = 8 << 20;

/// One decision, or the last few, the newest first.
fn decisions(control: &Control, path: &str, query: &str) -> Page {
    let rest = path.strip_prefix("/debug/decisions").unwrap_or_default();
    if rest.is_empty() {
        let last = query.split('&').find_map(|pair| pair.strip_prefix("last="));
        let count = match last.map(str::parse::<usize>) {
            None => USUAL,
            Some(Ok(count)) => count,
            Some(Err(_)) => return error(StatusCode::BAD_REQUEST, "Give ?last=NUMBER."),
        };
        // One by one: a record may be large, and as a tree it is larger.
        let mut list = String::from("[");
        for record in control.decisions.newest(count) {
            let record = decisions::record(&record).to_string();
            if list.len() + record.len() > MOST_PAGE {
                break;
            }
            if list.len() > 1 {
                list.push(',');
            }
            list.push_str(&record);
        }
        list.push(']');
        return Page::json(StatusCode::OK, Bytes::from(list));
    }
    let id = rest.strip_prefix('/').and_then(|id| id.parse().ok());
    match id.and_then(|id| control.decisions.get(id)) {
        Some(record) => json(StatusCode::OK, &decisions::record(&record)),
        None => error(
            StatusCode::NOT_FOUND,
            "There is no such decision. The last ones are kept that were sampled, or asked for \
             by x-pilotfish-explain: 1; /debug/decisions lists them.",
        ),
    }
}

fn set_level(query: &str) -> Page {
    let level = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("level="));
    match level.map(telemetry::set_level) {
        Some(Ok(())) => json(
            StatusCode::OK,
            &serde_json::json!({"level": telemetry::level()}),
        ),
        Some(Err(problem)) => error(StatusCode::BAD_REQUEST, &problem.to_string()),
        None => error(
            StatusCode::BAD_REQUEST,
            "Give ?level=error, warn, info, debug or trace.",
        ),
    }
}

pub(super) fn json(status: StatusCode, value: &Value) -> Page {
    Page::json(status, Bytes::from(value.to_string()))
}

pub(super) fn error(status: StatusCode, message: &str) -> Page {
    let error = serde_json::json!({"error": {
        "message": message, "type": "invalid_request_error", "param": null, "code": status.as_u16(),
    }});
    json(status, &error)
}
