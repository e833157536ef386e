//! Configuration: plain data and defaults, nothing else.
//!
//! Whoever reads flags or files fills these structs; whoever acts reads them.
//! This module imports nothing of ours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Everything that the process is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Engines as listed by the user, in the user's order.
    pub engines: Vec<ListedEngine>,
    /// How an engine is chosen.
    pub routing: RoutingLogic,
    /// Data-path threads, each with its own runtime and connection pool.
    pub workers: usize,
    /// Bounds on what is held.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// How the process stops.
    pub drain: DrainSettings,
    /// Whether a stream that an engine cut ends with an `error` event.
    pub stream_error_events: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8001),
            engines: Vec::new(),
            routing: RoutingLogic::RoundRobin,
            workers: default_workers(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            drain: DrainSettings::default(),
            stream_error_events: true,
        }
    }
}

/// One engine as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEngine {
    /// The URL's text, kept as written.
    pub url: String,
    /// Names of the models it serves.
    pub models: Vec<String>,
}

/// The policies that `--routing-logic` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingLogic {
    /// Each engine of a candidate set in its turn.
    RoundRobin,
}

/// Bounds on what one request, and all requests, may hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one body that the peek holds until it can be routed.
    pub max_peek_bytes: usize,
    /// Bytes of one body that are kept for a retry.
    pub max_replay_bytes: usize,
    /// Bytes of all bodies held at once; beyond it: 503.
    pub peek_budget_bytes: usize,
    /// Idle connections kept for each engine by each worker.
    pub max_idle_per_engine: usize,
    /// Client connections that one worker serves at once.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_peek_bytes: 32 << 20,
            max_replay_bytes: 1 << 20,
            peek_budget_bytes: 256 << 20,
            max_idle_per_engine: 1024,
            max_connections: 65_536,
        }
    }
}

/// Deadlines; all are checked about ten times a second.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// From a request's first byte to the end of its head.
    pub client_head: Duration,
    /// An idle keep-alive connection of a client.
    pub client_idle: Duration,
    /// Between two pieces of a request body.
    pub client_body_idle: Duration,
    /// A client that takes no bytes though there are some.
    pub client_write_stall: Duration,
    /// Connecting to an engine.
    pub connect: Duration,
    /// From the request's last byte to the head of the engine's answer.
    pub engine_head: Duration,
    /// Between two pieces of an engine's answer.
    pub engine_idle: Duration,
    /// How long an idle engine connection is kept. Below 5 s, since uvicorn
    /// closes at 5 s and a connection that is closed while a request is on its
    /// way costs a retry.
    pub pool_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            client_head: Duration::from_secs(10),
            client_idle: Duration::from_secs(75),
            client_body_idle: Duration::from_secs(30),
            client_write_stall: Duration::from_secs(60),
            connect: Duration::from_secs(2),
            engine_head: Duration::from_secs(600),
            engine_idle: Duration::from_secs(300),
            pool_idle: Duration::from_secs(3),
        }
    }
}

/// Slowest request body that is waited for, in bytes a second, after
/// [`Timeouts::client_body_idle`] has passed since its start.
pub const MIN_BODY_BYTES_PER_SECOND: u64 = 1024;

/// How the process stops.
#[derive(Debug, Clone)]
pub struct DrainSettings {
    /// How long we go on accepting after readiness has failed.
    pub settle: Duration,
    /// How long open streams may go on after that.
    pub timeout: Duration,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(2),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Worker threads by default: a sidecar has few connections, and a second
/// worker on two cores takes the core that its neighbour works on.
#[must_use]
pub fn default_workers() -> usize {
    match std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
        0..=2 => 1,
        3..=8 => 2,
        _ => 4,
    }
}
