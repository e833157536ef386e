//! What keeps requests from being lost: when engines are set aside, what is
//! sent again, how much is let in.

use std::time::Duration;

/// When an engine is left alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Failures in a row.
    pub failures: u32,
    /// Or this share of the requests of the last half minute.
    pub ratio: f64,
    /// Fewer requests have no share.
    pub min_requests: u32,
    /// The first ejection; each that follows soon is twice as long.
    pub ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// The share of a model's engines that may be ejected at once: beyond it all
    /// are asked, rather than drown the rest. Those that cannot be reached are
    /// not counted.
    pub max_ejected: f64,
    /// Probes that must go well, one after another, before it is trusted.
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            ratio: 0.5,
            min_requests: 20,
            ejection: Duration::from_secs(5),
            max_ejection: Duration::from_secs(300),
            max_ejected: 0.5,
            probes: 3,
        }
    }
}

/// What is sent again, when an engine had it and did not answer. What no
/// engine had goes elsewhere in any case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Further engines.
    pub attempts: u32,
    /// After what.
    pub on: Causes,
    /// Until when.
    pub until: Commit,
    /// The share of the requests of the last ten seconds that may be sent again.
    pub budget: f64,
    /// So many a second may be, however few requests there are.
    pub reserve: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: Causes::default(),
            until: Commit::Head,
            budget: 0.2,
            reserve: 3.0,
        }
    }
}

/// After what a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Causes {
    /// The connection broke, or what came was no HTTP.
    pub reset: bool,
    /// 429 or 503.
    pub busy: bool,
    /// No answer in time.
    pub timeout: bool,
    /// 500, 502, 504, ...: another 5xx than 501 and 503.
    pub server_error: bool,
}

impl Default for Causes {
    fn default() -> Self {
        Self {
            reset: true,
            busy: true,
            // The engine may be at work on it: the same work twice.
            timeout: false,
            server_error: false,
        }
    }
}

/// Up to which point another engine may answer instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The head of the answer, which engines send before the first token.
    Head,
    /// The first piece of its body.
    FirstPiece,
}

/// How much is let in at once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Admission {
    /// Requests of the whole process.
    pub max_in_flight: Option<u32>,
    /// Requests of each model.
    pub max_per_model: Option<u32>,
    /// Requests of each engine.
    pub max_per_engine: Option<u32>,
    /// Requests that wait for a place.
    pub queue_size: u32,
    /// How long each waits.
    pub queue_timeout: Duration,
    /// From when engines' own queues are too long.
    pub shed: Shed,
}

/// When requests are turned away, since every engine of the model tells that it
/// has too much to do.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shed {
    /// Requests that wait in the engine.
    pub requests_waiting: Option<f64>,
    /// Its KV cache's share in use.
    pub kv_cache_usage: Option<f64>,
}

impl Admission {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_off(&self) -> bool {
        let limits = [self.max_in_flight, self.max_per_model, self.max_per_engine];
        limits.iter().all(Option::is_none) && self.shed.is_off()
    }
}

impl Shed {
    /// Whether no request is.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.requests_waiting.is_none() && self.kv_cache_usage.is_none()
    }
}

/// Asking engines how they are, whether there is traffic or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// How often; `None`: only those that are set aside.
    pub every: Option<Duration>,
    /// How long an answer may take.
    pub within: Duration,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            every: None,
            within: Duration::from_secs(10),
        }
    }
}
