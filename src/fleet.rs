//! The fleet: every engine we know, and the immutable view of it that a
//! request sees.
//!
//! [`Fleet`] is the only writer. It turns the full list of [`EngineSpec`]s into
//! a new [`Snapshot`] and publishes it by one swap; an engine that is in the
//! old list and in the new one keeps its `Arc<Engine>`, and with it its counts.
//!
//! Invariant: a request loads the snapshot once; long streams hold an
//! `Arc<Engine>`, never the snapshot.

pub mod engine;
pub mod load;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;

use crate::metrics::{ModelMetrics, ModelRegistry};
use crate::policy::Policy;
pub use engine::{Engine, EngineSpec, EngineUrl, UrlError};

/// Engines among which one choice is made, in a fixed order.
#[derive(Debug)]
pub struct CandidateSet {
    engines: Vec<Arc<Engine>>,
    /// Round-robin's position, shared by the workers.
    pub cursor: AtomicUsize,
}

impl CandidateSet {
    fn new(engines: Vec<Arc<Engine>>) -> Self {
        Self {
            engines,
            cursor: AtomicUsize::new(0),
        }
    }

    /// The engines, in the order that the user listed them.
    #[must_use]
    pub fn engines(&self) -> &[Arc<Engine>] {
        &self.engines
    }
}

/// One model: who serves it, and where its traffic is counted.
#[derive(Debug)]
pub struct Model {
    /// The name that requests use.
    pub name: Arc<str>,
    /// The engines that serve it.
    pub candidates: CandidateSet,
    /// Held metric handles.
    pub metrics: Arc<ModelMetrics>,
}

/// The immutable view that a request sees.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the published snapshots, from 1.
    pub generation: u64,
    /// How an engine is chosen.
    pub policy: Policy,
    /// Every engine, for requests that name no model.
    pub all: Arc<Model>,
    /// Seeded, since the names come from clients; half the cost of SipHash.
    models: HashMap<Arc<str>, Arc<Model>, foldhash::fast::RandomState>,
}

impl Snapshot {
    /// The model of that name, unless no engine has ever served it.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(name)
    }

    /// The one model that is served, when there is just one.
    #[must_use]
    pub fn only_model(&self) -> Option<&Arc<Model>> {
        let mut models = self.models.values();
        models.next().filter(|_| models.next().is_none())
    }

    /// The names of all models, sorted.
    #[must_use]
    pub fn model_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.models.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names
    }
}

/// The single writer of the [`Snapshot`].
#[derive(Debug)]
pub struct Fleet {
    published: Arc<ArcSwap<Snapshot>>,
    registry: ModelRegistry,
    next_key: u64,
}

impl Fleet {
    /// A fleet without engines.
    #[must_use]
    pub fn new(policy: Policy, mut registry: ModelRegistry) -> Self {
        let empty = Snapshot {
            generation: 0,
            policy,
            all: Arc::new(Model {
                name: Arc::from(""),
                candidates: CandidateSet::new(Vec::new()),
                metrics: registry.handles(ModelRegistry::UNKNOWN),
            }),
            models: HashMap::default(),
        };
        Self {
            published: Arc::new(ArcSwap::from_pointee(empty)),
            registry,
            next_key: 0,
        }
    }

    /// Where readers find the newest snapshot.
    #[must_use]
    pub fn published(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.published)
    }

    /// Makes the fleet what `specs` says: the full list, never a difference.
    pub fn reconcile(&mut self, specs: Vec<EngineSpec>) {
        let old = self.published.load_full();
        let surviving: HashMap<&str, &Arc<Engine>> = (old.all.candidates.engines.iter())
            .map(|engine| (engine.spec.url.text(), engine))
            .collect();
        let mut engines: Vec<Arc<Engine>> = Vec::with_capacity(specs.len());
        for spec in specs {
            match surviving.get(spec.url.text()) {
                Some(engine) if engine.spec == spec => engines.push(Arc::clone(engine)),
                _ => {
                    self.next_key += 1;
                    engines.push(Arc::new(Engine::new(spec, self.next_key)));
                }
            }
        }
        self.publish(&old, engines);
    }

    fn publish(&mut self, old: &Snapshot, engines: Vec<Arc<Engine>>) {
        let mut serving: HashMap<Arc<str>, Vec<Arc<Engine>>> = HashMap::new();
        // A model that was served once stays known: it is unavailable, not unknown.
        for name in old.models.keys() {
            serving.insert(Arc::clone(name), Vec::new());
        }
        for engine in &engines {
            for model in &engine.spec.models {
                let list = serving.entry(Arc::from(model.as_str())).or_default();
                list.push(Arc::clone(engine));
            }
        }
        let models = serving.into_iter().map(|(name, engines)| {
            let metrics = self.registry.handles(&name);
            let candidates = CandidateSet::new(engines);
            let model = Model {
                name: Arc::clone(&name),
                candidates,
                metrics,
            };
            (name, Arc::new(model))
        });
        let snapshot = Snapshot {
            generation: old.generation + 1,
            policy: old.policy,
            models: models.collect(),
            all: Arc::new(Model {
                name: Arc::from(""),
                candidates: CandidateSet::new(engines),
                metrics: Arc::clone(&old.all.metrics),
            }),
        };
        self.published.store(Arc::new(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(url: &str, models: &[&str]) -> EngineSpec {
        EngineSpec {
            url: EngineUrl::parse(url).unwrap(),
            models: models.iter().map(ToString::to_string).collect(),
        }
    }

    fn fleet() -> Fleet {
        Fleet::new(Policy::RoundRobin, ModelRegistry::default())
    }

    #[test]
    fn survivors_keep_their_engine_and_leavers_leave_the_model_known() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m"]), spec("http://b:1", &["n"])]);
        let before = fleet.published().load_full();
        fleet.reconcile(vec![spec("http://a:1", &["m"])]);
        let after = fleet.published().load_full();
        assert!(Arc::ptr_eq(
            &before.all.candidates.engines()[0],
            &after.all.candidates.engines()[0]
        ));
        assert_eq!(after.generation, 2);
        assert_eq!(after.model_names(), ["m", "n"]);
        assert!(after.model("n").unwrap().candidates.engines().is_empty());
        assert!(after.model("never").is_none());
    }

    #[test]
    fn an_engine_with_two_models_is_in_both_sets() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m", "n"])]);
        let snapshot = fleet.published().load_full();
        for name in ["m", "n"] {
            assert_eq!(snapshot.model(name).unwrap().candidates.engines().len(), 1);
        }
        assert!(snapshot.only_model().is_none());
    }
}
