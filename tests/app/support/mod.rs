//! What the whole-app tests share: the app on a free port, engines that do as
//! they are told, and a client that speaks HTTP by hand.

#[cfg(feature = "kubernetes")]
pub(crate) mod apiserver;
pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod engine;
pub(crate) mod front;
pub(crate) mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser as _;
use pilotfish::app::{self, App, DrainReport};
use pilotfish::cli::Cli;
use pilotfish::config::{Config, DrainSettings, ListedEngine, Settings};
use pilotfish::sim::faults::Fault;
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};

/// No wait in a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The whole app in this process, on a free loopback port.
pub(crate) struct TestApp {
    app: Option<App>,
    pub(crate) address: SocketAddr,
}

impl TestApp {
    /// An app with these engines, all for model `m`.
    pub(crate) fn new(urls: &[String]) -> Self {
        let engines: Vec<(&str, &str)> = urls.iter().map(|url| (url.as_str(), "m")).collect();
        Self::with(&engines, |_| {})
    }

    /// An app with engines and their models, and a configuration to change.
    pub(crate) fn with(engines: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            settings: Settings {
                engines: (engines.iter())
                    .map(|(url, model)| ListedEngine::new(url, &[model]).unwrap())
                    .collect(),
                ..Settings::default()
            },
            drain: DrainSettings {
                settle: Duration::ZERO,
                timeout: Duration::ZERO,
            },
            ..Config::default()
        };
        change(&mut config);
        let app = app::build(config).unwrap();
        Self {
            address: app.address,
            app: Some(app),
        }
    }

    /// An app started with these flags, as a command line has them.
    pub(crate) fn from_flags(flags: &[&str]) -> Self {
        let ours = [
            "pilotfish",
            "--host=127.0.0.1",
            "--port=0",
            "--drain-settle=0",
            "--drain-timeout=0",
        ];
        let cli = Cli::try_parse_from(ours.iter().chain(flags)).unwrap();
        let launch = cli.proxy.launch().unwrap();
        let app = app::build_with(launch.config, launch.kept).unwrap();
        Self {
            address: app.address,
            app: Some(app),
        }
    }

    /// An app whose settings come from that file.
    pub(crate) fn from_file(file: &Path) -> Self {
        Self::from_flags(&["--dynamic-config-json", file.to_str().unwrap()])
    }

    /// Where its admin listener is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.app.as_ref().unwrap().admin.unwrap()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.app.as_ref().unwrap().in_flight()
    }

    /// Stops it as SIGTERM does.
    pub(crate) fn drain(mut self) -> DrainReport {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(self.app.take().unwrap().drain())
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends `raw` on a connection of its own and reads the answer.
    pub(crate) fn send(&self, raw: &str) -> Answer {
        let mut client = self.connect();
        client.write(raw.as_bytes());
        client.answer().expect("an answer")
    }

    /// Posts JSON to the chat API.
    pub(crate) fn chat(&self, body: &str) -> Answer {
        self.send(&post("/v1/chat/completions", body))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
    }

    /// One value of /metrics, of the first series that starts so.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").text();
        let line = page.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("{series} not in\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until nothing is in flight.
    pub(crate) fn settled(&self) {
        eventually("nothing in flight", || self.in_flight() == 0);
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if let Some(app) = self.app.take() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(app.drain());
        }
    }
}

/// A simulated engine for model `m` that takes no time, and meets each request
/// with that fault.
pub(crate) fn sim(fault: Option<Fault>) -> SimEngine {
    let config = SimConfig {
        fault,
        ..SimConfig::new("m", Speed::instant())
    };
    SimEngine::start(config).unwrap()
}

/// A folder of its own, gone when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pilotfish-{name}-{}", std::process::id()));
        // What a test of an earlier process with this number left.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A POST with a JSON body.
pub(crate) fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Waits until `condition` holds, or fails saying what did not come.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A client connection that speaks HTTP by hand.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// Asserts an OpenAI-shaped error of ours.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.field("content-type"), Some("application/json"));
        assert!(self.field("x-request-id").is_some());
        self.assert_error_without_id(status, code);
    }

    /// The same, of an error made before there was a request.
    #[track_caller]
    pub(crate) fn assert_error_without_id(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let json = self.json();
        assert_eq!(json["error"]["code"], code, "{json}");
        assert!(json["error"]["message"].is_string() && json["error"]["type"].is_string());
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads more; false at the end, or when the connection was reset.
    pub(crate) fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                true
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(e) => panic!("{e}; so far: {}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// Reads until `text` has come, and takes everything up to its end.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> String {
        loop {
            let found = memchr::memmem::find(&self.buffer, text.as_bytes());
            if let Some(at) = found {
                let rest = self.buffer.split_off(at + text.len());
                let taken = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8(taken).unwrap();
            }
            assert!(
                self.more(),
                "ended before {text:?}: {}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// What has come and nobody has looked at.
    pub(crate) fn unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        self.unread()
    }

    /// Reads one answer; `None` when the connection ends before its head.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        self.answer_to(false)
    }

    /// Reads one answer; `head_only` when it is one to a HEAD.
    pub(crate) fn answer_to(&mut self, head_only: bool) -> Option<Answer> {
        let head = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(at + 4);
                break std::mem::replace(&mut self.buffer, rest);
            }
            if !self.more() {
                return None;
            }
        };
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let fields: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            fields,
            body: Vec::new(),
            whole: true,
        };
        if head_only || status < 200 || matches!(status, 204 | 304) {
            return Some(answer);
        }
        if answer.field("transfer-encoding").is_some() {
            answer.whole = self.chunks(&mut answer.body);
        } else if let Some(length) = answer.field("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length && self.more() {}
            answer.whole = self.buffer.len() >= length;
            let rest = self.buffer.split_off(length.min(self.buffer.len()));
            answer.body = std::mem::replace(&mut self.buffer, rest);
        } else {
            answer.body = self.rest();
        }
        Some(answer)
    }

    /// Reads a chunked body; false when it ends too early.
    fn chunks(&mut self, into: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.line() else {
                return false;
            };
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            while self.buffer.len() < size + 2 {
                if !self.more() {
                    return false;
                }
            }
            into.extend_from_slice(&self.buffer[..size]);
            self.buffer.drain(..size + 2);
            if size == 0 {
                return true;
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let rest = self.buffer.split_off(at + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(line).unwrap());
            }
            if !self.more() {
                return None;
            }
        }
    }
}
