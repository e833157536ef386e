//! Configuration: plain data and defaults.
//!
//! Whoever reads flags or files fills these structs; whoever acts reads them.
//! This module imports nothing of ours.

pub mod attribute;
pub mod auth;
pub mod difference;
pub mod dynamic;
pub mod engine_tls;
pub mod forwarded;
pub mod goals;
pub mod kubernetes;
pub mod locality;
pub mod path;
pub mod policies;
pub mod problem;
pub mod reports;
pub mod resilience;
pub mod resolve;
pub mod scraping;
pub mod secret;
pub mod selector;
pub mod tls;
pub mod validate;
pub mod watch;

mod bounds;
mod flat;
mod units;
mod url;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use bounds::{Bounds, Limits};
pub use engine_tls::EngineTls;
pub use kubernetes::Kubernetes;
pub use locality::Locality;
pub use policies::Routing;
pub use reports::{AccessLog, Collector, GRPC_PORT, LineForm, LogTarget, Otlp, TraceSettings};
pub use resilience::{Admission, Breaker, Causes, Checks, Commit, Retry, Shed};
pub use scraping::{EngineType, Scraping};
pub use units::{Seconds, duration};
pub use url::{EngineUrl, UrlError};

use dynamic::DynamicFile;

/// Everything that the process is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The listener for those who run us; none by default.
    pub admin: Option<SocketAddr>,
    /// TLS of the public listener; none by default.
    pub tls: Option<tls::TlsSettings>,
    /// Cut from the front of every path; empty or `/prefix`.
    pub root_path: String,
    /// Data-path threads, each with its own runtime and connection pool.
    pub workers: usize,
    /// Where we run.
    pub locality: Locality,
    /// What may change while we run.
    pub settings: Settings,
    /// The flags: what holds for keys that the dynamic file does not have.
    pub flags: DynamicFile,
    /// The dynamic file.
    pub dynamic: Option<DynamicSource>,
    /// How long readiness waits for engines to be found, and to tell their models.
    pub discovery_timeout: Duration,
    /// Bounds on what the process holds.
    pub bounds: Bounds,
    /// How the process stops.
    pub drain: DrainSettings,
    /// Statistics of the traffic.
    pub stats: StatsSettings,
    /// The access log; none by default.
    pub access_log: Option<AccessLog>,
    /// Traces; none by default.
    pub traces: Option<TraceSettings>,
    /// How engines that speak TLS are spoken to.
    pub engine_tls: EngineTls,
    /// Who may call, and by which keys we call engines.
    pub auth: auth::AuthSettings,
    /// Whether errors of `/v1/infer` have the status 200, as in the reference.
    pub aios_compat_errors: bool,
    /// Proxies before us that are believed.
    pub trusted_proxies: forwarded::TrustedProxies,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8001),
            admin: None,
            tls: None,
            root_path: String::new(),
            workers: default_workers(),
            locality: Locality::default(),
            settings: Settings::default(),
            flags: DynamicFile::default(),
            dynamic: None,
            discovery_timeout: DISCOVERY_TIMEOUT,
            bounds: Bounds::default(),
            drain: DrainSettings::default(),
            stats: StatsSettings::default(),
            access_log: None,
            traces: None,
            engine_tls: EngineTls::default(),
            auth: auth::AuthSettings::default(),
            aios_compat_errors: false,
            trusted_proxies: forwarded::TrustedProxies::default(),
        }
    }
}

/// Where the dynamic configuration comes from.
#[derive(Debug, Clone)]
pub struct DynamicSource {
    /// The file.
    pub file: PathBuf,
    /// The file as it was when we started.
    pub first: validate::Loaded,
}

/// What may change while we run: validated, and applied as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The engines, in the order given; none where they are found in a cluster.
    pub engines: Vec<ListedEngine>,
    /// How engines are found in a cluster; `None`: they are listed.
    pub kubernetes: Option<Kubernetes>,
    /// Other names of models: alias → model.
    pub aliases: BTreeMap<String, String>,
    /// How an engine is chosen.
    pub routing: Routing,
    /// Bounds on what one request may hold.
    pub limits: Limits,
    /// How much is let in at once.
    pub admission: Admission,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// When an engine is left alone.
    pub breaker: Breaker,
    /// What is sent again.
    pub retry: Retry,
    /// Asking engines how they are.
    pub checks: Checks,
    /// What engines are asked to tell of themselves.
    pub scraping: Scraping,
    /// Whether a stream that an engine cut ends with an `error` event.
    pub stream_error_events: bool,
}

impl Settings {
    /// Whether anyone looks at what engines tell of themselves.
    #[must_use]
    pub fn looks_at_live(&self) -> bool {
        self.routing.looks_at_live() || !self.admission.shed.is_off()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engines: Vec::new(),
            kubernetes: None,
            aliases: BTreeMap::new(),
            routing: Routing::default(),
            limits: Limits::default(),
            admission: Admission::default(),
            timeouts: Timeouts::default(),
            breaker: Breaker::default(),
            retry: Retry::default(),
            checks: Checks::default(),
            scraping: Scraping::default(),
            stream_error_events: true,
        }
    }
}

/// One engine as the user wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedEngine {
    /// Where it listens; also its identity.
    pub url: EngineUrl,
    /// Names of the models it serves; `None`: those that it tells of itself.
    pub models: Option<Vec<String>>,
    /// All else that was said of it.
    pub traits: Arc<Traits>,
}

impl ListedEngine {
    /// An engine of which nothing but this is said.
    ///
    /// # Errors
    /// A text that is no URL.
    pub fn new(url: &str, models: &[&str]) -> Result<Self, UrlError> {
        Ok(Self {
            url: EngineUrl::parse(url)?,
            models: Some(models.iter().map(ToString::to_string).collect()),
            traits: Arc::default(),
        })
    }
}

/// What is said of an engine beside where it is and what it serves.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Traits {
    /// Its share of the traffic, relative to others.
    pub weight: f64,
    /// The group of engines that it is an instance of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Names with values, to filter by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How far it may be trusted with what prompts say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<dynamic::Privacy>,
    /// What its tokens cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<dynamic::Cost>,
    /// Whose words it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_type: Option<EngineType>,
    /// Any document.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub metadata: serde_json::Value,
    /// Whether it is to get nothing new.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Where its own key comes from; `None`: it has the common one, if any.
    #[serde(skip)]
    pub key: Option<auth::KeyFrom>,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            weight: 1.0,
            block: None,
            region: None,
            labels: BTreeMap::new(),
            privacy: None,
            cost: None,
            engine_type: None,
            metadata: serde_json::Value::Null,
            draining: false,
            key: None,
        }
    }
}

/// Deadlines; all are checked about ten times a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// From the request's last byte to the first piece of the answer's body.
    pub first_token: Option<Duration>,
    /// Between two pieces of an engine's answer.
    pub engine_idle: Duration,
    /// From the request's head to the end of the answer; also the most that a
    /// request may ask for itself.
    pub total: Option<Duration>,
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
            engine_head: Duration::from_secs(300),
            first_token: None,
            total: None,
            engine_idle: Duration::from_secs(300),
            pool_idle: Duration::from_secs(3),
        }
    }
}

/// How long readiness waits for engines to be found, and to tell their models: as
/// long as an engine may take to tell them.
pub const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Statistics of the traffic, and what of it is logged.
#[derive(Debug, Clone)]
pub struct StatsSettings {
    /// The sliding window.
    pub window: Duration,
    /// How often engines' own metrics are read.
    pub scrape_every: Duration,
    /// How often a table of the engines is logged.
    pub log_every: Option<Duration>,
    /// Whether each choice of an engine is logged.
    pub log_requests: bool,
}

impl Default for StatsSettings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            scrape_every: Duration::from_secs(30),
            log_every: None,
            log_requests: false,
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
