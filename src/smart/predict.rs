//! How good, and how long, each model's answer to a query will be.
//!
//! A linear model tells what is expected of a query as such; past queries like it
//! correct that by how much better or worse than expected they went, a little if
//! they are few or unlike, and so do a model's latest rows as a whole. The linear
//! models are fitted now and then; neighbours are learned at once. What has no text
//! gets the models' means, what has no history the mean of all, and a wide spread.

mod excess;
mod file;
mod means;
mod newcomer;
mod summary;

use std::sync::Arc;

pub(super) use excess::Excess;
pub use file::PredictorError;
pub(super) use means::{Means, score};
pub(super) use newcomer::Newcomer;
pub use summary::{FitSummary, ModelSummary};

use super::fit::{self, Fitted, chance, odds};
use super::history::{MOST_MODELS, MOST_ROWS, Row};
use super::index::{Index, Search};
use newcomer::Text;

/// Past queries that are looked at. (MMLU and GSM8K: 32 are no better.)
pub(super) const NEIGHBOURS: usize = 128;
/// Tokens of an answer, where no length is known at all.
const TOKENS: f32 = 256.0;
/// A chance is never nearer to 0 or 1.
const LEAST_CHANCE: f32 = 0.005;
/// The least length that is predicted, in mean lengths.
const LEAST_LENGTH: f32 = 0.1;
/// Rows for which a uniform prior's spread counts: its variance is 1/12.
const UNIFORM: f32 = 3.0;
/// Rows of any kind that tell as much of a query as one that is just like it. (MMLU:
/// predictions of fits to other rows are then as far apart as their spread.)
const ANY_KIND: f32 = 4.0;

/// What is predicted of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The chance that the answer is right, 0 to 1, corrected on rows that were
    /// not trained on.
    pub quality: f32,
    /// Its standard deviation.
    pub spread: f32,
    /// Tokens of the answer.
    pub tokens: f32,
    /// Past queries like this that tell of the model.
    pub neighbours: u16,
    /// Those of them that tell how long its answer was; 0: `tokens` is not of queries
    /// like this.
    pub lengths: u16,
}

/// A fit, and the rows that came since. Never changed: [`Predictor::with`] makes
/// another that shares its memory.
#[derive(Debug, Clone, Default)]
pub struct Predictor {
    fitted: Option<Arc<Fitted>>,
    index: Index,
    models: Vec<Arc<str>>,
    /// Of each model.
    means: Vec<Means>,
    /// With those that are not indexed: they tell nothing of queries.
    rows: usize,
    fitted_rows: usize,
}

/// What was expected of a past query by those that it was not among.
#[derive(Debug, Clone, PartialEq)]
pub struct Remembered {
    /// Tokens of its prompt.
    pub input_tokens: f32,
    /// Of each model that it tells of the chance that the answer is right, and its
    /// tokens.
    pub models: Vec<Option<[f32; 2]>>,
}

/// Buffers of a prediction. Used again they do not grow any more.
#[derive(Debug, Default)]
pub struct Scratch {
    text: Text,
    search: Search,
    neighbourhood: Vec<Neighbourhood>,
    predictions: Vec<Prediction>,
    unknown: Option<Prediction>,
}

impl Scratch {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was predicted last: for each of [`Predictor::models`].
    #[must_use]
    pub fn predictions(&self) -> &[Prediction] {
        &self.predictions
    }

    /// What was predicted last of a model without history: how hard the query is for
    /// all that have one.
    #[must_use]
    pub fn unknown(&self) -> Prediction {
        self.unknown.unwrap_or_else(|| means::unknown(&[]))
    }
}

/// What a query's neighbours say of one model.
#[derive(Debug, Clone, Copy, Default)]
struct Neighbourhood {
    count: u16,
    lengths: u16,
    /// Their sum.
    likeness: f32,
    quality: Excess,
    length: Excess,
}

impl Neighbourhood {
    /// How much of what rows tell holds of a text of which so much is new: least where
    /// it is all new, or like no other; what is usual changes little.
    fn familiarity(&self, novelty: f32) -> f32 {
        let unlike = 1.0 - self.likeness / f32::from(self.count.max(1));
        (1.0 - novelty * novelty) * (1.0 - unlike * unlike)
    }
}

/// A chance that is neither 0 nor 1.
pub(super) fn certain(chance: f32) -> f32 {
    chance.clamp(LEAST_CHANCE, 1.0 - LEAST_CHANCE)
}

impl Predictor {
    /// Without history.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Fits to the newest [`MOST_ROWS`] rows; the same rows give the same predictor.
    /// `progress` gets the share that is done.
    pub fn fit(mut rows: Vec<Row>, progress: &mut dyn FnMut(f32)) -> Self {
        rows.drain(..rows.len().saturating_sub(MOST_ROWS));
        let count = rows.len();
        let models = fit::models(&rows);
        let mut means = vec![Means::default(); models.len()];
        for row in &rows {
            means::learn(row, &models, &mut means);
        }
        let mut fitted = Self {
            models,
            means,
            rows: count,
            fitted_rows: count,
            ..Self::default()
        };
        // The others would only take places among neighbours.
        rows.retain(fit::teaches);
        if rows.is_empty() {
            progress(1.0);
            return fitted;
        }
        let (mut fit, index) = fit::fit(rows, &fitted.models, &fitted.means, progress);
        fit.summary.rows = count;
        fit.summary.models = summary::models(&fitted.models, &fitted.means);
        fitted.fitted = Some(Arc::new(fit));
        fitted.index = index;
        fitted
    }

    /// With rows that came since; beyond [`MOST_ROWS`] the oldest leave. Models that
    /// are new are begun with, up to [`MOST_MODELS`].
    #[must_use]
    pub fn with(&self, rows: &[Row]) -> Self {
        let mut next = self.clone();
        let mut newcomer = Newcomer::default();
        for row in rows {
            for output in &row.outputs {
                if next.models.len() < MOST_MODELS && next.position(&output.model).is_none() {
                    next.models.push(Arc::clone(&output.model));
                    next.means.push(Means::default());
                }
            }
            means::learn(row, &next.models, &mut next.means);
            next.rows = MOST_ROWS.min(next.rows + 1);
            let Some(fitted) = self.fitted.as_ref().filter(|_| fit::teaches(row)) else {
                continue;
            };
            let met = newcomer.meet(fitted, row, &next.models, &next.means);
            for (outcome, expected) in met.outcomes.iter().zip(met.expected) {
                next.means[usize::from(outcome.model)].notice(*outcome, *expected);
            }
            next.index.push(*met.vector, met.outcomes);
        }
        next
    }

    /// Rows that it knows of.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many there were when it was fitted.
    #[must_use]
    pub fn fitted_rows(&self) -> usize {
        self.fitted_rows
    }

    /// The models it knows of.
    #[must_use]
    pub fn models(&self) -> &[Arc<str>] {
        &self.models
    }

    /// A model's place among them.
    #[must_use]
    pub fn position(&self, model: &str) -> Option<usize> {
        self.models.iter().position(|known| **known == *model)
    }

    /// What came of the fit, for people.
    #[must_use]
    pub fn summary(&self) -> FitSummary {
        let fitted = self.fitted.as_ref();
        fitted.map_or_else(FitSummary::default, |fitted| fitted.summary.clone())
    }

    /// Some past queries as they looked beforehand, evenly drawn.
    #[must_use]
    pub fn remembered(&self) -> &[Remembered] {
        let fitted = self.fitted.as_ref();
        fitted.map_or(&[], |fitted| &fitted.remembered)
    }

    /// Predicts each model's answer to a query; `None`: it is no text. The result is
    /// in [`Scratch::predictions`] and [`Scratch::unknown`].
    pub fn predict(&self, query: Option<&str>, scratch: &mut Scratch) {
        let text = &mut scratch.text;
        scratch.predictions.clear();
        let fitted = self
            .fitted
            .as_deref()
            .filter(|fitted| query.is_some_and(|query| text.read(fitted, query)));
        let Some(fitted) = fitted else {
            let unknown = self.unknown();
            scratch.unknown = Some(unknown);
            let prior = |means: &Means| means.prior(unknown);
            scratch.predictions.extend(self.means.iter().map(prior));
            return;
        };
        let vector = fitted.embedder.vector(text.features());
        self.index
            .search(&vector, NEIGHBOURS, None, &mut scratch.search);
        scratch.ask_neighbours(&self.index, self.models.len());
        self.combine(fitted, scratch);
    }

    /// What is predicted of a model without history: the mean of all models, if
    /// there are any.
    #[must_use]
    pub fn unknown(&self) -> Prediction {
        means::unknown(&self.means)
    }

    fn combine(&self, fitted: &Fitted, scratch: &mut Scratch) {
        let unknown = self.unknown();
        let text = &scratch.text;
        let mean = fitted.mean_calibration();
        let last = fitted.calibration.len();
        let prior = fitted.quality_prior;
        let length = |place: usize| text.length.get(place).copied().unwrap_or(1.0);
        let each = self.means.iter().zip(&scratch.neighbourhood);
        for (model, (means, near)) in each.enumerate() {
            let place = model.min(last);
            let calibration = fitted.calibration.get(model).copied().unwrap_or(mean);
            // What neighbours tell of late is not to be counted twice.
            let weight = near.quality.weight(prior);
            let latest = means.latest_quality() * prior / (weight + prior);
            let raw = chance(text.quality[place] + latest) + near.quality.mean(prior, 0.0);
            let quality = calibrated(raw, calibration);
            let rows = means.scores().min(prior) / ANY_KIND + weight;
            let rows = rows * near.familiarity(text.novelty);
            let excess = near.length.mean(fitted.length_prior, means.latest_length());
            scratch.predictions.push(Prediction {
                quality,
                spread: (quality * (1.0 - quality) / (UNIFORM + rows)).sqrt(),
                tokens: means.tokens(unknown.tokens) * bounded(length(place) + excess),
                neighbours: near.count,
                lengths: near.lengths,
            });
        }
        // As if one more model were as likely to be wrong as right.
        let models = f32::from(u8::try_from(last).unwrap_or(u8::MAX));
        let [slope, shift] = mean.map(|one| one * models / (models + 1.0));
        scratch.unknown = Some(Prediction {
            quality: calibrated(chance(text.quality[last]), [slope, shift]),
            tokens: unknown.tokens * bounded(length(last)),
            ..unknown
        });
    }
}

/// A chance, corrected.
fn calibrated(raw: f32, [slope, shift]: [f32; 2]) -> f32 {
    certain(chance(slope * odds(certain(raw)) + shift))
}

/// A length that an answer may have, in mean lengths.
fn bounded(length: f32) -> f32 {
    length.clamp(LEAST_LENGTH, means::MOST_LENGTH)
}

impl Scratch {
    fn ask_neighbours(&mut self, index: &Index, models: usize) {
        self.neighbourhood.clear();
        self.neighbourhood.resize(models, Neighbourhood::default());
        for neighbour in &self.search.found {
            let likeness = neighbour.likeness;
            for outcome in index.row(neighbour.row).1 {
                let Some(near) = self.neighbourhood.get_mut(usize::from(outcome.model)) else {
                    continue;
                };
                near.count += 1;
                near.likeness += likeness;
                near.lengths += u16::from(outcome.length().is_some());
                near.quality.add(outcome.quality(), likeness);
                near.length.add(outcome.length(), likeness);
            }
        }
    }
}

#[cfg(test)]
mod tests;
