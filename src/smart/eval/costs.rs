//! What a call costs: by prices and tokens, or by the share of calls to the strong
//! model, the field's measure where no prices are known.

use std::sync::Arc;

use super::folds::Plan;
use super::{EvalError, mean};
use crate::smart::history::Row;

/// Tokens of an answer where no row tells of any.
pub const ASSUMED_TOKENS: f64 = 256.0;
/// Bytes of a token, where a row does not tell how many it has.
const BYTES: f64 = 4.0;

/// Currency units per token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of the prompt.
    pub input: f64,
    /// Of the answer.
    pub output: f64,
}

/// The cost of calls, by the models' positions.
pub(super) enum Costs {
    /// The strong model costs 1, the other nothing.
    Strong(usize),
    Tokens(Vec<Price>, Lengths),
}

/// Tokens of answers in the rows that are learned from.
pub(super) struct Lengths {
    of: Vec<Option<f64>>,
    all: Option<f64>,
    /// Whether rows that are measured with tell of any.
    is_measured: bool,
}

impl Costs {
    pub(super) fn of(
        rows: &[Row],
        plan: &Plan,
        models: &[Arc<str>],
        strong: usize,
        prices: &[(String, Price)],
    ) -> Result<Self, EvalError> {
        let is_in = |model: &Arc<str>, name: &String| **model == **name;
        let outputs = || rows.iter().flat_map(|row| &row.outputs);
        let is_unknown = |(name, _): &&(String, Price)| {
            let is_measured = models.iter().any(|model| is_in(model, name));
            !is_measured && !outputs().any(|output| is_in(&output.model, name))
        };
        if let Some((name, _)) = prices.iter().find(is_unknown) {
            return Err(EvalError::NoSuchModel(name.clone(), models.join(", ")));
        }
        if prices.is_empty() && models.len() <= 2 {
            return Ok(Self::Strong(strong));
        }
        // The last of two for the same model counts.
        let price = |model: &Arc<str>| {
            let same = prices.iter().rev().find(|(name, _)| is_in(model, name));
            same.map(|(_, price)| *price)
        };
        let without = models.iter().filter(|model| price(model).is_none());
        let without: Vec<Arc<str>> = without.cloned().collect();
        if !without.is_empty() {
            return Err(EvalError::NoPrices(without.join(", ")));
        }
        Ok(Self::Tokens(
            models.iter().filter_map(price).collect(),
            Lengths::of(rows, plan, models),
        ))
    }

    /// What a call did cost; a length that is not known is the model's mean.
    pub(super) fn real(&self, row: &Row, model: usize, tokens: Option<u32>) -> f64 {
        let tokens = tokens.map(f64::from);
        let usual = || match self {
            Self::Strong(_) => 0.0,
            Self::Tokens(_, lengths) => lengths.usual(model),
        };
        self.call(row, model, tokens.unwrap_or_else(usual))
    }

    /// What it is predicted to cost; without any known length there is nothing to
    /// predict it from.
    pub(super) fn predicted(&self, row: &Row, model: usize, tokens: f64) -> f64 {
        match self {
            Self::Tokens(_, lengths) if lengths.all.is_none() => {
                self.call(row, model, ASSUMED_TOKENS)
            }
            _ => self.call(row, model, tokens.max(0.0)),
        }
    }

    fn call(&self, row: &Row, model: usize, tokens: f64) -> f64 {
        let bytes = || row.query.len() as f64 / BYTES;
        let input = row.input_tokens.map_or_else(bytes, f64::from);
        self.of_tokens(input, model, tokens)
    }

    /// What so many tokens of a prompt and of an answer cost.
    pub(super) fn of_tokens(&self, input: f64, model: usize, output: f64) -> f64 {
        match self {
            Self::Strong(strong) => f64::from(u8::from(model == *strong)),
            Self::Tokens(prices, _) => input * prices[model].input + output * prices[model].output,
        }
    }

    /// What the costs are, in words.
    pub(super) fn unit(&self, models: &[Arc<str>]) -> String {
        match self {
            Self::Strong(strong) => {
                format!("calls to {} per query (no prices given)", models[*strong])
            }
            Self::Tokens(..) => "currency units per query".to_owned(),
        }
    }

    /// Where the lengths of answers come from, if they matter.
    pub(super) fn lengths(&self) -> Option<String> {
        let Self::Tokens(_, lengths) = self else {
            return None;
        };
        Some(match (lengths.all, lengths.is_measured) {
            (Some(_), _) => "as the lines tell, else the model's mean".to_owned(),
            (None, false) => format!("{ASSUMED_TOKENS} for each answer: no line tells of any"),
            (None, true) => format!(
                "as the lines tell, else {ASSUMED_TOKENS}; no line to learn from tells of any; \
                 {ASSUMED_TOKENS} are predicted"
            ),
        })
    }
}

impl Lengths {
    fn of(rows: &[Row], plan: &Plan, models: &[Arc<str>]) -> Self {
        let taught = plan.taught();
        let outputs = || taught.iter().flat_map(|at| &rows[*at].outputs);
        let of = |model: &Arc<str>| {
            let of_it = outputs().filter(|one| one.model == *model);
            mean(of_it.filter_map(|one| one.tokens.map(f64::from)))
        };
        let tests = plan.folds.iter().flat_map(|fold| &fold.test);
        let mut measured = tests.flat_map(|at| &rows[*at].outputs);
        Self {
            of: models.iter().map(of).collect(),
            all: mean(outputs().filter_map(|one| one.tokens.map(f64::from))),
            is_measured: measured.any(|one| one.score.is_some() && one.tokens.is_some()),
        }
    }

    fn usual(&self, model: usize) -> f64 {
        self.of[model].or(self.all).unwrap_or(ASSUMED_TOKENS)
    }
}

/// What is to be said of prices that are of no use.
pub(super) fn unused(prices: &[(String, Price)], models: &[Arc<str>]) -> Vec<String> {
    let mut names: Vec<&str> = prices.iter().map(|(name, _)| &**name).collect();
    names.retain(|name| models.iter().all(|model| **model != **name));
    names.sort_unstable();
    names.dedup();
    let told = |name: &str| {
        format!("--price names {name:?}, of which no line to measure with tells: it is not used")
    };
    names.into_iter().map(told).collect()
}
