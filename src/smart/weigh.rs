//! From predictions and prices to a choice among models: the same for a request
//! that is to be sent, and for the shadow.

use std::sync::Arc;

use super::choose::{self, Candidate, Chosen, Requirement};
use super::learner::Lengths;
use super::predict::{Prediction, Predictor, Scratch};
use super::running::Running;
use crate::config::dynamic::Cost;
use crate::config::policies::{RequirementOf, Smart};
use crate::fleet::Model;

/// Tokens that a price is for.
const MILLION: f64 = 1e6;
/// How many past queries what traffic shows of a model's lengths weighs as much as.
const LIVE_WEIGHT: f64 = 8.0;

/// What was predicted for one query.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// By whom.
    pub predictor: Arc<Predictor>,
    /// In the order of its models; empty: nothing was.
    pub predictions: Vec<Prediction>,
    /// For a model without history.
    pub unknown: Prediction,
}

impl Predicted {
    /// What that predictor says of a query; of none, what it says of any.
    #[must_use]
    pub fn by(predictor: Arc<Predictor>, query: Option<&str>, scratch: &mut Scratch) -> Self {
        predictor.predict(query, scratch);
        Self {
            predictions: scratch.predictions().to_vec(),
            unknown: scratch.unknown(),
            predictor,
        }
    }

    /// What was predicted for that model.
    #[must_use]
    pub fn of(&self, model: &str) -> Prediction {
        let at = self.predictor.position(model);
        let known = at.and_then(|at| self.predictions.get(at).copied());
        known.unwrap_or(self.unknown)
    }
}

/// A model that may be chosen, as it is served now.
#[derive(Debug, Clone, Copy)]
pub struct Open<'a> {
    /// The name that it was asked for by.
    pub asked: &'a str,
    /// The model.
    pub model: &'a Arc<Model>,
    /// Whether an engine could take the request now.
    pub is_open: bool,
}

/// How long a request is.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer at most.
    pub most: Option<u64>,
}

/// One model, weighed.
#[derive(Debug, Clone)]
pub struct Weighed {
    /// Its name.
    pub model: Arc<str>,
    /// What was predicted.
    pub prediction: Prediction,
    /// Tokens of its answer, as expected.
    pub tokens: f64,
    /// What its tokens cost, if that is known.
    pub price: Option<Cost>,
    /// What the choice is made from.
    pub candidate: Candidate,
}

/// A model that was chosen by cost and quality, and why.
#[derive(Debug)]
pub struct ModelChoice {
    /// All that it was chosen from.
    pub weighed: Vec<Weighed>,
    /// Which of them, and why.
    pub chosen: Chosen,
    /// What was asked for.
    pub requirement: f64,
    /// What quality was worth to the policy, in its currency, if that is known.
    pub lambda: Option<f64>,
}

/// Weighs the models for one query.
pub fn weigh<'a>(
    models: impl Iterator<Item = Open<'a>>,
    length: Length,
    predicted: &Predicted,
    lengths: &Lengths,
    (of, running): (&Smart, &Running),
) -> Vec<Weighed> {
    let weighed = models.map(|open| {
        let name = &open.model.name;
        let prediction = predicted.of(name);
        let live = lengths.of(name, u32::try_from(length.input).unwrap_or(u32::MAX));
        let tokens = tokens(prediction, live, length.most);
        let price = price(of, open);
        Weighed {
            model: Arc::clone(name),
            prediction,
            tokens,
            price,
            candidate: Candidate {
                quality: f64::from(prediction.quality),
                cost: price.map(|price| cost(price, length.input, tokens)),
                is_open: open.is_open,
                load_price: running.mu(name),
            },
        }
    });
    weighed.collect()
}

/// Past queries as the choice among these models would have looked; `cost` is that of
/// a model, by its position, for so many tokens of prompt and answer.
#[must_use]
pub fn remembered(
    predictor: &Predictor,
    models: &[Arc<str>],
    cost: impl Fn(usize, f64, f64) -> Option<f64>,
) -> Vec<Vec<Candidate>> {
    let unknown = predictor.unknown();
    let places: Vec<Option<usize>> = models.iter().map(|name| predictor.position(name)).collect();
    let rows = predictor.remembered().iter().map(|row| {
        let each = places.iter().enumerate().map(|(model, place)| {
            let known = place.and_then(|place| row.models.get(place).copied().flatten());
            let [quality, tokens] = known.unwrap_or([unknown.quality, unknown.tokens]);
            Candidate {
                quality: f64::from(quality),
                cost: cost(model, f64::from(row.input_tokens), f64::from(tokens)),
                is_open: true,
                load_price: 0.0,
            }
        });
        each.collect()
    });
    rows.collect()
}

/// What the policy says the model's tokens cost, or else its engines.
#[must_use]
pub fn price(of: &Smart, open: Open<'_>) -> Option<Cost> {
    let said = of.model(open.asked).or_else(|| of.model(&open.model.name));
    let said = said.and_then(|model| model.cost);
    said.or(open.model.candidates.layout.cost)
}

/// What a request costs that has so many tokens, and gets so many.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "tokens of one request")]
pub fn cost(price: Cost, input: u64, output: f64) -> f64 {
    of_tokens(price, input as f64, output)
}

/// The same, of as many as are expected.
#[must_use]
pub fn of_tokens(price: Cost, input: f64, output: f64) -> f64 {
    (input * price.input_per_mtok + output * price.output_per_mtok) / MILLION
}

/// Between what like queries got and what traffic shows, by how many of the first
/// tell a length; never more than the request allows.
#[expect(clippy::cast_precision_loss, reason = "tokens of one answer")]
fn tokens(prediction: Prediction, live: Option<f32>, most: Option<u64>) -> f64 {
    let predicted = f64::from(prediction.tokens);
    let alike = f64::from(prediction.lengths);
    let expected = live.map_or(predicted, |live| {
        (alike * predicted + LIVE_WEIGHT * f64::from(live)) / (alike + LIVE_WEIGHT)
    });
    most.map_or(expected, |most| expected.min(most as f64))
}

/// The policy's choice of these.
#[must_use]
pub fn decide(weighed: &[Weighed], of: &Smart, running: &Running) -> Option<Chosen> {
    let requirement = match of.of {
        RequirementOf::Each => Requirement::Each(of.requirement),
        RequirementOf::Average => running.rule(),
    };
    let candidates: Vec<Candidate> = weighed.iter().map(|one| one.candidate).collect();
    choose::choose(&candidates, requirement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_lie_between_like_queries_and_traffic() {
        let prediction = |lengths| Prediction {
            quality: 0.5,
            spread: 0.1,
            tokens: 100.0,
            neighbours: 90,
            lengths,
        };
        for (lengths, live, most, expected) in [
            (8, None, None, 100.0),
            (8, Some(200.0), None, 150.0),
            (0, Some(200.0), None, 200.0),
            (8, Some(200.0), Some(120), 120.0),
            (0, None, Some(7), 7.0),
        ] {
            let tokens = tokens(prediction(lengths), live, most);
            assert!((tokens - expected).abs() < 1e-9, "{tokens}");
        }
        let price = Cost {
            input_per_mtok: 2.0,
            output_per_mtok: 10.0,
        };
        assert!((cost(price, 1000, 100.0) - 0.003).abs() < 1e-12);
    }
}
