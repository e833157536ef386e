//! How a predictor is fitted: a linear model for each model; then, on what it
//! expected of rows that it was not trained on, how much neighbours count, and how
//! chances are corrected.
//!
//! All is chosen within the rows that are given, and comes out the same each time.

mod basis;
mod corpus;
mod linear;
mod tune;

use std::sync::Arc;

pub(super) use corpus::models;
pub(super) use linear::{Linear, chance, odds};

use super::embed::{DIMENSIONS, Embedder, NOTHING};
use super::history::{Output, Row};
use super::index::{Index, Outcome};
use super::predict::{FitSummary, Means, NEIGHBOURS, Newcomer, Remembered, certain, score};
use corpus::{Corpus, FOLDS, Figures, Twins};
use linear::{Loss, Task};

/// 1 over the weight of regularisation: what is tried for qualities.
const FREEDOMS: [f32; 3] = [0.5, 1.0, 2.0];
/// The same for lengths. (GSM8K: 0.3 to 3 are equally good.)
const LENGTH_FREEDOM: f32 = 1.0;
/// Rows on which it is chosen.
const FREEDOM_ROWS: usize = 4_000;
/// Rows of which it is remembered what was expected.
pub(super) const REMEMBERED: usize = 256;

/// What was fitted.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) embedder: Embedder,
    /// Log-odds of a right answer.
    pub(super) quality: Linear,
    /// Length, in the model's mean lengths; `None`: none is known.
    pub(super) length: Option<Linear>,
    /// How much no neighbour counts, beside neighbours' weights.
    pub(super) quality_prior: f32,
    /// The same for lengths.
    pub(super) length_prior: f32,
    /// For each model slope and shift of its log-odds.
    pub(super) calibration: Vec<[f32; 2]>,
    /// What was expected of some rows without them.
    pub(super) remembered: Vec<Remembered>,
    /// What is told of it.
    pub(super) summary: FitSummary,
}

impl Fitted {
    /// Slope and shift of a model that was not fitted to.
    pub(super) fn mean_calibration(&self) -> [f32; 2] {
        if self.calibration.is_empty() {
            return [1.0, 0.0];
        }
        #[expect(clippy::cast_precision_loss, reason = "64 at most")]
        let models = self.calibration.len() as f32;
        let mean = |at: usize| self.calibration.iter().map(|one| one[at]).sum::<f32>() / models;
        [mean(0), mean(1)]
    }
}

/// Figures, and what the rest of the rows expects of each.
struct Expected {
    figures: Figures,
    values: Vec<f32>,
}

/// Whether it may be learned from a row which queries are hard: it has a text and a
/// score. Others tell of their models as a whole.
pub(super) fn teaches(row: &Row) -> bool {
    !row.query.trim().is_empty() && row.outputs.iter().any(|output| score(output).is_some())
}

/// Fits to rows that teach, and indexes them. Texts are dropped as soon as they
/// are read.
pub(super) fn fit(
    mut older: Vec<Row>,
    models: &[Arc<str>],
    means: &[Means],
    progress: &mut dyn FnMut(f32),
) -> (Fitted, Index) {
    let (corpus, mut embedder) = Corpus::read(&older, models.len());
    let rows = older.split_off(older.len() - corpus.rows());
    let scores = figures(&rows, models, |output, _| score(output));
    let lengths = figures(&rows, models, |output, model| {
        Some(means[model].lengths_of(output.tokens?))
    });
    let inputs: Vec<f32> = rows.iter().map(input_tokens).collect();
    drop(rows);
    progress(0.05);
    let base = bases(&scores, models.len());
    let freedom = freedom(&Task::new(&corpus, &scores, Loss::Logistic, &base));
    progress(0.15);
    let task = Task::new(&corpus, &scores, Loss::Logistic, &base);
    let (values, linear) = expect(&task, freedom, &mut |done| progress(0.15 + 0.4 * done));
    let quality = Expected {
        figures: scores,
        values,
    };
    let length = expect_lengths(&corpus, lengths, models.len(), &mut |done| {
        progress(0.55 + 0.25 * done);
    });
    let (length, length_linear) = length.unzip();
    embedder.basis = basis::basis(&corpus);
    progress(0.85);
    let mut fitted = Fitted {
        embedder,
        quality: linear,
        length: length_linear,
        quality_prior: 0.0,
        length_prior: 0.0,
        calibration: vec![[1.0, 0.0]; models.len()],
        remembered: Vec::new(),
        summary: FitSummary {
            trained_rows: corpus.rows(),
            freedom,
            dimensions: DIMENSIONS,
            neighbours: NEIGHBOURS,
            ..FitSummary::default()
        },
    };
    let mut index = Index::default();
    let mut newcomer = Newcomer::default();
    for row in &older {
        let met = newcomer.meet(&fitted, row, models, means);
        index.push(*met.vector, met.outcomes);
    }
    add(&corpus, (&fitted, &mut index), &quality, length.as_ref());
    progress(0.9);
    let past = (&index, &corpus.twins(&older));
    choose(&mut fitted, past, &quality, length.as_ref());
    let expected = (&quality, length.as_ref());
    fitted.remembered = remembered(&fitted, past, expected, (&inputs, means));
    progress(1.0);
    (fitted, index)
}

/// Up to `most` rows of so many, in even steps.
fn sample(rows: usize, most: usize) -> Vec<usize> {
    let step = rows.div_ceil(most).max(1);
    (0..rows).step_by(step).collect()
}

/// The figures of rows that have a text.
fn figures(
    rows: &[Row],
    models: &[Arc<str>],
    figure: impl Fn(&Output, usize) -> Option<f32>,
) -> Figures {
    let mut figures = Figures::default();
    for row in rows {
        let has_text = !row.query.trim().is_empty();
        for output in row.outputs.iter().filter(|_| has_text) {
            let known = models.iter().position(|model| **model == *output.model);
            let figure = |at: usize| Some((u8::try_from(at).ok()?, figure(output, at)?));
            figures.all.extend(known.and_then(figure));
        }
        figures.end_row();
    }
    figures
}

/// Tokens of a row's prompt, or how many there may be.
#[expect(clippy::cast_precision_loss, reason = "tokens of one request")]
fn input_tokens(row: &Row) -> f32 {
    let told = row.input_tokens.map(|tokens| tokens as f32);
    told.unwrap_or(row.query.len() as f32 / 4.0)
}

/// Where the models' log-odds begin: at their mean scores, drawn a little towards
/// the mean of all.
#[expect(clippy::cast_precision_loss, reason = "a mean")]
fn bases(scores: &Figures, models: usize) -> Vec<f32> {
    let sums = |own: &dyn Fn(usize) -> bool| {
        let own = scores.all.iter().filter(|one| own(usize::from(one.0)));
        own.fold((0.0_f64, 0_usize), |(sum, count), one| {
            (sum + f64::from(one.1), count + 1)
        })
    };
    let (sum, count) = sums(&|_| true);
    let overall = (sum + 1.0) / (count as f64 + 2.0);
    let base = |model: usize| {
        let (sum, count) = sums(&|one| one == model);
        let mean = (sum + 2.0 * overall) / (count as f64 + 2.0);
        #[expect(clippy::cast_possible_truncation, reason = "f32 is enough")]
        odds(mean as f32)
    };
    (0..models).map(base).collect()
}

/// The least freedom whose chances, for rows that were not trained on, are as good as
/// the best: what is gained by more is then noise.
fn freedom(task: &Task<'_>) -> f32 {
    let rows = sample(task.corpus.rows(), FREEDOM_ROWS);
    let figures = rows.iter().flat_map(|row| task.figures.of(*row));
    let figures: Vec<usize> = figures.collect();
    let loss = |freedom: f32| {
        let values = others(task, &rows, freedom, &mut |_| {});
        let loss = |at: &usize| tune::log_loss(task.figures.all[*at].1, certain(values[*at]));
        figures.iter().map(loss).sum::<f64>()
    };
    let losses = FREEDOMS.map(loss);
    let best = losses.into_iter().fold(f64::INFINITY, f64::min);
    #[expect(clippy::cast_precision_loss, reason = "figures, less than 2^52")]
    let noise = tune::NOISE * figures.len() as f64;
    let mut tried = FREEDOMS.into_iter().zip(losses);
    let good = tried.find(|(_, loss)| *loss <= best + noise);
    good.map_or(FREEDOMS[1], |(freedom, _)| freedom)
}

/// What is expected of each figure by a model that was fitted to other rows; and the
/// model that is fitted to all.
fn expect(task: &Task<'_>, freedom: f32, progress: &mut dyn FnMut(f32)) -> (Vec<f32>, Linear) {
    let rows: Vec<usize> = (0..task.corpus.rows()).collect();
    let values = others(task, &rows, freedom, &mut |done| progress(done * 0.75));
    let linear = task.fit(&rows, freedom);
    progress(1.0);
    (values, linear)
}

/// What is expected of the figures of some rows: each part of them by the others.
fn others(
    task: &Task<'_>,
    rows: &[usize],
    freedom: f32,
    progress: &mut dyn FnMut(f32),
) -> Vec<f32> {
    let mut values = vec![0.0; task.figures.all.len()];
    let mut sums = Vec::new();
    for fold in 0..FOLDS {
        let (own, rest): (Vec<usize>, Vec<usize>) =
            rows.iter().partition(|row| task.corpus.fold(**row) == fold);
        let linear = task.fit(&rest, freedom);
        for row in own {
            linear.expect(task.corpus.row(row), &mut sums);
            for at in task.figures.of(row) {
                let model = usize::from(task.figures.all[at].0);
                values[at] = task.value(sums[model]);
            }
        }
        progress(f32::from(fold + 1) / f32::from(FOLDS));
    }
    values
}

/// What is expected of lengths; `None`: none is known.
fn expect_lengths(
    corpus: &Corpus,
    figures: Figures,
    models: usize,
    progress: &mut dyn FnMut(f32),
) -> Option<(Expected, Linear)> {
    if figures.all.is_empty() {
        return None;
    }
    let base = vec![1.0; models];
    let task = Task::new(corpus, &figures, Loss::Squared, &base);
    let (values, linear) = expect(&task, LENGTH_FREEDOM, progress);
    Some((Expected { figures, values }, linear))
}

/// Adds the rows that were trained on to the index, each beside what the others
/// expected of it.
fn add(
    corpus: &Corpus,
    (fitted, index): (&Fitted, &mut Index),
    quality: &Expected,
    length: Option<&Expected>,
) {
    let excess = |of: &Expected, row: usize, model: u8| {
        let mut own = of.figures.of(row);
        let at = own.find(|at| of.figures.all[*at].0 == model)?;
        Some(of.figures.all[at].1 - of.values[at])
    };
    let mut outcomes = Vec::new();
    for row in 0..corpus.rows() {
        outcomes.clear();
        for model in 0..=u8::MAX {
            if usize::from(model) == fitted.calibration.len() {
                break;
            }
            let quality = excess(quality, row, model);
            let length = length.and_then(|length| excess(length, row, model));
            if quality.is_some() || length.is_some() {
                outcomes.push(Outcome::new(model, quality, length));
            }
        }
        let features = corpus.row(row);
        let has_words = !features.buckets.is_empty();
        let vector = has_words.then(|| fitted.embedder.vector(features));
        index.push(vector.unwrap_or(NOTHING), &outcomes);
    }
}

/// Chooses how much neighbours count, and how chances are corrected.
fn choose(
    fitted: &mut Fitted,
    (index, twins): (&Index, &Twins),
    quality: &Expected,
    length: Option<&Expected>,
) {
    let trained = fitted.summary.trained_rows;
    let rows: Vec<(usize, usize)> = sample(trained, tune::SAMPLE)
        .into_iter()
        .map(|row| (row, index.rows() - trained + row))
        .collect();
    let known = (&quality.figures, &quality.values[..]);
    let cases = tune::cases((index, twins), &rows, known, Outcome::quality);
    let prior = tune::quality_prior(&cases);
    fitted.quality_prior = prior;
    fitted.calibration = tune::calibration(&cases, prior, fitted.calibration.len());
    fitted.summary.quality_prior = prior;
    fitted.summary.calibration_error = tune::calibration_error(&cases, prior, &fitted.calibration);
    fitted.summary.log_loss = tune::corrected_loss(&cases, prior, &fitted.calibration);
    let known = length.map_or((&quality.figures, &[][..]), |length| {
        (&length.figures, &length.values[..])
    });
    let rows = if length.is_some() { &rows[..] } else { &[] };
    let cases = tune::cases((index, twins), rows, known, Outcome::length);
    fitted.length_prior = tune::length_prior(&cases);
    fitted.summary.length_prior = fitted.length_prior;
}

/// What was expected of some rows by the others: what requests may be like, before
/// there are any.
fn remembered(
    fitted: &Fitted,
    (index, twins): (&Index, &Twins),
    (quality, length): (&Expected, Option<&Expected>),
    (inputs, means): (&[f32], &[Means]),
) -> Vec<Remembered> {
    let unknown = Means::unknown(means).tokens;
    let of_row = |row: usize| {
        let indexed = [(row, index.rows() - inputs.len() + row)];
        let known = (&quality.figures, &quality.values[..]);
        let mut models = vec![None; fitted.calibration.len()];
        for case in tune::cases((index, twins), &indexed, known, Outcome::quality) {
            let model = usize::from(case.model);
            let chance = tune::corrected(&case, fitted.quality_prior, &fitted.calibration);
            let share = length.and_then(|length| {
                let mut own = length.figures.of(row);
                let at = own.find(|at| length.figures.all[*at].0 == case.model)?;
                Some(length.values[at].max(0.0))
            });
            let tokens = means[model].tokens(unknown) * share.unwrap_or(1.0);
            models[model] = Some([certain(chance), tokens]);
        }
        Remembered {
            input_tokens: inputs[row],
            models,
        }
    };
    sample(inputs.len(), REMEMBERED)
        .into_iter()
        .map(of_row)
        .collect()
}

#[cfg(test)]
mod tests;
