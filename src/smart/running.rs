//! Running multipliers: the dual of a stream of requests.
//!
//! λ prices quality: the dual of the last requests ([`dual::lambda`]), with a
//! requirement moved by what the choices so far lack or have over. μ prices a
//! model's places: it rises while more requests are in flight than there are
//! places. Both are read by workers without a lock, and moved by the thread
//! that learns, which owns the [`Window`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::choose::{Candidate, Requirement};
use super::dual::{self, Problem};
use super::history::MOST_MODELS;

/// Requests that λ is made of.
pub const WINDOW: usize = 1024;
/// Requests after which λ is made anew; sooner at the very beginning.
const EVERY: u64 = 32;
/// Requests over which a lack of quality is made up for.
const REPAID_OVER: f64 = 512.0;
/// The most quality, of so many whole answers, that is owed or saved up.
const MOST_OWED: f64 = 8.0;
/// λ is where two choices are equal: so little more, and it is the better; so
/// little less, and it is the cheaper. Requests that are all alike share them.
const NUDGE: f64 = 1e-6;
/// What a load twice the limit adds to μ, at once and with each look at it, in
/// usual differences between models.
const AT_ONCE: f64 = 6.0;
const WITH_TIME: f64 = 0.05;
/// The most that μ is, in the same unit.
const MOST_PRICE: f64 = 64.0;

/// The multipliers of one policy, whatever the unit of its prices.
#[derive(Debug)]
pub struct Running {
    requirement: AtomicU64,
    lambda: AtomicU64,
    /// Of the models whose places cost something.
    prices: ArcSwap<Vec<(Arc<str>, f64)>>,
}

impl Running {
    /// For a policy that has had no request yet.
    #[must_use]
    pub fn new(requirement: f64) -> Self {
        Self {
            requirement: AtomicU64::new(requirement.to_bits()),
            lambda: AtomicU64::new(f64::NAN.to_bits()),
            prices: ArcSwap::default(),
        }
    }

    /// What one unit of quality is worth, in the unit of costs; no number
    /// before the first request.
    #[must_use]
    pub fn lambda(&self) -> f64 {
        f64::from_bits(self.lambda.load(Relaxed))
    }

    /// What a place of a model costs, in the unit of costs; 0 of one that is
    /// not known.
    #[must_use]
    pub fn mu(&self, model: &str) -> f64 {
        let prices = self.prices.load();
        let same = prices.iter().find(|(name, _)| **name == *model);
        same.map_or(0.0, |(_, price)| *price)
    }

    /// The mean quality that is asked for.
    #[must_use]
    pub fn requirement(&self) -> f64 {
        f64::from_bits(self.requirement.load(Relaxed))
    }

    /// Asks for another mean quality; the multipliers stay, and follow.
    pub fn set_requirement(&self, requirement: f64) {
        self.requirement.store(requirement.to_bits(), Relaxed);
    }

    /// The rule of the next choice: each answer by itself until λ is known.
    #[must_use]
    pub fn rule(&self) -> Requirement {
        Requirement::Average {
            lambda: self.lambda(),
            quality: self.requirement(),
        }
    }

    fn price(&self, model: &Arc<str>, price: f64) {
        if self.mu(model).to_bits() == price.to_bits() {
            return;
        }
        let mut prices: Vec<_> = self.prices.load().to_vec();
        prices.retain(|(name, _)| name != model);
        if price > 0.0 {
            prices.push((Arc::clone(model), price));
        }
        self.prices.store(Arc::new(prices));
    }
}

/// The last requests behind the multipliers; at most three megabytes.
#[derive(Debug, Default)]
pub struct Window {
    /// What each request could have.
    rows: VecDeque<Vec<Cell>>,
    seen: u64,
    /// How much quality the choices so far lack.
    owed: f64,
    /// A usual difference in cost between the models of one request.
    spread: f64,
    /// Models of the requests, at most [`MOST_MODELS`].
    models: Vec<Model>,
    costs: Vec<f64>,
    qualities: Vec<f64>,
}

/// A model that a request could have.
#[derive(Debug, Clone, Copy)]
struct Cell {
    quality: f64,
    cost: f64,
    /// With what its load adds.
    price: f64,
}

/// A model that was heard of.
#[derive(Debug)]
struct Model {
    name: Arc<str>,
    /// How many requests there had been at the last that could have it.
    seen: u64,
    /// What has come together in μ.
    pressed: f64,
}

impl Window {
    /// Of no request yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins with requests as they may come, none of which was made: λ is that of
    /// these until there are some.
    pub fn seed(&mut self, running: &Running, rows: &[Vec<Candidate>]) {
        let rows = rows.iter().take(WINDOW);
        self.rows.extend(rows.map(|row| cells(row).collect()));
        if !self.rows.is_empty() {
            self.settle(running);
        }
    }

    /// λ and the usual difference, of the window as it is.
    fn settle(&mut self, running: &Running) {
        let requirement = dual::sound(running.requirement(), 1.0);
        let asked = (requirement + self.owed / REPAID_OVER).clamp(0.0, 1.0);
        let nudge = if self.owed >= 0.0 { NUDGE } else { -NUDGE };
        let lambda = self.solve(asked) * (1.0 + nudge);
        self.spread = self.spread();
        running.lambda.store(lambda.to_bits(), Relaxed);
    }

    /// A request that could have these models, each with its candidate, and got
    /// one. What cannot be meant is ignored.
    pub fn observe(
        &mut self,
        running: &Running,
        models: &[Arc<str>],
        candidates: &[Candidate],
        chosen: usize,
    ) {
        let candidates = &candidates[..candidates.len().min(MOST_MODELS)];
        let Some(one) = candidates.get(chosen) else {
            return;
        };
        for model in models.iter().take(candidates.len()) {
            let seen = self.seen;
            self.model(running, model).seen = seen;
        }
        let requirement = dual::sound(running.requirement(), 1.0);
        let owed = self.owed + requirement - one.worth();
        self.owed = owed.clamp(-MOST_OWED, MOST_OWED);
        let mut row = if self.rows.len() < WINDOW {
            Vec::with_capacity(candidates.len())
        } else {
            self.rows.pop_front().unwrap_or_default()
        };
        row.clear();
        row.extend(cells(candidates));
        self.rows.push_back(row);
        self.seen += 1;
        if self.seen.is_multiple_of(EVERY) || (self.seen < EVERY && self.seen.is_power_of_two()) {
            self.settle(running);
        }
    }

    /// The models that the requests in the window could have.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<str>> {
        let oldest = self.seen.saturating_sub(WINDOW as u64);
        let lately = self.models.iter().filter(|model| model.seen >= oldest);
        lately.map(|model| Arc::clone(&model.name)).collect()
    }

    /// How many requests a model has now, and how many it can have at once (what
    /// is not finite or 0: as many as come); to be told again and again, whether
    /// there are requests or not.
    pub fn load(&mut self, running: &Running, model: &str, in_flight: f64, limit: f64) {
        let unit = if self.spread > 0.0 { self.spread } else { 1.0 };
        let Some(model) = self.models.iter_mut().find(|known| *known.name == *model) else {
            // No request could have it.
            return;
        };
        let over = (in_flight - limit) / limit;
        if !(limit > 0.0 && limit.is_finite() && over.is_finite()) {
            model.pressed = 0.0;
            return running.price(&model.name, 0.0);
        }
        model.pressed = (model.pressed + WITH_TIME * over).clamp(0.0, MOST_PRICE);
        let pressure = (model.pressed + AT_ONCE * over).clamp(0.0, MOST_PRICE);
        running.price(&model.name, pressure * unit);
    }

    /// A model by its name; of too many, the one not seen for longest leaves.
    fn model(&mut self, running: &Running, name: &Arc<str>) -> &mut Model {
        let known = self.models.iter().position(|model| model.name == *name);
        let at = known.unwrap_or_else(|| {
            if self.models.len() == MOST_MODELS {
                let seen = |at: &usize| self.models[*at].seen;
                let oldest = (0..MOST_MODELS).min_by_key(seen).unwrap_or(0);
                running.price(&self.models.swap_remove(oldest).name, 0.0);
            }
            self.models.push(Model {
                name: Arc::clone(name),
                seen: 0,
                pressed: 0.0,
            });
            self.models.len() - 1
        });
        &mut self.models[at]
    }

    /// λ of the requests in the window.
    fn solve(&mut self, requirement: f64) -> f64 {
        let models = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        self.costs.clear();
        self.qualities.clear();
        for row in &self.rows {
            let lacks = models - row.len();
            self.costs.extend(row.iter().map(|cell| cell.price));
            self.qualities.extend(row.iter().map(|cell| cell.quality));
            let (costs, qualities) = (self.costs.len() + lacks, self.qualities.len() + lacks);
            self.costs.resize(costs, f64::INFINITY);
            self.qualities.resize(qualities, 0.0);
        }
        dual::lambda(&Problem {
            models,
            cost: &self.costs,
            quality: &self.qualities,
            requirement,
            limits: &[],
        })
    }

    /// The mean distance between the dearest and the cheapest model of a request;
    /// where they cost the same, a hundredth of that.
    ///
    /// Not of what the load adds: it would be the measure of itself.
    fn spread(&self) -> f64 {
        let costs = |row: &Vec<Cell>| {
            let costs = row.iter().map(|cell| cell.cost);
            let dearest = costs.clone().fold(0.0, f64::max);
            (costs.fold(f64::INFINITY, f64::min), dearest)
        };
        let pairs = || self.rows.iter().map(costs);
        let between: f64 = pairs().map(|(least, most)| most - least).sum();
        let cost: f64 = pairs().map(|(least, _)| least).sum();
        let spread = between.max(cost / 100.0) / self.rows.len().max(1) as f64;
        if spread.is_finite() { spread } else { 0.0 }
    }
}

/// Those that could be had, as the choice sees them.
fn cells(candidates: &[Candidate]) -> impl Iterator<Item = Cell> {
    let any_open = candidates.iter().any(|one| one.is_open);
    let able = move |one: &&Candidate| one.is_open || !any_open;
    let known = candidates.iter().filter(able);
    let dearest = known.filter_map(Candidate::price).fold(0.0, f64::max);
    candidates.iter().filter(able).map(move |one| {
        let price = one.price().unwrap_or(dearest).min(1e100);
        let cost = (price - one.load()).max(0.0);
        let quality = one.worth();
        Cell {
            quality,
            cost,
            price,
        }
    })
}

#[cfg(test)]
mod tests;
