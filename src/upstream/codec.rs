//! The HTTP/1.1 answer on the wire: its head, and how its body is framed.
//!
//! Strict where leniency would let two parties disagree about where an answer
//! ends (RFC 9112 §6): a `Transfer-Encoding` other than a single `chunked`,
//! conflicting lengths, or a bare LF in chunk framing is a fault of the engine.

use std::mem::MaybeUninit;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};

/// Bytes of an answer's head at most.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Header fields of an answer at most.
const MAX_FIELDS: usize = 100;
/// Bytes of chunk extensions, and of trailers, at most in one body.
const MAX_EXTRA: u32 = 16 << 10;

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
        keep_alive: keep_alive && framing != Framing::UntilClose,
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

/// What one call of [`Decoder::decode`] made of its input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Body bytes.
    pub(crate) data: Bytes,
    /// Input bytes used; less than given only at the end of the body.
    pub(crate) used: usize,
}

/// Finds a body's bytes and its end in what the engine sends.
#[derive(Debug)]
pub(crate) enum Decoder {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Ended,
    /// Broken; what came before has been given out.
    Broken(ProtocolFault),
}

/// Where in chunked framing the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    at: At,
    /// The chunk's size so far, or what is left of its data.
    left: u64,
    /// Bytes of extensions and trailers so far.
    extra: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    SizeStart,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunk {
                at: At::SizeStart,
                left: 0,
                extra: 0,
            }),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// What broke it, once all that came before has been given out.
    pub(super) fn fault(&self) -> Option<ProtocolFault> {
        match self {
            Self::Broken(fault) => Some(*fault),
            _ => None,
        }
    }

    /// Whether the engine's closing now is the body's proper end.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Bytes still to come, when that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Ended => Some(0),
            Self::Chunked(_) | Self::UntilClose | Self::Broken(_) => None,
        }
    }

    /// Takes body bytes out of `input`; `own` makes `Bytes` of a part of it.
    pub(crate) fn decode(
        &mut self,
        input: &[u8],
        own: impl Fn(&[u8]) -> Bytes,
    ) -> Result<Decoded, ProtocolFault> {
        match self {
            Self::Length(left) => {
                let used = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= used as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Decoded {
                    data: own(&input[..used]),
                    used,
                })
            }
            Self::Chunked(chunk) => {
                let mut sink = Sink::default();
                let (used, ended) = match chunk.advance(input, &mut sink) {
                    Ok(advanced) => advanced,
                    Err(fault) if sink.is_empty() => return Err(fault),
                    Err(fault) => {
                        *self = Self::Broken(fault);
                        (input.len(), false)
                    }
                };
                if ended {
                    *self = Self::Ended;
                }
                Ok(Decoded {
                    data: sink.into_bytes(input, own),
                    used,
                })
            }
            Self::UntilClose => Ok(Decoded {
                data: own(input),
                used: input.len(),
            }),
            Self::Ended => Ok(Decoded {
                data: Bytes::new(),
                used: 0,
            }),
            Self::Broken(fault) => Err(*fault),
        }
    }
}

/// Collects the data of the chunks in one input: the first as a range, which
/// costs nothing; only when there are more are they joined.
#[derive(Default)]
struct Sink {
    first: std::ops::Range<usize>,
    joined: BytesMut,
}

impl Sink {
    fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    fn push(&mut self, input: &[u8], range: std::ops::Range<usize>) {
        if self.first.is_empty() {
            self.first = range;
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve(input.len() - self.first.start);
            self.joined.put_slice(&input[self.first.clone()]);
        }
        self.joined.put_slice(&input[range]);
    }

    fn into_bytes(self, input: &[u8], own: impl Fn(&[u8]) -> Bytes) -> Bytes {
        if self.joined.is_empty() {
            own(&input[self.first])
        } else {
            self.joined.freeze()
        }
    }
}

impl Chunk {
    /// Walks `input`; tells the bytes used and whether the body ended.
    fn advance(&mut self, input: &[u8], sink: &mut Sink) -> Result<(usize, bool), ProtocolFault> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if self.at == At::Data {
                let room = input.len() - at;
                let take = usize::try_from(self.left).map_or(room, |left| left.min(room));
                sink.push(input, at..at + take);
                at += take;
                self.left -= take as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            at += 1;
            if self.step(byte)? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Takes one byte of framing; true at the end of the body.
    fn step(&mut self, byte: u8) -> Result<bool, ProtocolFault> {
        self.at = match (self.at, byte) {
            (At::SizeStart | At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.left >> 60 != 0 {
                    return Err(ProtocolFault::Chunk);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                self.left = self.left << 4 | u64::from(digit);
                At::Size
            }
            (At::Size, b'\r') => At::SizeLf,
            (At::Size, b';' | b' ' | b'\t') => At::Extension,
            (At::Extension, b'\r') => At::SizeLf,
            (At::Extension, 0x20..=0x7e | b'\t' | 0x80..) => self.spend(At::Extension)?,
            (At::SizeLf, b'\n') if self.left == 0 => At::TrailerStart,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::SizeStart,
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::TrailerStart | At::Trailer, 0x20..=0x7e | b'\t' | 0x80..) => {
                self.spend(At::Trailer)?
            }
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::EndLf, b'\n') => return Ok(true),
            _ => return Err(ProtocolFault::Chunk),
        };
        Ok(false)
    }

    fn spend(&mut self, next: At) -> Result<At, ProtocolFault> {
        self.extra += 1;
        (self.extra <= MAX_EXTRA)
            .then_some(next)
            .ok_or(ProtocolFault::Chunk)
    }
}

#[cfg(test)]
mod tests;
