//! The sockets of an exchange, driven by hand: nothing runs beside but the proxy.

use std::io;
use std::net::Shutdown;
use std::task::Poll;
use std::time::Instant;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::super::messages;
use super::{
    CLIENT_VANISHES, ENGINE_CLOSES, ENGINE_IS_EARLY, PATIENCE, SILENT, Script, Seen, World,
};

/// An engine's side of a connection.
struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
    /// Where the request under way begins, and whether it has its answer.
    at: usize,
    is_answered: bool,
    to_send: Vec<u8>,
    /// Whether it ends when all is sent.
    ends: bool,
    has_ended: bool,
}

/// An exchange under way.
pub(super) struct Play<'a> {
    world: &'a World,
    script: &'a Script<'a>,
    client: Option<TcpStream>,
    unsent: &'a [u8],
    sockets: Vec<Socket>,
    seen: Seen,
    began: Instant,
}

impl<'a> Play<'a> {
    pub(super) fn new(world: &'a World, script: &'a Script<'a>, client: TcpStream) -> Self {
        Self {
            world,
            script,
            client: Some(client),
            unsent: script.client,
            sockets: Vec::new(),
            seen: Seen::default(),
            began: Instant::now(),
        }
    }

    /// Goes on until nothing has happened for a while.
    pub(super) async fn until_silent(&mut self) {
        let mut silent = 0;
        while silent < SILENT {
            silent = if self.step().await { 0 } else { silent + 1 };
        }
    }

    /// Lets the proxy run, then does what can be done; tells whether there was
    /// anything.
    pub(super) async fn step(&mut self) -> bool {
        assert!(self.began.elapsed() < PATIENCE, "it hangs");
        tokio::task::yield_now().await;
        let mut has_moved = self.send() | self.receive();
        for engine in &self.world.engines {
            has_moved |= self.accept(engine).await;
        }
        for at in 0..self.sockets.len() {
            has_moved |= self.read(at);
            self.answer(at);
            has_moved |= self.write(at);
        }
        has_moved
    }

    fn send(&mut self) -> bool {
        let Some(client) = self.client.as_ref().filter(|_| !self.unsent.is_empty()) else {
            return false;
        };
        let piece = &self.unsent[..self.script.client_piece.min(self.unsent.len())];
        match client.try_write(piece) {
            Ok(sent) => self.unsent = &self.unsent[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => self.unsent = &[],
        }
        true
    }

    fn receive(&mut self) -> bool {
        let Some(client) = self.client.as_ref().filter(|_| !self.seen.has_ended) else {
            return false;
        };
        let mut piece = [0; 16 << 10];
        match client.try_read(&mut piece) {
            Ok(0) => self.seen.has_ended = true,
            Ok(read) => self.seen.received.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => (self.seen.has_ended, self.seen.was_reset) = (true, true),
        }
        true
    }

    async fn accept(&mut self, engine: &TcpListener) -> bool {
        let accepting = std::future::poll_fn(|cx| {
            Poll::Ready(match engine.poll_accept(cx) {
                Poll::Ready(Ok((stream, _))) => Some(stream),
                _ => None,
            })
        });
        let Some(stream) = accepting.await else {
            return false;
        };
        self.sockets.push(Socket {
            stream,
            received: Vec::new(),
            at: 0,
            is_answered: false,
            to_send: Vec::new(),
            ends: false,
            has_ended: false,
        });
        true
    }

    fn read(&mut self, at: usize) -> bool {
        let socket = &mut self.sockets[at];
        if socket.has_ended {
            return false;
        }
        let mut piece = [0; 16 << 10];
        match socket.stream.try_read(&mut piece) {
            Ok(read @ 1..) => {
                socket.received.extend_from_slice(&piece[..read]);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            _ => {}
        }
        socket.has_ended = true;
        // What it has not sent nobody waits for; the other side may have gone.
        let _ = SockRef::from(&socket.stream).shutdown(Shutdown::Both);
        true
    }

    /// Answers what has come whole, or at once if it is that kind of engine.
    fn answer(&mut self, at: usize) {
        let socket = &mut self.sockets[at];
        let Some((request, used)) = messages::request(&socket.received[socket.at..], true) else {
            return;
        };
        if !socket.is_answered && (request.is_whole || self.script.says(ENGINE_IS_EARLY)) {
            socket.is_answered = true;
            if !self.script.answers.is_empty() {
                let which = self.seen.given.len() % self.script.answers.len();
                socket.to_send.extend_from_slice(self.script.answers[which]);
                self.seen.given.push((which, request.method.clone()));
            }
            socket.ends = self.script.says(ENGINE_CLOSES);
        }
        if request.is_whole {
            assert!(used > 0, "nothing can follow {request:?}");
            socket.at += used;
            socket.is_answered = false;
            self.seen.requests.push(request);
        }
    }

    fn write(&mut self, at: usize) -> bool {
        let socket = &mut self.sockets[at];
        if socket.has_ended {
            return false;
        }
        let mut has_moved = false;
        if !socket.to_send.is_empty() {
            let piece = &socket.to_send[..self.script.engine_piece.min(socket.to_send.len())];
            match socket.stream.try_write(piece) {
                Ok(sent) => drop(socket.to_send.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => socket.to_send.clear(),
            }
            has_moved = true;
        }
        if socket.ends && socket.to_send.is_empty() {
            // The other side may have gone already.
            let _ = SockRef::from(&socket.stream).shutdown(Shutdown::Write);
            socket.ends = false;
        }
        has_moved
    }

    /// The client says that it is done, or is gone.
    pub(super) fn client_leaves(&mut self) {
        self.seen.ended_first = self.seen.has_ended;
        self.unsent = &[];
        if let Some(client) = &self.client {
            // It may be gone already.
            let _ = SockRef::from(client).shutdown(Shutdown::Write);
        }
        if self.script.says(CLIENT_VANISHES) {
            self.client = None;
        }
    }

    /// What was seen of it.
    pub(super) fn end(mut self) -> Seen {
        for socket in &self.sockets {
            let rest = &socket.received[socket.at..];
            if let Some((part, _)) = messages::request(rest, true) {
                self.seen.parts.push(part);
            } else if !rest.is_empty() && !is_part_of_a_head(rest) {
                self.seen.nonsense.push(rest.to_vec());
            }
        }
        self.seen
    }
}

fn is_part_of_a_head(bytes: &[u8]) -> bool {
    let mut room = [httparse::EMPTY_HEADER; 256];
    let parsed = httparse::Request::new(&mut room).parse(bytes);
    parsed.is_ok_and(|status| status.is_partial())
}
