//! Answers of our own making.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, Version};

use super::ProxyResponse;
use super::body::ObservedBody;
use super::error::{Code, ProxyError, Refusals};
use super::headers::{REQUEST_ID, request_id};
use crate::downstream::strict::Unseen;
use crate::downstream::{Handled, HeadFault, Refused, Serving};

/// An answer of our own with these bytes.
#[must_use]
pub fn own(data: Bytes, serving: Serving) -> ProxyResponse {
    serving.gives_last();
    Response::new(ObservedBody::Own { data, serving })
}

/// An error of our own, counted.
#[must_use]
pub fn own_error(error: &ProxyError, serving: Serving, refusals: &Refusals) -> ProxyResponse {
    refusals.count(error.code());
    let mut response = own(Bytes::from(error.body()), serving);
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(error, ProxyError::Head(HeadFault::Method(_))) {
        headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    }
    if matches!(error, ProxyError::Unauthorized) {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Methods that we name as allowed; any other goes through as well.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Answers a request whose head nobody is to look at.
#[must_use]
pub fn refuse(refused: Refused, handled: Handled, refusals: &Refusals) -> ProxyResponse {
    let Refused { head, fault } = refused;
    let ends = fault.ends_connection() && head.version < Version::HTTP_2;
    let serving = handled.serve(head.version);
    let mut response = own_error(&fault.into(), serving, refusals);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id(&head.headers));
    if ends {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts what was refused before it was a request.
#[must_use]
pub fn unseen(refusals: Arc<Refusals>) -> Rc<Unseen> {
    Unseen::new(move |unparsed| refusals.count(Code::of_unparsed(unparsed)))
}
