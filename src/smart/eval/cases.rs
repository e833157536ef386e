//! The queries that are measured with: what was predicted, and what was true.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Scene;
use super::baseline::Plain;
use super::folds::{Fold, Plan};
use crate::smart::choose::Candidate;
use crate::smart::history::{Output, Row};
use crate::smart::predict::{Predictor, Scratch};
use crate::smart::weigh;

/// What was predicted of a model's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seen {
    pub(super) quality: f64,
    pub(super) cost: f64,
}

/// A model's answer to one query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judged {
    /// Its position among the models.
    pub(super) model: usize,
    pub(super) score: f64,
    pub(super) cost: f64,
    pub(super) smart: Seen,
    pub(super) plain: Seen,
}

/// One query: the models of which it is known whether they were right.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Case {
    row: usize,
    /// What was learned without it.
    pub(super) fold: usize,
    pub(super) judged: Vec<Judged>,
}

impl Case {
    pub(super) fn new((fold, row): (usize, usize), judged: Vec<Judged>) -> Self {
        Self { row, fold, judged }
    }

    pub(super) fn of(&self, model: usize) -> Option<&Judged> {
        self.judged.iter().find(|one| one.model == model)
    }
}

/// What is known beforehand: queries as they may come, by the fit alone.
pub(super) type Seeds = Vec<Vec<Candidate>>;

/// Learns each fold, and predicts its queries; in the order of the file.
pub(super) fn judge(scene: &Scene<'_>, plan: &Plan, done: &AtomicUsize) -> (Vec<Case>, Seeds) {
    let (mut cases, mut seeds) = (Vec::new(), Seeds::new());
    for (number, fold) in plan.folds.iter().enumerate() {
        let (own, known) = judge_fold(scene, (number, fold), done);
        cases.extend(own);
        seeds.extend(known.into_iter().step_by(plan.folds.len()));
    }
    cases.sort_by_key(|case| case.row);
    (cases, seeds)
}

fn judge_fold(
    scene: &Scene<'_>,
    (number, fold): (usize, &Fold),
    done: &AtomicUsize,
) -> (Vec<Case>, Seeds) {
    let train: Vec<Row> = fold
        .train
        .iter()
        .map(|at| scene.rows[*at].clone())
        .collect();
    let mut told = 0;
    let mut progress = |share: f32| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the rows"
        )]
        let now = ((train.len() as f32 * share.clamp(0.0, 1.0)) as usize).min(train.len());
        done.fetch_add(now.saturating_sub(told), Relaxed);
        told = told.max(now);
    };
    let smart = Predictor::fit(train.clone(), &mut progress);
    progress(1.0);
    let all = fold.test.iter();
    let mut scratch = Scratch::new();
    let mut cases: Vec<Case> = all
        .map(|at| Case::new((number, *at), by_smart(scene, *at, &smart, &mut scratch)))
        .collect();
    let costs = |at, input, output| Some(scene.costs.of_tokens(input, at, output));
    let seeds = weigh::remembered(&smart, scene.models, costs);
    // Both at once would need twice the memory.
    drop(smart);
    let mut plain = Plain::fit(&train, scene.models);
    for case in &mut cases {
        let row = &scene.rows[case.row];
        let guesses = plain.predict(&row.query);
        for judged in &mut case.judged {
            let guess = guesses[judged.model];
            judged.plain = Seen {
                quality: guess.quality,
                cost: scene.costs.predicted(row, judged.model, guess.tokens),
            };
        }
        done.fetch_add(1, Relaxed);
    }
    (cases, seeds)
}

/// As the predictor sees them; the plain kNN did not look yet.
fn by_smart(scene: &Scene<'_>, at: usize, smart: &Predictor, scratch: &mut Scratch) -> Vec<Judged> {
    let row = &scene.rows[at];
    // What is no text has no query.
    smart.predict(Some(&*row.query).filter(|query| !query.is_empty()), scratch);
    let judged = |output: &Output| {
        let is_it = |name: &Arc<str>| *name == output.model;
        let model = scene.models.iter().position(is_it)?;
        let known = smart.position(&output.model);
        let known = known.and_then(|at| scratch.predictions().get(at));
        let prediction = known.copied().unwrap_or_else(|| scratch.unknown());
        let tokens = f64::from(prediction.tokens);
        let seen = Seen {
            quality: f64::from(prediction.quality).clamp(0.0, 1.0),
            cost: scene.costs.predicted(row, model, tokens),
        };
        Some(Judged {
            model,
            score: f64::from(output.score?),
            cost: scene.costs.real(row, model, output.tokens),
            smart: seen,
            plain: seen,
        })
    };
    row.outputs.iter().filter_map(judged).collect()
}
