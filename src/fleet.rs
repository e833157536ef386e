//! The fleet: every engine we know, and the immutable view of it that a
//! request sees.
//!
//! [`Fleet`] is the only writer. It turns settings and the full list of
//! [`EngineSpec`]s into a new [`Snapshot`] and publishes it by one swap; an
//! engine that is in the old list and in the new one keeps its `Arc<Engine>`,
//! and with it its counts; a model keeps its turn and its statistics.
//!
//! Invariant: a request loads the snapshot once; long streams hold an
//! `Arc<Engine>`, never the snapshot.

pub mod attributes;
pub mod blocks;
pub mod breaker;
mod candidates;
pub mod credentials;
pub mod engine;
pub mod gate;
pub mod health;
pub mod latency;
pub mod layout;
pub mod load;
pub mod near;
pub mod orca;
pub mod reading;
mod recent;
pub mod ring;
pub mod rolling;
pub mod stats;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config::auth::KeptSecret;
use crate::config::policies::PolicyKind;
pub use crate::config::{EngineUrl, UrlError};
use crate::config::{Locality, Settings};
use crate::metrics::{ModelMetrics, ModelRegistry};
use crate::policy::Policies;
use blocks::Blocks;
pub use candidates::{Candidate, CandidateSet};
use candidates::{Layouts, Member};
use credentials::Credentials;
pub use engine::{Closed, Engine, EngineSpec};
use gate::Gate;

/// Models that are remembered when no engine serves them any more.
const MOST_GONE: usize = 1000;

/// One model: who serves it, and where its traffic is counted.
#[derive(Debug)]
pub struct Model {
    /// The name that engines know it by.
    pub name: Arc<str>,
    /// The engines that serve it.
    pub candidates: CandidateSet,
    /// With `prefer_local`, the same model with the nearest of them alone, then
    /// with the next ones too, ...; see [`near`].
    pub near: Box<[Arc<Self>]>,
    /// Held metric handles.
    pub metrics: Arc<ModelMetrics>,
    /// Its places, where they are limited; kept from snapshot to snapshot.
    pub gate: Arc<Gate>,
}

impl Model {
    /// Whether any engine serves it now.
    #[must_use]
    pub fn is_served(&self) -> bool {
        !self.candidates.list.is_empty()
    }

    /// Among whom such a policy is asked before it is asked among all, the nearest
    /// first. What selects by attributes looks at all at once.
    #[must_use]
    pub fn nearer(&self, kind: &PolicyKind) -> &[Arc<Self>] {
        if self.near.is_empty() || kind.scored().is_some() {
            return &[];
        }
        &self.near
    }
}

/// The immutable view that a request sees.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the published snapshots, from 1.
    pub generation: u64,
    /// When the fleet's clock began.
    pub epoch: Instant,
    /// How an engine is chosen.
    pub policies: Policies,
    /// Limits, deadlines, names.
    pub settings: Arc<Settings>,
    /// Every engine, for requests that name no model.
    pub all: Arc<Model>,
    /// The blocks, for selections by attributes.
    pub blocks: Blocks,
    /// Seeded, since the names come from clients; half the cost of SipHash.
    models: HashMap<Arc<str>, Arc<Model>, foldhash::fast::RandomState>,
}

impl Snapshot {
    /// That moment on the fleet's clock.
    #[must_use]
    pub fn clock(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.epoch)
    }

    /// The model of that name or alias, unless no engine has ever served it.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        let known = self.models.get(name);
        if known.is_some_and(|model| model.is_served()) || self.settings.aliases.is_empty() {
            return known;
        }
        // An alias may take over the name of a model that is gone.
        let target = self.settings.aliases.get(name);
        target.map_or(known, |model| self.models.get(model.as_str()))
    }

    /// The one model that is served, when there is just one; that failing, the
    /// one that was.
    #[must_use]
    pub fn only_model(&self) -> Option<&Arc<Model>> {
        let mut served = self.models.values().filter(|model| model.is_served());
        let Some(first) = served.next() else {
            return self
                .models
                .values()
                .next()
                .filter(|_| self.models.len() == 1);
        };
        Some(first).filter(|_| served.next().is_none())
    }

    /// All models, in no order.
    pub fn each_model(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }

    /// All models, sorted by name.
    #[must_use]
    pub fn models(&self) -> Vec<&Arc<Model>> {
        let mut models: Vec<&Arc<Model>> = self.models.values().collect();
        models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        models
    }
}

/// The single writer of the [`Snapshot`].
#[derive(Debug)]
pub struct Fleet {
    published: Arc<ArcSwap<Snapshot>>,
    registry: ModelRegistry,
    next_key: u64,
    locality: Locality,
    /// Engines that are ejected or on trial.
    ejected: Arc<AtomicU32>,
    credentials: Credentials,
}

impl Fleet {
    /// A fleet without engines, when nobody knows where we run.
    #[must_use]
    pub fn new(registry: ModelRegistry) -> Self {
        Self::at(Locality::default(), registry)
    }

    /// A fleet without engines, seen from that place.
    #[must_use]
    pub fn at(locality: Locality, mut registry: ModelRegistry) -> Self {
        let settings = Arc::new(Settings::default());
        let nobody = Arc::new(Model {
            name: Arc::from(""),
            candidates: CandidateSet::default(),
            near: Box::default(),
            metrics: registry.handles(ModelRegistry::UNKNOWN),
            gate: Arc::default(),
        });
        let empty = Snapshot {
            generation: 0,
            epoch: Instant::now(),
            policies: Policies::new(&settings.routing, None),
            blocks: Blocks::none(&nobody),
            all: nobody,
            settings,
            models: HashMap::default(),
        };
        Self {
            published: Arc::new(ArcSwap::from_pointee(empty)),
            registry,
            next_key: 0,
            locality,
            ejected: Arc::default(),
            credentials: Credentials::default(),
        }
    }

    /// By which keys engines are called that have none of their own.
    pub fn set_engine_key(&mut self, key: Option<KeptSecret>) {
        self.credentials = Credentials::new(key);
    }

    /// Reads the keys of engines again, and gives them to those whose key has
    /// changed; tells how many cannot be read now.
    pub fn refresh_credentials(&mut self) -> usize {
        let snapshot = self.published.load();
        let all = snapshot.all.candidates.list().iter();
        self.credentials
            .refresh(all.map(|one| (&*one.engine, &*one.spec.traits)))
    }

    /// Where readers find the newest snapshot.
    #[must_use]
    pub fn published(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.published)
    }

    /// Makes the fleet what `specs` says: the full list, never a difference.
    pub fn reconcile(&mut self, specs: Vec<EngineSpec>) {
        let settings = Arc::clone(&self.published.load().settings);
        self.apply(settings, specs);
    }

    /// Puts settings and engines in force together, by one swap.
    pub fn apply(&mut self, settings: Arc<Settings>, mut specs: Vec<EngineSpec>) {
        specs.sort_by(|a, b| a.url.text().cmp(b.url.text()));
        let old = self.published.load_full();
        let mut known = old.all.candidates.list().iter().peekable();
        let now = old.epoch.elapsed();
        let mut members: Vec<Member> = Vec::with_capacity(specs.len());
        for spec in specs {
            let is_same =
                |one: &&Candidate| one.spec.identity == spec.identity && one.spec.url == spec.url;
            // Both are sorted; most are where they were.
            let mut same = known.peek().copied().filter(is_same);
            if same.is_none() {
                let url = spec.url.text();
                while known.next_if(|one| one.spec.url.text() < url).is_some() {}
                same = known.peek().copied().filter(is_same);
            }
            let engine = match same {
                Some(one) => Arc::clone(&one.engine),
                None => {
                    self.next_key += 1;
                    let since = (old.epoch, now);
                    let engine = Engine::new(spec.url.clone(), self.next_key, since, &self.ejected);
                    Arc::new(engine)
                }
            };
            // Before anyone can send it something.
            self.credentials.give(&engine, &spec.traits);
            engine.health.set(&settings.breaker);
            engine.health.set_ready(spec.is_ready, now);
            members.push((engine, Arc::new(spec)));
        }
        self.publish(&old, settings, &members);
    }

    /// `members` are sorted by URL.
    fn publish(&mut self, old: &Snapshot, settings: Arc<Settings>, members: &[Member]) {
        let mut serving: HashMap<&str, Vec<Member>, foldhash::fast::RandomState> =
            HashMap::default();
        for (engine, spec) in members {
            for model in &*spec.models {
                let list = serving.entry(model).or_default();
                list.push((Arc::clone(engine), Arc::clone(spec)));
            }
        }
        // A model that was served once stays known: it is unavailable, not unknown.
        let gone = old
            .models
            .keys()
            .filter(|name| !serving.contains_key(&***name));
        let gone: Vec<&str> = gone.take(MOST_GONE).map(|name| &**name).collect();
        serving.extend(gone.into_iter().map(|name| (name, Vec::new())));
        let mut layouts = Layouts::new(&settings.routing, old);
        let (nameless, nobody) = (old.all.metrics.label(), Arc::from(""));
        let ejected = &self.ejected;
        let locality = Some(&self.locality).filter(|_| settings.routing.prefer_local);
        let near = |model: &mut Model, old: Option<&Model>, layouts: &mut Layouts<'_>| {
            if let Some(locality) = locality {
                model.near = near::tiers(model, old, (locality, layouts));
            }
        };
        let all = Some(&old.all.candidates);
        let everyone = members.to_vec();
        let all = CandidateSet::follow((nameless, &nobody), all, everyone, (&mut layouts, ejected));
        let models = serving.into_iter().map(|(name, members)| {
            let known = old.models.get(name);
            let name = known.map_or_else(|| Arc::from(name), |model| Arc::clone(&model.name));
            let before = known.map(|model| &model.candidates);
            let metrics = self.registry.handles(&name);
            let label = metrics.label();
            let mut model = Model {
                near: Box::default(),
                gate: known.map_or_else(Arc::default, |model| Arc::clone(&model.gate)),
                candidates: CandidateSet::follow(
                    (label, &name),
                    before,
                    members,
                    (&mut layouts, ejected),
                ),
                metrics,
                name: Arc::clone(&name),
            };
            near(&mut model, known.map(|known| &**known), &mut layouts);
            (name, Arc::new(model))
        });
        let models = models.collect();
        let mut all = Model {
            name: Arc::from(""),
            candidates: all,
            near: Box::default(),
            metrics: Arc::clone(&old.all.metrics),
            gate: Arc::clone(&old.all.gate),
        };
        near(&mut all, Some(&old.all), &mut layouts);
        let all = Arc::new(all);
        layouts.without_rings();
        let snapshot = Snapshot {
            generation: old.generation + 1,
            epoch: old.epoch,
            policies: Policies::new(&settings.routing, Some(&old.policies)),
            blocks: Blocks::new(members, &models, (old, &all), (&mut layouts, ejected)),
            models,
            settings,
            all,
        };
        self.published.store(Arc::new(snapshot));
    }
}

/// What tests of the fleet, and of those who read it, begin with.
#[cfg(test)]
pub(crate) mod testing {
    use super::{EngineSpec, EngineUrl, Fleet};
    use crate::metrics::ModelRegistry;

    pub(crate) fn spec(url: &str, models: &[&str]) -> EngineSpec {
        EngineSpec {
            identity: url.into(),
            closed: None,
            is_ready: true,
            url: EngineUrl::parse(url).unwrap(),
            models: models.iter().map(ToString::to_string).collect(),
            is_learned: false,
            traits: std::sync::Arc::default(),
        }
    }

    pub(crate) fn fleet() -> Fleet {
        Fleet::new(ModelRegistry::default())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{fleet, spec};
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    use crate::config::Routing;
    use crate::config::policies::{Affinity, Placement, PolicyKind, PolicySpec};

    #[test]
    fn survivors_keep_their_engine_and_leavers_leave_the_model_known() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m"]), spec("http://b:1", &["n"])]);
        let before = fleet.published().load_full();
        fleet.reconcile(vec![spec("http://a:1", &["m", "x"])]);
        let after = fleet.published().load_full();
        let engine = |snapshot: &Snapshot| Arc::clone(&snapshot.all.candidates.list()[0].engine);
        assert!(Arc::ptr_eq(&engine(&before), &engine(&after)));
        assert_eq!(after.generation, 2);
        let names: Vec<&str> = after.models().iter().map(|model| &*model.name).collect();
        assert_eq!(names, ["m", "n", "x"]);
        assert!(after.model("n").unwrap().candidates.list().is_empty());
        assert!(after.model("never").is_none());
    }

    #[test]
    fn turn_and_statistics_are_kept_and_candidates_sorted() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://b:1", &["m"]), spec("http://a:1", &["m"])]);
        let set = |fleet: &Fleet| Arc::clone(fleet.published().load_full().model("m").unwrap());
        let before = set(&fleet);
        before.candidates.cursor.store(7, Relaxed);
        before.candidates.list()[1].served.pick();
        fleet.reconcile(vec![
            spec("http://0:1", &["m"]),
            spec("http://b:1", &["m"]),
            spec("http://a:1", &["m"]),
        ]);
        let after = set(&fleet);
        let urls: Vec<&str> = (after.candidates.list().iter())
            .map(|one| one.engine.url.text())
            .collect();
        assert_eq!(urls, ["http://0:1", "http://a:1", "http://b:1"]);
        assert_eq!(after.candidates.cursor.load(Relaxed), 7);
        let served = |model: &Model, at: usize| Arc::clone(&model.candidates.list()[at].served);
        assert!(Arc::ptr_eq(&served(&before, 1), &served(&after, 2)));
    }

    #[test]
    fn models_that_are_gone_are_remembered_but_not_without_end() {
        let mut fleet = fleet();
        for round in 0..15 {
            let names: Vec<String> = (0..100).map(|n| format!("m{round}-{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            fleet.reconcile(vec![spec("http://a:1", &names)]);
        }
        assert_eq!(fleet.published().load().models().len(), MOST_GONE + 100);
    }

    #[test]
    fn an_alias_may_take_over_the_name_of_a_model_that_is_gone() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["old"])]);
        let settings = Settings {
            aliases: [("old".to_owned(), "new".to_owned())].into(),
            ..Settings::default()
        };
        fleet.apply(Arc::new(settings), vec![spec("http://a:1", &["new"])]);
        let snapshot = fleet.published().load_full();
        assert_eq!(&*snapshot.model("old").unwrap().name, "new");
        assert_eq!(&*snapshot.only_model().unwrap().name, "new");
    }

    #[test]
    fn a_model_that_comes_back_has_its_account() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m", "n"])]);
        let served = |fleet: &Fleet| {
            let snapshot = fleet.published().load_full();
            Arc::clone(&snapshot.model("n").unwrap().candidates.list()[0].served)
        };
        let before = served(&fleet);
        fleet.reconcile(vec![spec("http://a:1", &["m"])]);
        fleet.reconcile(vec![spec("http://a:1", &["m", "n"])]);
        assert!(Arc::ptr_eq(&before, &served(&fleet)));
    }

    #[test]
    fn models_of_the_same_engines_share_a_ring() {
        let mut fleet = fleet();
        let kind = PolicyKind::Session(Affinity {
            keys: Vec::new(),
            placement: Placement::Ring,
        });
        let settings = Arc::new(Settings {
            routing: Routing {
                policy: PolicySpec::plain("session", kind),
                ..Routing::default()
            },
            ..Settings::default()
        });
        let specs = || {
            ["http://a:1", "http://b:1"]
                .map(|url| spec(url, &["m", "n"]))
                .to_vec()
        };
        fleet.apply(Arc::clone(&settings), specs());
        let ring = |fleet: &Fleet, model: &str| {
            let snapshot = fleet.published().load_full();
            snapshot
                .model(model)
                .unwrap()
                .candidates
                .layout
                .ring
                .clone()
                .unwrap()
        };
        let first = ring(&fleet, "m");
        assert!(Arc::ptr_eq(&first, &ring(&fleet, "n")));
        fleet.apply(settings, specs());
        assert!(Arc::ptr_eq(&first, &ring(&fleet, "m")));
    }

    #[test]
    fn aliases_lead_to_models() {
        let mut fleet = fleet();
        let settings = Settings {
            aliases: [("gpt-4".to_owned(), "m".to_owned())].into(),
            ..Settings::default()
        };
        fleet.apply(Arc::new(settings), vec![spec("http://a:1", &["m"])]);
        let snapshot = fleet.published().load_full();
        assert_eq!(&*snapshot.model("gpt-4").unwrap().name, "m");
        assert!(snapshot.only_model().is_some());
    }

    #[test]
    fn an_engine_with_two_models_is_in_both_sets() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m", "n"])]);
        let snapshot = fleet.published().load_full();
        for name in ["m", "n"] {
            assert_eq!(snapshot.model(name).unwrap().candidates.list().len(), 1);
        }
        assert!(snapshot.only_model().is_none());
    }
}
