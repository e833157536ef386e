//! The admin listener's `/policy`: policies that are registered, changed and
//! deleted while we serve.
//!
//! One change at a time, and each in the same order: it is read and checked, then
//! resolved with all else that is in force, then written to the state folder, then
//! put in force, then answered. Whatever takes long is done beside the control
//! thread, and goes on to its end though its client leaves.

mod pages;

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::Control;
use super::admin;
use crate::api::Page;
use crate::api::body::{self, Reading, Share};
use crate::downstream::watch::Deadline;
use crate::registry::store::Written;
use crate::registry::{Cause, Known, MOST_DOCUMENT, Refused, Registered, Registry};

/// Bytes of all documents that are being sent at once.
pub(super) const BODIES: usize = 16 << 20;
/// What a change is reckoned with among those bytes until it is made, beside its
/// document.
const CHANGE: usize = 64 << 10;

/// What is asked, of what is ours.
enum Route {
    List,
    Query,
    One(String),
    Upload,
}

/// What is to be changed.
enum Change {
    Register(Bytes, Known),
    Replace(String, Bytes),
    Delete(String),
}

/// A change that has been checked, and not made yet.
struct Made {
    uri: String,
    registry: Registry,
    /// The policy as it will be; `None` when it is deleted.
    policy: Option<Arc<Registered>>,
}

/// Whether that path is served here.
pub(super) fn is_route(path: &str) -> bool {
    route(path).is_some()
}

fn route(path: &str) -> Option<Route> {
    Some(match path {
        "/policy" | "/policy/" => Route::List,
        "/policy/query" => Route::Query,
        "/upload" => Route::Upload,
        _ => {
            let uri = percent_decode_str(path.strip_prefix("/policy/")?);
            Route::One(uri.decode_utf8_lossy().into_owned())
        }
    })
}

/// Answers a request for what [`is_route`] says.
pub(super) async fn page(
    control: &Rc<Control>,
    head: &Parts,
    body: Incoming,
    deadline: &Deadline,
) -> Page {
    let Some(route) = route(head.uri.path()) else {
        return admin::error(StatusCode::NOT_FOUND, "There is nothing here.");
    };
    if let Some(page) = without_body(&route, head) {
        return page;
    }
    let body = match head.method {
        Method::POST | Method::PUT => {
            let reading = Reading {
                limit: MOST_DOCUMENT,
                budget: &control.bodies,
                deadline,
                idle: control.settings.borrow().timeouts.client_body_idle,
            };
            match body::read(body, reading).await {
                Ok(body) => Some(body),
                Err(fault) => return fault.page(),
            }
        }
        _ => None,
    };
    let (body, mut share) = body.unwrap_or_else(|| (Bytes::new(), control.bodies.share()));
    let query = head.uri.query().unwrap_or_default();
    let policies = control.policies.load_full();
    let change = match (route, &head.method) {
        (Route::List, &Method::POST) => {
            let replaces = query.split('&').any(|pair| pair == "replace=1");
            let known = if replaces {
                Known::Replace
            } else {
                Known::Refuse
            };
            Change::Register(body, known)
        }
        (Route::One(uri), &Method::PUT) => Change::Replace(uri, body),
        (Route::One(uri), &Method::DELETE) => Change::Delete(uri),
        (Route::List, _) => return shown(pages::list(&policies, query)),
        (Route::One(uri), _) => return shown(pages::one(&policies, &uri, &control.keys())),
        (Route::Query | Route::Upload, _) => return shown(pages::found(&policies, &body)),
    };
    if share.add(CHANGE).is_err() {
        let message = "Too many changes at once. Please try again later.";
        return admin::error(StatusCode::SERVICE_UNAVAILABLE, message);
    }
    // A client that leaves drops this, but not what it has begun.
    let changing = tokio::task::spawn_local(Rc::clone(control).change(change, share));
    let changed = changing.await;
    shown(changed.unwrap_or_else(|_| Err(failed("the change could not be made"))))
}

/// What can be said without the body.
fn without_body(route: &Route, head: &Parts) -> Option<Page> {
    let allowed = match route {
        Route::List => "GET, HEAD, POST, OPTIONS",
        Route::Query | Route::Upload => "POST, OPTIONS",
        Route::One(_) => "GET, HEAD, PUT, DELETE, OPTIONS",
    };
    let asks = allowed
        .split(", ")
        .any(|method| method == head.method.as_str());
    if !asks {
        let message = format!("This method is not allowed here; allowed are {allowed}.");
        return Some(admin::error(StatusCode::METHOD_NOT_ALLOWED, &message).allowing(allowed));
    }
    if head.method == Method::OPTIONS {
        return Some(Page::json(StatusCode::NO_CONTENT, "").allowing(allowed));
    }
    if matches!(route, Route::Upload) {
        return Some(admin::error(
            StatusCode::NOT_IMPLEMENTED,
            "Policies' code is neither taken nor run. A policy registered as type \"policy\" \
             decides by attributes, \"remote\" asks a service of yours, \"llm\" a language model.",
        ));
    }
    let has_body = matches!(head.method, Method::POST | Method::PUT);
    has_body.then(|| refuse_type(head)).flatten()
}

/// A page of another origin can have a browser send text or forms to us, but not
/// JSON.
fn refuse_type(head: &Parts) -> Option<Page> {
    let given = head.headers.get(CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    let is_json = essence.eq_ignore_ascii_case("application/json");
    (!is_json).then(|| {
        admin::error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Expected JSON: send Content-Type: application/json.",
        )
    })
}

fn shown(page: Result<Page, Refused>) -> Page {
    page.unwrap_or_else(|refused| pages::refusal(&refused))
}

impl Control {
    async fn change(self: Rc<Self>, change: Change, _share: Share) -> Result<Page, Refused> {
        let _turn = self.changing.lock().await;
        let old = self.policies.load_full();
        let known = Arc::clone(&old);
        let made = beside(move || make(&known, change)).await??;
        let keys = self.keys();
        if made.policy.is_some()
            && let Some(mut unfit) = made.registry.set_aside(&made.uri, &keys)
        {
            for problem in &mut unfit.problems {
                problem.path = format!("policies.{}.{}", made.uri, problem.path);
            }
            let message = "the policy cannot be put in force";
            return Err(Refused::listing(Cause::Invalid, message, unfit.problems));
        }
        let before = old.resolve(&keys);
        let resolved = made.registry.resolve(&keys).map_err(|problems| {
            if made.policy.is_some() {
                let message = "the policy cannot be put in force";
                Refused::listing(Cause::Invalid, message, problems)
            } else {
                Refused::listing(Cause::InUse, "the policy is in use", problems)
            }
        })?;
        let known = before.map_or_else(|_| Vec::new(), |before| before.warnings);
        let news = resolved.warnings.into_iter();
        let mut warnings: Vec<String> = news.filter(|one| !known.contains(one)).collect();
        warnings.extend(self.keep(&made.registry).await?);
        self.policies.store(Arc::new(made.registry));
        self.put_in_force(resolved.settings);
        self.look_again();
        if let Some(policy) = &made.policy {
            warnings.splice(0..0, policy.warnings.iter().cloned());
        }
        let done = match (&made.policy, old.get(&made.uri)) {
            (None, _) => "deleted",
            (Some(_), Some(before)) if before.registered_at.is_some() => "replaced",
            (Some(_), _) => "created",
        };
        tracing::info!(uri = made.uri, "a policy was {done}");
        let page = json!({
            "success": true,
            "data": format!("Policy {done} successfully."),
            "uri": made.uri,
            "warnings": warnings,
        });
        Ok(admin::json(StatusCode::OK, &page))
    }

    /// Writes it to the state folder, if there is one; tells what is to be known
    /// of how long it is kept.
    async fn keep(&self, registry: &Registry) -> Result<Option<String>, Refused> {
        let Some(store) = &self.store else {
            let warning = "kept until this process ends: start it with --state-dir to keep \
                           policies for good";
            return Ok(Some(warning.to_owned()));
        };
        let (writer, registry) = (Arc::clone(store), registry.clone());
        match beside(move || writer.write(&registry)).await? {
            Ok(Written::Durable) => Ok(None),
            Ok(Written::Unsynced(error)) => {
                let file = store.file().display().to_string();
                tracing::warn!(%error, file, "registered policies were written, and not synced");
                Ok(Some(format!(
                    "written, but a power cut may lose it: the folder could not be synced ({error})"
                )))
            }
            Err(error) => {
                let file = store.file().display().to_string();
                tracing::error!(%error, file, "registered policies cannot be written");
                let message = format!("nothing has changed: {file} cannot be written: {error}");
                Err(Refused::new(Cause::Full, message))
            }
        }
    }
}

/// Does what takes long on a thread of its own.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| failed("the document could not be worked on"))
}

fn failed(message: &str) -> Refused {
    Refused::new(Cause::Failed, message)
}

fn make(old: &Registry, change: Change) -> Result<Made, Refused> {
    let now = SystemTime::now();
    let (uri, registry) = match change {
        Change::Register(body, known) => {
            let policy = Registered::read(&body, now)?;
            (policy.uri.clone(), old.with(policy, known)?)
        }
        Change::Replace(uri, body) => {
            let policy = old.replacement(&uri, &body, now)?;
            (uri, old.with(policy, Known::Replace)?)
        }
        Change::Delete(uri) => {
            let registry = old.without(&uri)?;
            return Ok(Made {
                uri,
                registry,
                policy: None,
            });
        }
    };
    let policy = registry.get(&uri).map(Arc::clone);
    Ok(Made {
        uri,
        registry,
        policy,
    })
}
