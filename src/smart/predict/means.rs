//! Each model's means, over all its rows and of late.

use std::sync::Arc;

use super::{Prediction, TOKENS, UNIFORM, certain};
use crate::smart::fit::odds;
use crate::smart::history::{Output, Row};
use crate::smart::index::Outcome;

/// Mean lengths that one answer counts at most.
pub(in crate::smart) const MOST_LENGTH: f32 = 8.0;
/// Rows since the fit that are as much trusted as the fit.
const LATEST_PRIOR: f32 = 20.0;
/// Rows that "of late" spans: older ones fade.
const LATEST_ROWS: f32 = 500.0;

/// What is known of a model as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::smart) struct Means {
    /// Sum and number of its scores.
    pub(super) scores: [f64; 2],
    /// Sum and number of its answers' tokens.
    pub(super) tokens: [f64; 2],
    /// Of rows since the fit: the sum by which they exceeded what was expected, their
    /// number, and the sum that was expected.
    pub(super) latest_quality: [f32; 3],
    /// For lengths the first two of these.
    pub(super) latest_length: [f32; 2],
}

/// A score that may be counted: 0 to 1.
pub(in crate::smart) fn score(output: &Output) -> Option<f32> {
    let score = output.score.filter(|score| score.is_finite())?;
    Some(score.clamp(0.0, 1.0))
}

/// Counts a row in the means of its models.
pub(super) fn learn(row: &Row, models: &[Arc<str>], means: &mut [Means]) {
    for output in &row.outputs {
        let known = models.iter().position(|model| **model == *output.model);
        let Some(means) = known.and_then(|at| means.get_mut(at)) else {
            continue;
        };
        if let Some(score) = score(output) {
            means.scores[0] += f64::from(score);
            means.scores[1] += 1.0;
        }
        if let Some(tokens) = output.tokens {
            means.tokens[0] += f64::from(tokens);
            means.tokens[1] += 1.0;
        }
    }
}

/// What is predicted of a model without history.
#[expect(clippy::cast_possible_truncation, reason = "f32 is enough")]
pub(super) fn unknown(all: &[Means]) -> Prediction {
    let mut quality = [0.0_f64; 3];
    let mut tokens = [0.0_f64; 2];
    for means in all {
        if means.scores[1] > 0.0 {
            let mean = means.scores[0] / means.scores[1];
            let sums = [mean, mean * mean, 1.0];
            quality
                .iter_mut()
                .zip(sums)
                .for_each(|(sum, one)| *sum += one);
        }
        if means.tokens[1] > 0.0 {
            tokens[0] += means.tokens[0] / means.tokens[1];
            tokens[1] += 1.0;
        }
    }
    // As if one more model were half right, and any share as likely.
    let models = quality[2] + 1.0;
    let mean = (quality[0] + 0.5) / models;
    let variance = (quality[1] + 1.0 / 3.0) / models - mean * mean;
    Prediction {
        quality: mean as f32,
        spread: variance.max(0.01).sqrt() as f32,
        tokens: if tokens[1] > 0.0 {
            (tokens[0] / tokens[1]) as f32
        } else {
            TOKENS
        },
        neighbours: 0,
        lengths: 0,
    }
}

fn fade<const N: usize>(sums: &mut [f32; N], with: [f32; N]) {
    let keep = 1.0 - 1.0 / LATEST_ROWS;
    for (sum, one) in sums.iter_mut().zip(with) {
        *sum = *sum * keep + one;
    }
}

impl Means {
    /// What is predicted of a model without history, from all that have one.
    pub(in crate::smart) fn unknown(all: &[Self]) -> Prediction {
        unknown(all)
    }

    /// An answer's length in mean lengths.
    pub(in crate::smart) fn lengths_of(&self, tokens: u32) -> f32 {
        let mean = self.tokens(1.0).max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a length")]
        (tokens as f32 / mean).min(MOST_LENGTH)
    }

    /// Its mean tokens; of a model that has none, so many.
    #[expect(clippy::cast_possible_truncation, reason = "f32 is enough")]
    pub(in crate::smart) fn tokens(&self, unknown: f32) -> f32 {
        let [sum, count] = self.tokens;
        if count > 0.0 {
            (sum / count) as f32
        } else {
            unknown
        }
    }

    /// Rows that tell of its quality.
    #[expect(clippy::cast_possible_truncation, reason = "f32 is enough")]
    pub(super) fn scores(&self) -> f32 {
        self.scores[1] as f32
    }

    /// A row came that was not fitted to; what was expected was such a chance.
    pub(super) fn notice(&mut self, outcome: Outcome, expected: f32) {
        if let Some(excess) = outcome.quality() {
            fade(&mut self.latest_quality, [excess, 1.0, expected]);
        }
        if let Some(excess) = outcome.length() {
            fade(&mut self.latest_length, [excess, 1.0]);
        }
    }

    /// By how much it is better of late than was fitted, in log-odds: what is all but
    /// certain stays so, and hard queries stay harder than others.
    pub(super) fn latest_quality(&self) -> f32 {
        let [excess, rows, expected] = self.latest_quality;
        if rows <= 0.0 {
            return 0.0;
        }
        let expected = certain(expected / rows);
        odds(certain(expected + excess / (rows + LATEST_PRIOR))) - odds(expected)
    }

    /// By how much its answers are longer of late.
    pub(super) fn latest_length(&self) -> f32 {
        self.latest_length[0] / (self.latest_length[1] + LATEST_PRIOR)
    }

    /// What is predicted of it where the query tells nothing.
    #[expect(clippy::cast_possible_truncation, reason = "f32 is enough")]
    pub(super) fn prior(&self, unknown: Prediction) -> Prediction {
        let [sum, count] = self.scores;
        let tokens = self.tokens(unknown.tokens);
        if count == 0.0 {
            return Prediction { tokens, ..unknown };
        }
        // Two rows' worth of the other models' mean.
        let mean = (sum + 2.0 * f64::from(unknown.quality)) / (count + 2.0);
        let quality = certain(mean as f32);
        Prediction {
            quality,
            spread: (quality * (1.0 - quality) / (UNIFORM + count as f32)).sqrt(),
            tokens,
            neighbours: 0,
            lengths: 0,
        }
    }
}
