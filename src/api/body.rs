//! Bodies of requests to our own routes: whole, bounded, and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use hyper::body::Incoming;

use super::Page;
use crate::downstream::watch::Deadline;
pub use crate::proxy::budget::{Budget, Share};
use crate::proxy::error::ProxyError;
use crate::proxy::pieces::{next_piece, too_slow};

/// How a body is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Bytes of it at most.
    pub limit: usize,
    /// What all such bodies together may hold.
    pub budget: &'a Budget,
    /// The request's deadline, moved as pieces arrive.
    pub deadline: &'a Deadline,
    /// Longest time between two pieces.
    pub idle: Duration,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    /// It has more bytes than this route takes.
    #[error("The request body is too large: at most {0} bytes are taken here.")]
    TooLarge(usize),
    /// It is late, broke off, or there is no room for it.
    #[error(transparent)]
    Broken(#[from] ProxyError),
}

impl BodyFault {
    /// The answer that the client gets.
    #[must_use]
    pub fn page(&self) -> Page {
        match self {
            Self::TooLarge(_) => {
                let error = serde_json::json!({"error": {
                    "message": self.to_string(), "type": "invalid_request_error",
                    "param": null, "code": "request_too_large",
                }});
                Page::json(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            Self::Broken(error) => Page::json(error.status(), error.body()),
        }
    }
}

/// The whole body, and what it takes of the budget for as long as it is kept.
///
/// # Errors
/// When it is too large, too late, or breaks off.
pub async fn read(mut body: Incoming, reading: Reading<'_>) -> Result<(Bytes, Share), BodyFault> {
    let too_large = |bytes: u64| bytes > reading.limit as u64;
    if too_large(body.size_hint().lower()) {
        return Err(BodyFault::TooLarge(reading.limit));
    }
    let mut share = reading.budget.share();
    let began = reading.deadline.now();
    let mut held = BytesMut::new();
    while let Some(data) = next_piece(&mut body, reading.deadline, reading.idle).await? {
        share.add(data.len())?;
        held.extend_from_slice(&data);
        if too_large(held.len() as u64) {
            return Err(BodyFault::TooLarge(reading.limit));
        }
        too_slow(began, held.len(), reading.deadline, reading.idle)?;
    }
    reading.deadline.clear();
    Ok((held.freeze(), share))
}
