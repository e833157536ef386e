//! The candidates as one decision sees them: who is open to it, with what
//! weight, and how one or two of them are drawn.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fastrand::Rng;

use super::bound::Bound;
use super::reason::Reason;
use super::{Asked, Moment, Question, Refusal, Tried};
use crate::fleet::attributes::Freshness;
use crate::fleet::health::millis;
use crate::fleet::{Candidate, CandidateSet, Engine};

/// Draws that may meet an engine that is not open before all are looked at.
const DRAWS: usize = 8;
/// Why an engine is closed that has as many requests as it may.
pub(super) const FULL: &str = "full";
/// A new engine's share of its weight at least.
const LEAST_RAMP: f64 = 0.1;

/// Which engines are open. Those where asking is in vain never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heeding {
    /// Those with a weight that are not set aside.
    All,
    /// Also those that are ejected, as too many are.
    Panic,
    /// Also those without a weight, and under pressure: there are no others.
    Least,
}

/// What is noted while a decision is made: the branch that was taken, and the
/// positions that were drawn at random.
#[derive(Debug, Default)]
pub(super) struct Noted {
    drawn: Cell<([u32; Noted::MOST], usize)>,
    reason: Cell<Reason>,
}

impl Noted {
    /// No policy draws more.
    const MOST: usize = 8;

    fn draw(&self, at: usize) {
        let (mut list, count) = self.drawn.get();
        if let Some(slot) = list.get_mut(count) {
            *slot = u32::try_from(at).unwrap_or(u32::MAX);
            self.drawn.set((list, count + 1));
        }
    }

    /// All that were drawn, in their order.
    pub(super) fn drawn(&self) -> Vec<usize> {
        let (list, count) = self.drawn.get();
        let drawn = list.iter().take(count);
        drawn.filter_map(|at| usize::try_from(*at).ok()).collect()
    }

    /// The branch that was taken last.
    pub(super) fn reason(&self) -> Reason {
        self.reason.get()
    }
}

/// Candidates, as one decision sees them. Positions are those of the set's list.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) set: &'a CandidateSet,
    pub(super) asked: &'a Asked,
    pub(super) moment: Moment,
    /// By when attributes are told fresh from stale.
    pub(super) by: Freshness,
    /// [`Moment::now`] in milliseconds.
    now_ms: u64,
    tried: &'a Tried,
    heeding: Heeding,
    /// Positions to which the choice is confined.
    only: Option<&'a [u32]>,
    /// What of a selection by attributes was looked at before.
    pub(super) bound: Option<&'a Bound>,
    noted: &'a Noted,
}

impl<'a> View<'a> {
    pub(super) fn new(question: &Question<'a>, noted: &'a Noted) -> Self {
        let moment = question.moment;
        Self {
            set: question.set,
            asked: question.asked,
            moment,
            by: moment.freshness(),
            now_ms: millis(moment.now),
            tried: question.tried,
            heeding: if question
                .set
                .is_panicking(moment.now, moment.rules.max_ejected)
            {
                Heeding::Panic
            } else {
                Heeding::All
            },
            only: None,
            bound: question.bound,
            noted,
        }
    }

    /// The branch that is taken, unless another one is taken after it.
    pub(super) fn takes(&self, branch: Reason) {
        self.noted.reason.set(branch);
    }

    /// Whether ejected engines are asked too, as too many are.
    pub(super) fn is_panicking(&self) -> bool {
        self.heeding == Heeding::Panic
    }

    /// The same, with all open that it is not in vain to ask.
    pub(super) fn lenient(&self) -> Self {
        Self {
            heeding: Heeding::Least,
            ..*self
        }
    }

    /// The same, confined to these positions.
    pub(super) fn confined<'b>(&self, only: &'b [u32]) -> View<'b>
    where
        'a: 'b,
    {
        View {
            set: self.set,
            asked: self.asked,
            moment: self.moment,
            by: self.by,
            now_ms: self.now_ms,
            tried: self.tried,
            heeding: self.heeding,
            only: Some(only),
            bound: None,
            noted: self.noted,
        }
    }

    /// Whether the whole set is to choose from.
    pub(super) fn is_whole(&self) -> bool {
        self.only.is_none()
    }

    /// Whether that is so, and weights are heeded.
    pub(super) fn is_strict(&self) -> bool {
        self.is_whole() && self.heeding != Heeding::Least
    }

    /// How many there are to choose from, open or not.
    pub(super) fn len(&self) -> usize {
        self.only.map_or(self.set.list().len(), <[u32]>::len)
    }

    /// The position of the `n`th of them.
    pub(super) fn at(&self, n: usize) -> usize {
        self.only.map_or(n, |only| only[n] as usize)
    }

    /// Whether that position is one to choose from.
    pub(super) fn contains(&self, at: usize) -> bool {
        // At most as many as `MOST_KEPT`.
        self.only
            .is_none_or(|only| only.iter().any(|one| *one as usize == at))
    }

    #[inline]
    pub(super) fn one(&self, at: usize) -> &'a Candidate {
        &self.set.list()[at]
    }

    #[inline]
    pub(super) fn engine(&self, at: usize) -> &'a Engine {
        &self.one(at).engine
    }

    /// Whether that one may be chosen.
    #[inline]
    pub(super) fn is_open(&self, at: usize) -> bool {
        self.closed(at).is_none()
    }

    /// Why that one may not be chosen.
    #[inline]
    pub(super) fn closed(&self, at: usize) -> Option<&'static str> {
        let engine = self.engine(at);
        if self.tried.contains(engine) {
            return Some("tried");
        }
        let health = &engine.health;
        if !health.is_up_at(self.now_ms) {
            let is_open = match self.heeding {
                Heeding::All => false,
                Heeding::Panic => health.is_ejected_at(self.now_ms),
                Heeding::Least => !health.is_out_at(self.now_ms),
            };
            if !is_open {
                return Some(health.why_closed());
            }
        }
        if engine.in_flight.load(Relaxed) >= self.moment.rules.max_per_engine {
            return Some(FULL);
        }
        let layout = &self.set.layout;
        if layout.weights[at] <= 0.0 {
            if let Some(closed) = layout.closed[at] {
                return Some(closed.word());
            }
            if self.heeding != Heeding::Least {
                return Some("weight 0");
            }
        }
        None
    }

    /// Why nobody may be chosen.
    pub(super) fn refusal(&self) -> Refusal {
        let why = |at: usize| self.closed(at).filter(|why| *why != "tried");
        let mut all = (0..self.len()).filter_map(|n| why(self.at(n)));
        match all.next() {
            None => Refusal::Nobody,
            Some(FULL) => Refusal::Full,
            Some(_) if all.any(|why| why == FULL) => Refusal::Full,
            Some(_) => Refusal::AllUnhealthy,
        }
    }

    /// All that may be chosen.
    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.len())
            .map(|n| self.at(n))
            .filter(|at| self.is_open(*at))
    }

    /// Its configured share, and never nothing: a policy divides by it.
    pub(super) fn share(&self, at: usize) -> f64 {
        let weight = self.set.layout.weights[at];
        if weight > 0.0 { weight } else { 1e-9 }
    }

    /// Its share as of now: less for one that has just come.
    pub(super) fn weight(&self, at: usize) -> f64 {
        self.share(at) * self.ramp(at)
    }

    /// How far a new engine has come, up to 1.
    pub(super) fn ramp(&self, at: usize) -> f64 {
        let slow = self.moment.rules.slow_start;
        let up = self.engine(at).health.up_for(self.now_ms);
        if up >= millis(slow.over) {
            return 1.0;
        }
        let part = Duration::from_millis(up).as_secs_f64() / slow.over.as_secs_f64();
        part.powf(1.0 / slow.shape).max(LEAST_RAMP)
    }

    /// Any one of those that may be chosen.
    pub(super) fn draw(&self, rng: &mut Rng) -> Option<usize> {
        self.draw_but(rng, usize::MAX)
    }

    /// Two of them; twice the same when there is but one.
    pub(super) fn draw_two(&self, rng: &mut Rng) -> Option<(usize, usize)> {
        let first = self.draw_but(rng, usize::MAX)?;
        let second = self.draw_but(rng, first).unwrap_or(first);
        Some((first, second))
    }

    /// The one of two that costs less; of equals the first drawn.
    pub(super) fn better_of_two(
        &self,
        rng: &mut Rng,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let (first, second) = self.draw_two(rng)?;
        if first == second || cost(first) <= cost(second) {
            return Some(first);
        }
        Some(second)
    }

    /// The one that costs least; of equals any.
    pub(super) fn least(
        &self,
        of: impl Iterator<Item = usize>,
        rng: &mut Rng,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let (mut best, mut least, mut equals) = (None, f64::INFINITY, 0u32);
        for at in of {
            let cost = cost(at);
            if cost < least || best.is_none() {
                (best, least, equals) = (Some(at), cost, 1);
            } else if cost == least {
                equals += 1;
                if rng.u32(..equals) == 0 {
                    best = Some(at);
                }
            }
        }
        best
    }

    fn draw_but(&self, rng: &mut Rng, not: usize) -> Option<usize> {
        let count = self.len();
        if count == 0 {
            return None;
        }
        for _ in 0..DRAWS {
            let at = self.at(rng.usize(..count));
            if at != not && self.is_open(at) {
                self.noted.draw(at);
                return Some(at);
            }
        }
        let from = rng.usize(..count);
        let mut all = (from..count).chain(0..from).map(|n| self.at(n));
        all.find(|at| *at != not && self.is_open(*at))
    }
}
