//! Bodies on the wire: where their bytes are, and where they end
//! (RFC 9112 §6 and §7.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::{Framing, ProtocolFault};
use crate::net::chunks::{BadChunk, Chunks};

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
    Chunked(Chunks),
    UntilClose,
    Ended,
    /// Broken; what came before has been given out.
    Broken(ProtocolFault),
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::default()),
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
                let (used, ended) = match chunk.advance(input, |range| sink.push(input, range)) {
                    Ok(advanced) => advanced,
                    Err(BadChunk) if sink.is_empty() => return Err(ProtocolFault::Chunk),
                    Err(BadChunk) => {
                        *self = Self::Broken(ProtocolFault::Chunk);
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
