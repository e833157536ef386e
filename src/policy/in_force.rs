//! The policies in force, with what they remember from one configuration to the
//! next.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::memory::Memory;
use super::reason::{Askings, Decisions};
use super::sequential::Turns;
use crate::config::Routing;
use crate::config::policies::{PolicyKind, PolicySpec};
use crate::smart::in_force::InForce;

/// A policy in force, with what it remembers.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name, and what it does.
    pub spec: PolicySpec,
    /// Which engines have seen which prompts, where that matters.
    pub memory: Option<Arc<Memory>>,
    /// Whose turn it is of the models that requests allow.
    pub turns: Arc<Turns>,
    /// How often it chose, and why.
    pub decisions: Arc<Decisions>,
    /// How often it asked others, if it does.
    pub askings: Option<Arc<Askings>>,
    /// Who picks of the engines of a block that it has chosen.
    pub instance: Option<Arc<Policy>>,
    /// Who picks of the engines of a model that it has chosen, by the model's name
    /// as configured, where that has a policy of its own.
    pub of_models: Vec<(Arc<str>, Arc<Policy>)>,
    /// What it keeps, if it chooses models by cost and quality.
    pub smart: Option<Arc<InForce>>,
    /// Bytes that it takes in memory, about, if it is a request's own.
    pub bytes: usize,
}

impl Policy {
    /// That policy; what the one `before` of its name remembers stays.
    #[must_use]
    pub fn new(spec: PolicySpec, before: Option<&Self>) -> Arc<Self> {
        Self::weighing(spec, before, 0)
    }

    /// The same for a policy of a request's own, which takes so many bytes.
    #[must_use]
    pub fn weighing(spec: PolicySpec, before: Option<&Self>, bytes: usize) -> Arc<Self> {
        let memory = before.and_then(|known| known.memory.clone());
        let reads_prompt = matches!(spec.kind.innermost(), PolicyKind::PrefixAware(_));
        let decisions: Arc<Decisions> =
            before.map_or_else(Arc::default, |known| Arc::clone(&known.decisions));
        let turns: Arc<Turns> = before.map_or_else(Arc::default, |known| Arc::clone(&known.turns));
        let is_asking = matches!(spec.kind, PolicyKind::Advised(_));
        let askings = before.and_then(|known| known.askings.clone());
        let instance = spec.kind.scored().map(|of| {
            Arc::new(Self {
                spec: PolicySpec {
                    kind: (*of.instance).clone(),
                    ..spec.clone()
                },
                memory: None,
                turns: Arc::clone(&turns),
                decisions: Arc::clone(&decisions),
                askings: None,
                instance: None,
                of_models: Vec::new(),
                smart: None,
                bytes: 0,
            })
        });
        let of_models = Self::of_models(&spec, before, &decisions);
        let smart = Self::smart(&spec.kind, before);
        Arc::new(Self {
            memory: reads_prompt.then(|| memory.unwrap_or_default()),
            spec,
            turns,
            decisions,
            askings: is_asking.then(|| askings.unwrap_or_default()),
            instance,
            of_models,
            smart,
            bytes,
        })
    }

    /// The policies that models have of their own.
    fn of_models(
        spec: &PolicySpec,
        before: Option<&Self>,
        decisions: &Arc<Decisions>,
    ) -> Vec<(Arc<str>, Arc<Self>)> {
        let PolicyKind::Smart(of) = &spec.kind else {
            return Vec::new();
        };
        let own = of.models.iter().filter_map(|model| {
            let kind = model.strategy.clone()?;
            let mut known = before.iter().flat_map(|before| &before.of_models);
            let known = known.find(|(name, _)| *name == model.name);
            let spec = PolicySpec {
                kind,
                ..spec.clone()
            };
            let own = Self::new(spec, known.map(|(_, known)| &**known));
            let counted = Arc::new(Self {
                decisions: Arc::clone(decisions),
                ..Arc::unwrap_or_clone(own)
            });
            Some((Arc::clone(&model.name), counted))
        });
        own.collect()
    }

    /// What stays of a policy that chooses by cost and quality.
    fn smart(kind: &PolicyKind, before: Option<&Self>) -> Option<Arc<InForce>> {
        let PolicyKind::Smart(of) = kind else {
            return None;
        };
        let known = before.and_then(|before| before.smart.clone());
        if let Some(known) = &known {
            known.running.set_requirement(of.requirement);
        }
        Some(known.unwrap_or_else(|| Arc::new(InForce::new(of.requirement))))
    }
}

/// The policies in force.
#[derive(Debug, Clone)]
pub struct Policies {
    /// For requests that name none.
    pub default: Arc<Policy>,
    /// Those that a request may name.
    pub named: BTreeMap<String, Arc<Policy>>,
    /// The one that decides beside that in force, and is only counted.
    pub shadow: Option<Arc<Policy>>,
}

impl Policies {
    /// The one of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Policy>> {
        Some(&self.default)
            .filter(|default| *default.spec.name == *name)
            .or_else(|| self.named.get(name))
    }

    /// The policies of `routing`; those that stay keep what they remember.
    #[must_use]
    pub fn new(routing: &Routing, old: Option<&Self>) -> Self {
        let known: Vec<&Arc<Policy>> = old.map_or_else(Vec::new, |old| {
            std::iter::once(&old.default)
                .chain(old.named.values())
                .chain(&old.shadow)
                .collect()
        });
        let make = |spec: &PolicySpec| {
            let before = known.iter().find(|known| known.spec.name == spec.name);
            if let Some(same) = before.filter(|known| known.spec == *spec) {
                return Arc::clone(same);
            }
            Policy::new(spec.clone(), before.map(|known| &***known))
        };
        let default = make(&routing.policy);
        let named = routing.named.iter().map(|(name, spec)| {
            let is_default = *spec == default.spec;
            let policy = if is_default {
                Arc::clone(&default)
            } else {
                make(spec)
            };
            (name.clone(), policy)
        });
        let named: BTreeMap<String, Arc<Policy>> = named.collect();
        let shadow = routing.shadow.as_ref().map(|spec| {
            let found = named.get(&*spec.name);
            found.map_or_else(|| make(spec), Arc::clone)
        });
        Self {
            named,
            default,
            shadow,
        }
    }
}
