//! Sockets: how we listen, connect, read and write.
//!
//! Every socket of the data path is made here, so that `TCP_NODELAY` can't be
//! forgotten (an SSE frame would wait up to 40 ms for a delayed ACK), and read
//! and written here through a shared reference, so that one side of a
//! connection can watch for the peer's departure while the other one reads.

pub mod chunks;
pub mod wire;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BufMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel may queue before we accept them.
const BACKLOG: i32 = 4096;

/// Binds a listener that every worker shares by [`share`].
///
/// # Errors
/// A port that is taken is an error: no `SO_REUSEPORT`, which would let two
/// processes share one port silently.
pub fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A handle of one worker's own on a shared listener.
///
/// # Errors
/// When the process is out of file descriptors.
pub fn share(listener: &StdListener) -> io::Result<StdListener> {
    listener.try_clone()
}

/// Registers a listener with the runtime of the calling thread.
///
/// # Errors
/// When the runtime cannot watch the socket.
pub fn register(listener: StdListener) -> io::Result<TcpListener> {
    TcpListener::from_std(listener)
}

/// Accepts one connection, with `TCP_NODELAY` set.
///
/// # Errors
/// Those of accept(2); `EMFILE` is worth a pause and another try.
pub async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

/// Whether a failed accept(2) has lost but one connection, so that the next
/// one may succeed at once: else we are out of descriptors or memory.
#[must_use]
pub fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::Interrupted
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::PermissionDenied
    )
}

/// Whether a connection waits to be accepted.
#[must_use]
pub fn has_waiting(listener: &TcpListener) -> bool {
    let mut listener = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut listener, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Whether bytes wait that nobody has read, whatever the runtime knows of it.
#[must_use]
pub fn has_unread(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let peeked = socket2::SockRef::from(stream).peek(&mut byte);
    peeked.is_ok_and(|read| read > 0)
}

/// Connects to `host:port`, trying each address that the name resolves to.
///
/// # Errors
/// `TimedOut` when `within` has passed, else the last address's error.
#[expect(clippy::disallowed_methods, reason = "the one place that connects")]
pub async fn connect(host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect((host, port));
    let stream = tokio::time::timeout(within, connecting)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads what is there into `into`; 0 is the end of the stream.
///
/// A read that leaves room has drained the socket, so the readiness is cleared
/// without the extra `recv` that would only say `EAGAIN`. That is race-free on
/// the current-thread runtimes used here: readiness is set by the same thread.
///
/// # Errors
/// Those of recv(2).
pub fn poll_read(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    into: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    loop {
        match stream.poll_read_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Ready(Ok(())) => {}
        }
        let room = into.chunk_mut().len();
        match stream.try_read_buf(into) {
            Ok(n) => {
                if 0 < n && n < room {
                    settle(stream, Interest::READABLE);
                }
                return Poll::Ready(Ok(n));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
}

/// Writes as much of `from` as the socket takes.
///
/// Few bytes in several pieces are joined first: one send(2) costs the kernel
/// less than a writev(2), by more than the copy costs us.
///
/// # Errors
/// Those of send(2) and writev(2).
pub fn poll_write_vectored(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    from: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let whole: usize = from.iter().map(|slice| slice.len()).sum();
    loop {
        match stream.poll_write_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Ready(Ok(())) => {}
        }
        let written = match from {
            [one] => stream.try_write(one),
            _ if whole <= JOINED => write_joined(stream, from),
            _ => stream.try_write_vectored(from),
        };
        match written {
            Ok(n) => {
                if 0 < n && n < whole {
                    settle(stream, Interest::WRITABLE);
                }
                return Poll::Ready(Ok(n));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
}

/// Bytes that are joined at most.
const JOINED: usize = 8 << 10;

fn write_joined(stream: &TcpStream, from: &[IoSlice<'_>]) -> io::Result<usize> {
    thread_local! {
        static JOIN: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(JOINED));
    }
    JOIN.with_borrow_mut(|join| {
        join.clear();
        from.iter().for_each(|slice| join.extend_from_slice(slice));
        stream.try_write(join)
    })
}

/// Clears `interest`'s readiness, so that the next poll waits for a new event.
pub fn settle(stream: &TcpStream, interest: Interest) {
    let would_block = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    let _: io::Result<()> = stream.try_io(interest, would_block);
}

/// Makes the coming close(2) a reset, which a peer cannot take for an end.
pub fn reset_on_close(stream: &TcpStream) {
    // Best effort: an already closed socket needs no reset.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
