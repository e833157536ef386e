//! Policies as settings have them: names, and what each is told.

mod allow;
mod selection;
mod smart;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::EngineUrl;
use super::Timeouts;
use super::dynamic::Privacy;
use super::goals::{self, NamedGoal};
pub use allow::Allow;
pub use selection::{APP_MAP, Advised, Adviser, Direction, Goal, Picker, Scored, use_case};
pub use smart::{Alternative, RequirementOf, Smart};

/// Goals of one policy at most.
pub const MOST_GOALS: usize = 16;
/// Candidates that `top_k` and `max_candidates` keep at most.
pub const MOST_KEPT: usize = 64;

/// Who gets a request, and by which other policies one may ask.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// The policy of requests that name none.
    pub policy: PolicySpec,
    /// Those that a request may name.
    pub named: BTreeMap<String, PolicySpec>,
    /// Named goals: the shipped ones, and the configuration's own.
    pub goals: Arc<BTreeMap<Arc<str>, NamedGoal>>,
    /// Keys of engines' metadata that goals look at, named ones too.
    pub columns: Vec<String>,
    /// How a new engine begins.
    pub slow_start: SlowStart,
    /// What requests may ask for in fields of their head.
    pub allow: Allow,
    /// Share of decisions that are recorded though nobody asked, 0 to 1.
    pub decision_sample: f64,
    /// Whether the engines that are nearest to us come before all others.
    pub prefer_local: bool,
    /// Where those listen that requests and registered policies may have asked.
    pub matchers: Vec<EngineUrl>,
    /// A policy of type `smart` that decides beside the one in force, and is only
    /// counted.
    pub shadow: Option<PolicySpec>,
}

impl Default for Routing {
    fn default() -> Self {
        let mut columns = Vec::new();
        Self {
            policy: PolicySpec::plain("roundrobin", PolicyKind::RoundRobin),
            named: BTreeMap::new(),
            goals: Arc::new(goals::shipped(&[], &mut columns)),
            columns,
            slow_start: SlowStart::default(),
            allow: Allow::default(),
            decision_sample: 0.0,
            prefer_local: false,
            matchers: Vec::new(),
            shadow: None,
        }
    }
}

impl Routing {
    /// Whether any policy learns from what models answered.
    #[must_use]
    pub fn learns(&self) -> bool {
        let mut policies = self.named.values().chain([&self.policy]);
        policies.any(|policy| matches!(policy.kind, PolicyKind::Smart(_)))
    }

    /// Whether any policy looks at what engines tell of themselves.
    #[must_use]
    pub fn looks_at_live(&self) -> bool {
        let mut policies = self.named.values().chain([&self.policy]);
        policies.any(|policy| policy.kind.looks_at_live())
    }
}

/// A policy and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySpec {
    /// As configured: a built-in name, or one of `policies`.
    pub name: Arc<str>,
    /// What it does.
    pub kind: PolicyKind,
    /// Deadlines of its requests, where they are its own.
    pub timeouts: Option<Timeouts>,
}

impl PolicySpec {
    /// A policy of that name.
    #[must_use]
    pub fn plain(name: &str, kind: PolicyKind) -> Self {
        Self {
            name: Arc::from(name),
            kind,
            timeouts: None,
        }
    }
}

/// What a policy does.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyKind {
    /// Each engine in its turn, by weight.
    RoundRobin,
    /// Any.
    Random,
    /// At random, by weight.
    Weighted,
    /// The fewest requests for its weight.
    LeastConnections,
    /// The quickest first token for its load, of two.
    LeastLatency,
    /// The fewest tokens outstanding, of two.
    LeastLoad,
    /// The same engine for the same session, by the reference's ring.
    Session(Affinity),
    /// The same engine for the same key.
    ConsistentHash(Affinity),
    /// The engine that has seen the beginning of the prompt.
    PrefixAware(PrefixAware),
    /// The best by goals.
    Scored(Scored),
    /// The composite of health, latency, privacy, locality and cost.
    Federation(Box<Federation>),
    /// A model in its turn, then an engine of it.
    Sequential(Box<PolicyKind>),
    /// The cheapest model that is likely to be right, then an engine of it.
    Smart(Box<Smart>),
    /// The one that someone who is asked names; that failing, the best by goals.
    Advised(Box<Advised>),
}

impl PolicyKind {
    /// Those that need to be told whom they ask.
    pub const ADVISED: [&'static str; 2] = ["remote", "llm"];

    /// The built-in policies' names, in the order of the documentation, without
    /// these.
    pub const NAMES: [&'static str; 13] = [
        "roundrobin",
        "session",
        "consistenthash",
        "weighted",
        "leastconnections",
        "leastlatency",
        "leastload",
        "prefixaware",
        "random",
        "scored",
        "federation",
        "sequential",
        "smart",
    ];

    /// Its built-in name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::Random => "random",
            Self::Weighted => "weighted",
            Self::LeastConnections => "leastconnections",
            Self::LeastLatency => "leastlatency",
            Self::LeastLoad => "leastload",
            Self::Session(_) => "session",
            Self::ConsistentHash(_) => "consistenthash",
            Self::PrefixAware(_) => "prefixaware",
            Self::Scored(_) => "scored",
            Self::Federation(_) => "federation",
            Self::Sequential(_) => "sequential",
            Self::Smart(_) => "smart",
            Self::Advised(of) => match of.adviser {
                Adviser::Remote { .. } => "remote",
                Adviser::Llm { .. } => "llm",
            },
        }
    }

    /// The policy that finally picks among engines: a composite's own.
    #[must_use]
    pub fn innermost(&self) -> &Self {
        match self {
            Self::Sequential(then) => then.innermost(),
            Self::Smart(of) => of.strategy.innermost(),
            Self::Federation(of) => of.strategy.innermost(),
            other => other,
        }
    }

    /// All policies that may finally pick: models may have their own.
    pub fn strategies(&self) -> impl Iterator<Item = &Self> {
        let models = match self {
            Self::Smart(of) => of.models.as_slice(),
            _ => &[],
        };
        let own = models.iter().filter_map(|model| model.strategy.as_ref());
        std::iter::once(self.innermost()).chain(own)
    }

    /// Whether requests may leave it the choice of their model among several.
    #[must_use]
    pub fn chooses_models(&self) -> bool {
        matches!(self, Self::Sequential(_) | Self::Smart(_))
    }

    /// What it selects by, if it selects by attributes.
    #[must_use]
    pub fn scored(&self) -> Option<&Scored> {
        match self {
            Self::Scored(of) => Some(of),
            Self::Advised(of) => Some(&of.then),
            _ => None,
        }
    }

    /// By what keys of the request it places it, if by any.
    #[must_use]
    pub fn keys(&self) -> &[KeySource] {
        match self.innermost() {
            Self::Session(affinity) | Self::ConsistentHash(affinity) => &affinity.keys,
            _ => &[],
        }
    }

    /// Shorter beginnings of a prompt do not count, in bytes: they fill no block
    /// of any engine's cache.
    #[must_use]
    pub fn least_match(&self) -> u32 {
        const LEAST: u32 = 64;
        match self.innermost() {
            Self::PrefixAware(of) => of.min_match.max(LEAST),
            _ => LEAST,
        }
    }

    /// Whether it looks at what engines tell of themselves, and not only for the few
    /// requests that have no key.
    #[must_use]
    pub fn looks_at_live(&self) -> bool {
        match self {
            Self::LeastLoad
            | Self::LeastConnections
            | Self::PrefixAware(_)
            | Self::Federation(_) => true,
            Self::Scored(of) => of.looks_at_live(),
            Self::Advised(of) => of.then.looks_at_live(),
            Self::Sequential(then) => then.looks_at_live(),
            Self::Smart(_) => self.strategies().any(Self::looks_at_live),
            _ => false,
        }
    }

    /// Whether it wants to know how the prompt begins.
    #[must_use]
    pub fn reads_prompt(&self) -> bool {
        self.strategies().any(|strategy| {
            matches!(strategy, Self::PrefixAware(_)) || strategy.keys().contains(&KeySource::Prompt)
        })
    }

    /// Whether it places requests by hashes, which takes a ring of our own where
    /// there are many engines.
    #[must_use]
    pub fn needs_points(&self) -> bool {
        self.strategies().any(|strategy| match strategy {
            Self::Session(of) | Self::ConsistentHash(of) => of.placement != Placement::Ring,
            Self::PrefixAware(_) => true,
            _ => false,
        })
    }

    /// Whether it needs the reference's ring.
    #[must_use]
    pub fn needs_ring(&self) -> bool {
        self.strategies().any(|strategy| match strategy {
            Self::Session(affinity) | Self::ConsistentHash(affinity) => {
                affinity.placement == Placement::Ring
            }
            _ => false,
        })
    }
}

/// The same engine for the same key.
#[derive(Debug, Clone, PartialEq)]
pub struct Affinity {
    /// Where the key is looked for; the first that a request has.
    pub keys: Vec<KeySource>,
    /// How keys are given to engines.
    pub placement: Placement,
}

/// Where an affinity's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A field of the head.
    Header(HeaderName),
    /// A top-level key of the body.
    Body(Arc<str>),
    /// A cookie.
    Cookie(String),
    /// The client's address.
    Address,
    /// How the prompt begins.
    Prompt,
}

/// How keys are given to engines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Placement {
    /// The reference router's ring: 160 MD5 points for each URL.
    Ring,
    /// The greatest hash of key and engine, by weight.
    Rendezvous {
        /// An engine gets no more than its share of all requests in flight,
        /// times this; at least 1.
        load_bound: f64,
    },
}

/// No engine gets more than its share of the load, times this.
pub const LOAD_BOUND: f64 = 1.25;

/// What `prefixaware` is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefixAware {
    /// Shorter common beginnings, in bytes of the prompt, do not count.
    pub min_match: u32,
    /// As in [`Placement::Rendezvous`].
    pub load_bound: f64,
}

/// What `federation` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Federation {
    /// Weights of health, latency, privacy, locality and cost.
    pub weights: [f64; 5],
    /// So many best are given to the strategy.
    pub max_candidates: usize,
    /// Candidates with a lower score are left out.
    pub min_score: f64,
    /// Where we are: engines there are near.
    pub region: Option<String>,
    /// The privacy that requests need which say nothing of it.
    pub privacy: Privacy,
    /// Who is taken of the best.
    pub strategy: PolicyKind,
}

/// How a new or recovered engine begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// Until it has its whole weight.
    pub over: Duration,
    /// 1: straight; above: quick at first; below: slow at first.
    pub shape: f64,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self {
            over: Duration::from_secs(30),
            shape: 1.0,
        }
    }
}
