//! `POST /v1/infer`: one request that selects a block by attributes and is
//! answered by an engine of it, in the reference's words for both.
//!
//! What it asks is translated to the engine's own API (`request`), takes the path
//! of every request from there on, and the answer is translated back (`answer`,
//! `stream`). It is the one place where a body is made anew.

mod answer;
mod choice;
pub mod fault;
mod few;
mod fields;
mod give;
mod request;
pub mod retold;
pub mod sessions;
mod stream;
mod values;

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use http::header::{self, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};
use hyper::body::Incoming;

use super::budget::Share;
use super::error::ProxyError;
use super::facts;
use super::headers::Pinned;
use super::ready::Source;
use super::{Exchange, ProxyResponse};
use crate::downstream::Serving;
pub(super) use choice::Inference;
use choice::Whom;
use fault::InferError;
use request::Mode;
use sessions::{Refused, UnderWay};
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use stream::in_pieces as retold_in_pieces;

/// The path of it.
pub const PATH: &str = "/v1/infer";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Fields that speak of the client's body, or of what the client would take of
/// an engine's: neither passes as it is.
const OF_BODIES: [HeaderName; 8] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];

/// What an engine is to get.
struct Made {
    body: Bytes,
    share: Share,
    /// Until the answer has ended.
    under_way: UnderWay,
}

impl Exchange<'_> {
    /// Answers a request to `/v1/infer`.
    pub(super) async fn infer(&self, body: Incoming, serving: Serving) -> ProxyResponse {
        if self.head.method == Method::OPTIONS {
            return self.options(serving);
        }
        let translated = match self.head.method {
            Method::POST => self.translated(body, &serving).await,
            _ => Err(InferError::Method.into()),
        };
        match translated {
            Ok((inference, made)) => {
                let mut response = self.inferred(&inference, made, serving).await;
                inference.tell(response.headers_mut());
                response
            }
            Err(error) => self.refuse(&self.counted(error), serving),
        }
    }

    /// Reads the request, and makes of it what an engine is to get.
    async fn translated(
        &self,
        body: Incoming,
        serving: &Serving,
    ) -> Result<(Inference<'_>, Made), ProxyError> {
        let encoding = self.head.headers.get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(ProxyError::Encoded);
        }
        let (wishes, policy) = self.wishes()?;
        self.limited(&wishes, policy, serving);
        let peeking = self.peeking(serving, (&wishes, policy));
        let (bytes, held) = facts::whole(body, peeking).await?;
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|error| InferError::no_json(&error))?;
        let request = request::read(text)?;
        let (seq_no, sessions) = (request.seq_no, &self.proxy.settings.sessions);
        let begun = sessions.begin(sessions.key(&request.session), seq_no);
        let under_way = begun.map_err(|refused| match refused {
            Refused::UnderWay => InferError::UnderWay { seq_no },
            Refused::Full => InferError::Overloaded,
        })?;
        let (whom, name) = self.whom(request.model.as_deref())?;
        let selection = request.selection.filter(|_| matches!(whom, Whom::Best));
        let body = request.job.body(&name, selection);
        let mut share = self.proxy.settings.budget.share();
        share.add(body.len())?;
        let inference = Inference::new(&request, whom, (sessions, &self.head.headers));
        drop(held);
        let made = Made {
            body: Bytes::from(body),
            share,
            under_way,
        };
        Ok((inference, made))
    }

    /// Has it answered like any other request, and the answer translated.
    async fn inferred(
        &self,
        inference: &Inference<'_>,
        made: Made,
        serving: Serving,
    ) -> ProxyResponse {
        let head = onward(self.head, inference.mode);
        let exchange = Exchange {
            proxy: self.proxy,
            snapshot: self.snapshot,
            head: &head,
            pinned: Pinned::No,
            id: self.id,
            began: self.began,
            told: RefCell::default(),
            report: Cell::new(self.report.take()),
            is_counted: Cell::new(false),
            inference: Some(inference),
            caller: self.caller,
        };
        // The other one has its account.
        self.is_counted.set(true);
        let source = Source::Made(Box::new((made.body, made.share)));
        let ran = Box::pin(exchange.run(source, serving)).await;
        self.told.swap(&exchange.told);
        drop(exchange);
        match ran {
            Ok(response) => self.retell(response, inference, made.under_way).await,
            Err((serving, error)) => {
                inference.failed(&error);
                self.refuse(&error, serving)
            }
        }
    }
}

/// The head that an engine gets: its own API's, with all that does not speak of
/// bodies as the client sent it.
fn onward(head: &Parts, mode: Mode) -> Parts {
    let mut onward = head.clone();
    onward.uri = Uri::from(mode.path());
    for name in OF_BODIES {
        onward.headers.remove(name);
    }
    onward.headers.insert(CONTENT_TYPE, JSON);
    onward
}
