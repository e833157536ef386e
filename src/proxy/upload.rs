//! From what was read of a request's body to what is sent of it.

use http::Method;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http_body::Body;

use super::budget::Share;
use super::facts::Peeked;
use super::headers::RequestFraming;
use super::meter::Meter;
use crate::config::Limits;
use crate::upstream::{Streaming, Upload};

/// What is to be sent, how it is framed, and its share of the budget.
pub(super) fn of(
    head: &Parts,
    peeked: Peeked,
    limits: &Limits,
    meter: &mut Meter,
) -> (Upload, RequestFraming, Share) {
    let held = peeked.held_bytes as u64;
    let declared = peeked
        .rest
        .as_ref()
        .and_then(|rest| rest.size_hint().exact());
    let framing = match (&peeked.rest, declared) {
        (Some(_), Some(left)) => RequestFraming::Length(held + left),
        (Some(_), None) => RequestFraming::Chunked,
        (None, _) if held > 0 => RequestFraming::Length(held),
        // A method that may have a body says that it has none.
        (None, _) if head.headers.contains_key(CONTENT_LENGTH) => RequestFraming::Length(0),
        (None, _) if head.method == Method::POST => RequestFraming::Length(0),
        (None, _) => RequestFraming::None,
    };
    meter.uploaded(held + declared.unwrap_or(0));
    let upload = match peeked.rest {
        None => Upload::new(
            peeked.held,
            peeked.held_bytes <= limits.max_replay_bytes,
            None,
        ),
        Some(rest) => {
            let mut streaming = Streaming::new(rest, framing == RequestFraming::Chunked);
            for piece in peeked.held {
                streaming.hold(piece);
            }
            Upload::new(Vec::new(), false, Some(streaming))
        }
    };
    (upload, framing, peeked.share)
}
