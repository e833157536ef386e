//! A score on its way: from who gave it to the row that is kept.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Ended, Feedback, FeedbackError, Gap};
use crate::smart::history::{MOST_MODELS, Output, Row};

/// A score, and who waits for its fate.
#[derive(Debug)]
pub(super) struct Score {
    pub(super) request_id: String,
    pub(super) score: f32,
    pub(super) answer: oneshot::Sender<Result<Feedback, FeedbackError>>,
}

/// A score whose request is not known yet.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) until: Instant,
    pub(super) given: Score,
}

/// A score of a request that is known.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) score: Score,
    pub(super) asked: Ended,
}

impl Score {
    pub(super) fn fails(self, why: FeedbackError) {
        // Who does not wait any more is not told.
        let _ = self.answer.send(Err(why));
    }
}

impl Given {
    pub(super) fn row(&self) -> Row {
        let asked = &self.asked;
        Row {
            query: asked.query.clone().unwrap_or_default(),
            input_tokens: Some(asked.input_tokens),
            outputs: vec![Output {
                model: Arc::clone(&asked.model),
                score: Some(self.score.score),
                tokens: asked.output_tokens,
            }],
            split: None,
        }
    }

    pub(super) fn succeeds(self, durable: bool) {
        // As above.
        let _ = self.score.answer.send(Ok(Feedback {
            predicted: self.asked.predicted.map(|one| one.quality),
            model: self.asked.model,
            durable,
        }));
    }
}

/// Adds what was predicted, and what came of it.
pub(super) fn add_gap(gaps: &mut Vec<Gap>, given: &Given) {
    let Some(predicted) = given.asked.predicted else {
        return;
    };
    let model = &given.asked.model;
    if gaps.iter().all(|gap| gap.model != *model) && gaps.len() < MOST_MODELS {
        gaps.push(Gap::of(Arc::clone(model)));
    }
    if let Some(gap) = gaps.iter_mut().find(|gap| gap.model == *model) {
        gap.count += 1;
        gap.predicted += f64::from(predicted.quality);
        gap.realised += f64::from(given.score.score);
    }
}
