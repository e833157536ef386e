//! HTTP/1.1 by hand, as much as an engine needs: reading requests, writing
//! heads and chunks.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::upstream::{Decoder, Framing};

/// Bytes of a head, and of a body, at most.
const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: usize = 64 << 20;

/// A request, read whole but for its body.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) fields: Vec<(String, String)>,
    framing: Framing,
}

impl Request {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next request's head; `None` when the client has closed.
    pub(super) async fn head(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((request, length)) = parse(&self.buffer)? {
                self.buffer.advance(length);
                return Ok(Some(request));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The body of the request whose head was just read.
    pub(super) async fn body(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::new(request.framing);
        let mut body = Vec::new();
        while !decoder.ended() {
            if self.buffer.is_empty() && self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let decoded = decoder
                .decode(&self.buffer, Bytes::copy_from_slice)
                .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
            self.buffer.advance(decoded.used);
            body.extend_from_slice(&decoded.data);
            if body.len() > MAX_BODY {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(body)
    }

    /// Waits until the client leaves.
    pub(super) async fn gone(&mut self) {
        // Pipelined bytes are kept; only an end or an error is a departure.
        while !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(0) | Err(_)) {
            if self.buffer.len() > MAX_HEAD {
                return;
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// A whole answer.
    pub(super) async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let head = answer.head(&format!("content-length: {}", answer.body.len()));
        self.send(&[head.as_bytes(), answer.body.as_bytes()].concat())
            .await
    }

    /// The head of a whole answer, and so many bytes of its body.
    pub(super) async fn part(&mut self, answer: &Answer, bytes: usize) -> io::Result<()> {
        let head = answer.head(&format!("content-length: {}", answer.body.len()));
        let part = answer.body.as_bytes().get(..bytes).unwrap_or_default();
        self.send(&[head.as_bytes(), part].concat()).await
    }

    /// The same, with the part as a chunk.
    pub(super) async fn chunked_part(&mut self, answer: &Answer, bytes: usize) -> io::Result<()> {
        let head = answer.head("transfer-encoding: chunked");
        let part = answer.body.as_bytes().get(..bytes).unwrap_or_default();
        let size = format!("{:x}\r\n", part.len());
        // A chunk without bytes would be the end.
        let chunk = [size.as_bytes(), part, b"\r\n"].concat();
        let chunk = if part.is_empty() { &[][..] } else { &chunk };
        self.send(&[head.as_bytes(), chunk].concat()).await
    }

    /// The head of an event stream.
    pub(super) async fn stream_head(&mut self) -> io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\n\
                    content-type: text/event-stream; charset=utf-8\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        self.send(head.as_bytes()).await
    }

    /// One event, as one chunk.
    pub(super) async fn event(&mut self, data: &str) -> io::Result<()> {
        let event = format!("data: {data}\n\n");
        self.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await
    }
}

/// An answer that is not a stream.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) extra: String,
    pub(super) body: String,
}

impl Answer {
    fn head(&self, framing: &str) -> String {
        let Self {
            status,
            kind,
            extra,
            ..
        } = self;
        let reason = http::StatusCode::from_u16(*status).ok();
        let reason = reason
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown");
        format!(
            "HTTP/1.1 {status} {reason}\r\nserver: uvicorn\r\ncontent-type: {kind}\r\n\
             {framing}\r\n{extra}\r\n"
        )
    }

    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            kind: "application/json",
            extra: String::new(),
            body: body.to_string(),
        }
    }
}

fn parse(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(bad()),
    };
    let fields: Vec<(String, String)> = (request.headers.iter())
        .map(|field| {
            let value = String::from_utf8_lossy(field.value).into_owned();
            (field.name.to_owned(), value)
        })
        .collect();
    let mut parsed = Request {
        method: request.method.unwrap_or("").to_owned(),
        path: request.path.unwrap_or("").to_owned(),
        fields,
        framing: Framing::Empty,
    };
    parsed.framing = if parsed.field("transfer-encoding").is_some() {
        Framing::Chunked
    } else {
        match parsed.field("content-length").map(str::parse) {
            None | Some(Ok(0)) => Framing::Empty,
            Some(Ok(length)) => Framing::Length(length),
            Some(Err(_)) => return Err(bad()),
        }
    };
    Ok(Some((parsed, length)))
}
