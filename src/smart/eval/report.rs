//! What an evaluation says, by the names that it has as JSON.

use serde::Serialize;

/// All of it. `null` is what cannot be said.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Area under quality against the share of strong calls, by the predictor;
    /// of two models alone. 0.5 is chance.
    pub apgr: Option<f64>,
    /// The same, by the plain kNN.
    pub apgr_plain: Option<f64>,
    /// The first less the second.
    pub apgr_difference: Option<f64>,
    /// Its 95 % interval, from a paired bootstrap of 1,000 resamples.
    pub apgr_difference_interval: Option<[f64; 2]>,
    /// Why there is no APGR.
    pub no_apgr_because: Option<String>,
    /// The share of strong calls that recovers half of the distance.
    pub cpt_50: Option<f64>,
    /// The same, for 80 % of it.
    pub cpt_80: Option<f64>,
    /// By the plain kNN.
    pub cpt_50_plain: Option<f64>,
    /// By the plain kNN.
    pub cpt_80_plain: Option<f64>,
    /// Expected calibration error of all predictions, in 10 bins.
    pub calibration_error: f64,
    /// The same, of the plain kNN's.
    pub calibration_error_plain: f64,
    /// Queries that were measured with.
    pub queries: usize,
    /// Rows that were learned from (in folds: at most, for each).
    pub train_rows: usize,
    /// Folds, where no row has a split.
    pub folds: Option<usize>,
    /// Where all random numbers began.
    pub seed: u64,
    /// What one of each `cost` is: all are means per query. (The table may show
    /// what more queries cost.)
    pub cost_unit: String,
    /// Where the lengths of answers come from, if the costs need them.
    pub output_tokens: Option<String>,
    /// The models, in the order in which the file tells of them.
    pub models: Vec<Model>,
    /// The lines of the table.
    pub strategies: Vec<Line>,
    /// What should be known of the rows.
    pub warnings: Vec<String>,
}

/// A model, by what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Its name.
    pub model: String,
    /// Queries with its score that were measured with.
    pub queries: usize,
    /// Its mean score there.
    pub quality: f64,
    /// Its mean score in the rows that were learned from. In folds the mean over
    /// them: as all but one of them learn from a row, that is close to `quality`.
    pub train_quality: Option<f64>,
    /// Whether that is the best.
    pub is_strong: bool,
}

/// How a model is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Always the same.
    Always,
    /// By chance, the best mixture for the cost of [`Self::SmartAverage`] at most.
    /// The table has it as a column.
    Random,
    /// The plain kNN, each answer good enough.
    PlainEach,
    /// The predictor, each answer good enough.
    SmartEach,
    /// The predictor and running multipliers, of queries as they come: the mean
    /// over five orders of chance, of the seed and the four after it.
    SmartAverage,
    /// The same in the order of the file. Where like queries stand together there,
    /// this is a drift.
    SmartAverageInOrder,
    /// The predictor, and all queries known at once.
    Dual,
    /// Who knows what comes of it: the cheapest that is right.
    Oracle,
}

/// A line of the table: means over its queries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// How a model is taken.
    pub strategy: Strategy,
    /// Which, if always the same.
    pub model: Option<String>,
    /// The quality that was asked for.
    pub requirement: Option<f64>,
    /// How many had a model to take.
    pub queries: usize,
    /// The mean score of what was taken.
    pub quality: f64,
    /// The mean cost of what was taken.
    pub cost: f64,
    /// The share of calls to the strong model.
    pub strong_share: f64,
    /// The standard deviation of `quality` between the orders of
    /// [`Strategy::SmartAverage`].
    pub quality_sd: Option<f64>,
    /// The same of `cost`.
    pub cost_sd: Option<f64>,
    /// The mean quality that was predicted of what was taken.
    pub predicted_quality: Option<f64>,
    /// The quality less the predicted one.
    pub quality_gap: Option<f64>,
    /// The cost over that of [`Strategy::Dual`] at the same requirement: comparable
    /// only of an average, whose `predicted_quality` meets it. Infinite, and so
    /// `null` as JSON, if that is free.
    pub cost_ratio_to_dual: Option<f64>,
    /// The same, where the dual is asked for the quality that was predicted here:
    /// always comparable.
    pub cost_ratio_at_equal_quality: Option<f64>,
    /// The quality of the best random mixture of models for this cost at most;
    /// `None`: all cost more.
    pub random_quality: Option<f64>,
    /// Of [`Strategy::Dual`]: whether the predictions allow the requirement.
    pub is_feasible: Option<bool>,
    /// Of [`Strategy::Always`]: whether no other is better.
    pub is_best: bool,
    /// Of [`Strategy::Always`]: whether no other is cheaper.
    pub is_cheapest: bool,
}
