//! Chunked framing (RFC 9112 §7.1), of engines' answers and of clients'
//! requests alike: one grammar, so that both sides agree where a body ends.
//!
//! Strict: every line ends in CRLF; extensions and trailers are bounded.

use std::ops::Range;

/// Bytes of chunk extensions, and of trailers, at most in one body.
pub const MAX_EXTRA: u32 = 16 << 10;

/// A chunk that is not framed as the RFC says, or says too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChunk;

/// Where in chunked framing the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
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

impl Default for Chunks {
    fn default() -> Self {
        Self {
            at: At::SizeStart,
            left: 0,
            extra: 0,
        }
    }
}

impl Chunks {
    /// Walks `input`, and shows where data is; tells the bytes used and whether
    /// the body ended.
    ///
    /// # Errors
    /// A chunk that is not framed as it should be.
    pub fn advance(
        &mut self,
        input: &[u8],
        mut data: impl FnMut(Range<usize>),
    ) -> Result<(usize, bool), BadChunk> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if self.at == At::Data {
                let room = input.len() - at;
                let take = usize::try_from(self.left).map_or(room, |left| left.min(room));
                data(at..at + take);
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
    fn step(&mut self, byte: u8) -> Result<bool, BadChunk> {
        self.at = match (self.at, byte) {
            (At::SizeStart | At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.left >> 60 != 0 {
                    return Err(BadChunk);
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
            _ => return Err(BadChunk),
        };
        Ok(false)
    }

    fn spend(&mut self, next: At) -> Result<At, BadChunk> {
        self.extra += 1;
        (self.extra <= MAX_EXTRA).then_some(next).ok_or(BadChunk)
    }
}
