//! The model that a request is for, and the engine that it names itself.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::error::ProxyError;
use super::facts::Peeked;
use super::headers::{OWN_PREFIX, Pinned};
use super::wishes::Wishes;
use crate::auth::Caller;
use crate::config::policies::PolicyKind;
use crate::fleet::gate::Gate;
use crate::fleet::{Candidate, Closed, Model, Snapshot};
use crate::policy::Policy;
use crate::smart::weigh::Open;

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
    from: (&Wishes<'_>, &Pinned),
    peeked: &Peeked,
) -> Result<&'a Arc<Model>, ProxyError> {
    match allowed(snapshot, policy, from, peeked)? {
        Allowed::One(model) => Ok(model),
        Allowed::Several(several) => several.in_turn(snapshot, policy),
    }
}

/// The models that a request leaves that policy to choose from.
pub(super) fn allowed<'a, 'b>(
    snapshot: &'a Snapshot,
    policy: &'b Policy,
    (wishes, by_path): (&'b Wishes<'_>, &Pinned),
    peeked: &'b Peeked,
) -> Result<Allowed<'a, 'b>, ProxyError>
where
    'a: 'b,
{
    let has_name = peeked.facts.model.is_some() && !peeked.out_of_reach;
    if wishes.models.is_some() && !has_name {
        return Err(ProxyError::Header {
            name: format!("{OWN_PREFIX}models"),
            message: "the body has no 'model' to put the chosen one's name in".to_owned(),
        });
    }
    if peeked.out_of_reach {
        let only = snapshot.only_model();
        return only.map(Allowed::One).ok_or(ProxyError::BodyTooLarge(
            "model",
            snapshot.settings.limits.max_peek_bytes,
        ));
    }
    let Some(name) = &peeked.facts.model else {
        return Ok(Allowed::One(&snapshot.all));
    };
    let known = snapshot.model(name);
    if !policy.spec.kind.chooses_models() {
        return known
            .map(Allowed::One)
            .ok_or_else(|| unknown(snapshot, name));
    }
    let (own, is_smart) = match &policy.spec.kind {
        PolicyKind::Smart(of) => (of.models.as_slice(), true),
        _ => (&[][..], false),
    };
    let (asked, models) = match (wishes.models, known) {
        (Some(list), _) => (list, listed(snapshot, list)?),
        (None, Some(model)) => return Ok(Allowed::One(model)),
        (None, None) if !matches!(name.as_str(), "" | "auto") => {
            (name.as_str(), listed(snapshot, name)?)
        }
        (None, None) if own.is_empty() => {
            let all = snapshot.models().into_iter();
            let served = all.filter(|model| model.is_served());
            let served = served.map(|model| (&*model.name, Some(model)));
            let served: Vec<Named<'_, '_>> = served.collect();
            // To weigh them all would take too long, and hold too much.
            if served.len() > MOST && is_smart {
                return Err(ProxyError::TooManyModels(MOST));
            }
            (name.as_str(), served)
        }
        (None, None) => {
            let own = own
                .iter()
                .map(|one| (&*one.name, snapshot.model(&one.name)));
            (name.as_str(), own.collect())
        }
    };
    let models = match wishes.caller {
        Some(caller) => usable(snapshot, caller, models)?,
        None => models,
    };
    // A model that the engine which the request names does not serve is none.
    let pinned = named(snapshot, by_path, wishes).map(|one| one.engine.key);
    Ok(Allowed::Several(Several {
        asked,
        models,
        pinned,
    }))
}

/// Among which models the policy may choose.
pub(super) enum Allowed<'a, 'b> {
    /// There is no choice.
    One(&'a Arc<Model>),
    /// Of these one.
    Several(Several<'a, 'b>),
}

/// The models that a request allows.
pub(super) struct Several<'a, 'b> {
    /// In the request's words.
    asked: &'b str,
    /// Those that are known, by the names that they were asked for.
    models: Vec<Named<'a, 'b>>,
    /// The engine that the request names.
    pinned: Option<u64>,
}

impl<'a> Several<'a, '_> {
    /// Those that somebody serves, and whether they could now.
    ///
    /// # Errors
    /// That there are none.
    pub(super) fn open(
        &self,
        snapshot: &'a Snapshot,
    ) -> Result<impl Iterator<Item = Open<'_>> + Clone, ProxyError> {
        let now = snapshot.clock(std::time::Instant::now());
        let models = self.models.iter().enumerate();
        let open = models.filter_map(move |(at, (asked, model))| {
            let model = model.filter(|model| model.is_served())?;
            // By another of its names it is the same.
            let mut before = self.models[..at].iter();
            let is_new = before.all(|(_, known)| known.is_none_or(|of| !Arc::ptr_eq(of, model)));
            is_new.then(|| Open {
                asked,
                model,
                is_open: self.has_room(model, snapshot, now),
            })
        });
        if open.clone().next().is_some() {
            return Ok(open);
        }
        Err(self.nobody(snapshot))
    }

    /// Whether the model could serve the request at once.
    fn has_room(&self, model: &Model, snapshot: &Snapshot, now: Duration) -> bool {
        let limits = &snapshot.settings.admission;
        let each = limits.max_per_engine.unwrap_or(u32::MAX);
        let is_in = |of: &Gate, most: u32| of.taken() < most;
        let mut engines = model.candidates.list().iter();
        (limits.max_per_model).is_none_or(|most| is_in(&model.gate, most))
            && engines.any(|one| self.takes(one, now) && one.engine.in_flight.load(Relaxed) < each)
    }

    /// Whether the engine may be asked.
    fn takes(&self, one: &Candidate, now: Duration) -> bool {
        match self.pinned {
            Some(key) => one.engine.key == key,
            None => one.engine.health.is_up(now) && one.spec.closed.is_none(),
        }
    }

    /// The next in turn that has an engine.
    fn in_turn(
        &self,
        snapshot: &'a Snapshot,
        policy: &Policy,
    ) -> Result<&'a Arc<Model>, ProxyError> {
        let now = snapshot.clock(std::time::Instant::now());
        let models = &self.models;
        let names = models.iter().map(|(name, _)| *name);
        let is_up = |model: &Arc<Model>| {
            let mut engines = model.candidates.list().iter();
            engines.any(|one| self.takes(one, now))
        };
        let next = policy
            .turns
            .next(names, |at| models[at].1.is_some_and(is_up));
        let mut known = models.iter().filter_map(|(_, model)| *model);
        let chosen = next.and_then(|at| models[at].1);
        // Better one whose engines fail than none.
        let chosen = chosen.or_else(|| known.find(|model| model.is_served()));
        chosen.ok_or_else(|| self.nobody(snapshot))
    }

    /// Why there is none.
    fn nobody(&self, snapshot: &Snapshot) -> ProxyError {
        match self.models.iter().any(|(_, model)| model.is_some()) {
            false => unknown(snapshot, self.asked),
            true => unavailable(self.asked),
        }
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

/// Those that the caller may use.
fn usable<'a, 'b>(
    snapshot: &Snapshot,
    caller: &Caller,
    mut models: Vec<Named<'a, 'b>>,
) -> Result<Vec<Named<'a, 'b>>, ProxyError> {
    let first = models.first().map(|(name, _)| (*name).to_owned());
    let leads = |name: &str| leads(snapshot, name);
    models.retain(|(name, model)| caller.may_use(model.map_or(*name, |model| &*model.name), leads));
    match first {
        Some(first) if models.is_empty() => {
            caller.refuse_model();
            Err(ProxyError::ModelNotAllowed(first))
        }
        _ => Ok(models),
    }
}

/// The own name of the model that a name leads to now.
pub(super) fn leads<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a str> {
    snapshot.model(name).map(|model| &*model.name)
}

/// Whether the caller may use the model.
pub(super) fn may_use(
    snapshot: &Snapshot,
    wishes: &Wishes<'_>,
    model: &Model,
) -> Result<(), ProxyError> {
    match wishes.caller {
        Some(caller) if !caller.may_use(&model.name, |name| leads(snapshot, name)) => {
            caller.refuse_model();
            Err(ProxyError::ModelNotAllowed(model.name.to_string()))
        }
        _ => Ok(()),
    }
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
