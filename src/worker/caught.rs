//! A panic in one request's handler: that request gets a 500, and nobody else
//! learns of it.
//!
//! Invariant: what the handler held (its place, its engine's slot, the client's
//! turn) is given back by unwinding, before the 500 is made.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use http::Version;
use http::header::{CONNECTION, HeaderMap, HeaderValue};

use crate::downstream::Handled;
use crate::proxy::error::ProxyError;
use crate::proxy::{Proxy, ProxyResponse, headers, own_error};

/// What is answered in place of a handler that panicked.
pub(super) struct Instead {
    handled: Handled,
    version: Version,
}

impl Instead {
    /// Of a request of this version.
    pub(super) fn of(handled: &Handled, version: Version) -> Self {
        Self {
            handled: handled.clone(),
            version,
        }
    }

    /// Runs the handler. Not by value: a future that owned it would be of twice
    /// its size.
    pub(super) async fn of_panic<F>(self, mut handler: Pin<&mut F>, proxy: &Proxy) -> F::Output
    where
        F: Future<Output = ProxyResponse>,
    {
        let ran = poll_fn(|cx| {
            // Of its state nothing is looked at again.
            match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        });
        match ran.await {
            Ok(response) => response,
            Err(panic) => self.answer(words(&*panic), proxy),
        }
    }

    fn answer(self, words: &str, proxy: &Proxy) -> ProxyResponse {
        tracing::error!("a request's handler panicked ({words}): it was answered with a 500");
        let serving = self.handled.serve(self.version);
        let mut response = own_error(&ProxyError::Panicked, serving, proxy.refusals());
        let id = headers::request_id(&HeaderMap::new());
        response.headers_mut().insert(headers::REQUEST_ID, id);
        if self.version < Version::HTTP_2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("with no words")
}
