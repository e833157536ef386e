//! Bodies on the wire: where their bytes are, and where they end
//! (RFC 9112 §6 and §7.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::{Framing, ProtocolFault};

/// Bytes of chunk extensions, and of trailers, at most in one body.
pub(super) const MAX_EXTRA: u32 = 16 << 10;

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
    pub(in crate::upstream) fn fault(&self) -> Option<ProtocolFault> {
        match self {
            Self::Broken(fault) => Some(*fault),
            _ => None,
        }
    }

    /// Whether the engine's closing now is the body's proper end.
    pub(in crate::upstream) fn ends_by_close(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Bytes still to come, when that is known.
    pub(in crate::upstream) fn left(&self) -> Option<u64> {
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
