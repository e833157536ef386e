//! What a policy of type `smart` keeps while it is in force, whatever else a reload
//! changes: its multipliers, and what came of its choices.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::choose::Why;
use super::history::MOST_MODELS;
use super::running::Running;

/// Under which further models are counted.
const OTHER: &str = "other";

/// A policy's multipliers, and its figures.
#[derive(Debug)]
pub struct InForce {
    /// λ and μ.
    pub running: Running,
    /// Of what it decided, or would have as the shadow. Never locked by a worker:
    /// by the thread that counts, and by the one that renders.
    tally: Mutex<Tally>,
}

/// What came of a policy's choices.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Choices by model and why.
    pub choices: BTreeMap<(Arc<str>, &'static str), u64>,
    /// Of those that were chosen, the sum of the predicted chances to be right.
    pub quality: f64,
    /// Requests that have ended, with a price that is known.
    pub priced: u64,
    /// What they cost.
    pub cost: f64,
    /// What the shadow says.
    pub shadow: ShadowTally,
}

/// What the shadow would have done with the requests that others decided.
#[derive(Debug, Clone, Default)]
pub struct ShadowTally {
    /// Requests that it looked at.
    pub requests: u64,
    /// Those for which it would have chosen the same model.
    pub agreed: u64,
    /// Those of which both prices are known: the costs are of these.
    pub priced: u64,
    /// What they cost as they were served.
    pub live_cost: f64,
    /// What they would have cost.
    pub cost: f64,
    /// Sum of the predicted chances that the answers are right, as served.
    pub live_quality: f64,
    /// The same of those that would have been chosen.
    pub quality: f64,
}

impl InForce {
    /// A policy that comes into force.
    #[must_use]
    pub fn new(requirement: f64) -> Self {
        Self {
            running: Running::new(requirement),
            tally: Mutex::default(),
        }
    }

    /// Counts one choice.
    pub(super) fn chose(&self, model: &Arc<str>, why: Why, quality: f64) {
        let mut tally = self.lock();
        let key = (Arc::clone(model), why.name());
        let is_known = tally.choices.contains_key(&key);
        // One more reason of a known model has room.
        let has_room = tally.choices.len() < MOST_MODELS * Why::ALL.len();
        let key = if is_known || has_room {
            key
        } else {
            (Arc::from(OTHER), key.1)
        };
        *tally.choices.entry(key).or_default() += 1;
        tally.quality += quality;
    }

    /// Adds what a request cost.
    pub(super) fn cost(&self, cost: f64) {
        let mut tally = self.lock();
        tally.priced += 1;
        tally.cost += cost;
    }

    /// Adds what the shadow says of one request.
    pub(super) fn shadowed(&self, add: impl FnOnce(&mut ShadowTally)) {
        add(&mut self.lock().shadow);
    }

    /// What came of it so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_are_counted_are_bounded() {
        let of = InForce::new(0.7);
        for number in 0..1000 {
            of.chose(&Arc::from(format!("m{number}")), Why::Best, 0.5);
        }
        let tally = of.tally();
        assert_eq!(tally.choices.len(), MOST_MODELS * Why::ALL.len() + 1);
        assert_eq!(tally.choices.values().sum::<u64>(), 1000);
        assert!((tally.quality - 500.0).abs() < 1e-9);
    }
}
