//! A client's connection, of either HTTP.
//!
//! HTTP/1.1 is our own (`wire.rs`); HTTP/2 is hyper's, since what is on trial
//! is what the proxy makes of it, not its frames.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::wire::{Bad, Head, Piece, Wire};

const PATH: &str = "/v1/chat/completions";

/// A connection to the proxy.
pub(super) enum Line {
    /// One answer after the other.
    Http1(Wire),
    /// A stream for each.
    Http2(Streams),
}

/// A connection of HTTP/2, with one stream at a time.
pub(super) struct Streams {
    sender: SendRequest<Full<Bytes>>,
    answer: Option<Asked>,
    body: Option<Incoming>,
}

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

type Asked = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

impl Line {
    pub(super) async fn connect(address: SocketAddr, version: Version) -> io::Result<Self> {
        if version != Version::HTTP_2 {
            return Wire::connect(address).await.map(Self::Http1);
        }
        let host = address.ip().to_string();
        let stream = crate::net::connect(&host, address.port(), CONNECT).await?;
        let hands = handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = hands.await.map_err(io::Error::other)?;
        // It ends with the sender.
        tokio::spawn(connection);
        Ok(Self::Http2(Streams {
            sender,
            answer: None,
            body: None,
        }))
    }

    /// Sends a request with that id.
    pub(super) async fn ask(&mut self, id: &str, body: String) -> io::Result<()> {
        match self {
            Self::Http1(wire) => {
                let head = format!(
                    "POST {PATH} HTTP/1.1\r\nhost: chaos\r\nx-request-id: {id}\r\n\
                     content-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                wire.send((head + &body).as_bytes()).await
            }
            Self::Http2(streams) => {
                let request = Request::post(format!("http://chaos{PATH}"))
                    .header("x-request-id", id)
                    .header("content-type", "application/json")
                    .body(Full::from(body))
                    .map_err(io::Error::other)?;
                // Of the last stream nothing is kept: what is left of it is reset.
                streams.body = None;
                streams.sender.ready().await.map_err(io::Error::other)?;
                streams.answer = Some(Box::pin(streams.sender.send_request(request)));
                Ok(())
            }
        }
    }

    /// The head of the answer; `None` when the connection ended instead.
    pub(super) async fn head(&mut self) -> Result<Option<Head>, Bad> {
        let streams = match self {
            Self::Http1(wire) => return wire.head().await,
            Self::Http2(streams) => streams,
        };
        let Some(answer) = streams.answer.as_mut() else {
            return Ok(None);
        };
        let answered = answer.await;
        streams.answer = None;
        let Ok(answered) = answered else {
            return Ok(None);
        };
        let (parts, body) = answered.into_parts();
        streams.body = Some(body);
        let fields = parts.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        Ok(Some(Head::new(parts.status.as_u16(), fields.collect())))
    }

    /// What comes next of the body whose head was just read.
    pub(super) async fn piece(&mut self) -> Result<Piece, Bad> {
        let streams = match self {
            Self::Http1(wire) => return wire.piece().await,
            Self::Http2(streams) => streams,
        };
        let Some(body) = streams.body.as_mut() else {
            return Ok(Piece::End);
        };
        loop {
            match body.frame().await {
                None => return Ok(Piece::End),
                Some(Err(_)) => return Ok(Piece::Cut),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Piece::Data(data));
                    }
                }
            }
        }
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

    /// Bytes that came after the answer's end, though nothing was asked.
    pub(super) fn surplus(&self) -> &[u8] {
        match self {
            Self::Http1(wire) => wire.surplus(),
            Self::Http2(_) => &[],
        }
    }

    /// Whether it may be used again after that answer.
    pub(super) fn is_kept(&self, head: &Head, is_whole: bool) -> bool {
        match self {
            Self::Http1(_) => is_whole && !head.closes(),
            Self::Http2(streams) => !streams.sender.is_closed(),
        }
    }
}
