//! The best by goals: each attribute is set between the worst (0) and the best
//! (1) of the candidates, and the weighted mean decides.
//!
//! What is not known, or too old, scores as the worst: absent data never wins.

use std::sync::atomic::Ordering::Relaxed;

use fastrand::Rng;

use super::explain::Verdict;
use super::view::View;
use super::weighted;
use crate::config::attribute::Attribute;
use crate::config::policies::{Direction, Goal, MOST_GOALS, MOST_KEPT, Picker, Scored};

/// Values of candidates that are kept between two looks at them: among more
/// candidates or goals they are read again.
const KEPT: usize = 1024;
/// Scores that differ by less are equal: live numbers are as old as the last
/// reading, and all would run to whoever was best then.
const BAND: f64 = 0.05;

/// The candidate that the picker takes.
pub(super) fn pick(of: &Scored, view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    let mut kept = [0.0; KEPT];
    let scores = Scores::of(&of.goals, view, &mut kept);
    let best = || {
        scores
            .each()
            .map(|(_, score)| score)
            .fold(f64::NEG_INFINITY, f64::max)
    };
    match of.picker {
        Picker::Argmax => {
            let best = best();
            let near = scores.each().filter(|(_, score)| *score >= best - BAND);
            view.least(near.map(|(at, _)| at), rng, |at| queue(view, at))
        }
        Picker::TopK(count) => {
            let mut top = Top::new(count);
            scores.each().for_each(|(at, score)| top.offer(at, score));
            view.least(top.positions(), rng, |at| queue(view, at))
        }
        Picker::Softmax(temperature) => {
            let best = best();
            let power = |score: f64| ((score - best) / temperature).exp();
            weighted::draw(view, rng, |at| power(scores.ranges.score(view, at)))
        }
        Picker::Weighted => weighted::draw(view, rng, |at| scores.ranges.score(view, at)),
    }
}

/// Every open candidate's score.
struct Scores<'a> {
    view: &'a View<'a>,
    ranges: Ranges<'a>,
    /// For each candidate as many places as there are goals, of which the first
    /// has its score, or minus infinity where it is not open. `None`: too many.
    kept: Option<&'a [f64]>,
}

impl<'a> Scores<'a> {
    fn of(goals: &'a [Goal], view: &'a View<'_>, kept: &'a mut [f64; KEPT]) -> Self {
        let width = goals.len();
        let Some(kept) = kept.get_mut(..width * view.len()) else {
            return Self {
                ranges: Ranges::of(goals, view),
                kept: None,
                view,
            };
        };
        let mut ranges = Ranges::new(goals);
        for (n, values) in kept.chunks_exact_mut(width.max(1)).enumerate() {
            let at = view.at(n);
            if !view.is_open(at) {
                values[0] = f64::NEG_INFINITY;
                continue;
            }
            for ((slot, goal), range) in values.iter_mut().zip(goals).zip(&mut ranges.ranges) {
                let value = value(view, at, &goal.attribute);
                range.widen(value);
                *slot = value.unwrap_or(f64::NAN);
            }
        }
        for values in kept.chunks_exact_mut(width.max(1)) {
            if values[0] != f64::NEG_INFINITY {
                values[0] = ranges.mean(values.iter().copied());
            }
        }
        Self {
            kept: Some(kept),
            ranges,
            view,
        }
    }

    /// Positions and scores of those that are open.
    fn each(&self) -> impl Iterator<Item = (usize, f64)> {
        let width = self.ranges.goals.len().max(1);
        let few = self.kept.into_iter().flat_map(move |kept| {
            let all = kept.chunks_exact(width).enumerate();
            let open = all.filter(|(_, values)| values[0] != f64::NEG_INFINITY);
            open.map(|(n, values)| (self.view.at(n), values[0]))
        });
        let many = self.kept.is_none().then(|| {
            let open = self.view.open();
            open.map(|at| (at, self.ranges.score(self.view, at)))
        });
        few.chain(many.into_iter().flatten())
    }
}

fn queue(view: &View<'_>, at: usize) -> f64 {
    let ours = view.engine(at).in_flight.load(Relaxed);
    (f64::from(ours) + 1.0) / view.weight(at)
}

/// The best so far, the worst of them last.
pub(super) struct Top {
    kept: [(f64, u32); MOST_KEPT],
    count: usize,
    most: usize,
}

impl Top {
    pub(super) fn new(most: usize) -> Self {
        Self {
            kept: [(f64::NEG_INFINITY, 0); MOST_KEPT],
            count: 0,
            most: most.clamp(1, MOST_KEPT),
        }
    }

    /// What a score must be above to be kept.
    #[inline]
    pub(super) fn least(&self) -> f64 {
        if self.count < self.most {
            f64::NEG_INFINITY
        } else {
            self.kept[self.count - 1].0
        }
    }

    pub(super) fn offer(&mut self, at: usize, score: f64) {
        if self.count == self.most && score <= self.least() {
            return;
        }
        self.count = (self.count + 1).min(self.most);
        let mut slot = self.count - 1;
        while slot > 0 && self.kept[slot - 1].0 < score {
            self.kept[slot] = self.kept[slot - 1];
            slot -= 1;
        }
        self.kept[slot] = (score, u32::try_from(at).unwrap_or(u32::MAX));
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = usize> {
        self.kept[..self.count].iter().map(|(_, at)| *at as usize)
    }

    /// The positions, best first, written into `into`; tells how many.
    pub(super) fn write(&self, into: &mut [u32; MOST_KEPT]) -> usize {
        for (slot, (_, at)) in into.iter_mut().zip(&self.kept[..self.count]) {
            *slot = *at;
        }
        self.count
    }
}

/// The lowest and the highest value of a goal.
#[derive(Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    fn widen(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
        }
    }
}

/// Every goal's range among the candidates.
struct Ranges<'a> {
    goals: &'a [Goal],
    ranges: [Range; MOST_GOALS],
    weights: f64,
}

impl<'a> Ranges<'a> {
    fn new(goals: &'a [Goal]) -> Self {
        let nothing = Range {
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
        };
        Self {
            weights: goals.iter().map(|goal| goal.weight).sum(),
            ranges: [nothing; MOST_GOALS],
            goals,
        }
    }

    fn of(goals: &'a [Goal], view: &View<'_>) -> Self {
        let mut ranges = Self::new(goals);
        for at in view.open() {
            for (goal, range) in goals.iter().zip(&mut ranges.ranges) {
                range.widen(value(view, at, &goal.attribute));
            }
        }
        ranges
    }

    /// From 0, worst, to 1; the middle where all are the same. What is not
    /// known (NaN) is the worst.
    fn normalised(&self, index: usize, value: f64) -> f64 {
        if value.is_nan() {
            return 0.0;
        }
        let Range { low, high } = self.ranges[index];
        let part = if high > low {
            (value - low) / (high - low)
        } else {
            0.5
        };
        match self.goals[index].direction {
            Direction::Max => part,
            Direction::Min => 1.0 - part,
        }
    }

    /// The weighted mean of a candidate's values.
    fn mean(&self, values: impl Iterator<Item = f64>) -> f64 {
        let each = values.zip(self.goals).take(MOST_GOALS).enumerate();
        let parts = each.map(|(n, (value, goal))| self.normalised(n, value) * goal.weight);
        let mean = parts.sum::<f64>() / self.weights;
        // Values may be further apart than numbers go.
        if mean.is_finite() { mean } else { 0.0 }
    }

    fn score(&self, view: &View<'_>, at: usize) -> f64 {
        let values = self
            .goals
            .iter()
            .map(|goal| value(view, at, &goal.attribute));
        self.mean(values.map(|value| value.unwrap_or(f64::NAN)))
    }
}

/// What is known of a candidate now.
fn value(view: &View<'_>, at: usize, attribute: &Attribute) -> Option<f64> {
    let one = view.one(at);
    let engine = &one.engine;
    let value = match attribute {
        Attribute::Live(live) => engine.attributes.fresh(*live, view.by)?,
        Attribute::InFlight => f64::from(engine.in_flight.load(Relaxed)),
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 tokens")]
        Attribute::OutstandingTokens => engine.outstanding.load(Relaxed) as f64,
        Attribute::Latency => engine.latency.get(view.moment.now)? * 1e3,
        Attribute::InputPrice => one.spec.traits.cost?.input_per_mtok,
        Attribute::OutputPrice => one.spec.traits.cost?.output_per_mtok,
        Attribute::Column(column) => *view.set.layout.columns.get(*column)?.get(at)?,
    };
    value.is_finite().then_some(value)
}

/// Ranked by score, with every goal's own.
pub(super) fn judge(of: &Scored, view: &View<'_>) -> Vec<Verdict> {
    let ranges = Ranges::of(&of.goals, view);
    super::explain::each(view, |at| {
        let score = ranges.score(view, at);
        let mut verdict = Verdict::new(-score).with("score", score);
        for (index, goal) in of.goals.iter().take(MOST_GOALS).enumerate() {
            let raw = value(view, at, &goal.attribute);
            let attributes = &view.engine(at).attributes;
            let age = match goal.attribute {
                Attribute::Live(place) => attributes.age_of(place, view.moment.now),
                _ => None,
            };
            verdict.goals.push(super::explain::GoalVerdict {
                attribute: goal.name.to_string(),
                raw,
                normalised: ranges.normalised(index, raw.unwrap_or(f64::NAN)),
                weight: goal.weight,
                age_seconds: age.map(|age| age.as_secs_f64()),
            });
        }
        verdict
    })
}
