//! What came of a fit, for people.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Means;

/// What came of a fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FitSummary {
    /// Rows that it was given.
    pub rows: usize,
    /// Rows that the linear models were fitted to: the newest.
    pub trained_rows: usize,
    /// 1 over the weight of regularisation.
    pub freedom: f32,
    /// Of a vector.
    pub dimensions: usize,
    /// Past queries that a prediction looks at.
    pub neighbours: usize,
    /// How much it counts that a query has no neighbours, in neighbours that are just
    /// like it.
    pub quality_prior: f32,
    /// The same for lengths.
    pub length_prior: f32,
    /// Expected calibration error, on rows that the linear models were not fitted to.
    pub calibration_error: f64,
    /// Mean logarithmic loss, on the same.
    pub log_loss: f64,
    /// Each model's.
    pub models: Vec<ModelSummary>,
}

/// What is known of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Its name.
    pub name: String,
    /// How many of its answers have a score.
    pub scores: u64,
    /// Their mean; `None`: there are none.
    pub mean_score: Option<f64>,
    /// How many of its answers have a length.
    pub lengths: u64,
    /// Their mean, in tokens.
    pub mean_tokens: Option<f64>,
}

/// The summaries of models.
pub(super) fn models(models: &[Arc<str>], means: &[Means]) -> Vec<ModelSummary> {
    let mean = |[sum, count]: [f64; 2]| (count > 0.0).then(|| sum / count);
    #[expect(clippy::cast_possible_truncation, reason = "counts")]
    #[expect(clippy::cast_sign_loss, reason = "counts")]
    let summary = |(name, means): (&Arc<str>, &Means)| ModelSummary {
        name: name.to_string(),
        scores: means.scores[1] as u64,
        mean_score: mean(means.scores),
        lengths: means.tokens[1] as u64,
        mean_tokens: mean(means.tokens),
    };
    models.iter().zip(means).map(summary).collect()
}

impl fmt::Display for FitSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.models.is_empty() {
            return write!(f, "no history: every model is as likely to be right");
        }
        write!(
            f,
            "{} rows, {} trained on\nlinear model: freedom {}; neighbours: {} of {} dimensions, prior weight {} (lengths: {})\n\
             on rows left out: calibration error {:.3}, log loss {:.4}",
            self.rows,
            self.trained_rows,
            self.freedom,
            self.neighbours,
            self.dimensions,
            self.quality_prior,
            self.length_prior,
            self.calibration_error,
            self.log_loss,
        )?;
        for model in &self.models {
            write!(f, "\n{}: ", model.name)?;
            match model.mean_score {
                Some(mean) => write!(f, "{} scores, mean {mean:.3}", model.scores)?,
                None => write!(f, "no scores")?,
            }
            if let Some(mean) = model.mean_tokens {
                write!(f, "; {} lengths, mean {mean:.0} tokens", model.lengths)?;
            }
        }
        Ok(())
    }
}
