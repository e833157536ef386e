//! Who sent a request, and whether it may go on: asked before anything of its body
//! is read, and of every route but those of probes and scrapers.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Request;

use super::Proxy;
use super::error::ProxyError;
use super::facts::{INFERENCE_PATHS, Peeked};
use super::infer;
use super::models::leads;
use crate::api::{Route, models};
use crate::auth::{Admitted, Caller, Denied, Why};
use crate::downstream::{Handled, Serving};

/// Whether a request may go on; `Ok(None)`: nobody asks who sent it.
pub type Admission = Result<Option<Admitted>, Denied>;

/// Who sent a request, whose place is held until it has ended; and why it may not
/// go on.
pub(super) fn caller(
    admission: Admission,
    serving: &mut Serving,
) -> (Option<Arc<Caller>>, Option<Why>) {
    match admission {
        Ok(admitted) => {
            let caller = admitted.map(|Admitted { caller, permit }| {
                if let Some(permit) = permit {
                    serving.hold(Box::new(permit));
                }
                caller
            });
            (caller, None)
        }
        Err(Denied { caller, why }) => (caller, Some(why)),
    }
}

/// Routes that anyone may ask: probes and scrapers have no key, and are told
/// nothing of requests.
const OPEN: [Route; 5] = [
    Route::Health,
    Route::Live,
    Route::Ready,
    Route::Version,
    Route::Metrics,
];

/// For what a key may not be used.
pub(super) fn shown_model(model: &str) -> String {
    match model {
        "" => "requests that name no model".to_owned(),
        model => format!("the model '{model}'"),
    }
}

/// Whether one who may use some models alone may ask for a path: where we know that
/// the body names the model. Elsewhere the path may, or nothing.
pub(super) fn may_ask(caller: &Caller, path: &str) -> Result<(), ProxyError> {
    if path == infer::PATH || INFERENCE_PATHS.contains(&path) {
        return Ok(());
    }
    caller.refuse_model();
    Err(ProxyError::PathNotAllowed)
}

/// Whether a body is seen whole, or names no model: behind what is held there may
/// be another one.
pub(super) fn is_seen(peeked: &Peeked) -> bool {
    peeked.rest.is_none() || peeked.facts.model.is_none() && !peeked.out_of_reach
}

impl From<Why> for ProxyError {
    fn from(why: Why) -> Self {
        match why {
            Why::Unknown => Self::Unauthorized,
            Why::Rate(seconds) => Self::KeyRate(seconds),
            Why::Busy => Self::KeyBusy,
        }
    }
}

impl Proxy {
    /// Whether a request may go on.
    pub fn admit<B>(&self, request: &Request<B>, handled: &Handled) -> Admission {
        let Some(auth) = &self.settings.auth else {
            return Ok(None);
        };
        let route = Route::of(request.method(), request.uri().path());
        if route.is_some_and(|route| OPEN.contains(&route)) {
            return Ok(None);
        }
        auth.admit(request.headers(), handled.identity()).map(Some)
    }

    /// Makes the list of models one of those that the caller may use.
    pub fn show_only_usable(&self, list: &mut Arc<ArcSwap<Bytes>>, admission: &Admission) {
        let Ok(Some(Admitted { caller, .. })) = admission else {
            return;
        };
        if caller.is_restricted() {
            let snapshot = self.snapshot();
            let leads = |name: &str| leads(&snapshot, name);
            let usable = models::only(&list.load_full(), |id| {
                caller.may_use(leads(id).unwrap_or(id), leads)
            });
            *list = Arc::new(ArcSwap::from_pointee(usable));
        }
    }
}
