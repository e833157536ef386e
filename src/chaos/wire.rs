//! The clients' HTTP/1.1, by hand and strict: nothing is shared with the codec
//! that is on trial.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::net;

/// Longest wait for a connection to the proxy.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of a head, and of a chunk's size, at most.
const MAX_HEAD: usize = 64 << 10;
const MAX_SIZE: usize = 18;

/// A connection to the proxy.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
    framing: Framing,
}

/// Where in an answer's body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Size,
    Chunk(usize),
    AfterChunk,
    AfterLast,
    Ended,
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct Head {
    /// Its status.
    pub(super) status: u16,
    fields: Vec<(String, String)>,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Some of it.
    Data(Bytes),
    /// Its proper end.
    End,
    /// The connection ended before that.
    Cut,
}

/// What no HTTP server may send.
pub(super) type Bad = String;

impl Head {
    pub(super) fn new(status: u16, fields: Vec<(String, String)>) -> Self {
        Self { status, fields }
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn closes(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

impl Wire {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let host = address.ip().to_string();
        Ok(Self {
            stream: net::connect(&host, address.port(), CONNECT).await?,
            buffer: BytesMut::new(),
            framing: Framing::Ended,
        })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The head of the next answer; `None` when the connection ended instead.
    pub(super) async fn head(&mut self) -> Result<Option<Head>, Bad> {
        loop {
            if let Some((head, length)) = parse(&self.buffer)? {
                self.buffer.advance(length);
                self.framing = framing(&head)?;
                return Ok(Some(head));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err("a head without end".to_owned());
            }
            if !self.more().await {
                return Ok(None);
            }
        }
    }

    /// What comes next of the body whose head was just read.
    pub(super) async fn piece(&mut self) -> Result<Piece, Bad> {
        loop {
            if self.framing == Framing::Ended {
                return Ok(Piece::End);
            }
            if let Some(data) = self.step()? {
                return Ok(Piece::Data(data));
            }
            let waits = match self.framing {
                Framing::Ended => false,
                Framing::Length(_) | Framing::Chunk(_) => self.buffer.is_empty(),
                Framing::Size => line(&self.buffer).is_none(),
                Framing::AfterChunk | Framing::AfterLast => self.buffer.len() < 2,
            };
            if waits && !self.more().await {
                return Ok(Piece::Cut);
            }
        }
    }

    /// One step through what has been read.
    fn step(&mut self) -> Result<Option<Bytes>, Bad> {
        match self.framing {
            Framing::Length(left) | Framing::Chunk(left) if !self.buffer.is_empty() => {
                let data = self.buffer.split_to(left.min(self.buffer.len())).freeze();
                let left = left - data.len();
                self.framing = match self.framing {
                    Framing::Length(_) if left == 0 => Framing::Ended,
                    Framing::Length(_) => Framing::Length(left),
                    _ if left == 0 => Framing::AfterChunk,
                    _ => Framing::Chunk(left),
                };
                return Ok(Some(data));
            }
            Framing::Size => {
                if let Some(length) = line(&self.buffer) {
                    let text = self.buffer.split_to(length);
                    self.buffer.advance(2);
                    self.framing = match size(&text)? {
                        0 => Framing::AfterLast,
                        size => Framing::Chunk(size),
                    };
                } else if self.buffer.len() > MAX_SIZE {
                    return Err(format!("no chunk's size: {:?}", self.buffer));
                }
            }
            Framing::AfterChunk | Framing::AfterLast if self.buffer.len() >= 2 => {
                let end = self.buffer.split_to(2);
                if &end[..] != b"\r\n" {
                    return Err(format!("a chunk is followed by {end:?}"));
                }
                self.framing = match self.framing {
                    Framing::AfterChunk => Framing::Size,
                    _ => Framing::Ended,
                };
            }
            _ => {}
        }
        Ok(None)
    }

    /// Bytes that came after the answer's end, though nothing was asked.
    pub(super) fn surplus(&self) -> &[u8] {
        &self.buffer
    }

    /// The whole of a body; false when it was cut.
    pub(super) async fn body(&mut self) -> Result<(Vec<u8>, bool), Bad> {
        let mut body = Vec::new();
        loop {
            match self.piece().await? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End => return Ok((body, true)),
                Piece::Cut => return Ok((body, false)),
            }
        }
    }

    /// Reads more; false when the connection has ended, however.
    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }
}

fn line(buffer: &[u8]) -> Option<usize> {
    memchr::memmem::find(buffer, b"\r\n")
}

fn size(text: &[u8]) -> Result<usize, Bad> {
    let bad = || format!("no chunk's size: {:?}", Bytes::copy_from_slice(text));
    let digits = std::str::from_utf8(text).map_err(|_| bad())?;
    usize::from_str_radix(digits, 16).map_err(|_| bad())
}

fn parse(buffer: &[u8]) -> Result<Option<(Head, usize)>, Bad> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("no head: {error}")),
    };
    let fields = response.headers.iter().map(|field| {
        let value = String::from_utf8_lossy(field.value).into_owned();
        (field.name.to_owned(), value)
    });
    let head = Head::new(response.code.unwrap_or(0), fields.collect());
    Ok(Some((head, length)))
}

fn framing(head: &Head) -> Result<Framing, Bad> {
    match (
        head.field("transfer-encoding"),
        head.field("content-length"),
    ) {
        (Some("chunked"), None) => Ok(Framing::Size),
        (None, Some(length)) => match length.parse() {
            Ok(0) => Ok(Framing::Ended),
            Ok(length) => Ok(Framing::Length(length)),
            Err(_) => Err(format!("content-length: {length}")),
        },
        both => Err(format!("status {} with framing {both:?}", head.status)),
    }
}
