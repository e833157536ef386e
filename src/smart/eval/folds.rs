//! Which rows are learned from, and which are measured with.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;
use foldhash::fast::FixedState;

use super::{EvalError, Options};
use crate::smart::history::{Row, Split};

/// Rows by their position, in the order of the file.
#[derive(Debug, PartialEq)]
pub(super) struct Fold {
    pub(super) train: Vec<usize>,
    pub(super) test: Vec<usize>,
}

/// All folds; one, where the rows say themselves what they are for.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) folds: Vec<Fold>,
    pub(super) is_folded: bool,
    pub(super) warnings: Vec<String>,
}

impl Plan {
    pub(super) fn of(rows: &[Row], options: &Options) -> Result<Self, EvalError> {
        let can_measure = |at: &usize| rows[*at].outputs.iter().any(|one| one.score.is_some());
        if !(0..rows.len()).any(|at| can_measure(&at)) {
            return Err(EvalError::NoScores);
        }
        let mut warnings = Vec::new();
        let is_folded = rows.iter().all(|row| row.split.is_none());
        let mut folds = if is_folded {
            folded(rows, options)?
        } else {
            vec![told(rows, &mut warnings)?]
        };
        for (fold, number) in folds.iter_mut().zip(0..) {
            fold.test.retain(can_measure);
            if let Some(most) = options.train_rows.filter(|most| *most < fold.train.len()) {
                let seed = options.seed.wrapping_add(number);
                Rng::with_seed(seed).shuffle(&mut fold.train);
                fold.train.truncate(most);
                fold.train.sort_unstable();
            }
        }
        if let [fold] = &*folds
            && let Some(text) = known_before(rows, fold)
        {
            warnings.push(text);
        }
        let least = folds.iter().map(|fold| fold.train.len()).min().unwrap_or(0);
        if let Some(asked) = options.train_rows.filter(|asked| *asked > least) {
            warnings.push(format!(
                "there are {least} lines to learn from, not {asked}: all are taken"
            ));
        }
        Ok(Self {
            folds,
            is_folded,
            warnings,
        })
    }

    /// All rows that are learned from, in any fold.
    pub(super) fn taught(&self) -> Vec<usize> {
        let all = self.folds.iter().flat_map(|fold| &fold.train);
        let mut all: Vec<usize> = all.copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// As the rows say.
fn told(rows: &[Row], warnings: &mut Vec<String>) -> Result<Fold, EvalError> {
    let is_test = |at: &usize| rows[*at].split == Some(Split::Test);
    let (test, train): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(is_test);
    if train.is_empty() {
        return Err(EvalError::NoTrain);
    }
    if test.is_empty() {
        return Err(EvalError::NoTest);
    }
    let without = rows.iter().filter(|row| row.split.is_none()).count();
    if without > 0 {
        warnings.push(format!(
            "{without} lines have no split; they are learned from"
        ));
    }
    Ok(Fold { train, test })
}

/// What is measured with it flatters: who learned a query by heart need not know
/// any other. Only where rows say what they are for; folds keep equal ones together.
fn known_before(rows: &[Row], fold: &Fold) -> Option<String> {
    let of = |at: &usize| &*rows[*at].query;
    let taught: HashSet<&str, FixedState> = fold.train.iter().map(of).collect();
    // What is no text has no query.
    let is_known = |at: &&usize| !of(at).is_empty() && taught.contains(of(at));
    let known = fold.test.iter().filter(is_known).count();
    let all = fold.test.len();
    (known > 0).then(|| format!("{known} of {all} queries to measure with are also learned from"))
}

/// By chance, but a query that comes twice is never learned from to measure itself.
fn folded(rows: &[Row], options: &Options) -> Result<Vec<Fold>, EvalError> {
    let mut numbers: HashMap<&str, usize, FixedState> = HashMap::default();
    let mut of_row = Vec::with_capacity(rows.len());
    for row in rows {
        let next = numbers.len();
        of_row.push(*numbers.entry(&row.query).or_insert(next));
    }
    let count = options.folds.max(2).min(numbers.len());
    if count < 2 {
        return Err(EvalError::OneQuery);
    }
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    Rng::with_seed(options.seed).shuffle(&mut order);
    let fold_of = |row: usize| order[of_row[row]] % count;
    let fold = |fold: usize| {
        let (test, train) = (0..rows.len()).partition(|row| fold_of(*row) == fold);
        Fold { train, test }
    };
    Ok((0..count).map(fold).collect())
}
