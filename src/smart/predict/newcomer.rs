//! Texts and rows as a fit sees them that was not fitted to them.

use std::sync::Arc;

use super::{Means, score};
use crate::smart::embed::{FIXED, Features, NOTHING, Reader, Vector};
use crate::smart::fit::{Fitted, chance};
use crate::smart::history::Row;
use crate::smart::index::Outcome;

/// A text, and what the linear models expect of it.
#[derive(Debug, Default)]
pub(super) struct Text {
    reader: Reader,
    values: Vec<f32>,
    fixed: [f32; FIXED],
    /// Log-odds of each model, and of one without history.
    pub(super) quality: Vec<f32>,
    /// Lengths, likewise; empty: none is known.
    pub(super) length: Vec<f32>,
    /// How much of it the fit has not seen, 0 to 1.
    pub(super) novelty: f32,
}

impl Text {
    /// Reads a text; false: it has no words.
    pub(super) fn read(&mut self, fitted: &Fitted, text: &str) -> bool {
        let shape = self.reader.read(text);
        if self.reader.met().is_empty() {
            return false;
        }
        fitted.embedder.weigh(&self.reader, &mut self.values);
        self.fixed = fitted.embedder.fixed(&shape);
        let features = Features {
            buckets: self.reader.met(),
            values: &self.values,
            fixed: &self.fixed,
        };
        fitted.quality.expect(features, &mut self.quality);
        let rows = fitted.summary.trained_rows;
        self.novelty = fitted.embedder.novelty(features, rows);
        self.length.clear();
        if let Some(length) = &fitted.length {
            length.expect(features, &mut self.length);
        }
        true
    }

    /// What it is made of.
    pub(super) fn features(&self) -> Features<'_> {
        Features {
            buckets: self.reader.met(),
            values: &self.values,
            fixed: &self.fixed,
        }
    }
}

/// Buffers for rows that were not fitted to.
#[derive(Debug)]
pub(in crate::smart) struct Newcomer {
    text: Text,
    vector: Vector,
    outcomes: Vec<Outcome>,
    expected: Vec<f32>,
}

/// A row that was not fitted to.
#[derive(Debug, Clone, Copy)]
pub(in crate::smart) struct Met<'a> {
    pub(in crate::smart) vector: &'a Vector,
    /// What came of it beside what was expected.
    pub(in crate::smart) outcomes: &'a [Outcome],
    /// The chance that was expected, of each outcome.
    pub(super) expected: &'a [f32],
}

impl Default for Newcomer {
    fn default() -> Self {
        Self {
            text: Text::default(),
            vector: NOTHING,
            outcomes: Vec::new(),
            expected: Vec::new(),
        }
    }
}

impl Newcomer {
    /// Meets a row. One without text is like nothing, and tells nothing of queries.
    pub(in crate::smart) fn meet(
        &mut self,
        fitted: &Fitted,
        row: &Row,
        models: &[Arc<str>],
        means: &[Means],
    ) -> Met<'_> {
        self.outcomes.clear();
        self.expected.clear();
        if !self.text.read(fitted, &row.query) {
            return Met {
                vector: &NOTHING,
                outcomes: &[],
                expected: &[],
            };
        }
        self.vector = fitted.embedder.vector(self.text.features());
        for output in &row.outputs {
            let Some(model) = models.iter().position(|known| **known == *output.model) else {
                continue;
            };
            let place = model.min(fitted.calibration.len());
            let expected = chance(self.text.quality[place]);
            let quality = score(output).map(|score| score - expected);
            let length = output.tokens.and_then(|tokens| {
                Some(means[model].lengths_of(tokens) - self.text.length.get(place)?)
            });
            if let Ok(model) = u8::try_from(model) {
                self.outcomes.push(Outcome::new(model, quality, length));
                self.expected.push(expected);
            }
        }
        Met {
            vector: &self.vector,
            outcomes: &self.outcomes,
            expected: &self.expected,
        }
    }
}
