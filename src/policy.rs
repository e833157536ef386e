//! Who gets the request: a closed set of policies, each the same three steps,
//! filter → score → pick.
//!
//! Pure: no I/O, no clock, no logging, no allocation; `now` and the random
//! generator are passed in. Adding a policy is one file in `policy/`, one arm in
//! `pick` and one in `explain`, its settings in `config/policies.rs`, and
//! one line in the benches.

pub mod advice;
pub mod blocks;
pub mod bound;
pub mod explain;
pub mod in_force;
pub mod memory;
pub mod qos;
pub mod reason;

mod advised;
mod affinity;
mod federation;
mod least;
mod least_load;
mod prefix;
mod ranges;
mod rendezvous;
mod round_robin;
mod scored;
mod sequential;
mod top;
mod units;
mod view;
mod weighted;

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::config::policies::{PolicyKind, SlowStart};
use crate::fleet::attributes::Freshness;
use crate::fleet::layout::Capability;
use crate::fleet::{CandidateSet, Engine};
pub use advice::Advice;
use bound::Bound;
pub use in_force::{Policies, Policy};
use memory::Prefix;
use qos::Qos;
use reason::{Choice, Reason};
use view::{Noted, View};

/// What a policy may know of the request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// What it is placed by: its session, its user, ...
    pub key: Option<String>,
    /// Who has seen the beginning of its prompt.
    pub prefix: Prefix,
    /// Tokens of the prompt, by estimate.
    pub prompt_tokens: u64,
    /// Tokens of the answer at most.
    pub max_tokens: Option<u64>,
    /// What it needs of the engine.
    pub qos: Qos,
    /// What kind of work it is, when its path tells.
    pub capability: Option<Capability>,
    /// Whom others advise to take.
    #[serde(default, skip_serializing_if = "Advice::is_none")]
    pub advice: Advice,
}

/// When a decision is made, and what follows from that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// The time, on the fleet's clock.
    pub now: Duration,
    /// The greatest age of attributes that count.
    pub stale_after: Duration,
    /// What holds for all policies.
    pub rules: Rules,
}

/// What holds for every policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// How new engines begin.
    pub slow_start: SlowStart,
    /// The share of the candidates that may be ejected before all are asked.
    pub max_ejected: f64,
    /// Requests that one engine may have.
    pub max_per_engine: u32,
}

impl Rules {
    /// Those of the settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            slow_start: settings.routing.slow_start,
            max_ejected: settings.breaker.max_ejected,
            max_per_engine: settings.admission.max_per_engine.unwrap_or(u32::MAX),
        }
    }
}

impl Moment {
    fn freshness(&self) -> Freshness {
        Freshness::new(self.now, self.stale_after)
    }
}

/// Why nobody was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There are no candidates, or all were tried.
    Nobody,
    /// No engine does this kind of work.
    NoCapacity,
    /// All that could are set aside.
    AllUnhealthy,
    /// Those that could have as many requests as they may.
    Full,
    /// None that is up may see the prompt.
    PrivacyViolation,
    /// None that may is quick enough.
    QosViolation,
    /// None scores high enough.
    LowScore,
    /// None has the metadata and labels that are asked for.
    NoMatch,
    /// None that has them does as well now as is asked for.
    NoMatchNow,
}

/// Engines that one request has already tried, by [`Engine::key`]: a retry
/// decides anew without them.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    keys: [u64; Self::MOST],
    count: usize,
}

impl Tried {
    /// No request tries more engines than this.
    pub const MOST: usize = 8;

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

/// One question: among whom, for what, without whom, when.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Among these.
    pub set: &'a CandidateSet,
    /// For this request.
    pub asked: &'a Asked,
    /// Without these.
    pub tried: &'a Tried,
    /// At this moment.
    pub moment: Moment,
    /// What of a selection by attributes was looked at before; `None`: it is
    /// looked at now.
    pub bound: Option<&'a Bound>,
}

/// Chooses an engine; tells its position in the set.
///
/// Engines that are set aside, or that have no weight, are chosen only when
/// there are no others, nor any further away; those that were tried, sleep, drain,
/// are full or cannot be reached, never.
///
/// # Errors
/// Why there is none.
pub fn decide(kind: &PolicyKind, question: &Question<'_>, rng: &mut Rng) -> Result<usize, Refusal> {
    decide_noting(kind, question, rng, &Noted::default())
}

/// The same, and by which branch.
///
/// # Errors
/// Why there is none.
pub fn choose(
    kind: &PolicyKind,
    question: &Question<'_>,
    rng: &mut Rng,
) -> Result<Choice, Refusal> {
    let noted = Noted::default();
    let at = decide_noting(kind, question, rng, &noted)?;
    let reason = noted.reason();
    Ok(Choice { at, reason })
}

/// The same, and what is noted on the way.
fn decide_noting(
    kind: &PolicyKind,
    question: &Question<'_>,
    rng: &mut Rng,
    noted: &Noted,
) -> Result<usize, Refusal> {
    let view = View::new(question, noted);
    // With others to be asked after these, nobody is asked for want of a better one.
    let is_last = question.set.tier.is_none();
    if view.is_panicking() && !is_last {
        return Err(Refusal::AllUnhealthy);
    }
    match kind {
        PolicyKind::Sequential(then) => decide_noting(then, question, rng, noted),
        PolicyKind::Smart(of) => decide_noting(&of.strategy, question, rng, noted),
        PolicyKind::Federation(of) => federation::pick(of, &view, rng),
        _ => match pick(kind, &view, rng) {
            Some(at) => {
                if view.is_panicking() {
                    view.takes(Reason::Panic);
                }
                Ok(at)
            }
            None if !is_last => Err(refusal(kind, &view)),
            // There will be a place; those that are set aside are no substitute.
            None if refusal(kind, &view) == Refusal::Full => Err(Refusal::Full),
            None => {
                let chosen = pick(kind, &view.lenient(), rng);
                view.takes(Reason::LastResort);
                chosen.ok_or_else(|| refusal(kind, &view.lenient()))
            }
        },
    }
}

/// Why a policy chooses nobody.
fn refusal(kind: &PolicyKind, view: &View<'_>) -> Refusal {
    match kind.scored() {
        Some(of) => scored::refusal(of, view),
        None => view.refusal(),
    }
}

/// One policy's choice among those that are open to it.
fn pick(kind: &PolicyKind, view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    match kind {
        PolicyKind::RoundRobin => round_robin::pick(view),
        PolicyKind::Random => view.draw(rng),
        PolicyKind::Weighted => weighted::pick(view, rng),
        PolicyKind::LeastConnections => least::connections(view, rng),
        PolicyKind::LeastLatency => least::latency(view, rng),
        PolicyKind::LeastLoad => least_load::pick(view, rng),
        PolicyKind::Session(of) | PolicyKind::ConsistentHash(of) => affinity::pick(of, view, rng),
        PolicyKind::PrefixAware(of) => prefix::pick(*of, view, rng),
        PolicyKind::Scored(of) => scored::pick(of, view, rng),
        PolicyKind::Advised(of) => advised::pick(of, view, rng),
        // These never stand within another.
        PolicyKind::Federation(_) | PolicyKind::Sequential(_) | PolicyKind::Smart(_) => {
            view.draw(rng)
        }
    }
}

#[cfg(test)]
mod tests;
