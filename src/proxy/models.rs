//! The model that a request is for, and the engine that it names itself.

use std::sync::Arc;

use super::error::ProxyError;
use super::facts::Peeked;
use super::headers::{OWN_PREFIX, Pinned};
use super::wishes::Wishes;
use crate::config::policies::PolicyKind;
use crate::fleet::{Candidate, Closed, Model, Snapshot};
use crate::policy::Policy;

/// Models that one request may allow.
const MOST: usize = 64;

/// Among whose engines one is chosen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope<'a> {
    /// Those of this model; all engines when the request names none.
    Model(&'a Arc<Model>),
    /// Those of the best block.
    Blocks,
}

/// The model of a request under that policy, if it is not the policy that
/// chooses one by attributes.
pub(super) fn scope<'a>(
    snapshot: &'a Snapshot,
    policy: &Policy,
    wishes: (&Wishes<'_>, &Pinned),
    peeked: &Peeked,
) -> Result<Scope<'a>, ProxyError> {
    let name = peeked.facts.model.as_deref();
    let name = name.filter(|_| !peeked.out_of_reach && policy.spec.kind.scored().is_some());
    if let Some(name) = name
        && snapshot.model(name).is_none()
        && (matches!(name, "" | "auto") || by_model(snapshot, name).is_some())
    {
        return Ok(Scope::Blocks);
    }
    choose(snapshot, policy, wishes, peeked).map(Scope::Model)
}

/// The policy that is asked for in place of a model.
pub(super) fn by_model<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<Policy>> {
    let policy = snapshot.policies.find(name);
    let policy = policy.filter(|policy| policy.spec.kind.scored().is_some())?;
    // There are few policies, and they are looked at first.
    let is_free = snapshot.settings.routing.allow.policy && snapshot.model(name).is_none();
    is_free.then_some(policy)
}

/// The model of a request under that policy; all engines when it names none.
fn choose<'a>(
    snapshot: &'a Snapshot,
    policy: &Policy,
    (wishes, by_path): (&Wishes<'_>, &Pinned),
    peeked: &Peeked,
) -> Result<&'a Arc<Model>, ProxyError> {
    let has_name = peeked.facts.model.is_some() && !peeked.out_of_reach;
    if wishes.models.is_some() && !has_name {
        return Err(ProxyError::Header {
            name: format!("{OWN_PREFIX}models"),
            message: "the body has no 'model' to put the chosen one's name in".to_owned(),
        });
    }
    if peeked.out_of_reach {
        let only = snapshot.only_model();
        return only.ok_or(ProxyError::BodyTooLarge(
            "model",
            snapshot.settings.limits.max_peek_bytes,
        ));
    }
    let Some(name) = &peeked.facts.model else {
        return Ok(&snapshot.all);
    };
    let known = snapshot.model(name);
    if !matches!(policy.spec.kind, PolicyKind::Sequential(_)) {
        return known.ok_or_else(|| unknown(snapshot, name));
    }
    // A model that the engine which the request names does not serve is none.
    let pinned = named(snapshot, by_path, wishes).map(|one| one.engine.key);
    let turns = (policy, pinned);
    match (wishes.models, known) {
        (Some(list), _) => in_turn(snapshot, turns, list, &listed(snapshot, list)?),
        (None, Some(model)) => Ok(model),
        (None, None) if matches!(name.as_str(), "" | "auto") => {
            let all = snapshot.models().into_iter();
            let served = all.filter(|model| model.is_served());
            let served = served.map(|model| (&*model.name, Some(model)));
            in_turn(snapshot, turns, name, &served.collect::<Vec<_>>())
        }
        (None, None) => in_turn(snapshot, turns, name, &listed(snapshot, name)?),
    }
}

/// A model by the name that it was asked for.
type Named<'a, 'b> = (&'b str, Option<&'a Arc<Model>>);

/// The models on a client's list.
fn listed<'a, 'b>(snapshot: &'a Snapshot, list: &'b str) -> Result<Vec<Named<'a, 'b>>, ProxyError> {
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let models: Vec<Named<'_, '_>> = names
        .take(MOST + 1)
        .map(|name| (name, snapshot.model(name)))
        .collect();
    if models.len() > MOST {
        return Err(ProxyError::TooManyModels(MOST));
    }
    Ok(models)
}

/// Of these models the next in turn that has an engine.
fn in_turn<'a>(
    snapshot: &'a Snapshot,
    (policy, pinned): (&Policy, Option<u64>),
    asked: &str,
    models: &[Named<'a, '_>],
) -> Result<&'a Arc<Model>, ProxyError> {
    let now = snapshot.clock(std::time::Instant::now());
    let is_up = |model: &Arc<Model>| {
        let mut engines = model.candidates.list().iter();
        engines.any(|one| match pinned {
            Some(key) => one.engine.key == key,
            None => one.engine.health.is_up(now) && one.spec.closed.is_none(),
        })
    };
    let names = models.iter().map(|(name, _)| *name);
    let next = policy
        .turns
        .next(names, |at| models[at].1.is_some_and(is_up));
    let mut known = models.iter().filter_map(|(_, model)| *model);
    let chosen = next.and_then(|at| models[at].1);
    // Better one whose engines fail than none.
    let chosen = chosen.or_else(|| known.clone().find(|model| model.is_served()));
    chosen.ok_or_else(|| match known.next() {
        None => unknown(snapshot, asked),
        Some(_) => unavailable(asked),
    })
}

/// Nobody has ever served that model; as long as a cluster has not told of any, it
/// may come.
fn unknown(snapshot: &Snapshot, model: &str) -> ProxyError {
    let is_waiting =
        snapshot.settings.kubernetes.is_some() && snapshot.each_model().next().is_none();
    if is_waiting {
        return unavailable(model);
    }
    ProxyError::ModelNotFound(model.to_owned())
}

fn unavailable(model: &str) -> ProxyError {
    ProxyError::ModelUnavailable {
        model: model.to_owned(),
        seconds: 1,
    }
}

/// The engine that the request itself names.
pub(super) fn pinned<'a>(
    snapshot: &'a Snapshot,
    by_path: &Pinned,
    wishes: &Wishes<'_>,
    model: &'a Model,
) -> Result<Option<&'a Candidate>, ProxyError> {
    let id = match (by_path, wishes.engine) {
        (Pinned::Unnamed, _) => return Err(ProxyError::NoEngineId),
        (Pinned::To(id), _) => id.as_str(),
        (Pinned::No, Some(id)) => id,
        (Pinned::No, None) => return Ok(None),
    };
    let found = named(snapshot, by_path, wishes);
    let found = found.ok_or_else(|| ProxyError::EngineNotFound(id.to_owned()))?;
    let now = snapshot.clock(std::time::Instant::now());
    let is_up = found.engine.health.is_up(now) && found.spec.closed != Some(Closed::NoModels);
    if model.name.is_empty() {
        // What a path is for one engine for goes to it, however it is.
        return match by_path {
            Pinned::No if !is_up => Err(ProxyError::EngineAside(id.to_owned())),
            _ => Ok(Some(found)),
        };
    }
    let mut serving = model.candidates.list().iter();
    let Some(serving) = serving.find(|one| one.engine.key == found.engine.key) else {
        return Err(ProxyError::EngineWithoutModel {
            engine: id.to_owned(),
            model: model.name.to_string(),
        });
    };
    if !is_up {
        return Err(ProxyError::EngineAside(id.to_owned()));
    }
    Ok(Some(serving))
}

/// The engine of the id that the path or the head has, if there is one.
pub(super) fn named<'a>(
    snapshot: &'a Snapshot,
    by_path: &Pinned,
    wishes: &Wishes<'_>,
) -> Option<&'a Candidate> {
    let id = match by_path {
        Pinned::To(id) => Some(id.as_str()),
        _ => wishes.engine,
    }?;
    let mut all = snapshot.all.candidates.list().iter();
    all.find(|one| one.engine.url.text() == id)
}
