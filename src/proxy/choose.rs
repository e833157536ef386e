//! Choosing an engine for one request: everything that the choice is made
//! from, gathered where the clock and the random generator are at hand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;

use crate::config::policies::PolicyKind;
use crate::decisions::{DecisionLog, Inputs, Nearer, Record};
use crate::fleet::breaker::Standing;
use crate::fleet::load::{Expected, InFlight};
use crate::fleet::{Candidate, Model, Snapshot};
use crate::policy::bound::Bound;
use crate::policy::memory::Fingerprint;
use crate::policy::reason::{Choice, Reason};
use crate::policy::{self, Asked, Moment, Policy, Question, Refusal, Rules, Tried};
use crate::smart::weigh::ModelChoice;

/// How often a recorded decision is made anew, because others took its turn.
const MOST_ROUNDS: u32 = 4;

/// What a choice is made from.
#[derive(Debug)]
pub struct Choosing<'a> {
    /// The view of the fleet.
    pub snapshot: &'a Snapshot,
    /// Who is asked.
    pub policy: &'a Arc<Policy>,
    /// Among whose engines.
    pub model: &'a Arc<Model>,
    /// The request.
    pub asked: &'a Asked,
    /// How its prompt begins.
    pub prints: &'a [Fingerprint],
    /// Who must get it, whatever the policy.
    pub pinned: Option<&'a Candidate>,
    /// The worker's own.
    pub rng: &'a RefCell<Rng>,
    /// The greatest age of attributes that count.
    pub stale_after: Duration,
    /// Where the decision is kept, if it is to be explained.
    pub log: Option<&'a DecisionLog>,
    /// The request's id.
    pub request_id: &'a str,
    /// The last record's number.
    pub recorded: Cell<Option<u64>>,
    /// Why the last engine was chosen.
    pub reason: Cell<Reason>,
    /// Why its block was, when another choice came before this one.
    pub block: Option<Reason>,
    /// What of the policy's selection was looked at before.
    pub bound: Option<Rc<Bound>>,
    /// How its model was chosen, if by cost and quality.
    pub choice: Option<&'a Arc<ModelChoice>>,
}

impl<'a> Choosing<'a> {
    /// An engine that was not tried.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&self, tried: &Tried, now: Instant) -> Result<&'a Candidate, Refusal> {
        if let Some(pinned) = self.pinned {
            let is_tried = tried.contains(&pinned.engine);
            self.reason.set(Reason::Pinned);
            return Some(pinned).filter(|_| !is_tried).ok_or(Refusal::Nobody);
        }
        let (model, at) = self.nearest(tried, now)?;
        let chosen = model.candidates.list().get(at);
        let chosen = chosen.ok_or(Refusal::Nobody)?;
        if let Some(memory) = &self.policy.memory {
            memory.learn(self.prints, chosen.engine.key, self.snapshot.clock(now));
        }
        Ok(chosen)
    }

    /// The position of an engine of the model that was not tried, by the policy.
    ///
    /// # Errors
    /// Why there is none.
    pub fn place(&self, tried: &Tried, now: Instant) -> Result<usize, Refusal> {
        let question = self.question(tried, now);
        let log = self.log(&question);
        self.among(self.model, &question, (log, &Nearer::default()))
    }

    /// The same among the nearest engines of which one is open, whoever they are;
    /// what is said when nobody is open is said of all.
    fn nearest(&self, tried: &Tried, now: Instant) -> Result<(&'a Arc<Model>, usize), Refusal> {
        let question = self.question(tried, now);
        let log = self.log(&question);
        let mut nearer = Nearer::default();
        for near in self.model.nearer(&self.policy.spec.kind) {
            let question = Question {
                set: &near.candidates,
                bound: None,
                ..question
            };
            match self.among(near, &question, (log, &nearer)) {
                Ok(at) => return Ok((near, at)),
                Err(refusal) => {
                    let slot = near.candidates.tier.map(|tier| &mut nearer[tier as usize]);
                    slot.into_iter().for_each(|slot| *slot = Some(refusal));
                }
            }
        }
        let at = self.among(self.model, &question, (log, &nearer))?;
        Ok((self.model, at))
    }

    /// The policy's choice among these, after it was asked among those nearer.
    fn among(
        &self,
        model: &Arc<Model>,
        question: &Question<'_>,
        (log, nearer): (Option<&DecisionLog>, &Nearer),
    ) -> Result<usize, Refusal> {
        let Choice { at, reason } = match log {
            None => self.decide(question)?,
            Some(log) => self.recorded(log, question, (model, nearer))?,
        };
        let is_last_resort = matches!(reason, Reason::Panic | Reason::LastResort);
        let of_block = self.block.filter(|_| reason == Reason::Primary);
        self.reason.set(match of_block {
            Some(of_block) => of_block,
            None if !is_last_resort && nearer.iter().any(Option::is_some) => Reason::NotLocal,
            None => reason,
        });
        Ok(at)
    }

    /// Where the decision is kept, if it is.
    fn log(&self, question: &Question<'_>) -> Option<&'a DecisionLog> {
        self.log.filter(|log| log.has_room(question.moment.now))
    }

    /// Whether the policy might choose that block now.
    #[must_use]
    pub fn fits(&self, block: usize, now: Instant) -> bool {
        let tried = Tried::default();
        let question = self.question(&tried, now);
        let scored = self.policy.spec.kind.scored();
        scored.is_some_and(|of| policy::blocks::fits(of, &question, block))
    }

    pub(super) fn question<'b>(&'b self, tried: &'b Tried, now: Instant) -> Question<'b> {
        Question {
            set: &self.model.candidates,
            asked: self.asked,
            tried,
            moment: Moment {
                now: self.snapshot.clock(now),
                stale_after: self.stale_after,
                rules: Rules::of(&self.snapshot.settings),
            },
            bound: self.bound.as_deref(),
        }
    }

    /// As [`Choosing::choose`], with a slot on it. An engine on trial is chosen anew if another
    /// worker began the one probe in between.
    ///
    /// # Errors
    /// Why there is none.
    pub fn claim(&self, tried: &Tried, now: Instant) -> Result<(&'a Candidate, InFlight), Refusal> {
        let at = self.snapshot.clock(now);
        let (prompt, most) = (self.asked.prompt_tokens, self.asked.max_tokens);
        let mut rounds = 0;
        loop {
            let chosen = self.choose(tried, now)?;
            let health = &chosen.engine.health;
            let was_open = health.is_up(at);
            let standing = health.take(at);
            rounds += 1;
            let is_late = was_open && standing == Standing::Forced && self.pinned.is_none();
            if !is_late || rounds == MOST_ROUNDS {
                let expected = Expected::of(chosen, prompt, most);
                return Ok((chosen, InFlight::with(chosen, expected, standing, now)));
            }
        }
    }

    /// Whether the policy has reasons of its own to refuse all.
    #[must_use]
    pub fn is_federated(&self) -> bool {
        matches!(self.policy.spec.kind.innermost(), PolicyKind::Federation(_))
    }

    fn decide(&self, question: &Question<'_>) -> Result<Choice, Refusal> {
        policy::choose(&self.policy.spec.kind, question, &mut self.rng.borrow_mut())
    }

    /// Decides from what is taken down, so that what is told is what happened.
    fn recorded(
        &self,
        log: &DecisionLog,
        question: &Question<'_>,
        (model, nearer): (&Arc<Model>, &Nearer),
    ) -> Result<Choice, Refusal> {
        let seed = self.rng.borrow_mut().u64(..);
        let cursor = &question.set.cursor;
        let mut rounds = 0;
        let (inputs, chosen) = loop {
            let mut inputs = Inputs::take(self.policy, model, question, seed);
            inputs.nearer = *nearer;
            let (chosen, turns) = inputs.choose();
            let next = inputs.turn.wrapping_add(turns);
            // Another worker may have taken the turn in between.
            let taken = cursor.compare_exchange(inputs.turn, next, Relaxed, Relaxed);
            rounds += 1;
            if turns == 0 || taken.is_ok() {
                break (inputs, chosen);
            }
            if rounds == MOST_ROUNDS {
                // One turn is given twice, rather than time lost.
                cursor.fetch_add(turns, Relaxed);
                break (inputs, chosen);
            }
        };
        if chosen.is_err() && question.set.tier.is_some() {
            // The decision is that of those who are asked next.
            return chosen;
        }
        let id = log.next_id();
        log.keep(Record {
            id,
            at: SystemTime::now(),
            request_id: self.request_id.to_owned(),
            generation: self.snapshot.generation,
            chosen: chosen.map(|choice| choice.at),
            model_choice: self.choice.cloned(),
            inputs,
        });
        self.recorded.set(Some(id));
        chosen
    }

    /// The session's id, if that is what places the request. Other keys may be
    /// secrets, and are shown to nobody.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        let is_session = matches!(self.policy.spec.kind.innermost(), PolicyKind::Session(_));
        self.asked.key.as_deref().filter(|_| is_session)
    }
}
