//! What must be known of a request before it can be sent: what its head asks, as
//! much of its body as the choice needs, who may get it.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;

use super::budget::Share;
use super::choose::Choosing;
use super::error::ProxyError;
use super::facts::{self, Peeked, Peeking, Wanted};
use super::headers::Pinned;
use super::models::Scope;
use super::smart::Smartly;
use super::wishes::Wishes;
use super::{Exchange, admission, ask, models, selected, splice};
use crate::advise::{About, Asking};
use crate::config::Timeouts;
use crate::config::policies::PolicyKind;
use crate::decisions::DecisionLog;
use crate::downstream::Serving;
use crate::fleet::blocks::Block;
use crate::fleet::layout::Capability;
use crate::fleet::{Candidate, Model, Snapshot};
use crate::policy::blocks::judged;
use crate::policy::memory::Fingerprint;
use crate::policy::reason::{self, Reason};
use crate::policy::{Advice, Asked, Moment, Policy, Question, Refusal, Rules, Tried};

/// Where a request's body comes from.
pub(super) enum Source {
    /// From the client.
    Client(Incoming),
    /// It was made here, of what the client sent: all of it, and its part of the
    /// budget. Boxed, since most are not.
    Made(Box<(Bytes, Share)>),
}

/// A request that is ready to be sent.
pub(super) struct Ready<'a> {
    pub(super) model: &'a Arc<Model>,
    /// Who picks its engine.
    pub(super) policy: Arc<Policy>,
    /// The block that was chosen before, and why.
    pub(super) block: Option<Box<BlockChoice>>,
    pub(super) pinned: Option<&'a Candidate>,
    pub(super) asked: Asked,
    pub(super) prints: Vec<Fingerprint>,
    pub(super) is_inference: bool,
    /// How its model was chosen by cost and quality, and what is learned from it.
    pub(super) smart: Option<Box<Smartly>>,
}

/// That a block was chosen by attributes, and its model with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockChoice {
    pub(super) reason: Reason,
    /// The record of it.
    pub(super) decision: Option<u64>,
}

impl Exchange<'_> {
    /// What the request's head asks, and of which policy.
    pub(super) fn wishes(&self) -> Result<(Wishes<'_>, &Arc<Policy>), ProxyError> {
        let allow = &self.snapshot.settings.routing.allow;
        let mut wishes = Wishes::of(&self.head.headers, allow)?;
        let caller = self.caller.filter(|caller| caller.is_restricted());
        wishes.caller = caller.map(|caller| &**caller);
        if let Some(caller) = wishes.caller {
            admission::may_ask(caller, self.head.uri.path())?;
        }
        let policy = ask::policy(self.snapshot, &wishes, &self.pinned)?;
        Ok((wishes, policy))
    }

    /// Who may get the request, and by what it is chosen.
    pub(super) async fn ready(
        &self,
        wishes: &Wishes<'_>,
        policy: &Arc<Policy>,
        peeked: &mut Peeked,
        serving: &Serving,
    ) -> Result<Ready<'_>, ProxyError> {
        let snapshot = self.snapshot;
        let from = (wishes, policy);
        let asked = (&*peeked, self.inference);
        let policy = selected::of(snapshot, &self.proxy.selections, from, asked)?;
        ask::heeds(&policy, wishes, &self.pinned)?;
        let (mut policy, given) = self.given(policy);
        let mut smart = self.watched(&policy, peeked);
        let scope = match (given, &policy.spec.kind) {
            (Some(block), _) => Scope::Model(&block.model),
            (None, PolicyKind::Smart(of)) => {
                // Boxed, as few requests need it.
                let smartly = Box::pin(self.smartly((&policy, of), wishes, peeked));
                let (model, told) = smartly.await?;
                smart = told;
                Scope::Model(model)
            }
            (None, _) => models::scope(snapshot, &policy, (wishes, &self.pinned), peeked)?,
        };
        if let Scope::Model(model) = scope {
            models::may_use(snapshot, wishes, model)?;
        }
        if let (Scope::Model(model), false) = (scope, policy.of_models.is_empty()) {
            policy = of_model(snapshot, &policy, model);
        }
        let advice = if self.is_advised(&policy, (wishes, peeked)) {
            // Boxed, as few requests need it.
            Box::pin(self.advised(&policy, scope, (peeked, serving))).await?
        } else {
            Advice::None
        };
        let (model, block) = match scope {
            Scope::Model(model) => (model, None),
            Scope::Blocks => {
                let (block, choice) = self.block(&policy, advice.clone(), (wishes, peeked))?;
                models::may_use(snapshot, wishes, &block.model)?;
                if let Some(inference) = self.inference {
                    inference.bind(&block.id);
                }
                policy = policy.instance.as_ref().map_or(policy.clone(), Arc::clone);
                (&block.model, Some(Box::new(choice)))
            }
        };
        let pinned = models::pinned(snapshot, &self.pinned, wishes, model)?;
        // The body may have taken its time.
        let clock = || snapshot.clock(Instant::now());
        let of = (&mut *peeked, &**model);
        let (mut asked, prints) =
            ask::asked(&policy, self.head, (wishes, serving.peer()), of, clock);
        asked.advice = advice;
        splice::prepare(peeked, &model.name);
        Ok(Ready {
            model,
            policy,
            block,
            pinned,
            asked,
            prints,
            is_inference: peeked.facts.is_inference,
            smart,
        })
    }

    /// Whether the policy asks others about this request: not for one that names
    /// its engine, or that is none for a model.
    fn is_advised(&self, policy: &Policy, (wishes, peeked): (&Wishes<'_>, &Peeked)) -> bool {
        let is_free = wishes.engine.is_none() && self.pinned == Pinned::No;
        let is_asking = matches!(policy.spec.kind, PolicyKind::Advised(_));
        is_asking && is_free && peeked.facts.is_inference
    }

    /// What they say. The request's own time may be up before theirs; then it has
    /// failed, and whoever waits for the same asks anew.
    async fn advised(
        &self,
        policy: &Arc<Policy>,
        scope: Scope<'_>,
        (peeked, serving): (&Peeked, &Serving),
    ) -> Result<Advice, ProxyError> {
        let (proxy, snapshot, facts) = (self.proxy, self.snapshot, &peeked.facts);
        let set = match scope {
            Scope::Model(model) => &model.candidates,
            Scope::Blocks => &snapshot.blocks.all.candidates,
        };
        let bound = proxy.selections.borrow_mut().bound(policy, snapshot, set);
        let asked = Asked {
            prompt_tokens: facts.estimated_tokens,
            max_tokens: facts.max_tokens,
            ..Asked::default()
        };
        let asking = Asking {
            snapshot,
            policy,
            question: Question {
                set,
                asked: &asked,
                tried: &Tried::default(),
                moment: Moment {
                    now: snapshot.clock(Instant::now()),
                    stale_after: proxy.settings.stale_after,
                    rules: Rules::of(&snapshot.settings),
                },
                bound: bound.as_deref(),
            },
            request: About {
                model: facts.model.as_deref(),
                path: self.head.uri.path(),
                stream: facts.stream,
            },
        };
        let mut asked = pin!(proxy.advisers.ask(&asking));
        let deadline = serving.deadline();
        let advice = std::future::poll_fn(|cx| match asked.as_mut().poll(cx) {
            Poll::Pending if deadline.expired(cx) => Poll::Ready(None),
            other => other.map(Some),
        });
        let advice = advice.await;
        if let (None, Some(askings)) = (&advice, &policy.askings) {
            askings.count(reason::Asking::Late);
        }
        advice.ok_or(ProxyError::Expired)
    }

    /// The best block, for a request that leaves its model open; of those that have
    /// the engine that it names, if it names one.
    fn block(
        &self,
        policy: &Arc<Policy>,
        advice: Advice,
        (wishes, peeked): (&Wishes<'_>, &Peeked),
    ) -> Result<(&Block, BlockChoice), ProxyError> {
        let blocks = &self.snapshot.blocks;
        let asked = Asked {
            prompt_tokens: peeked.facts.estimated_tokens,
            max_tokens: peeked.facts.max_tokens,
            capability: Capability::of_path(self.head.uri.path()),
            advice,
            ..Asked::default()
        };
        let log = (wishes.explain || self.is_sampled()).then_some(&*self.proxy.settings.decisions);
        let choosing = self.choosing(policy, &blocks.all, &asked, log);
        let now = Instant::now();
        let refused = |refusal| match refusal {
            Refusal::Nobody => ProxyError::NoEngine,
            refusal => ProxyError::Refused(refusal),
        };
        let groups = blocks.all.candidates.groups.as_ref();
        let named = models::named(self.snapshot, &self.pinned, wishes);
        let unit = match (named, policy.spec.kind.scored()) {
            (Some(engine), Some(scored)) => {
                let judged = judged(scored, &choosing.question(&Tried::default(), now));
                let fit = judged.iter().filter(|one| one.excluded.is_none());
                let mut fit = fit.map(|one| one.unit);
                let has = |unit: &usize| {
                    let mut engines = blocks.list()[*unit].model.candidates.list().iter();
                    engines.any(|one| one.engine.key == engine.engine.key)
                };
                Some(
                    fit.find(has)
                        .ok_or(ProxyError::Refused(Refusal::NoMatchNow))?,
                )
            }
            _ => {
                let at = choosing.place(&Tried::default(), now).map_err(refused)?;
                groups.map(|groups| groups.of(at))
            }
        };
        let block = unit.and_then(|unit| blocks.list().get(unit));
        let choice = BlockChoice {
            reason: choosing.reason.get(),
            decision: choosing.recorded.get(),
        };
        Ok((block.ok_or(ProxyError::NoEngine)?, choice))
    }

    /// Everything that a choice among that model's engines is made from.
    pub(super) fn choosing<'a>(
        &'a self,
        policy: &'a Arc<Policy>,
        model: &'a Arc<Model>,
        asked: &'a Asked,
        log: Option<&'a DecisionLog>,
    ) -> Choosing<'a> {
        let mut selections = self.proxy.selections.borrow_mut();
        Choosing {
            bound: selections.bound(policy, self.snapshot, &model.candidates),
            snapshot: self.snapshot,
            policy,
            model,
            asked,
            prints: &[],
            pinned: None,
            rng: &self.proxy.rng,
            stale_after: self.proxy.settings.stale_after,
            log,
            request_id: self.id.to_str().unwrap_or_default(),
            recorded: Cell::new(None),
            reason: Cell::default(),
            block: None,
            choice: None,
        }
    }

    /// Reads of the body what the choice needs.
    pub(super) async fn peek(
        &self,
        source: Source,
        serving: &Serving,
        (wishes, policy): (&Wishes<'_>, &Policy),
    ) -> Result<Peeked, ProxyError> {
        let peeking = self.peeking(serving, (wishes, policy));
        match source {
            Source::Client(body) => {
                let peeked = facts::peek(self.head, body, peeking).await?;
                if wishes.caller.is_some() && !admission::is_seen(&peeked) {
                    return Err(ProxyError::BodyUnseen(peeking.limits.max_peek_bytes));
                }
                Ok(peeked)
            }
            Source::Made(made) => {
                let (body, share) = *made;
                let wanted = Wanted {
                    any_model: true,
                    ..peeking.wanted
                };
                let mut peeked = facts::look(self.head, body, wanted)?;
                peeked.share = share;
                let session = self.inference.map(|of| of.session().to_owned());
                peeked.facts.session_id = session;
                Ok(peeked)
            }
        }
    }

    /// What reading its body needs to know.
    pub(super) fn peeking<'a>(
        &'a self,
        serving: &'a Serving,
        (wishes, policy): (&Wishes<'_>, &'a Policy),
    ) -> Peeking<'a> {
        let settings = &self.snapshot.settings;
        Peeking {
            limits: &settings.limits,
            budget: &self.proxy.settings.budget,
            deadline: serving.deadline(),
            idle: settings.timeouts.client_body_idle,
            wanted: ask::wanted(wishes, &policy.spec.kind, self.snapshot),
        }
    }

    /// Sets the time of the whole; tells how long each phase may last.
    pub(super) fn limited<'a>(
        &'a self,
        wishes: &Wishes<'_>,
        policy: &'a Policy,
        serving: &Serving,
    ) -> (&'a Timeouts, Option<Duration>) {
        let settings = &self.snapshot.settings;
        let timeouts = policy.spec.timeouts.as_ref().unwrap_or(&settings.timeouts);
        let total = wishes.timeout.into_iter().chain(timeouts.total).min();
        let deadline = serving.deadline();
        deadline.limit(total.map(|total| self.began + total));
        (timeouts, total)
    }
}

/// The policy that picks of that model's engines: its own, if it has one.
pub(super) fn of_model(
    snapshot: &Snapshot,
    policy: &Arc<Policy>,
    model: &Arc<Model>,
) -> Arc<Policy> {
    let mut own = policy.of_models.iter();
    let is_its = |name: &str| {
        snapshot
            .model(name)
            .is_some_and(|of| Arc::ptr_eq(of, model))
    };
    let own = own.find(|(name, _)| is_its(name));
    Arc::clone(own.map_or(policy, |(_, own)| own))
}
