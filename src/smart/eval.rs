//! What smart routing is worth on a file of outcomes: quality and cost of each
//! strategy, and how well the predictor ranks and knows itself.
//!
//! Each row's `split` says whether it is learned from or measured with; rows
//! without any are measured in folds, each by what the other folds taught.
//! Everything is deterministic for a seed.

pub mod baseline;
pub mod curve;
pub mod report;

mod cases;
mod costs;
mod folds;
mod strategies;
mod table;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::history::Row;
use cases::{Case, Judged};
use costs::Costs;
use curve::{Pair, Ranking, Rivals};
use folds::Plan;
use report::{Model, Report};

pub use costs::{ASSUMED_TOKENS, Price};

/// What is evaluated, beside the rows.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rows to learn from, drawn from those there are; `None`: all.
    pub train_rows: Option<usize>,
    /// Folds where no row has a split.
    pub folds: usize,
    /// Where all random numbers begin.
    pub seed: u64,
    /// Qualities to ask for.
    pub requirements: Vec<f64>,
    /// Prices by model, for all or for none.
    pub prices: Vec<(String, Price)>,
}

/// Why nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// No row with a score to measure with.
    #[error(
        "no line to measure with tells how right an answer was; a line is {{\"query\": \"...\", \
         \"outputs\": [{{\"model_name\": \"...\", \"correctness\": true}}]}}"
    )]
    NoScores,
    /// All rows are to measure with.
    #[error(
        "there is nothing to learn from: all lines have the split \"test\"; give some \"train\", \
         or leave the split out to have folds"
    )]
    NoTrain,
    /// All rows are to learn from.
    #[error(
        "there is nothing to measure with: all lines have the split \"train\"; give some \"test\", \
         or leave the split out to have folds"
    )]
    NoTest,
    /// A row cannot teach and measure.
    #[error("one query is too few for folds: two different ones are the least")]
    OneQuery,
    /// Models without a price, where that is needed.
    #[error(
        "what a call costs is not known of {0}: give --price MODEL=IN:OUT, in currency units per \
         token, for every model; only two models can do without any"
    )]
    NoPrices(String),
    /// A price for a model that is not there.
    #[error("--price names {0:?}, of which no line tells; there are {1}")]
    NoSuchModel(String, String),
}

/// What all parts look at.
struct Scene<'a> {
    rows: &'a [Row],
    /// Models with a score in a row that is measured with.
    models: &'a [Arc<str>],
    costs: &'a Costs,
    /// The best by its mean score in the rows that are learned from.
    strong: usize,
}

/// How many queries [`run`] will have looked at in the end.
///
/// # Errors
/// As [`run`].
pub fn size(rows: &[Row], options: &Options) -> Result<usize, EvalError> {
    let plan = Plan::of(rows, options)?;
    let of = |fold: &folds::Fold| fold.train.len() + fold.test.len();
    Ok(plan.folds.iter().map(of).sum())
}

/// Learns, predicts, and compares; `done` counts the queries looked at.
///
/// # Errors
/// When the rows or the prices allow no comparison.
pub fn run(rows: &[Row], options: &Options, done: &AtomicUsize) -> Result<Report, EvalError> {
    let plan = Plan::of(rows, options)?;
    let models = measured(rows, &plan);
    if models.is_empty() {
        return Err(EvalError::NoScores);
    }
    let means: Vec<Option<f64>> = models
        .iter()
        .map(|model| taught_score(rows, &plan, model))
        .collect();
    let strong = strongest(&means);
    let costs = Costs::of(rows, &plan, &models, strong, &options.prices)?;
    let scene = Scene {
        rows,
        models: &models,
        costs: &costs,
        strong,
    };
    let (cases, seeds) = cases::judge(&scene, &plan, done);
    let mut report = Report {
        cost_unit: costs.unit(&models),
        output_tokens: costs.lengths(),
        queries: cases.len(),
        train_rows: plan
            .folds
            .iter()
            .map(|fold| fold.train.len())
            .max()
            .unwrap_or(0),
        folds: plan.is_folded.then_some(plan.folds.len()),
        seed: options.seed,
        models: of_models(&scene, &cases, &means),
        calibration_error: calibration(&cases, |judged| judged.smart.quality),
        calibration_error_plain: calibration(&cases, |judged| judged.plain.quality),
        strategies: strategies::all(&scene, (&cases, &seeds), options),
        warnings: plan.warnings,
        ..Report::default()
    };
    report
        .warnings
        .extend(costs::unused(&options.prices, &models));
    for (model, mean) in models.iter().zip(&means) {
        if mean.is_none() {
            let text = format!("no line to learn from tells how right {model} was");
            report.warnings.push(text);
        }
    }
    rank(&scene, &cases, options.seed, &mut report);
    Ok(report)
}

/// Models with a score in a row to measure with, in the order they come.
fn measured(rows: &[Row], plan: &Plan) -> Vec<Arc<str>> {
    let mut models: Vec<Arc<str>> = Vec::new();
    let tests = plan.folds.iter().flat_map(|fold| &fold.test);
    let mut tests: Vec<usize> = tests.copied().collect();
    tests.sort_unstable();
    for output in tests.iter().flat_map(|at| &rows[*at].outputs) {
        if output.score.is_some() && !models.contains(&output.model) {
            models.push(Arc::clone(&output.model));
        }
    }
    models
}

/// The mean over the folds, of what each learns from.
fn taught_score(rows: &[Row], plan: &Plan, model: &Arc<str>) -> Option<f64> {
    let of = |fold: &folds::Fold| mean_score(fold.train.iter().map(|at| &rows[*at]), model);
    mean(plan.folds.iter().filter_map(of))
}

fn mean_score<'a>(rows: impl Iterator<Item = &'a Row>, model: &Arc<str>) -> Option<f64> {
    let outputs = rows.flat_map(|row| &row.outputs);
    let of_it = outputs.filter(|output| output.model == *model);
    mean(of_it.filter_map(|output| output.score.map(f64::from)))
}

fn mean(all: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = all.fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

/// The highest; of equal ones the first.
fn strongest(means: &[Option<f64>]) -> usize {
    let mean = |at: usize| means[at].unwrap_or(-1.0);
    let better = |best: usize, at: usize| if mean(at) > mean(best) { at } else { best };
    (0..means.len()).reduce(better).unwrap_or(0)
}

fn of_models(scene: &Scene<'_>, cases: &[Case], means: &[Option<f64>]) -> Vec<Model> {
    let of = |(at, name): (usize, &Arc<str>)| {
        let judged = cases.iter().filter_map(|case| case.of(at));
        Model {
            model: name.to_string(),
            queries: judged.clone().count(),
            quality: mean(judged.map(|one| one.score)).unwrap_or(0.0),
            train_quality: means[at],
            is_strong: at == scene.strong,
        }
    };
    scene.models.iter().enumerate().map(of).collect()
}

/// Bins of the calibration error.
const BINS: usize = 10;

/// The expected calibration error: the mean distance between what was predicted
/// and what was true, over bins of equal width, weighted by what falls into them.
fn calibration(cases: &[Case], predicted: impl Fn(&cases::Judged) -> f64) -> f64 {
    let mut bins = [(0.0, 0.0); BINS];
    let mut count = 0.0;
    for judged in cases.iter().flat_map(|case| &case.judged) {
        let quality = predicted(judged);
        let in_it = |bin: &usize| quality < (bin + 1) as f64 / BINS as f64;
        let bin = (0..BINS).find(in_it).unwrap_or(BINS - 1);
        bins[bin] = (bins[bin].0 + quality, bins[bin].1 + judged.score);
        count += 1.0;
    }
    let off: f64 = bins
        .iter()
        .map(|(predicted, true_one)| (predicted - true_one).abs())
        .sum();
    if count > 0.0 { off / count } else { 0.0 }
}

/// APGR and CPT, if there are two models to choose between.
fn rank(scene: &Scene<'_>, cases: &[Case], seed: u64, report: &mut Report) {
    let (&[_, _], strong) = (scene.models, scene.strong) else {
        let count = scene.models.len();
        report.no_apgr_because = Some(format!("it is of two models, and there are {count}"));
        return;
    };
    let count = cases.iter().map(|case| case.fold + 1).max().unwrap_or(0);
    let folds: Vec<Rivals> = (0..count)
        .map(|fold| rivals(cases.iter().filter(|case| case.fold == fold), strong))
        .collect();
    let smart = |fold: &Rivals| fold.one.apgr(&fold.pairs);
    let plain = |fold: &Rivals| fold.other.apgr(&fold.pairs);
    report.apgr = curve::mean(&folds, smart);
    report.apgr_plain = curve::mean(&folds, plain);
    if report.apgr.is_none() {
        let text = match folds.iter().all(|fold| fold.pairs.is_empty()) {
            true => "no line to measure with tells of both models".to_owned(),
            false => format!(
                "{} is no better than the other model on the lines to measure with",
                scene.models[strong]
            ),
        };
        report.no_apgr_because = Some(text);
        return;
    }
    let both = report.apgr.zip(report.apgr_plain);
    report.apgr_difference = both.map(|(smart, plain)| smart - plain);
    report.apgr_difference_interval = curve::interval(&folds, seed);
    let cpt = |of: fn(&Rivals) -> &Ranking, share| {
        curve::mean(&folds, |fold| of(fold).cpt(&fold.pairs, share))
    };
    report.cpt_50 = cpt(|fold| &fold.one, 0.5);
    report.cpt_80 = cpt(|fold| &fold.one, 0.8);
    report.cpt_50_plain = cpt(|fold| &fold.other, 0.5);
    report.cpt_80_plain = cpt(|fold| &fold.other, 0.8);
}

/// What both predictors say of the queries of one fold.
fn rivals<'a>(cases: impl Iterator<Item = &'a Case>, strong: usize) -> Rivals {
    let both: Vec<(&Judged, &Judged)> = cases
        .filter_map(|case| Some((case.of(1 - strong)?, case.of(strong)?)))
        .collect();
    let ranking = |of: fn(&Judged) -> f64| {
        let gains = both.iter().map(|(weak, strong)| of(strong) - of(weak));
        Ranking::by(&gains.collect::<Vec<f64>>())
    };
    let pairs = both.iter().map(|(weak, strong)| Pair {
        weak: weak.score,
        strong: strong.score,
    });
    Rivals {
        one: ranking(|judged| judged.smart.quality),
        other: ranking(|judged| judged.plain.quality),
        pairs: pairs.collect(),
    }
}

#[cfg(test)]
mod tests;
