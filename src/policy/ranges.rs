//! What candidates' values are set between: of each goal the lowest and the
//! highest, and from them a straight line to its part in the score.

use super::explain::GoalVerdict;
use super::units::Units;
use crate::config::policies::{Direction, Goal, MOST_GOALS};

/// The lowest and the highest value of a goal.
#[derive(Clone, Copy)]
pub(super) struct Range {
    low: f64,
    high: f64,
}

impl Range {
    pub(super) fn widen(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
        }
    }
}

/// A goal's part in a score, by its value: a straight line.
#[derive(Clone, Copy, Default)]
pub(super) struct Line {
    low: f64,
    slope: f64,
    from: f64,
}

impl Line {
    fn at(self, value: f64) -> f64 {
        let part = (value - self.low) * self.slope + self.from;
        if part.is_nan() { 0.0 } else { part }
    }
}

/// The weighted mean of a candidate's values; none: nothing is wanted.
pub(super) fn mean(lines: &[Line], values: impl Iterator<Item = f64>) -> f64 {
    let parts = values.zip(lines).map(|(value, line)| line.at(value));
    parts.sum()
}

/// Every goal's range among the candidates.
pub(super) struct Ranges<'a> {
    goals: &'a [Goal],
    pub(super) ranges: [Range; MOST_GOALS],
    weights: f64,
}

impl<'a> Ranges<'a> {
    pub(super) fn new(goals: &'a [Goal]) -> Self {
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

    pub(super) fn of(units: &'a Units<'a>) -> Self {
        let mut ranges = Self::new(&units.of.goals);
        let all = (0..units.len()).map(|n| units.at(n));
        for unit in all.filter(|unit| units.is_candidate(*unit)) {
            for (goal, range) in (0..ranges.goals.len()).zip(&mut ranges.ranges) {
                range.widen(units.value(unit, goal));
            }
        }
        ranges
    }

    /// From 0, worst, to 1; the middle where all are the same. What is not
    /// known (NaN) is the worst.
    fn normalised(&self, index: usize, value: f64) -> f64 {
        self.line(index, 1.0).at(value)
    }

    /// How a goal's values are set between the worst and the best, which is worth
    /// that share.
    fn line(&self, index: usize, share: f64) -> Line {
        let Range { low, high } = self.ranges[index];
        let slope = share / (high - low);
        // Values may be further apart than numbers go.
        if !(high > low && slope.is_finite()) {
            return Line {
                low: 0.0,
                slope: 0.0,
                from: 0.5 * share,
            };
        }
        match self.goals[index].direction {
            Direction::Max => Line {
                low,
                slope,
                from: 0.0,
            },
            Direction::Min => Line {
                low,
                slope: -slope,
                from: share,
            },
        }
    }

    /// The same for all goals, by their weights.
    pub(super) fn lines(&self) -> [Line; MOST_GOALS] {
        let mut lines = [Line::default(); MOST_GOALS];
        for (index, (line, goal)) in lines.iter_mut().zip(self.goals).enumerate() {
            *line = self.line(index, goal.weight / self.weights);
        }
        lines
    }

    /// Every goal's part in a candidate's score.
    pub(super) fn verdicts(&self, units: &Units<'_>, unit: usize) -> Vec<GoalVerdict> {
        let goals = self.goals.iter().take(MOST_GOALS).enumerate();
        let verdict = |(index, goal): (usize, &Goal)| {
            let raw = units.value(unit, index);
            GoalVerdict {
                goal: goal.of.as_deref().map(str::to_owned),
                attribute: goal.name.to_string(),
                raw,
                normalised: self.normalised(index, raw.unwrap_or(f64::NAN)),
                weight: goal.weight,
                age_seconds: units.age(unit, index),
            }
        };
        goals.map(verdict).collect()
    }
}
