//! A linear model for each model, with a part that all share: of quality a
//! logistic regression, of length a ridge regression.
//!
//! Fitted by dual coordinate ascent (Shalev-Shwartz, Zhang: "Stochastic Dual
//! Coordinate Ascent Methods for Regularized Loss Minimization", JMLR 14, 2013):
//! no learning rate, and each step is towards the optimum. A row's features are
//! read once for all models.

use super::corpus::{Corpus, Figures};
use crate::smart::embed::{BUCKETS, FIXED, Features};

/// How much of the weights' variance is common to all models: how hard a query is.
/// (MMLU, 24 draws: 0 0.6525, a quarter 0.6544, half 0.6561. With scores of one
/// model only in each row it helps as much.)
const SHARED: f32 = 0.5;
/// Rounds over all rows: enough to be within 0.001 of the optimum.
const ROUNDS: usize = 15;
/// What is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Chances, as log-odds.
    Logistic,
    /// Numbers.
    Squared,
}

/// Weights of features, for each model.
#[derive(Debug, Clone)]
pub(in crate::smart) struct Linear {
    /// Where each model begins, without any feature; last, one without history.
    pub(in crate::smart) base: Vec<f32>,
    /// For each bucket and fixed feature as many weights as `base` has.
    pub(in crate::smart) weights: Box<[f32]>,
}

impl Linear {
    /// A model that knows nothing but where each begins.
    fn new(base: &[f32]) -> Self {
        let mut base = base.to_vec();
        base.push(0.0);
        let weights = vec![0.0; (BUCKETS + FIXED) * base.len()].into();
        Self { base, weights }
    }

    /// What is expected of each model, and last of one without history: log-odds of
    /// a right answer, or a length.
    pub(in crate::smart) fn expect(&self, features: Features<'_>, sums: &mut Vec<f32>) {
        sums.clear();
        sums.extend_from_slice(&self.base);
        let width = self.base.len();
        let fixed = self.weights[BUCKETS * width..].chunks_exact(width);
        for (value, weights) in features.fixed.iter().zip(fixed) {
            add(sums, *value, weights);
        }
        for (bucket, value) in features.buckets.iter().zip(features.values) {
            let at = usize::from(*bucket) * width;
            add(sums, *value, &self.weights[at..at + width]);
        }
    }

    fn step(&mut self, features: Features<'_>, steps: &[f32]) {
        let width = self.base.len();
        let (buckets, fixed) = self.weights.split_at_mut(BUCKETS * width);
        for (value, weights) in features.fixed.iter().zip(fixed.chunks_exact_mut(width)) {
            add(weights, *value, steps);
        }
        for (bucket, value) in features.buckets.iter().zip(features.values) {
            let at = usize::from(*bucket) * width;
            add(&mut buckets[at..at + width], *value, steps);
        }
    }

    /// What is shared is added to each model's own; a model without history begins
    /// where all do on average.
    fn share(&mut self) {
        for weights in self.weights.chunks_exact_mut(self.base.len()) {
            if let Some((shared, own)) = weights.split_last_mut() {
                own.iter_mut().for_each(|one| *one += *shared);
            }
        }
        if let Some((last, own)) = self.base.split_last_mut() {
            #[expect(clippy::cast_precision_loss, reason = "64 at most")]
            let models = own.len().max(1) as f32;
            *last = own.iter().sum::<f32>() / models;
        }
    }
}

fn add(sums: &mut [f32], value: f32, weights: &[f32]) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum += value * weight;
    }
}

/// A chance of log-odds.
pub(in crate::smart) fn chance(odds: f32) -> f32 {
    (1.0 + (-odds).exp()).recip()
}

/// Log-odds of a chance between 0 and 1.
pub(in crate::smart) fn odds(chance: f32) -> f32 {
    (chance / (1.0 - chance)).ln()
}

/// What a fit is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) corpus: &'a Corpus,
    pub(super) figures: &'a Figures,
    pub(super) loss: Loss,
    /// Where each model begins.
    pub(super) base: &'a [f32],
}

impl<'a> Task<'a> {
    pub(super) fn new(
        corpus: &'a Corpus,
        figures: &'a Figures,
        loss: Loss,
        base: &'a [f32],
    ) -> Self {
        Self {
            corpus,
            figures,
            loss,
            base,
        }
    }

    /// Fits to some of the rows; `freedom` is 1 over the weight of regularisation.
    pub(super) fn fit(&self, rows: &[usize], freedom: f32) -> Linear {
        let mut linear = Linear::new(self.base);
        let mut rows = rows.to_vec();
        rows.retain(|row| !self.figures.of(*row).is_empty());
        let mut duals = vec![0.0; self.figures.all.len()];
        let mut random = fastrand::Rng::with_seed(1);
        let mut sums = Vec::new();
        let mut steps = vec![0.0; linear.base.len()];
        for _ in 0..ROUNDS {
            random.shuffle(&mut rows);
            for row in &rows {
                let features = self.corpus.row(*row);
                linear.expect(features, &mut sums);
                let figures = self.figures.of(*row);
                let pace = self.pace(features, figures.len(), freedom);
                steps.fill(0.0);
                for at in figures {
                    let (model, figure) = self.figures.all[at];
                    let model = usize::from(model);
                    let expected = self.value(sums[model] + sums[self.base.len()]);
                    let step = (figure - expected - duals[at]) * pace;
                    duals[at] += step;
                    steps[model] += step;
                }
                if let Some((shared, own)) = steps.split_last_mut() {
                    *shared = own.iter().sum::<f32>() * freedom * SHARED;
                    own.iter_mut()
                        .for_each(|one| *one *= freedom * (1.0 - SHARED));
                }
                linear.step(features, &steps);
            }
        }
        linear.share();
        linear
    }

    /// What a sum of weights means.
    pub(super) fn value(&self, sum: f32) -> f32 {
        match self.loss {
            Loss::Logistic => chance(sum),
            Loss::Squared => sum,
        }
    }

    /// How much of the way to its best value a dual may go, so that the steps of
    /// all the row's models together are not too far.
    fn pace(&self, features: Features<'_>, models: usize, freedom: f32) -> f32 {
        let square = |all: &[f32]| all.iter().map(|one| one * one).sum::<f32>();
        let length = square(features.values) + square(features.fixed);
        #[expect(clippy::cast_precision_loss, reason = "64 at most")]
        let shared = SHARED * models as f32;
        let curvature = match self.loss {
            Loss::Logistic => 0.25,
            Loss::Squared => 1.0,
        };
        (1.0 + freedom * length * (1.0 - SHARED + shared) * curvature).recip()
    }
}
