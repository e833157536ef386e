//! One post to a collector: protobuf in an HTTP/1.1 request, or in a call of
//! gRPC, which is a POST over HTTP/2 with five bytes before the message and its
//! status in the trailers. hyper speaks both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::otlp::{ExportTraceServiceResponse, PartialSuccess};
use crate::config::{Collector, Otlp};
use crate::net;

/// Bytes of a collector's answer that are looked at.
const MOST: usize = 64 << 10;
const AGENT: &str = concat!("pilotfish/", env!("CARGO_PKG_VERSION"));

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// No connection, or one that broke.
    #[error("the collector cannot be reached: {0}")]
    Connection(#[from] io::Error),
    /// The same, told by hyper.
    #[error("the collector's connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// An answer that cannot be read.
    #[error("the collector's answer makes no sense: {0}")]
    Nonsense(String),
    /// Another status than 200.
    #[error("the collector answered {0}")]
    Status(StatusCode),
    /// Another status than OK.
    #[error("the collector answered gRPC status {0} ({1})")]
    Grpc(u32, String),
    /// Nothing in time.
    #[error("the collector did not answer within {0:?}")]
    Late(Duration),
}

impl PostError {
    /// Whether the same may be taken later, as OTLP's specification has it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Broken(_) | Self::Late(_) => true,
            Self::Nonsense(_) => false,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            // Cancelled, deadline, aborted, out of range, unavailable, data loss.
            Self::Grpc(code, _) => matches!(code, 1 | 4 | 10 | 11 | 14 | 15),
        }
    }
}

/// The way to a collector, with the connection that is open.
pub(super) struct Wire {
    collector: Collector,
    tls: Option<TlsConnector>,
    open: Option<Open>,
}

enum Open {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Reads the certificates that this system trusts, for a collector that speaks TLS.
///
/// # Errors
/// When there are none.
pub(super) fn tls(collector: &Collector) -> io::Result<Option<TlsConnector>> {
    if !collector.is_secure {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let error = found.errors.first().map(ToString::to_string);
        return Err(io::Error::other(format!(
            "no certificate that is trusted could be read ({}): install ca-certificates, or name \
             a file in SSL_CERT_FILE or a folder in SSL_CERT_DIR",
            error.as_deref().unwrap_or("there is none")
        )));
    }
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match collector.speaks {
        Otlp::Grpc => vec![b"h2".to_vec()],
        Otlp::Http => vec![b"http/1.1".to_vec()],
    };
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

impl Wire {
    pub(super) fn new(collector: Collector, tls: Option<TlsConnector>) -> Self {
        Self {
            collector,
            tls,
            open: None,
        }
    }

    /// A message as it is posted.
    pub(super) fn framed(&self, message: &impl prost::Message) -> Bytes {
        let length = message.encoded_len();
        let mut out = BytesMut::with_capacity(length + 5);
        if self.collector.speaks == Otlp::Grpc {
            // Not compressed, and so many bytes.
            out.put_u8(0);
            out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        }
        // A buffer that grows takes everything.
        let _ = message.encode(&mut out);
        out.freeze()
    }

    /// Posts it; tells what of it was not taken. The whole may take so long; a
    /// connection that failed is not used again.
    pub(super) async fn post(
        &mut self,
        body: Bytes,
        within: Duration,
    ) -> Result<Option<PartialSuccess>, PostError> {
        let posted = tokio::time::timeout(within, self.exchange(body)).await;
        posted.unwrap_or(Err(PostError::Late(within)))
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Option<PartialSuccess>, PostError> {
        let request = self.request(body)?;
        let mut open = match self.open.take().filter(Open::is_alive) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let (head, body) = match &mut open {
            Open::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Open::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        }
        .into_parts();
        if head.status != StatusCode::OK {
            // What else it says nobody reads, and the connection goes with it.
            return Err(PostError::Status(head.status));
        }
        let body = Limited::new(body, MOST).collect().await.map_err(unread)?;
        // All of the answer has come: the connection may be used again.
        self.open = Some(open);
        let trailers = body.trailers().cloned().unwrap_or_default();
        let mut message = body.to_bytes();
        if self.collector.speaks == Otlp::Grpc {
            status(&head.headers, &trailers)?;
            message = message.split_off(message.len().min(5));
        }
        let answer = ExportTraceServiceResponse::decode(message);
        Ok(answer.unwrap_or_default().partial_success)
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, PostError> {
        let collector = &self.collector;
        let nonsense = |error: http::Error| PostError::Nonsense(error.to_string());
        let (agent, authority) = (AGENT, collector.authority.as_str());
        let request = Request::builder().method(Method::POST);
        let request = match collector.speaks {
            Otlp::Grpc => {
                let scheme = if collector.is_secure { "https" } else { "http" };
                let uri = Uri::builder()
                    .scheme(scheme)
                    .authority(authority)
                    .path_and_query(&*collector.path)
                    .build()
                    .map_err(nonsense)?;
                request
                    .uri(uri)
                    .version(Version::HTTP_2)
                    .header(CONTENT_TYPE, "application/grpc")
                    .header(TE, "trailers")
            }
            Otlp::Http => request
                .uri(&*collector.path)
                .header(HOST, authority)
                .header(CONTENT_TYPE, "application/x-protobuf"),
        };
        let request = request.header(USER_AGENT, agent);
        request.body(Full::new(body)).map_err(nonsense)
    }

    async fn connect(&self) -> Result<Open, PostError> {
        let (host, port) = (self.collector.host(), self.collector.port);
        // The whole has its deadline.
        let stream = net::connect(host, port, Duration::from_secs(60)).await?;
        let Some(tls) = &self.tls else {
            return Box::pin(self.speak(stream)).await;
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = tls.connect(name, stream).await?;
        Box::pin(self.speak(stream)).await
    }

    async fn speak<S>(&self, stream: S) -> Result<Open, PostError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        match self.collector.speaks {
            Otlp::Grpc => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), stream).await?;
                // It ends with its sender.
                tokio::spawn(driver);
                Ok(Open::Http2(sender))
            }
            Otlp::Http => {
                let (sender, driver) = http1::handshake(stream).await?;
                tokio::spawn(driver);
                Ok(Open::Http1(sender))
            }
        }
    }
}

/// Why an answer could not be read to its end.
fn unread(error: Box<dyn std::error::Error + Send + Sync>) -> PostError {
    match error.downcast::<hyper::Error>() {
        Ok(broken) => PostError::Broken(*broken),
        Err(other) => PostError::Nonsense(other.to_string()),
    }
}

impl Open {
    fn is_alive(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}

/// gRPC's status: in the trailers, or in the head when there is nothing else.
fn status(head: &HeaderMap, trailers: &HeaderMap) -> Result<(), PostError> {
    let field = |name: &str| trailers.get(name).or_else(|| head.get(name));
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let Some(status) = field("grpc-status") else {
        return Err(PostError::Nonsense("no grpc-status".to_owned()));
    };
    match text(status).parse() {
        Ok(0) => Ok(()),
        Ok(code) => Err(PostError::Grpc(
            code,
            field("grpc-message").map(text).unwrap_or_default(),
        )),
        Err(_) => Err(PostError::Nonsense("a grpc-status that is none".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_posted_again() {
        let http = |status| PostError::Status(StatusCode::from_u16(status).unwrap());
        let grpc = |code| PostError::Grpc(code, String::new());
        for (error, may_pass) in [
            (http(400), false),
            (http(404), false),
            (http(429), true),
            (http(500), false),
            (http(503), true),
            (grpc(3), false),
            (grpc(8), false),
            (grpc(12), false),
            (grpc(14), true),
            (PostError::Late(Duration::ZERO), true),
            (
                io::Error::from(io::ErrorKind::ConnectionRefused).into(),
                true,
            ),
        ] {
            assert_eq!(error.may_pass(), may_pass, "{error}");
        }
    }

    #[test]
    fn a_status_is_found_in_trailers_or_head() {
        let with = |status: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static(status));
            headers
        };
        let none = HeaderMap::new();
        assert!(status(&none, &with("0")).is_ok());
        assert!(status(&with("0"), &none).is_ok());
        let refused = status(&none, &with("14")).unwrap_err();
        assert!(matches!(refused, PostError::Grpc(14, _)));
        for (head, trailers) in [(&none, &none), (&none, &with("x")), (&none, &with("-1"))] {
            let found = status(head, trailers).unwrap_err();
            assert!(matches!(found, PostError::Nonsense(_)));
        }
    }
}
