//! A simulated engine as a thing: what it is made of, starting and stopping.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use tokio::sync::{Semaphore, watch};

use super::faults::Fault;
use super::gauges::Gauges;
use super::serve::accept;
use super::speed::{PrefixCache, Speed};
use crate::net;

/// What a simulated engine is like.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The models that it serves.
    pub models: Vec<String>,
    /// How fast it is.
    pub speed: Speed,
    /// A fault that every generating request meets at first; it can be
    /// changed by [`SimEngine::set_fault`].
    pub fault: Option<Fault>,
}

impl SimConfig {
    /// An engine for this model on a free loopback port.
    #[must_use]
    pub fn new(model: &str, speed: Speed) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            models: vec![model.to_owned()],
            speed,
            fault: None,
        }
    }
}

/// What an engine's connections share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) config: SimConfig,
    /// What generating requests that come now meet.
    pub(super) fault: ArcSwapOption<Fault>,
    pub(super) gauges: Gauges,
    pub(super) slots: Semaphore,
    pub(super) cache: Mutex<PrefixCache>,
    pub(super) requests: AtomicU64,
    /// Counts restarts; a connection of an earlier life breaks.
    pub(super) life: watch::Sender<u64>,
}

/// A running simulated engine, on a thread of its own.
#[derive(Debug)]
pub struct SimEngine {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl SimEngine {
    /// Starts an engine.
    ///
    /// # Errors
    /// When the port is taken or a thread cannot be had.
    pub fn start(config: SimConfig) -> io::Result<Self> {
        let listener = net::listen(config.listen)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            fault: ArcSwapOption::from_pointee(config.fault.clone()),
            gauges: Gauges::default(),
            slots: Semaphore::new(config.speed.max_running),
            cache: Mutex::new(PrefixCache::new(config.speed.cache_blocks)),
            requests: AtomicU64::new(0),
            life: watch::Sender::new(0),
            config,
        });
        let (stop, mut stopped) = watch::channel(false);
        let shared = Arc::clone(&state);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("sim".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        result = accept(listener, shared) => {
                            if let Err(error) = result {
                                tracing::error!(%error, "a simulated engine failed");
                            }
                        }
                        _ = stopped.changed() => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            state,
            stop,
            thread: Some(thread),
        })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What generating requests meet from now on; those that have begun go on
    /// as they began.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state.fault.store(fault.map(Arc::new));
    }

    /// What it has counted.
    #[must_use]
    pub fn gauges(&self) -> &Gauges {
        &self.state.gauges
    }

    /// Waits until it stops, which it does only by itself when it fails.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ = thread.join();
        }
    }
}

/// Every connection breaks at once, and the port is free again.
impl Drop for SimEngine {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    /// Sends one request, and reads all until the connection ends.
    fn ask(engine: &SimEngine, fields: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(engine.address).unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        let body = r#"{"model":"m","max_tokens":4}"#;
        let length = body.len();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{fields}content-length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = vec![0; 12];
        // A fault may leave nothing to read.
        let read = stream.read(&mut answer).unwrap_or(0);
        answer.truncate(read);
        (stream, String::from_utf8(answer).unwrap())
    }

    fn start(listen: Option<SocketAddr>) -> SimEngine {
        let mut config = SimConfig::new("m", Speed::instant());
        config.listen = listen.unwrap_or(config.listen);
        SimEngine::start(config).unwrap()
    }

    #[test]
    fn a_fault_can_be_changed_while_it_runs() {
        let engine = start(None);
        assert_eq!(ask(&engine, "").1, "HTTP/1.1 200");
        engine.set_fault(Some(Fault::Status(503)));
        assert_eq!(ask(&engine, "").1, "HTTP/1.1 503");
        engine.set_fault(Some(Fault::ContinueForever));
        assert_eq!(ask(&engine, "").1, "HTTP/1.1 100");
        engine.set_fault(None);
        assert_eq!(ask(&engine, "").1, "HTTP/1.1 200");
    }

    #[test]
    fn it_can_be_killed_and_started_again_on_the_same_port() {
        let mut engine = start(None);
        for _ in 0..3 {
            let (mut open, _) = ask(&engine, "");
            let address = engine.address;
            drop(engine);
            let mut rest = Vec::new();
            // An end or a reset, but no waiting.
            if let Err(error) = open.read_to_end(&mut rest) {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            assert!(TcpStream::connect(address).is_err(), "nobody listens");
            engine = start(Some(address));
            assert_eq!(ask(&engine, "").1, "HTTP/1.1 200");
        }
    }

    #[test]
    fn whole_answers_are_broken_off_too() {
        let engine = start(None);
        let whole = |fault: &str| {
            let (mut stream, mut text) = ask(&engine, &format!("x-sim-fault: {fault}\r\n"));
            let mut rest = Vec::new();
            // A reset comes after what was sent before it.
            let _ = stream.read_to_end(&mut rest);
            text.push_str(&String::from_utf8(rest).unwrap());
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            (head.to_ascii_lowercase(), body.to_owned())
        };
        for fault in ["truncate-after=2", "reset-after=2"] {
            let (head, body) = whole(fault);
            let said = head.rsplit("content-length: ").next().unwrap();
            assert!(body.len() < said.parse().unwrap(), "{fault}: {body}");
            assert!(body.starts_with("{"), "{fault}: {body}");
        }
        let (head, body) = whole("garbage-after=2");
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        assert!(body.ends_with("this is no chunk\r\n"), "{body}");
        assert!(whole("garbage").0.starts_with("this is no http"));
        assert!(whole("garbage-head").0.starts_with("http/1.1 200 ok"));
    }
}
