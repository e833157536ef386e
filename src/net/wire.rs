//! A connection's bytes, plain or encrypted.
//!
//! Both sides read and write their sockets through one shared reference: a
//! client is watched for its departure while an answer is written to it, and
//! an upload may go on while the answer is read. So the session's state is in
//! a cell, borrowed within one poll only; a plain connection has none.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// One connection.
#[derive(Debug)]
pub enum Wire {
    /// What is written is what is sent.
    Plain(TcpStream),
    /// It goes through TLS.
    Tls(Box<Session>),
}

/// An encrypted connection after its handshake.
#[derive(Debug)]
pub struct Session {
    socket: Socket,
    stream: RefCell<TlsStream<Socket>>,
}

/// A socket as a TLS session sees it; a clone is the same socket.
#[derive(Debug, Clone)]
pub struct Socket(Rc<Counted>);

#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    /// Bytes that it took.
    taken: Cell<u64>,
}

impl Socket {
    /// That socket.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self(Rc::new(Counted {
            stream,
            taken: Cell::new(0),
        }))
    }

    /// The socket itself.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.0.stream
    }

    fn poll_write_counted(
        &self,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(super::poll_write_vectored(self.tcp(), cx, from))?;
        self.0.taken.set(self.0.taken.get() + written as u64);
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        super::poll_read(self.tcp(), cx, into).map_ok(drop)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_counted(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_counted(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(self.tcp()))
    }
}

fn shutdown(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}

impl Wire {
    /// A connection whose handshake is done; `socket` is what `stream` runs on.
    #[must_use]
    pub fn tls(stream: TlsStream<Socket>, socket: Socket) -> Self {
        let stream = RefCell::new(stream);
        Self::Tls(Box::new(Session { socket, stream }))
    }

    /// The socket: for its readiness, and for what is beneath all bytes.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(session) => session.socket.tcp(),
        }
    }

    /// Whether it goes through TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Bytes that the socket took of an encrypted connection, which may take more
    /// than that; `None` in clear text, where what is written is taken.
    #[must_use]
    pub fn taken(&self) -> Option<u64> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(session) => Some(session.socket.0.taken.get()),
        }
    }

    /// The client's or engine's certificates, its own first; none in clear text.
    #[must_use]
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        let Self::Tls(session) = self else {
            return Vec::new();
        };
        let stream = session.stream.borrow();
        let certificates = stream.get_ref().1.peer_certificates();
        certificates.map(<[_]>::to_vec).unwrap_or_default()
    }

    /// The protocol that was agreed upon, if any was.
    #[must_use]
    pub fn alpn(&self) -> Option<Vec<u8>> {
        let Self::Tls(session) = self else {
            return None;
        };
        let stream = session.stream.borrow();
        stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// Reads what is there into `into`; 0 is the end of the stream. The end of
    /// an encrypted stream that its peer did not announce is an error: anyone
    /// on the way could have made it.
    ///
    /// # Errors
    /// Those of recv(2); `UnexpectedEof`, as said; `InvalidData` for what is no
    /// TLS.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        into: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => super::poll_read(stream, cx, into),
            Self::Tls(session) => session.poll_read(cx, into),
        }
    }

    /// Writes as much of `from` as the connection takes. What it took of an
    /// encrypted one may still be with us until [`Wire::poll_flush`].
    ///
    /// # Errors
    /// Those of send(2) and writev(2).
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => super::poll_write_vectored(stream, cx, from),
            Self::Tls(session) => {
                let mut stream = session.stream.borrow_mut();
                Pin::new(&mut *stream).poll_write_vectored(cx, from)
            }
        }
    }

    /// Ready once all that was taken has been given to the socket.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(session) => Pin::new(&mut *session.stream.borrow_mut()).poll_flush(cx),
        }
    }

    /// Announces that nothing more is written, and ends our side.
    ///
    /// # Errors
    /// Those of send(2) and shutdown(2).
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Poll::Ready(shutdown(stream)),
            Self::Tls(session) => Pin::new(&mut *session.stream.borrow_mut()).poll_shutdown(cx),
        }
    }
}

impl Session {
    fn poll_read(&self, cx: &mut Context<'_>, into: &mut impl BufMut) -> Poll<io::Result<usize>> {
        /// Bytes of one record at most: more are never there at once.
        const RECORD: usize = 16 << 10;
        use tokio::io::AsyncBufRead as _;
        let mut stream = self.stream.borrow_mut();
        let there = std::task::ready!(Pin::new(&mut *stream).poll_fill_buf(cx))?;
        let taken = there.len().min(into.remaining_mut()).min(RECORD);
        into.put_slice(&there[..taken]);
        Pin::new(&mut *stream).consume(taken);
        Poll::Ready(Ok(taken))
    }
}
