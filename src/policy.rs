//! Who gets the request: a closed set of policies, each the same three steps,
//! filter → score → pick.
//!
//! Pure: no I/O, no clock, no logging, no allocation. Adding a policy is one
//! file in `policy/`, one arm here, one in `config`, one line in the benches.

mod round_robin;
mod session;

use crate::fleet::{Candidate, CandidateSet, Engine};

/// How an engine is chosen among those that can serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each engine in its turn.
    RoundRobin,
    /// The same engine for the same session.
    Session,
}

impl Policy {
    /// The name that flags and metrics use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::Session => "session",
        }
    }
}

/// What a policy may know of the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The session that it belongs to.
    pub session: Option<&'a str>,
}

/// Engines that one request has already tried, by [`Engine::key`]: a retry
/// decides anew without them.
#[derive(Debug, Default)]
pub struct Tried {
    keys: [u64; Self::MOST],
    count: usize,
}

impl Tried {
    /// No request tries more engines than this.
    pub const MOST: usize = 3;

    /// Adds an engine; one beyond [`Tried::MOST`] is not recorded, and
    /// [`Tried::exhausted`] says so.
    pub fn add(&mut self, engine: &Engine) {
        if let Some(slot) = self.keys.get_mut(self.count) {
            *slot = engine.key;
            self.count += 1;
        }
    }

    /// Whether `engine` was tried.
    #[must_use]
    pub fn contains(&self, engine: &Engine) -> bool {
        self.keys[..self.count].contains(&engine.key)
    }

    /// Whether no further engine may be tried.
    #[must_use]
    pub fn exhausted(&self) -> bool {
        self.count == Self::MOST
    }
}

/// Chooses an engine of `candidates` that is not in `tried`.
#[must_use]
pub fn decide<'a>(
    policy: Policy,
    candidates: &'a CandidateSet,
    asked: Asked<'_>,
    tried: &Tried,
) -> Option<&'a Candidate> {
    match policy {
        Policy::RoundRobin => round_robin::pick(candidates, tried),
        Policy::Session => session::pick(candidates, asked, tried),
    }
}
