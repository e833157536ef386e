//! Bodies of requests as they come, piece by piece, and how long that may take.

use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;

use super::error::ProxyError;
use crate::config::MIN_BODY_BYTES_PER_SECOND;
use crate::downstream::watch::Deadline;

/// The next data of the body; `None` at its end.
///
/// # Errors
/// When it is late, the request's own time is up, or it breaks off.
pub async fn next_piece(
    body: &mut Incoming,
    deadline: &Deadline,
    idle: Duration,
) -> Result<Option<Bytes>, ProxyError> {
    loop {
        deadline.set(idle);
        let frame = std::future::poll_fn(|cx| {
            if deadline.expired(cx) {
                return Poll::Ready(Err(if deadline.is_over() {
                    ProxyError::Expired
                } else {
                    ProxyError::BodyLate
                }));
            }
            Pin::new(&mut *body).poll_frame(cx).map(Ok)
        });
        match frame.await? {
            None => return Ok(None),
            Some(Err(fault)) => return Err(ProxyError::BodyBroke(fault.to_string())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A client that sends a byte a second is never idle, but late.
///
/// # Errors
/// That it is.
pub fn too_slow(
    began: Instant,
    bytes: usize,
    deadline: &Deadline,
    idle: Duration,
) -> Result<(), ProxyError> {
    let earned = Duration::from_secs(bytes as u64 / MIN_BODY_BYTES_PER_SECOND);
    let spent = deadline.now().saturating_duration_since(began);
    if spent > idle + earned {
        return Err(ProxyError::BodyLate);
    }
    Ok(())
}
