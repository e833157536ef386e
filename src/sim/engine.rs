//! A simulated engine as a thing: what it is made of, starting and stopping.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

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
    /// A fault that every generating request meets.
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

impl Drop for SimEngine {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
