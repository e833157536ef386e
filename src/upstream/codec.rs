//! The HTTP/1.1 answer on the wire: its head, and how its body is framed.
//!
//! Strict where leniency would let two parties disagree about where an answer
//! ends (RFC 9112 §6): a `Transfer-Encoding` other than a single `chunked`,
//! conflicting lengths, or a bare LF in chunk framing is a fault of the engine.

mod decode;

use std::mem::MaybeUninit;
use std::num::NonZeroU32;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};

pub(crate) use decode::Decoder;

/// Bytes of an answer's head at most.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Header fields of an answer at most.
const MAX_FIELDS: usize = 100;

/// What an engine did that HTTP/1.1 does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolFault {
    /// Not an HTTP/1 head.
    #[error("the head is not HTTP/1.1")]
    Head,
    /// More than 64 KiB, or more than 100 fields.
    #[error("the head is too large")]
    HeadTooLarge,
    /// Content-Length fields that conflict or are no number.
    #[error("bad Content-Length")]
    Length,
    /// Anything but one `chunked`.
    #[error("bad Transfer-Encoding")]
    TransferEncoding,
    /// A chunk that is not framed as RFC 9112 §7.1 says.
    #[error("bad chunk framing")]
    Chunk,
    /// 101 though no upgrade was asked for.
    #[error("101 that nobody asked for")]
    Unasked101,
    /// More interim answers than anyone needs.
    #[error("too many 1xx answers")]
    TooManyInterim,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Whatever comes until the engine closes.
    UntilClose,
}

/// The head of an engine's answer.
#[derive(Debug)]
pub struct AnswerHead {
    /// Its status, never 1xx but for an asked-for 101.
    pub status: StatusCode,
    /// All fields as received.
    pub headers: HeaderMap,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether the connection may serve another request.
    pub(super) keep_alive: bool,
    /// Seconds that it may be idle before that, if the engine has told.
    pub(super) idle_for: Option<NonZeroU32>,
}

#[cfg(test)]
impl AnswerHead {
    /// A head as if it had been read.
    pub(crate) fn for_tests(status: StatusCode, headers: HeaderMap, framing: Framing) -> Self {
        Self {
            status,
            headers,
            framing,
            keep_alive: true,
            idle_for: None,
        }
    }
}

/// What of the request decides how the answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) head_only: bool,
    pub(super) upgrade: bool,
}

/// Parses the head at the front of `input`, and tells its length; `None` when
/// it is not whole yet.
pub(super) fn parse_head(
    input: &Bytes,
    asked: Asked,
) -> Result<Option<(AnswerHead, usize)>, ProtocolFault> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, input, &mut fields);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(ProtocolFault::HeadTooLarge);
        }
        Err(_) => return Err(ProtocolFault::Head),
    };
    let status = response.code.ok_or(ProtocolFault::Head)?;
    let status = StatusCode::from_u16(status).map_err(|_| ProtocolFault::Head)?;
    let mut headers = HeaderMap::with_capacity(response.headers.len() + 2);
    for field in response.headers.iter() {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| ProtocolFault::Head)?;
        // A slice of the head's own bytes: no copy for each value.
        let value = HeaderValue::from_maybe_shared(input.slice_ref(field.value))
            .map_err(|_| ProtocolFault::Head)?;
        headers.append(name, value);
    }
    let framing = framing(status, &headers, asked)?;
    let idle_for = kept_for(&response);
    let keep_alive = if response.version == Some(1) {
        !connection_says(&headers, "close")
    } else {
        // Chunked is unknown to HTTP/1.0 (RFC 9112 §6.1).
        if framing == Framing::Chunked {
            return Err(ProtocolFault::TransferEncoding);
        }
        connection_says(&headers, "keep-alive")
    };
    let head = AnswerHead {
        status,
        headers,
        framing,
        keep_alive: keep_alive && framing != Framing::UntilClose && idle_for != Some(0),
        idle_for: idle_for.and_then(NonZeroU32::new),
    };
    Ok(Some((head, length)))
}

/// RFC 9112 §6.3, in its order.
fn framing(
    status: StatusCode,
    headers: &HeaderMap,
    asked: Asked,
) -> Result<Framing, ProtocolFault> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let allowed = asked.upgrade;
        return allowed
            .then_some(Framing::Empty)
            .ok_or(ProtocolFault::Unasked101);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        _ => return Err(ProtocolFault::TransferEncoding),
    };
    let length = length(headers)?;
    let bodiless = asked.head_only || status.is_informational();
    if bodiless || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Framing::Empty);
    }
    Ok(match length {
        _ if chunked => Framing::Chunked,
        Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    })
}

/// Seconds that the engine keeps an idle connection (`Keep-Alive: timeout=5`),
/// less one: a request that is on its way when it closes costs a retry.
fn kept_for(response: &httparse::Response<'_, '_>) -> Option<u32> {
    const NAME: &str = "keep-alive";
    let mut fields = response.headers.iter();
    let field = fields.find(|field| field.name.eq_ignore_ascii_case(NAME))?;
    let text = std::str::from_utf8(field.value).ok()?;
    let seconds = text.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("timeout");
        is_it.then(|| value.trim().trim_matches('"').parse::<u32>().ok())?
    })?;
    Some(seconds.saturating_sub(1))
}

/// The one length that all Content-Length fields agree on.
fn length(headers: &HeaderMap) -> Result<Option<u64>, ProtocolFault> {
    let mut agreed = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let text = value.to_str().map_err(|_| ProtocolFault::Length)?;
        for item in text.split(',').map(str::trim) {
            if item.is_empty() || !item.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(ProtocolFault::Length);
            }
            let length: u64 = item.parse().map_err(|_| ProtocolFault::Length)?;
            if *agreed.get_or_insert(length) != length {
                return Err(ProtocolFault::Length);
            }
        }
    }
    Ok(agreed)
}

fn connection_says(headers: &HeaderMap, option: &str) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    values.any(|value| {
        let text = value.to_str().unwrap_or("");
        text.split(',')
            .any(|item| item.trim().eq_ignore_ascii_case(option))
    })
}

#[cfg(test)]
mod tests;
