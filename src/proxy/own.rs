//! Answers of our own making.

use bytes::Bytes;
use http::Response;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use super::ProxyResponse;
use super::body::ObservedBody;
use super::error::{ProxyError, Refusals};
use crate::downstream::Serving;

/// An answer of our own with these bytes.
#[must_use]
pub fn own(data: Bytes, serving: Serving) -> ProxyResponse {
    serving.gives_last();
    Response::new(ObservedBody::Own { data, serving })
}

/// An error of our own, counted.
pub(super) fn own_error(
    error: &ProxyError,
    serving: Serving,
    refusals: &Refusals,
) -> ProxyResponse {
    refusals.count(error.code());
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
