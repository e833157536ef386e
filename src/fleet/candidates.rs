//! The engines among which one choice is made.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::Snapshot;
use super::blocks::Groups;
use super::engine::{Engine, EngineSpec};
use super::health;
use super::layout::{Layout, MOST_RENDEZVOUS};
use super::near::Nearness;
use super::ring::Ring;
use super::stats::Served;
use crate::config::Routing;
use crate::config::policies::PolicyKind;

/// An engine, and what is said of it.
pub(super) type Member = (Arc<Engine>, Arc<EngineSpec>);

/// One engine as the traffic of one model sees it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The engine, with its live state.
    pub engine: Arc<Engine>,
    /// What discovery says of it now.
    pub spec: Arc<EngineSpec>,
    /// What it did for this model.
    pub served: Arc<Served>,
}

/// Engines among which one choice is made, sorted by URL, as the reference
/// router takes them.
#[derive(Debug, Default)]
pub struct CandidateSet {
    pub(super) list: Vec<Candidate>,
    /// Round-robin's position, shared by the workers, and by the sets of one
    /// model that follow each other.
    pub cursor: Arc<AtomicUsize>,
    pub(super) busy: Arc<Busy>,
    /// Engines of the whole fleet that are ejected or on trial.
    pub(super) ejected: Arc<AtomicU32>,
    /// What is the same for every request.
    pub layout: Arc<Layout>,
    /// Its blocks, where some of its engines are of one.
    pub groups: Option<Arc<Groups>>,
    /// The model that its engines are asked for; empty: any.
    pub name: Arc<str>,
    /// How near they are at least, where it has the nearest of a model's engines:
    /// others may be asked after it. `None`: all.
    pub tier: Option<Nearness>,
    /// Unique for the life of the process; 0: never published.
    pub serial: u64,
}

/// The load of a set that is too large to be summed each time: see
/// [`CandidateSet::open_load`].
#[derive(Debug, Default)]
pub(super) struct Busy {
    moment: AtomicU64,
    requests: AtomicU64,
    weights: AtomicU64,
    /// A moment, as above, and whether too many were ejected then.
    panic: AtomicU64,
}

impl CandidateSet {
    /// The engines.
    #[must_use]
    pub fn list(&self) -> &[Candidate] {
        &self.list
    }

    /// Requests in flight on all its engines that are up, and the weights of
    /// these, up to 10 ms old: for sets so large that to sum them each time would
    /// cost more than the rest of a decision.
    #[must_use]
    pub fn open_load(&self, now: Duration) -> (u64, f64) {
        let now_ms = health::millis(now);
        // Hundredths of a second; 0 is never.
        let moment = now_ms / 10 + 1;
        if self.busy.moment.load(Relaxed) == moment {
            let weights = f64::from_bits(self.busy.weights.load(Relaxed));
            return (self.busy.requests.load(Relaxed), weights);
        }
        let (mut requests, mut weights) = (0, 0.0);
        for (one, weight) in self.list.iter().zip(&self.layout.weights) {
            if *weight > 0.0 && one.engine.health.is_up_at(now_ms) {
                requests += u64::from(one.engine.in_flight.load(Relaxed));
                weights += weight;
            }
        }
        self.busy.requests.store(requests, Relaxed);
        self.busy.weights.store(weights.to_bits(), Relaxed);
        self.busy.moment.store(moment, Relaxed);
        (requests, weights)
    }

    /// Whether more than that share of its engines is ejected, of those that can
    /// be reached: then it is better to ask all of them than to drown the rest.
    /// Up to 10 ms old.
    #[must_use]
    pub fn is_panicking(&self, now: Duration, max_ejected: f64) -> bool {
        if self.ejected.load(Relaxed) == 0 {
            return false;
        }
        let now_ms = health::millis(now);
        let moment = (now_ms / 10 + 1) << 1;
        let known = self.busy.panic.load(Relaxed);
        if known & !1 == moment {
            return known & 1 == 1;
        }
        let (mut all, mut ejected) = (0.0, 0.0);
        for one in &self.list {
            let health = &one.engine.health;
            if !health.is_out_at(now_ms) && one.spec.closed.is_none() {
                all += 1.0;
                ejected += f64::from(u8::from(health.is_ejected_at(now_ms)));
            }
        }
        let is_panicking = ejected > all * max_ejected;
        (self.busy.panic).store(moment | u64::from(is_panicking), Relaxed);
        is_panicking
    }

    fn keys(&self) -> Vec<u64> {
        self.list.iter().map(|one| one.engine.key).collect()
    }

    /// The set of `engines`, sorted by URL, that follows `old`, of a model that is
    /// counted under that label and has that name.
    pub(super) fn follow(
        of: (&str, &Arc<str>),
        old: Option<&Self>,
        engines: Vec<Member>,
        (layouts, ejected): (&mut Layouts<'_>, &Arc<AtomicU32>),
    ) -> Self {
        let ids = engines
            .iter()
            .map(|(engine, spec)| match &spec.traits.block {
                Some(block) => {
                    let block: Arc<str> = Arc::from(block.as_str());
                    (Arc::clone(&block), block)
                }
                None => (Arc::from(engine.url.text()), Arc::clone(of.1)),
            });
        let is_grouped = engines.iter().any(|(_, spec)| spec.traits.block.is_some());
        let groups = is_grouped.then(|| Arc::new(Groups::new(ids)));
        Self {
            groups,
            ..Self::ordered(of, old, engines, (layouts, ejected))
        }
    }

    /// The same in the order as given, and without groups.
    pub(super) fn ordered(
        (label, name): (&str, &Arc<str>),
        old: Option<&Self>,
        engines: Vec<Member>,
        (layouts, ejected): (&mut Layouts<'_>, &Arc<AtomicU32>),
    ) -> Self {
        let mut before = old.iter().flat_map(|old| &old.list).peekable();
        let list = engines.into_iter().map(|(engine, spec)| {
            // Most are where they were.
            let mut same = before.next_if(|one| Arc::ptr_eq(&one.engine, &engine));
            if same.is_none() {
                let url = spec.url.text();
                while before.next_if(|one| one.spec.url.text() < url).is_some() {}
                same = before.next_if(|one| Arc::ptr_eq(&one.engine, &engine));
            }
            Candidate {
                served: same.map_or_else(|| engine.served(label), |one| Arc::clone(&one.served)),
                engine,
                spec,
            }
        });
        let mut set = Self {
            list: list.collect(),
            cursor: old.map_or_else(Arc::default, |old| Arc::clone(&old.cursor)),
            busy: Arc::default(),
            ejected: Arc::clone(ejected),
            layout: Arc::default(),
            groups: None,
            name: Arc::clone(name),
            tier: None,
            serial: layouts.next_serial(),
        };
        set.layout = layouts.of(&set);
        set
    }

    /// Those at these positions, the nearest of its engines, as a set that follows
    /// `old`.
    pub(super) fn part(
        &self,
        (tier, positions): (Nearness, impl Iterator<Item = usize>),
        old: Option<&Self>,
        layouts: &mut Layouts<'_>,
    ) -> Self {
        let mut part = Self {
            list: positions.map(|at| self.list[at].clone()).collect(),
            cursor: old.map_or_else(Arc::default, |old| Arc::clone(&old.cursor)),
            busy: Arc::default(),
            ejected: Arc::clone(&self.ejected),
            layout: Arc::default(),
            groups: None,
            name: Arc::clone(&self.name),
            tier: Some(tier),
            serial: layouts.next_serial(),
        };
        part.layout = layouts.of(&part);
        part
    }
}

/// The layouts of one snapshot: one for each set of engines, however many models
/// have it; their rings are the last snapshot's where the set is the same.
pub(super) struct Layouts<'a> {
    columns: &'a [String],
    needs_ring: bool,
    needs_points: bool,
    rings: HashMap<Vec<u64>, Arc<Ring<u128>>>,
    known: HashMap<Vec<u64>, Arc<Layout>>,
    serial: u64,
}

impl<'a> Layouts<'a> {
    pub(super) fn new(routing: &'a Routing, old: &Snapshot) -> Self {
        let models = old.models.values().chain([&old.all]);
        let sets = models.flat_map(|model| std::iter::once(model).chain(&*model.near));
        let rings = sets.filter_map(|model| {
            let ring = model.candidates.layout.ring.as_ref()?;
            Some((model.candidates.keys(), Arc::clone(ring)))
        });
        let any = |needs: fn(&PolicyKind) -> bool| {
            let mut policies = routing.named.values().chain([&routing.policy]);
            policies.any(|policy| needs(&policy.kind))
        };
        Self {
            columns: &routing.columns,
            needs_ring: any(PolicyKind::needs_ring),
            needs_points: any(PolicyKind::needs_points),
            rings: rings.collect(),
            known: HashMap::new(),
            // No snapshot has so many sets.
            serial: (old.generation + 1) << 32,
        }
    }

    /// From here on no set needs a ring: what picks of a block's engines needs none.
    pub(super) fn without_rings(&mut self) {
        self.needs_ring = false;
        self.needs_points = false;
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn of(&mut self, set: &CandidateSet) -> Arc<Layout> {
        let keys = set.keys();
        if let Some(known) = self.known.get(&keys) {
            return Arc::clone(known);
        }
        let mut layout = Layout::new(&set.list, self.columns);
        if self.needs_ring {
            let urls = set.list.iter().map(|one| one.engine.url.text());
            let ring = self.rings.get(&keys).map(Arc::clone);
            layout.ring = Some(ring.unwrap_or_else(|| Arc::new(Ring::reference(urls))));
        }
        if self.needs_points && set.list.len() > MOST_RENDEZVOUS {
            layout.points = Some(Ring::weighted(&layout.hashes, &layout.weights));
        }
        let layout = Arc::new(layout);
        self.known.insert(keys, Arc::clone(&layout));
        layout
    }
}
