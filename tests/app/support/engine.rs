//! An engine that a test scripts: a closure for each connection, on raw sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use super::PATIENCE;

/// An engine on a free loopback port.
pub(crate) struct RawEngine {
    pub(crate) address: SocketAddr,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// One connection to it.
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request as the engine saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The head as it came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let mut lines = self.head.split("\r\n").skip(1);
        lines.find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
}

impl RawEngine {
    /// Runs `serve` for each connection, on a thread of its own.
    pub(crate) fn start(serve: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let (stop, count, serve) = (
            Arc::clone(&stopped),
            Arc::clone(&connections),
            Arc::new(serve),
        );
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let serve = Arc::clone(&serve);
                count.fetch_add(1, SeqCst);
                std::thread::spawn(move || {
                    serve(Conn {
                        stream,
                        buffer: Vec::new(),
                    });
                });
            }
        });
        Self {
            address,
            stopped,
            connections,
            thread: Some(thread),
        }
    }

    /// Answers every request with these bytes, model lists aside.
    pub(crate) fn answering(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::start(move |mut conn| {
            while let Some(seen) = conn.request() {
                if seen.head.starts_with("GET /v1/models ") {
                    conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
                } else {
                    conn.write(&answer);
                }
            }
        })
    }

    /// Answers every request with its own head, a blank line, and its body.
    pub(crate) fn echo() -> Self {
        Self::start(|mut conn| {
            while let Some(seen) = conn.request() {
                let length = seen.head.len() + seen.body.len();
                conn.write(&format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
                ));
                conn.write(&seen.head);
                conn.stream.write_all(&seen.body).unwrap();
            }
        })
    }

    /// Streams so many events, each when it is told to go on after the one
    /// before; a sender that is dropped leaves the stream unfinished.
    pub(crate) fn stepped(events: usize) -> (Self, mpsc::Sender<()>) {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let engine = Self::start(move |mut conn| {
            if conn
                .request()
                .is_none_or(|seen| seen.head.starts_with("GET"))
            {
                return;
            }
            conn.stream_head();
            for n in 0..events {
                conn.chunk(&format!("data: {n}\n\n"));
                if wait.lock().unwrap().recv_timeout(PATIENCE).is_err() {
                    conn.closed();
                    return;
                }
            }
            conn.chunk("data: [DONE]\n\n");
            conn.write("0\r\n\r\n");
        });
        (engine, go)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for RawEngine {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

impl Conn {
    pub(crate) fn write(&mut self, text: &str) {
        // A proxy that has left is what some tests are about.
        let _ = self.stream.write_all(text.as_bytes());
    }

    pub(crate) fn json(&mut self, body: &str) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        self.write(&format!(
            "{head}content-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    pub(crate) fn stream_head(&mut self) {
        self.write(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        );
    }

    pub(crate) fn chunk(&mut self, data: &str) {
        self.write(&format!("{:x}\r\n{data}\r\n", data.len()));
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(n) if n > 0 => {
                self.buffer.extend_from_slice(&piece[..n]);
                true
            }
            _ => false,
        }
    }

    /// The head of the next request; `None` when the proxy has closed.
    pub(crate) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(at + 4);
                let head = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// The next request, whole.
    pub(crate) fn request(&mut self) -> Option<Seen> {
        let head = self.head()?;
        self.rest_of(head)
    }

    /// The request that begins with this head, whole; `None` when it is cut.
    pub(crate) fn rest_of(&mut self, head: String) -> Option<Seen> {
        let mut seen = Seen {
            head,
            body: Vec::new(),
        };
        if let Some(length) = seen.field("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length {
                if !self.more() {
                    return None;
                }
            }
            let rest = self.buffer.split_off(length);
            seen.body = std::mem::replace(&mut self.buffer, rest);
        } else if seen.field("transfer-encoding").is_some() {
            while let Some(chunk) = self.next_chunk()? {
                seen.body.extend_from_slice(&chunk);
            }
        }
        Some(seen)
    }

    /// Outer `None`: cut; inner `None`: the end of the body.
    fn next_chunk(&mut self) -> Option<Option<Vec<u8>>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let size = std::str::from_utf8(&self.buffer[..at]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                if self.buffer.len() >= at + 2 + size + 2 {
                    let chunk = self.buffer[at + 2..at + 2 + size].to_vec();
                    self.buffer.drain(..at + 2 + size + 2);
                    return Some((size > 0).then_some(chunk));
                }
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Waits until the proxy has closed; tells what it sent before.
    pub(crate) fn closed(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buffer)
    }
}
